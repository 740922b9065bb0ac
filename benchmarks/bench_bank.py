# SPDX-License-Identifier: Apache-2.0
"""Is a budget of quality better than an hourly floor, and than one mix for all hours?

Thirty-day windows of the published measurements (five zones of 2023, three windows each): e and p
are the levels' means (each task counted alike), q their shares of all visible judgments, constant
traffic. Schemes are compared at equal mean preference, that of the published hourly program
(xi = 0.1, floor placed in the range of the whole year):

    hourly            the published program; its range knows the whole year, the future included
    hourly, trailing  with the range of the last 168 h, and the xi that leads to the same mean
    static            one mix for all hours
    foreseen          the bank over the whole window, every hour's intensity known
    receding 72 h     the bank over the next 72 h, solved anew each hour; every hour is expected to
                      be as the last known one of the same hour of day ("day"), or as the present
                      one ("last")
    receding 4 weeks  the bank over the next 4 weeks, which are expected to be as the last 4
    ..., as aimed     the target is the hourly program's mean; where it ends differs (dpref)
    ..., even         the horizon shrinks to the window's end, so that the budget holds there
    ..., worst hour   with an hourly minimum: that of the published program's worst hour

The target of the other receding banks is set so that the preference that they end with is the
hourly program's.

    python benchmarks/bench_bank.py [--zone GB] [--start-hour 800] [--xi 0.1] [--json FILE]

Data from the folder that SPROUT_DATA names, or ../shared/data beside the checkout.
"""

import argparse
import csv
import gzip
import json
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _data import BUNDLE, CARBON, EMBODIED_G_PER_S, STARTS, WINDOW_H, ZONES
from numpy.typing import NDArray

from sprout.optimize import lp
from sprout.optimize.bank import BankModel, carry_on
from sprout.optimize.floor import Range, place
from sprout.optimize.problem import Problem

Array = NDArray[np.float64]

SHORT_H, LONG_H, DAY_H, TRAILING_H = 72, 672, 24, 168
REQUESTS = 100.0  # an hour; no ratio depends on it
EQUAL = 2e-5  # preferences that count as equal


@dataclass(frozen=True)
class Window:
    """One zone's month, with the levels' means."""

    intensity: Array  # (hours of the year,) g/kWh
    start: int
    energy_kwh: Array  # (levels,)
    seconds: Array  # (levels,)
    preferences: Array  # (levels,)
    hours: int = WINDOW_H

    @property
    def k0(self) -> Array:
        return self.intensity[self.start : self.start + self.hours]

    def costs_g(self, k0: Array) -> Array:
        """(hours, levels) grams per request."""
        return np.outer(k0, self.energy_kwh) + EMBODIED_G_PER_S * self.seconds

    def saving(self, shares: Array) -> float:
        """Share of all-L0's grams that mixes (hours, levels) save."""
        costs = self.costs_g(self.k0)
        return float(1 - (costs * shares).sum() / costs[:, 0].sum())

    def preference(self, shares: Array) -> float:
        """Mean normalised preference."""
        return float((shares @ self.preferences).mean() / self.preferences[0])


def load(zone: str, start: int) -> Window:
    by_task: dict[str, list[list[float]]] = {}
    preferred: list[int] = []
    with gzip.open(BUNDLE / "requests.csv.gz", "rt") as file:
        rows = csv.DictReader(file)
        levels = sum(name.startswith("wh_l") for name in rows.fieldnames or ())
        names = [f"{what}_l{i}" for what in ("wh", "s") for i in range(levels)]
        for row in rows:
            by_task.setdefault(row["task"], []).append([float(row[name]) for name in names])
            if row["preferred"]:
                preferred.append(int(row["preferred"]))
    means = np.mean([np.mean(rows, axis=0) for rows in by_task.values()], axis=0)
    with open(CARBON / f"{zone}.csv") as file:
        grid = [float(row["gco2_per_kwh_direct"]) for row in csv.DictReader(file)]
    shares = np.bincount(preferred, minlength=levels) / len(preferred)
    return Window(np.array(grid), start, means[:levels] / 1e3, means[levels:], shares)


def hourly(w: Window, xi: float, trailing_h: int | None = None) -> Array:
    """(hours, levels) of the published program; its range is the whole year's or a trailing one."""
    model, q = lp.PaperModel(len(w.preferences)), w.preferences.tolist()
    mixes = []
    for t, (k0, costs) in enumerate(zip(w.k0, w.costs_g(w.k0), strict=True), start=w.start):
        seen = w.intensity if trailing_h is None else w.intensity[t + 1 - trailing_h : t + 1]
        floor = place(k0, Range(float(seen.min()), float(seen.max()), "seen"), xi, 0.5)
        mixes.append(model.solve(costs.tolist(), q, floor.relative * q[0]).shares)
    return np.array(mixes)


def hourly_at(w: Window, wanted: float) -> Array:
    """The hourly program with a trailing range, at the xi that leads to the wanted preference."""
    low, high = 0.0, 1.0
    for _ in range(20):
        xi = 0.5 * (low + high)
        mixes = hourly(w, xi, TRAILING_H)
        off = w.preference(mixes) - wanted
        if abs(off) < EQUAL:
            break
        low, high = (xi, high) if off > 0 else (low, xi)
    return mixes


def static(w: Window, target: float) -> Array:
    mean = w.costs_g(w.k0).mean(0).tolist()
    mix = lp.solve(mean, w.preferences.tolist(), target * float(w.preferences[0])).shares
    return np.tile(mix, (w.hours, 1))


