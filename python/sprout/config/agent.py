# SPDX-License-Identifier: Apache-2.0
"""`[agent]`: the one process of a node that settles and relays."""

from pydantic import Field

from sprout.config.section import Section


class AgentConfig(Section):
    node: str = Field("", max_length=253)  # default: the host name
    tick_s: float = Field(0.1, gt=0)
    report_interval_s: float = Field(1.0, gt=0)
    batch: int = Field(500, ge=1, le=10_000)
    spool_outcomes: int = Field(200_000, ge=1)  # kept while the control plane is away
    abandoned_after_s: float = Field(5.0, gt=0)  # engine done, end not taken
    lease_s: float = Field(120.0, gt=0)  # no sign of life from the engine, once it began
    arrival_lease_s: float = Field(20.0, gt=0)  # opened, not seen by the engine's slot
    queue_lease_s: float = Field(1800.0, gt=0)  # opened, not begun: it may wait for a slot
