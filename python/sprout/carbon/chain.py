# SPDX-License-Identifier: Apache-2.0
"""The configured sources in their order: the first that has a value now gives it."""

import time
from collections.abc import Callable, Sequence

from sprout.carbon.gate import Pace
from sprout.carbon.member import Member, Reading
from sprout.carbon.sources import Source, make_source
from sprout.config import CarbonConfig

RETRY_S = 15.0
RETRY_MAX_S = 600.0
OPEN_S = 900.0


class Chain:
    """`look` is called by one task."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        poll_s: float,
        max_age_s: float,
        forecast_hours: float = 0.0,
        forecast_max_age_s: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        asked = Pace(poll_s, min(RETRY_S, poll_s), RETRY_MAX_S, open_s=OPEN_S)
        self.members = [
            Member(
                source,
                pace=asked if source.remote else Pace(),
                forecast_hours=forecast_hours,
                forecast_max_age_s=forecast_max_age_s,
                monotonic=monotonic,
            )
            for source in sources
        ]
        self.max_age_s = max_age_s

    @property
    def first(self) -> Source:
        return self.members[0].source

    async def look(self) -> tuple[Member, Reading] | None:
        """Each source is asked only where those before it have nothing that is young enough.

        Where no value is young enough, the first that is too old; None without any.
        """
        old: tuple[Member, Reading] | None = None
        for member in self.members:
            reading = await member.look()
            if reading is None:
                continue
            if self.fresh(member.source, reading):
                return member, reading
            old = old or (member, reading)
        return old

    def fresh(self, source: Source, reading: Reading) -> bool:
        return not source.live or reading.value.age_s(source.clock()) <= self.max_age_s

    def problems(self, until: Member | None = None) -> str:
        """What is wrong with the sources before `until`, or with all of them."""
        found = []
        for member in self.members:
            if member is until:
                break
            old = f"{member.source.name}: its newest value is older than {self.max_age_s:g} s"
            found.append(member.error or old)
        return "; ".join(found)


def make_chain(config: CarbonConfig) -> Chain:
    """ConfigError or PrerequisiteError if a source's settings can't be used."""
    return Chain(
        [make_source(name, config) for name in config.sources],
        poll_s=config.poll_s,
        max_age_s=config.max_age_s,
        forecast_hours=config.forecast_hours,
        forecast_max_age_s=config.forecast_max_age_s,
    )
