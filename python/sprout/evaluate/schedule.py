# SPDX-License-Identifier: Apache-2.0
"""When an evaluation is due: pure functions of hourly intensities and of when the last one ran.

*opportunistic*, as published with arXiv 2403.12900. Looked at hourly, and what fits first decides:
never evaluated → yes; `max_idle_hours` since the last → yes; within `grace_hours` → no; the
intensity k0 above its mean → no; the urgency-adjusted intensity

    k0'(t) = k0(t) · exp(β · (t - t_last))

was at a local minimum (its first difference has turned from ≤ 0 to ≥ 0) → yes; else no. A minimum
is known one hour after it. The factor grows, so waiting must pay: k0' falls while k0 falls by more
than β an hour.

*forecast* looks ahead, to the cleanest start within the time that the urgency leaves: until
exp(β · (t - t_last)) has doubled, starts are compared by the intensity while the evaluation would
run; later ones by that times half the factor, so they must be cleaner by as much. None is beyond
the maximum idle time, none dirtier than the mean unless all are, and of equals the last one stands:
on a constant grid it runs when the factor has doubled. Due when the best start is now; looked at
anew each hour, with the newest forecast.

*fixed*: every `every_hours`, whatever the grid.

Time is in hours: index t of a series is the hour that begins at t. nan = an hour without a value.
`outlook.py` does the same on the clock. What the rules are worth on real grids:
docs/evaluation_schedule.md.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sprout.carbon.forecast import Values

Kind = Literal["opportunistic", "forecast", "fixed"]
Basis = Literal["now", "forecast", "schedule", "latest"]

NOTHING: Values = np.empty(0)


@dataclass(frozen=True, slots=True)
class Rule:
    """ValueError where the parameters contradict each other."""

    kind: Kind = "opportunistic"
    beta_per_hour: float = 0.029  # of the urgency; 0.029 doubles k0' in 24 h
    grace_hours: float = 6.0  # after an evaluation began, in which no other does
    max_idle_hours: float = 72.0  # after which one begins at any intensity
    mean_hours: int = 168  # that the mean is of, the present one included
    # "window": the mean of the whole series, future hours included, as in the published artifact.
    # For reproduction alone.
    mean: Literal["trailing", "window"] = "trailing"
    every_hours: float = 24.0  # of "fixed"
    duration_hours: float = 1.0  # that an evaluation is expected to take, of "forecast"

    def __post_init__(self) -> None:
        if not 0 <= self.grace_hours < self.max_idle_hours:
            raise ValueError("grace_hours must be at least 0 and less than max_idle_hours")
        if not math.isfinite(self.beta_per_hour):
            raise ValueError("beta_per_hour must be a finite number")
        if self.mean_hours < 1 or self.every_hours <= 0 or self.duration_hours <= 0:
            raise ValueError("mean_hours, every_hours and duration_hours must be positive")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`expected` is when one will be due as far as can be told, and `basis` what that rests on:
    "now", the "forecast", the "schedule" of fixed times, or the "latest" time that there is."""

    due: bool
    why: str  # in plain words, whether it is due or not
    adjusted_g_per_kwh: float  # k0'; nan: no value for this hour, or never evaluated
    expected: float  # hour
    basis: Basis


def decide(
    rule: Rule, g_per_kwh: Values, now: float, last: float | None, ahead: Values = NOTHING
) -> Verdict:
    """Whether an evaluation is due.

    g_per_kwh: (n,), by hour; of what lies after `now` only the window's mean takes notice.
    now: in [0, n); last: when the last one began, None = there was none.
    ahead: (m,) forecast of the hours after the present one, soonest first.
    """
    due, why = _due(rule, g_per_kwh, now, last, ahead)
    if last is None:
        return Verdict(due, why, math.nan, now, "now")
    adjusted = float(g_per_kwh[math.floor(now)]) * math.exp(rule.beta_per_hour * (now - last))
    if due:
        return Verdict(due, why, adjusted, now, "now")
    return Verdict(due, why, adjusted, *_expected(rule, g_per_kwh, now, last, ahead))


def when(
    rule: Rule, g_per_kwh: Values, *, start: int = 0, forecasts: Values | None = None
) -> list[int]:
    """The hours from `start` on at which evaluations begin, with none before: the same as
    `decide` asked hour by hour.

    g_per_kwh: (n,), by hour; those before `start` are past that is known.
    forecasts: (n - start, m), of the hours after each; the kind "forecast" needs them.
    """
    if rule.kind == "forecast":
        if forecasts is None or len(forecasts) != len(g_per_kwh) - start:
            raise ValueError('the kind "forecast" needs a forecast for each hour')
        return _when_ahead(rule, g_per_kwh, start, forecasts)
    clean = np.empty(0, np.int64)
    soonest, latest = 0, math.ceil(rule.every_hours)
    if rule.kind == "opportunistic":
        means = np.array([_mean(rule, g_per_kwh, t) for t in range(start, len(g_per_kwh))])
        clean = np.flatnonzero(_turned(rule, g_per_kwh)[start:] & (g_per_kwh[start:] <= means))
        clean += start
        soonest, latest = math.floor(rule.grace_hours) + 1, math.ceil(rule.max_idle_hours)
    found, due = [], start
    while due < len(g_per_kwh):
        found.append(due)
        after = int(np.searchsorted(clean, due + soonest))
        due = min([due + latest, *map(int, clean[after : after + 1])])
    return found


