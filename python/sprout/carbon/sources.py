# SPDX-License-Identifier: Apache-2.0
"""Where intensities come from.

A source has a clock of its own: the wall's, or a trace's that is being replayed. Ages and trailing
windows are measured on it, so a replay of 2023 at 3,600 times the speed works like a live feed.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from sprout.carbon.gb import GbSource
from sprout.carbon.intensity import FactorType, Intensity, Series
from sprout.carbon.trace import TraceSource
from sprout.config import CarbonConfig
from sprout.errors import ConfigError, FeedError

__all__ = ["ConstantSource", "GbSource", "Source", "TraceSource", "make_source"]


class Source(Protocol):
    @property
    def remote(self) -> bool:
        """Whether asking costs somebody something, so that it should not be asked all the time."""

    @property
    def series(self) -> Series:
        """What its values are comparable with."""

    def clock(self) -> datetime:
        """The time that `now` answers for, in UTC."""

    async def now(self) -> Intensity:
        """The present intensity. FeedError, within the source's time-out, if there is none."""

    async def history(self, hours: float) -> list[Intensity]:
        """What is known of the last `hours`, oldest first; [] if nothing is. FeedError."""


class ConstantSource:
    """One declared value. It has no range, so the floor stands at the configured fraction."""

    remote = False

    def __init__(
        self,
        g_per_kwh: float | None,
        zone: str,
        factor_type: FactorType,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._g_per_kwh = g_per_kwh
        self.series: Series = (zone, "constant", factor_type, "average")
        self.clock = clock

    async def now(self) -> Intensity:
        if self._g_per_kwh is None:
            raise FeedError(
                "carbon.constant_g_per_kwh is not set: state this zone's, or choose another source"
            )
        # By the hour, so that the history gets one row an hour.
        time = self.clock().replace(minute=0, second=0, microsecond=0)
        return Intensity(self._g_per_kwh, *self.series, time, estimated=True)

    async def history(self, hours: float) -> list[Intensity]:
        return []


def make_source(config: CarbonConfig) -> Source:
    """The configured source. ConfigError if its settings can't be used."""
    match config.source:
        case "trace":
            if config.trace is None:
                raise ConfigError('carbon.source = "trace" needs carbon.trace, a CSV file')
            return TraceSource(
                config.trace,
                zone=config.zone,
                factor_type=config.factor_type,
                start=config.trace_start,
                speed=config.trace_speed,
            )
        case "gb":
            return GbSource(config.gb_url, timeout_s=config.timeout_s)
        case "constant":
            return ConstantSource(config.constant_g_per_kwh, config.zone, config.factor_type)
