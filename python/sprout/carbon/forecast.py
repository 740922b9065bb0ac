# SPDX-License-Identifier: Apache-2.0
"""A forecast of carbon intensity from a series' own past, for zones whose source gives none.

    forecast(t + h) = season(t + h) + w_h . (residual now, an hour ago, mean of a day, same hour)

*season* is the mean of each hour of the week, recent days counting more, drawn towards the mean of
its hour of the day where few weeks stand behind it. A *residual* is a value less its season: how
far the level is off. Its weights w_h are learned for each horizon from the history itself (least
squares) and drawn towards a plain decay over the horizon, which is all there is while the history
is short. Each residual is taken against a season without its own value; else the season would
know the answers that it is tested on. Under a day of history the last value stands.

Intervals are quantiles of past errors by horizon: of the same method, fitted without the last
quarter of the history and tried on it.

Which designs were tried and what each is worth on five grids: docs/forecast.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprout.carbon.intensity import MAX_G_PER_KWH, Intensity, Series
from sprout.errors import FeedError

MAX_HOURS = 72
MAX_SILENT_HOURS = 24  # a history that ended longer ago says nothing of now
WINDOW_HOURS = 8 * 168  # what is older is left out: the season has moved on
DAY, WEEK = 24, 168
HOUR_S = 3600

# Tuned on the first half of 2023 in five grids; the numbers in docs/forecast.md are of the second.
MEMORY_DAYS = 10.0  # after which a day counts 1/e in the season
WEEK_SHRINK = 8.0  # weeks that an hour of the day is worth, in the mean of an hour of the week
PRIOR_HOURS = 3.0  # past hours that the plain decay is worth, in the weights
FAST_DECAY, SLOW_DECAY = 0.85, 0.98  # per hour: of the last residual, of the last day's mean
OVERLAP = 0.75  # n errors at horizon h are worth n / h^0.75 independent ones
MIN_ERRORS = 20  # of a horizon, before an interval is read off them

Values = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Forecast:
    """`low` and `high` are nan at horizons with too few past errors to tell."""

    series: Series
    issued: datetime  # start of the last hour that the history has a value in
    times: tuple[datetime, ...]  # (hours,), start of each hour, UTC
    g_per_kwh: Values  # (hours,)
    low: Values  # (hours,), `coverage` of past errors lie between low and high
    high: Values  # (hours,)
    coverage: float
    basis: str  # "hour of week, 8.0 weeks", "hour of day, 3.0 days" or "persistence, 5 h"

    def intensities(self) -> list[Intensity]:
        """In the series of the history, marked estimated."""
        return [
            Intensity(float(value), *self.series, time, estimated=True)
            for value, time in zip(self.g_per_kwh, self.times, strict=True)
        ]


@dataclass(frozen=True)
class Guess:
    """`Forecast` in bare numbers, all of shape (hours,), g/kWh."""

    g_per_kwh: Values
    low: Values
    high: Values
    basis: str


def predict(
    history: Sequence[Intensity], hours: int, *, now: datetime | None = None, coverage: float = 0.8
) -> Forecast:
    """The `hours` (1 ... 72) after the hour that `now` is in; default: after the last value's.

    history: of one series, in any order and step; finer steps are averaged to hours, gaps are
    hours without a value. Of two values for one time the later one in the sequence counts.
    Raises FeedError where the history is empty, mixes series or ended over a day before `now`;
    ValueError where an argument is out of range.
    """
    if not 1 <= hours <= MAX_HOURS:
        raise ValueError(f"hours must be 1 to {MAX_HOURS}: {hours}")
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must be between 0 and 1: {coverage}")
    if now is not None and now.tzinfo is None:
        raise ValueError("now needs a time zone")
    series = _one_series(history)
    if now is not None:
        history = [value for value in history if value.time <= now]
    first, values = hourly(history)
    last = first + len(values) - 1
    silent = 0 if now is None else math.floor(now.timestamp() / HOUR_S) - last
    if silent > MAX_SILENT_HOURS:
        raise FeedError(f"the history of {series[0]} ended {silent} h ago")
    made = guess(values, first, hours, silent=silent, coverage=coverage)
    issued = datetime.fromtimestamp(last * HOUR_S, UTC)
    times = tuple(issued + timedelta(hours=silent + h + 1) for h in range(hours))
    return Forecast(
        series, issued, times, made.g_per_kwh, made.low, made.high, coverage, made.basis
    )


def _one_series(history: Sequence[Intensity]) -> Series:
    """Direct and lifecycle, average and marginal, or two zones, are never one history."""
    found = sorted({value.series for value in history})
    if not found:
        raise FeedError("no history to forecast from")
    if len(found) > 1:
        raise FeedError(f"a forecast is of one series, not of {found[0]} and {found[1]}")
    return found[0]


def hourly(history: Sequence[Intensity]) -> tuple[int, Values]:
    """(hours since 1970 of the first, mean of each hour in g/kWh; nan = no value).

    Raises FeedError where there is no value.
    """
    if not history:
        raise FeedError("no history to forecast from")
    by_time = {value.time: value.g_per_kwh for value in history}
    hours = np.array([math.floor(time.timestamp() / HOUR_S) for time in by_time])
    first = int(hours.min())
    count = np.bincount(hours - first)
    total = np.bincount(hours - first, weights=np.array(list(by_time.values())))
    return first, np.where(count > 0, total / np.maximum(count, 1), np.nan)


def guess(
    values: Values, first: int, hours: int, *, silent: int = 0, coverage: float = 0.8
) -> Guess:
    """The hours after the last value and `silent` more.

    values: (n,) g/kWh by hour, the last one known, nan = a gap; first: hours since 1970 of the
    first one. Only the last eight weeks are looked at.
    """
    cut = max(0, len(values) - WINDOW_HOURS)
    values, first = values[cut:], first + cut
    ahead = np.arange(silent + 1, silent + hours + 1)
    known = int(np.isfinite(values).sum())
    if known < DAY:
        middle, basis = np.full(hours, values[-1]), f"persistence, {known} h"
        errors = _steps(values, ahead)
    else:
        days = len(values) / DAY
        basis = (
            f"hour of week, {days / 7:.1f} weeks" if days >= 14 else f"hour of day, {days:.1f} days"
        )
        middle = _Model(values, first, ahead).onward()
        errors = _past_errors(values, first, ahead)
    low, high = _quantiles(errors, ahead, coverage)
    ends = [np.clip(middle + error, 0, MAX_G_PER_KWH) for error in (low, high)]
    return Guess(np.clip(middle, 0, MAX_G_PER_KWH), ends[0], ends[1], basis)


def season(values: Values, first: int) -> tuple[Values, Values]:
    """((168,) g/kWh by hour of the week since 1970, (n,) share that each value has in its own).

    Arguments as in `guess`; at least one value is known.
    """
    of_week = (first + np.arange(len(values))) % WEEK
    known = np.isfinite(values)
    weight = known * np.exp((np.arange(len(values)) - len(values) + 1) / (DAY * MEMORY_DAYS))
    weighed = np.where(known, values, 0.0) * weight
    # An hour of the day without a single value gets the mean of all hours.
    day_n = np.bincount(of_week % DAY, weight, DAY)
    day = np.full(DAY, weighed.sum() / weight.sum())
    np.divide(np.bincount(of_week % DAY, weighed, DAY), day_n, out=day, where=day_n > 0)
    day, day_n = np.tile(day, 7), np.tile(day_n, 7)
    week_n = np.bincount(of_week, weight, WEEK) + WEEK_SHRINK
    week = (np.bincount(of_week, weighed, WEEK) + WEEK_SHRINK * day) / week_n
    by_day = np.divide(WEEK_SHRINK, day_n, out=np.zeros(WEEK), where=day_n > 0)
    return week, weight * ((1 + by_day) / week_n)[of_week]


class _Model:
    """A season and, for each horizon, the weights of the residuals."""

    def __init__(self, values: Values, first: int, ahead: Indices) -> None:
        self._ahead, self._end = ahead, first + len(values)
        self._season, own = season(values, first)
        # Against a season without the value itself the residual is larger by 1 / (1 - its share).
        self._residuals = self._off(values, first) / (1 - np.minimum(own, 0.9))
        self._weights = _fit(self._residuals, np.isfinite(values), ahead)

    def onward(self) -> Values:
        """(horizons,) g/kWh, after the last value that it was made from."""
        origin = np.array([len(self._residuals) - 1])
        made: Values = self._from(self._residuals, origin, self._end - 1)[0]
        return made

    def after(self, values: Values, first: int, origins: Indices) -> Values:
        """(origins, horizons) g/kWh; values: also those since; origins: indices of them, not
        before the last one that it was made from."""
        return self._from(self._off(values, first), origins, first + origins)

    def _off(self, values: Values, first: int) -> Values:
        """(n,), gaps bridged: they can't teach, but what stands around them can."""
        raw = values - self._season[(first + np.arange(len(values))) % WEEK]
        known = np.flatnonzero(np.isfinite(raw))
        bridged: Values = np.interp(np.arange(len(raw)), known, raw[known])
        return bridged

    def _from(self, residuals: Values, origins: Indices, hour: Any) -> Values:
        """hour: of each origin, since 1970."""
        seen = _seen(residuals, origins, self._ahead)
        season = self._season[(np.reshape(hour, (-1, 1)) + self._ahead) % WEEK]
        made: Values = season + np.einsum("hmf,hf->mh", seen, self._weights)
        return made


