# SPDX-License-Identifier: Apache-2.0
"""One carbon intensity, with everything that one needs to know before comparing it to another."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from sprout.errors import FeedError

FactorType = Literal["direct", "lifecycle"]
Signal = Literal["average", "marginal"]
FACTOR_TYPES: tuple[FactorType, ...] = get_args(FactorType)
SIGNALS: tuple[Signal, ...] = get_args(Signal)
# Zone, source, factor type, signal: values are comparable within a series alone.
Series = tuple[str, str, FactorType, Signal]

# The dirtiest grids are near 1,000 g/kWh direct and 1,500 lifecycle; marginal plants a little more.
# Anything above is another unit (lb/MWh, g/MWh) or a broken feed.
MAX_G_PER_KWH = 5000.0


@dataclass(frozen=True)
class Intensity:
    """FeedError if the value is no intensity, ValueError if `time` has no zone."""

    g_per_kwh: float
    zone: str
    source: str
    factor_type: FactorType
    signal: Signal
    time: datetime  # start of the interval that the value is for, in UTC, on the source's clock
    estimated: bool = False  # a forecast or a model's value, to be corrected later

    def __post_init__(self) -> None:
        if not (math.isfinite(self.g_per_kwh) and 0 <= self.g_per_kwh <= MAX_G_PER_KWH):
            raise FeedError(f"{self.source}: {self.g_per_kwh} g/kWh is no carbon intensity")
        if self.time.tzinfo is None:
            raise ValueError("an intensity's time needs a time zone")

    @property
    def series(self) -> Series:
        return (self.zone, self.source, self.factor_type, self.signal)

    def age_s(self, now: datetime) -> float:
        """Seconds since the interval began, `now` on the source's clock; never negative."""
        return max(0.0, (now - self.time).total_seconds())


def ahead(values: Iterable[Intensity], start: datetime, hours: float) -> list[Intensity]:
    """Those whose interval begins within `hours` after `start`, in their order."""
    until = start + timedelta(hours=hours)
    return [value for value in values if start < value.time <= until]


def utc_now() -> datetime:
    """The clock of sources that have none of their own."""
    return datetime.now(UTC)
