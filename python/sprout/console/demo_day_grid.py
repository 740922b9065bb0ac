# SPDX-License-Identifier: Apache-2.0
"""Where the demo's day comes from: a real zone's trace, live Great Britain, or an invented day.

In this order, and each says which it is. A zone that is named comes from its own data or not at
all: another one's, or an invented day, in its place would be a lie.
"""

import asyncio
import csv
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sprout.carbon import GbSource, TraceSource
from sprout.carbon.intensity import FactorType, Intensity
from sprout.config import CarbonConfig
from sprout.errors import ConfigError, FeedError

DEFAULT_ZONE = "US-CAL-CISO"  # the widest swing: sun at noon, gas at night
# Zone: what people call it, and its clock. Of others the day is shown in UTC.
PLACES = {
    "US-CAL-CISO": ("California", "America/Los_Angeles"),
    "US-TEX-ERCO": ("Texas", "America/Chicago"),
    "AU-SA": ("South Australia", "Australia/Adelaide"),
    "GB": ("Great Britain", "Europe/London"),
    "NL": ("the Netherlands", "Europe/Amsterdam"),
}
LIVE_URL = CarbonConfig().gb_url
LIVE_TIMEOUT_S = 4.0
BEFORE = timedelta(days=7)  # the range that a day's values are placed in
SPARE = timedelta(hours=12)  # after the day: a slow start moves the 24 hours on
INVENTED_DAYS = 12
YEARS_H = 20 * 366 * 24.0


@dataclass(frozen=True)
class Grid:
    """A trace and the day in it to show."""

    zone: str
    trace: Path
    factor_type: FactorType
    day: datetime  # its midnight on the zone's clock
    kind: str  # "recorded", "live" or "synthetic"
    credit: str

    @property
    def place(self) -> str:
        return PLACES.get(self.zone, (self.zone, ""))[0]

    @property
    def clock(self) -> tzinfo:
        return _clock(self.zone)


def find(zone: str | None, folder: Path, invented: Path) -> Grid:
    """The grid of `zone`, or the best at hand. `folder`: for what has to be written.

    Raises ConfigError where `zone` has no data, or its data no whole day.
    """
    data = _data()
    recorded = data / f"{zone or DEFAULT_ZONE}.csv"
    if recorded.is_file():
        return _recorded(zone or DEFAULT_ZONE, recorded)
    if zone in (None, "GB"):
        try:
            return _live(folder)
        except FeedError as error:
            if zone is not None:
                raise ConfigError(f"no day of GB: none in {data}, and live, {error}") from None
    if zone is not None:
        at_hand = ", ".join(sorted(path.stem for path in data.glob("*.csv"))) or "none"
        raise ConfigError(
            f"no trace of {zone} in {data} (there: {at_hand}); "
            "SPROUT_DATA names the folder that holds sprout2023/carbon/ZONE.csv"
        )
    return _invented(folder, invented)


def _data() -> Path:
    """The folder of traces; it need not exist."""
    checkout = Path(__file__).parents[3]
    return Path(os.environ.get("SPROUT_DATA") or checkout.parent / "shared/data") / (
        "sprout2023/carbon"
    )


def _recorded(zone: str, path: Path) -> Grid:
    credit = "Electricity Maps (ODbL 1.0)"
    values = rows(path, zone, "lifecycle")
    return Grid(zone, path, "lifecycle", _widest(values, _clock(zone)), "recorded", credit)


def _live(folder: Path) -> Grid:
    """The last two weeks of Great Britain, from its system operator."""
    source = GbSource(LIVE_URL, timeout_s=LIVE_TIMEOUT_S)
    values = asyncio.run(source.history(14 * 24))
    if not values:
        raise FeedError("gb: no history")
    path = folder / "GB.csv"
    _write(path, values)
    credit = "National Energy System Operator (CC BY 4.0)"
    return Grid("GB", path, "direct", _widest(values, _clock("GB")), "live", credit)


def _invented(folder: Path, invented: Path) -> Grid:
    """The invented day, over and over, so that there is a week before it."""
    day = rows(invented, "EXAMPLE", "lifecycle")
    path = folder / "synthetic.csv"
    values = [
        Intensity(value.g_per_kwh, *value.series, value.time + timedelta(days=number))
        for number in range(INVENTED_DAYS)
        for value in day
    ]
    _write(path, values)
    midnight = day[0].time + timedelta(days=INVENTED_DAYS - 3)
    return Grid("EXAMPLE", path, "lifecycle", midnight, "synthetic", "invented: no grid had them")


def rows(path: Path, zone: str, factor_type: FactorType) -> list[Intensity]:
    """All values of a trace. ConfigError if it can't be used."""
    # Looked at from years after its start, all of it is history.
    ticks = iter((0.0, YEARS_H * 3600.0))
    later = TraceSource(path, zone=zone, factor_type=factor_type, monotonic=lambda: next(ticks))
    return asyncio.run(later.history(2 * YEARS_H))


def _write(path: Path, values: list[Intensity]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("datetime_utc", f"gco2_per_kwh_{values[0].factor_type}"))
        writer.writerows((value.time.isoformat(), value.g_per_kwh) for value in values)


def _widest(values: list[Intensity], clock: tzinfo) -> datetime:
    """The midnight of the day that moves most within the range of the week before it: the one to
    show how a policy follows. Deterministic. ConfigError if there is no whole day."""
    first, last = values[0].time, values[-1].time
    days: list[tuple[float, datetime]] = []
    for start in sorted({_midnight(value.time, clock) for value in values}):
        if start - BEFORE < first or start + timedelta(hours=24) + SPARE > last:
            continue
        week = [v.g_per_kwh for v in values if start - BEFORE < v.time <= start]
        own = [v.g_per_kwh for v in values if start <= v.time < start + timedelta(hours=24)]
        if not week or not own:
            continue
        width = max(max(week) - min(week), 1.0)
        mean = sum(own) / len(own)
        days.append((sum((g - mean) ** 2 for g in own) / len(own) / width**2, start))
    if not days:
        raise ConfigError(f"{values[0].zone}: no day with a week before it in the data")
    return max(days)[1]


def _midnight(time: datetime, clock: tzinfo) -> datetime:
    return time.astimezone(clock).replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)


def _clock(zone: str) -> tzinfo:
    name: Any = PLACES.get(zone, ("", ""))[1]
    try:
        return ZoneInfo(name) if name else UTC
    except ZoneInfoNotFoundError:  # a machine without time zones
        return UTC