def _seen(residuals: Values, origins: Indices, ahead: Indices) -> Values:
    """(horizons, origins, 4): residual at the origin, an hour before, mean of the day up to it,
    and of the latest same hour of day as the hour ahead. `origins` are at least 23."""
    shape = (len(ahead), len(origins))
    total = np.concatenate([[0.0], np.cumsum(residuals)])
    mean = (total[origins + 1] - total[origins + 1 - DAY]) / DAY
    same = origins + (ahead - DAY * ((ahead + DAY - 1) // DAY))[:, None]
    flat = (residuals[origins], residuals[origins - 1], mean)
    seen: Values = np.stack([*(np.broadcast_to(x, shape) for x in flat), residuals[same]], axis=-1)
    return seen


def _fit(residuals: Values, known: NDArray[np.bool_], ahead: Indices) -> Values:
    """(horizons, 4): least squares over all origins, drawn towards the plain decay."""
    fast, slow = FAST_DECAY**ahead, SLOW_DECAY**ahead
    prior: Values = np.stack([fast, 0 * fast, slow - fast, 0 * fast], axis=-1)
    origins = np.arange(DAY - 1, len(residuals) - ahead[0])
    if len(origins) == 0:
        return prior
    target = origins + ahead[:, None]
    inside = target < len(residuals)
    target = np.where(inside, target, 0)
    seen = _seen(residuals, origins, ahead)
    usable = (inside & known[target])[..., None]
    off = residuals[target][..., None] - seen @ prior[..., None]
    transposed = np.swapaxes(seen * usable, 1, 2)
    spread = float(np.mean(residuals**2))
    square = transposed @ seen + (PRIOR_HOURS * spread + 1e-9) * np.eye(4)
    moved: Values = np.linalg.solve(square, transposed @ off)[..., 0]
    return prior + moved


def _past_errors(values: Values, first: int, ahead: Indices) -> Values:
    """(origins, horizons), true less forecast, on the last quarter; nan where not known."""
    split = max(DAY, len(values) - len(values) // 4)
    learned = values[:split]
    if np.isfinite(learned).sum() < DAY or split >= len(values):
        return np.full((0, len(ahead)), np.nan)
    origins = np.arange(split - 1, len(values) - 1)
    origins = origins[np.isfinite(values[origins])]
    target = origins[:, None] + ahead
    inside = target < len(values)
    true: Values = np.where(inside, values[np.where(inside, target, 0)], np.nan)
    return true - _Model(learned, first, ahead).after(values, first, origins)


def _steps(values: Values, ahead: Indices) -> Values:
    """(n, horizons): errors of persistence."""
    target = np.arange(len(values))[:, None] + ahead
    inside = target < len(values)
    true: Values = np.where(inside, values[np.where(inside, target, 0)], np.nan)
    return true - values[:, None]


def _quantiles(errors: Values, ahead: Indices, coverage: float) -> tuple[Values, Values]:
    """Both (horizons,): the errors that `coverage` of the past ones lie between, and somewhat
    more: past forecasts overlap, so fewer errors stand behind a far horizon than were counted."""
    low = np.full(len(ahead), np.nan)
    high = low.copy()
    count = np.isfinite(errors).sum(axis=0)
    for h in np.flatnonzero(count >= MIN_ERRORS):
        independent = count[h] / ahead[h] ** OVERLAP
        tail = max(0.0, 1 - (1 + coverage) / 2 * (1 + 1 / independent))
        low[h], high[h] = np.nanquantile(errors[:, h], [tail, 1 - tail])
    return low, high
