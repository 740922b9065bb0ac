# SPDX-License-Identifier: Apache-2.0
"""Where intensities come from: what all sources have in common, and which ones are configured.

A source has a clock of its own: the wall's, or a trace's that is being replayed. Ages and trailing
windows are measured on it, so a replay of 2023 at 3,600 times the speed works like a live feed.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, TypeVar

from sprout.carbon.country import CountrySource
from sprout.carbon.electricity_maps import ElectricityMapsSource
from sprout.carbon.gb import GbSource
from sprout.carbon.intensity import FactorType, Intensity, Series, utc_now
from sprout.carbon.secret import Secret
from sprout.carbon.trace import TraceSource
from sprout.carbon.watttime import WattTimeSource
from sprout.config import CarbonConfig, SourceName
from sprout.errors import ConfigError, FeedError

__all__ = [
    "ConstantSource",
    "CountrySource",
    "ElectricityMapsSource",
    "GbSource",
    "Source",
    "TraceSource",
    "WattTimeSource",
    "make_source",
]

_Set = TypeVar("_Set")


class Source(Protocol):
    @property
    def name(self) -> str:
        """As in `carbon.sources`."""

    @property
    def remote(self) -> bool:
        """Whether asking costs somebody something, so that it should not be asked all the time."""

    @property
    def live(self) -> bool:
        """Whether it follows the grid: what is declared, or a year's, has no range and no end."""

    @property
    def step_s(self) -> float:
        """Each value is for this long, and asking again meanwhile is waste; 0 = not known."""

    @property
    def series(self) -> Series:
        """What its values are comparable with."""

    @property
    def forecast_basis(self) -> str:
        """Whose forecast it gives, for people; "" = it has none."""

    def clock(self) -> datetime:
        """The time that `now` answers for, in UTC."""

    async def now(self) -> Intensity:
        """The present intensity. FeedError, within the source's time-out, if there is none."""

    async def history(self, hours: float) -> list[Intensity]:
        """What is known of the last `hours`, oldest first; [] if nothing is. FeedError."""

    async def forecast(self, hours: float) -> list[Intensity]:
        """The next `hours`, soonest first, all ahead of `clock` and estimated; [] if it has none.
        FeedError."""


class ConstantSource:
    """One declared value. It has no range, so the floor stands at the configured fraction."""

    name = "constant"
    remote = False
    live = False
    step_s = 0.0
    forecast_basis = ""

    def __init__(
        self,
        g_per_kwh: float | None,
        zone: str,
        factor_type: FactorType,
        clock: Callable[[], datetime] = utc_now,
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

    async def forecast(self, hours: float) -> list[Intensity]:
        return []


def make_source(name: SourceName, config: CarbonConfig) -> Source:
    """One of the configured sources. ConfigError or PrerequisiteError if it can't be used."""
    match name:
        case "electricity_maps":
            key_file = _needed(config.electricity_maps_key_file, "electricity_maps_key_file")
            return ElectricityMapsSource(
                config.electricity_maps_url,
                Secret(key_file, "carbon.electricity_maps_key_file"),
                version=config.electricity_maps_version,
                zone=config.zone,
                factor_type=config.factor_type,
                timeout_s=config.timeout_s,
            )
        case "watttime":
            password_file = _needed(config.watttime_password_file, "watttime_password_file")
            return WattTimeSource(
                config.watttime_url,
                _needed(config.watttime_username, "watttime_username"),
                Secret(password_file, "carbon.watttime_password_file"),
                region=_needed(config.watttime_region, "watttime_region"),
                timeout_s=config.timeout_s,
            )
        case "gb":
            return GbSource(config.gb_url, timeout_s=config.timeout_s)
        case "trace":
            return TraceSource(
                _needed(config.trace, "trace"),
                zone=config.zone,
                factor_type=config.factor_type,
                start=config.trace_start,
                speed=config.trace_speed,
                foresee=config.trace_forecast,
            )
        case "constant":
            return ConstantSource(config.constant_g_per_kwh, config.zone, config.factor_type)
        case "country":
            return CountrySource(_needed(config.country, "country"))


def _needed(value: _Set | None, key: str) -> _Set:
    if value is None:
        raise ConfigError(f"carbon.{key} is not set")
    return value
