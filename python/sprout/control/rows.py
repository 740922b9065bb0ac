# SPDX-License-Identifier: Apache-2.0
"""What the store takes besides outcomes, policies and intensities."""

from typing import NamedTuple

# Reported by clients or by the operator's own front end; all but the last count against a level.
FEEDBACK_KINDS = ("truncated", "retry", "regenerate", "thumbs_down", "thumbs_up")


class Feedback(NamedTuple):
    """What somebody said of `count` answers. Truncation is in the outcomes as well (see guard)."""

    time: float  # seconds since 1970
    kind: str  # one of FEEDBACK_KINDS
    level: int
    policy_version: int  # unsigned
    arm: str  # as in the totals: a level's name, "control", "held_back", …
    count: int  # type: ignore[assignment]  # of requests; hides tuple's own method


class Reading(NamedTuple):
    """A node's energy counters when the control plane heard of them."""

    node: str
    time: float  # seconds since 1970, by the control plane's own clock
    metered_joules: float  # these three only rise, and begin anew with the agent's clock
    settled_joules: float
    idle_joules: float
    energy_estimated: bool
    active: int
    policy_version: int  # on the node's board, unsigned; 0 = none


class Switchback(NamedTuple):
    """A schedule of blocks; with the seed, every block of it can be worked out again."""

    seed: int  # unsigned, 63 bits
    started_at: float  # seconds since 1970, as are the times below
    block_s: float
    washout_s: float
    share: float  # of the pairs that are an experiment


class BlockRow(NamedTuple):
    """A block as it really was."""

    seed: int
    number: int  # 0, 1, … from the schedule's start
    arm: str  # "L0" or "policy"
    measured_from: float  # behind the wash-out
    ended_at: float
    spoiled: str  # why it must not be measured; "" = it may


class AuditEntry(NamedTuple):
    """A change that somebody made. The store numbers them and never changes one."""

    time: float  # seconds since 1970
    who: str  # as the connection proves it
    who_basis: str  # what it proves it by, see peer.py
    claimed: str  # what the caller said of itself
    action: str
    before: str  # JSON
    after: str  # JSON