def problem(w: Window, k0: Array, target: float, minimum: float, carry: float = 0.0) -> Problem:
    return Problem(
        costs_g=w.costs_g(k0)[:, None, :],
        requests=np.full((len(k0), 1), REQUESTS),
        preferences=w.preferences[None],
        target=target,
        hourly_minimum=minimum,
        carry_request_points=carry,
    )


def foreseen(w: Window, target: float, minimum: float) -> Array:
    p = problem(w, w.k0, target, minimum)
    return BankModel(*p.shape).solve(p).shares[:, 0]


def forecast(w: Window, hour: int, ahead: int, kind: str) -> Array:
    """(ahead,) intensities from `hour` of the year on; only that hour and earlier ones are seen."""
    steps, now = np.arange(ahead), w.intensity[hour]
    if kind == "last":
        return np.full(ahead, now)
    period = DAY_H if kind == "day" else LONG_H
    return w.intensity[hour + steps - period * -(-steps // period)]


@dataclass(frozen=True)
class Receding:
    ahead_h: int
    kind: str  # of forecast
    minimum: float = 0.0
    even: bool = False

    def mixes(self, w: Window, target: float) -> Array:
        """(hours, levels): each hour the first of the bank's mixes, the carry kept."""
        models: dict[int, BankModel] = {}
        carry, mixes = 0.0, []
        for t in range(w.hours):
            ahead = min(self.ahead_h, w.hours - t) if self.even else self.ahead_h
            expected = forecast(w, w.start + t, ahead, self.kind)
            p = problem(w, expected, target, self.minimum, carry)
            mix = models.setdefault(ahead, BankModel(*p.shape)).solve(p).shares[0, 0]
            realised = float(mix @ w.preferences / w.preferences[0])
            carry = carry_on(carry, REQUESTS, realised, target, most_request_points=np.inf)
            mixes.append(mix)
        return np.array(mixes)

    def mixes_at(self, w: Window, wanted: float) -> Array:
        """With the target whose realised mean preference is the wanted one."""
        target = wanted
        for _ in range(1 if self.even else 8):
            mixes = self.mixes(w, target)
            off = w.preference(mixes) - wanted
            if abs(off) < EQUAL:
                break
            target = min(1.0, target - off)
        return mixes


def compare(w: Window, xi: float) -> dict[str, tuple[float, float, float]]:
    """By scheme: saving, mean preference, the worst hour's preference."""
    paper = hourly(w, xi)
    wanted = w.preference(paper)
    worst = float((paper @ w.preferences).min() / w.preferences[0])
    short, long = Receding(SHORT_H, "day"), Receding(LONG_H, "weeks")
    found = {
        "hourly": paper,
        "hourly, trailing": hourly_at(w, wanted),
        "static": static(w, wanted),
        "foreseen": foreseen(w, wanted, 0.0),
        "foreseen, worst hour": foreseen(w, wanted, worst),
        "receding 72 h day": short.mixes_at(w, wanted),
        "receding 72 h day, even": replace(short, even=True).mixes_at(w, wanted),
        "receding 72 h last": replace(short, kind="last").mixes_at(w, wanted),
        "receding 4 weeks": long.mixes_at(w, wanted),
        "receding 4 weeks, as aimed": long.mixes(w, wanted),
        "receding 4 weeks, even": replace(long, even=True).mixes_at(w, wanted),
        "receding 4 weeks, worst hour": replace(long, minimum=worst).mixes_at(w, wanted),
    }
    return {
        name: (
            w.saving(mixes),
            w.preference(mixes),
            float((mixes @ w.preferences).min() / w.preferences[0]),
        )
        for name, mixes in found.items()
    }


def table(results: dict[str, dict[str, tuple[float, float, float]]]) -> str:
    """Savings in % by window; below, the mean gain on the hourly program in points."""
    schemes = list(next(iter(results.values())))
    width = max(map(len, schemes)) + 2
    lines = []
    for name in schemes:
        savings = [100 * result[name][0] for result in results.values()]
        gains = [100 * (r[name][0] - r["hourly"][0]) for r in results.values()]
        on_static = [100 * (r[name][0] - r["static"][0]) for r in results.values()]
        preferences = [100 * (r[name][1] - r["hourly"][1]) for r in results.values()]
        worst = [100 * result[name][2] for result in results.values()]
        lines.append(
            f"{name:{width}}{statistics.mean(savings):8.2f}{statistics.mean(gains):+9.2f}"
            f"{sum(g > 0.005 for g in gains):5}{statistics.mean(on_static):+9.2f}"
            f"{sum(g > 0.005 for g in on_static):5}"
            f"{max(preferences, key=abs):+9.3f}{min(worst):8.1f}"
        )
    head = f"{'':{width}}{'saving':>8}{'-hourly':>9}{'won':>5}{'-static':>9}{'won':>5}"
    head += f"{'dpref':>9}{'worst h':>8}"
    titles = "".join(f"{name:>20}" for name in BRIEF)
    each = [f"\n{'window':20}{'pref':>8}{titles}"]
    for window, result in results.items():
        cells = "".join(f"{100 * result[name][0]:20.2f}" for name in BRIEF)
        each.append(f"{window:20}{100 * result['hourly'][1]:8.2f}{cells}")
    return "\n".join([f"{len(results)} windows; means in %", head, *lines, *each])


BRIEF = ("hourly", "static", "foreseen", "receding 72 h day", "receding 4 weeks")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--zone", choices=ZONES, action="append")
    parser.add_argument("--start-hour", type=int, action="append")
    parser.add_argument("--xi", type=float, default=0.1)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for zone in arguments.zone or ZONES:
        for start in arguments.start_hour or STARTS:
            results[f"{zone} {start}"] = compare(load(zone, start), arguments.xi)
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