def _due(
    rule: Rule, g_per_kwh: Values, now: float, last: float | None, ahead: Values
) -> tuple[bool, str]:
    if last is None:
        return True, "never evaluated"
    idle = now - last
    since = f"{idle:.3g} h since the last evaluation"
    if rule.kind == "fixed":
        return idle >= rule.every_hours, f"{since}, one every {rule.every_hours:g} h"
    if idle >= rule.max_idle_hours:
        return True, f"{since}, {rule.max_idle_hours:g} h is the most"
    if idle <= rule.grace_hours:
        return False, f"{since}, up to {rule.grace_hours:g} h is too soon for another"
    return _clean(rule, g_per_kwh, now, last, ahead)


def _clean(
    rule: Rule, g_per_kwh: Values, now: float, last: float, ahead: Values
) -> tuple[bool, str]:
    hour = math.floor(now)
    present, mean = float(g_per_kwh[hour]), _mean(rule, g_per_kwh, hour)
    if not math.isfinite(present):
        return False, "no intensity is known for this hour"
    lead = ""
    if rule.kind == "forecast":
        costs = _costs(rule, present, ahead)[: math.floor(last + rule.max_idle_hours - now) + 1]
        if np.isfinite(ahead).any() and np.isfinite(costs).any():
            return _ahead(rule, costs, mean, now - last)
        lead = "there is no forecast; "  # the opportunistic rule needs none
    if present > mean:
        return False, f"{lead}{present:.4g} g/kWh is above the mean of {mean:.4g}"
    if _turned(rule, g_per_kwh[max(0, hour - 2) : hour + 1])[-1]:
        what = "the urgency-adjusted intensity was at a minimum an hour ago"
        return True, f"{lead}{what}, {present:.4g} g/kWh is not above the mean of {mean:.4g}"
    return False, f"{lead}the urgency-adjusted intensity is not behind a minimum"


def _ahead(rule: Rule, costs: Values, mean: float, idle: float) -> tuple[bool, str]:
    """costs: (starts,) g/kWh, the first one now."""
    known = np.isfinite(costs)
    fair = known & (costs <= mean)
    urgency = np.exp(rule.beta_per_hour * (idle + np.arange(len(costs)))) / 2
    price = np.where(fair if fair.any() else known, costs * np.maximum(1, urgency), np.inf)
    best = int(np.flatnonzero(price == price.min())[-1])
    if best == 0:
        return (
            True,
            f"no start to come is worth the wait: now {costs[0]:.4g} g/kWh, mean {mean:.4g}",
        )
    what = f"{costs[best]:.4g} g/kWh by the forecast, now {costs[0]:.4g}"
    return False, f"better in {best} h: {what}, mean {mean:.4g}"


def _costs(rule: Rule, present: float, ahead: Values) -> Values:
    """(starts,): mean g/kWh over an evaluation that begins now, in 1 h …; nan: not all known."""
    hours = math.ceil(rule.duration_hours)
    weights = np.ones(hours)
    weights[-1] = rule.duration_hours - (hours - 1)
    values = np.append(present, ahead)
    if len(values) < hours:
        return NOTHING
    return np.correlate(values, weights / rule.duration_hours, "valid")


def _mean(rule: Rule, g_per_kwh: Values, hour: int) -> float:
    """Of the hours that have a value; nan where none has."""
    first = max(0, hour + 1 - rule.mean_hours)
    part = g_per_kwh if rule.mean == "window" else g_per_kwh[first : hour + 1]
    part = part[np.isfinite(part)]
    return float(part.mean()) if len(part) else math.nan


def _turned(rule: Rule, g_per_kwh: Values) -> NDArray[np.bool_]:
    """(n,): the first difference of k0' was ≤ 0 and is ≥ 0. Its sign does not depend on t_last,
    so k0(t) · exp(β) - k0(t - 1) stands for it."""
    turned = np.zeros(len(g_per_kwh), bool)
    steps = g_per_kwh[1:] * math.exp(rule.beta_per_hour) - g_per_kwh[:-1]
    turned[2:] = (steps[:-1] <= 0) & (steps[1:] >= 0)
    return turned


def _expected(
    rule: Rule, g_per_kwh: Values, now: float, last: float, ahead: Values
) -> tuple[float, Basis]:
    """What `decide` would say in the hours to come, did the forecast come true."""
    if rule.kind == "fixed":
        return last + rule.every_hours, "schedule"
    hour, latest = math.floor(now), last + rule.max_idle_hours
    if rule.mean == "trailing":
        series = np.concatenate([g_per_kwh[: hour + 1], ahead])
        for later in range(hour + 1, min(len(series), math.ceil(latest))):
            if _due(rule, series, later, last, series[later + 1 :])[0]:
                return float(later), "forecast"
    return latest, "latest"


def _when_ahead(rule: Rule, g_per_kwh: Values, start: int, forecasts: Values) -> list[int]:
    found: list[int] = []
    for hour in range(start, len(g_per_kwh)):
        last = found[-1] if found else None
        if _due(rule, g_per_kwh, hour, last, forecasts[hour - start])[0]:
            found.append(hour)
    return found
