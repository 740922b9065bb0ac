# SPDX-License-Identifier: Apache-2.0
"""A CSV trace, replayed from a start time at the wall's speed or faster.

Columns: `datetime_utc` (ISO 8601; start of the interval) and `gco2_per_kwh_direct` and/or
`gco2_per_kwh_lifecycle`. Rows ascend. An empty value is a gap: the row before it holds on, and
ages. After the last interval the trace is over and says so; it does not start again by itself.
Its own future is a forecast only where the operator says so (`carbon.trace_forecast`): no
forecaster knows the future, so what is decided on it is a bound, not a result.
"""

import bisect
import csv
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sprout.carbon.intensity import FactorType, Intensity, Series
from sprout.errors import ConfigError, FeedError


class TraceSource:
    """Raises ConfigError if the file, a column or the start can't be used."""

    name = "trace"
    remote = False
    live = True
    step_s = 0.0

    def __init__(
        self,
        path: Path,
        *,
        zone: str,
        factor_type: FactorType,
        start: str | None = None,
        speed: float = 1.0,
        foresee: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        # Named by its file, so that another trace of the zone does not enter its history.
        self.series: Series = (zone, f"trace:{path.name}", factor_type, "average")
        self._rows = _read(path, self.series)
        self._times = [row.time for row in self._rows]
        gaps = [b - a for a, b in zip(self._times, self._times[1:], strict=False)]
        step_s = statistics.median(gap.total_seconds() for gap in gaps) if gaps else 3600.0
        self._end = self._times[-1] + timedelta(seconds=step_s)
        self._start = self._times[0] if start is None else _parse_time(start, "carbon.trace_start")
        if not self._times[0] <= self._start < self._end:
            raise ConfigError(
                f"carbon.trace_start {self._start.isoformat()} is outside the trace, "
                f"{self._times[0].isoformat()} to {self._end.isoformat()}"
            )
        self._speed, self._monotonic = speed, monotonic
        self._origin_s = monotonic()
        self._foresee = foresee
        self.forecast_basis = "the trace's own future: clairvoyant" if foresee else ""

    def clock(self) -> datetime:
        elapsed_s = (self._monotonic() - self._origin_s) * self._speed
        return self._start + timedelta(seconds=elapsed_s)

    async def now(self) -> Intensity:
        at = self.clock()
        if at >= self._end:
            raise FeedError(f"the trace ended at {self._end.isoformat()}")
        return self._rows[bisect.bisect_right(self._times, at) - 1]

    async def history(self, hours: float) -> list[Intensity]:
        at = self.clock()
        first = bisect.bisect_right(self._times, at - timedelta(hours=hours))
        return self._rows[first : bisect.bisect_right(self._times, at)]

    async def forecast(self, hours: float) -> list[Intensity]:
        if not self._foresee:
            return []
        at = self.clock()
        first = bisect.bisect_right(self._times, at)
        last = bisect.bisect_right(self._times, at + timedelta(hours=hours))
        return [replace(row, estimated=True) for row in self._rows[first:last]]

    def extent(self) -> tuple[float, float]:
        """Smallest and largest g/kWh of the whole trace, its future included, as published."""
        values = [row.g_per_kwh for row in self._rows]
        return min(values), max(values)


def _read(path: Path, series: Series) -> list[Intensity]:
    column = f"gco2_per_kwh_{series[2]}"
    rows: list[Intensity] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"datetime_utc", column} - set(reader.fieldnames or ())
            if missing:
                raise ConfigError(f"{path} has no column {', '.join(sorted(missing))}")
            for row in reader:
                where = f"{path}:{reader.line_num}"
                when = _parse_time(row["datetime_utc"] or "", where)
                if rows and when <= rows[-1].time:
                    raise ConfigError(f"{where}: times must ascend")
                if (row[column] or "").strip():
                    value = _parse_value(row[column], where)
                    rows.append(Intensity(value, *series, when))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"can't read {path}: {error}") from None
    except FeedError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not rows:
        raise ConfigError(f"{path} holds no value in {column}")
    return rows


def _parse_time(text: str, where: str) -> datetime:
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(f"{where}: {text!r} is no ISO 8601 time") from None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def _parse_value(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{where}: {text!r} is no number") from None
