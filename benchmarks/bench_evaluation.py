# SPDX-License-Identifier: Apache-2.0
"""How honest are q's intervals, how many judgments does stopping in time save, what do a judge's
leanings do to q, what does shrinkage gain? On the published preferences, the truth being known.

The truth is q of all recorded preferences, as choices among three levels. Evaluations are drawn
from them *with replacement*. A situation is a task class, or one hour's published mix of them, with
the grid of a day (five zones, three windows of 2023): the plan is made for four hours of it.

    python benchmarks/bench_evaluation.py [coverage] [stopping] [limits] [bias] [shrinkage] [cost]
        [--quick]

`stopping` compares with a fixed sample: the smallest n at which the regret over a 95 % region *made
for that n* (Wilson's bounds, shared among the levels as the region's are) is within the limits with
a probability of 95 %,
    planned    in every situation: one size, chosen before q is known
    foreseen   in the very situation, as if its q were known beforehand; mean over situations
(these solve the program by `closed_form`, the rule itself uses `lp`) and lists how often the region
and the fixed-size intervals held the truth, and the true regret its limits, when sampling stopped.

`limits` says what so many prompts can tell: the regret over the region, at the hours that a running
evaluation plans for (`evaluate.horizon`), by the pairwise judge of `stopping`.

Data from the folder that SPROUT_DATA names, or ../shared/data beside the checkout.
"""

import argparse
import csv
import gzip
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprout.config import Config
from sprout.evaluate import horizon
from sprout.evaluate.statistics import choice, length, position, shrinkage
from sprout.evaluate.statistics.quality import Method, Quality, measure, wilson
from sprout.evaluate.statistics.sequential import Hour, Stopping
from sprout.optimize.closed_form import closed_form
from sprout.optimize.floor import Range, place
from sprout.proof.interval import Interval, student_t
from sprout.v1 import control_pb2 as pb

Array = NDArray[np.float64]

DATA = Path(os.environ.get("SPROUT_DATA", Path(__file__).parents[2] / "shared" / "data"))
BUNDLE = DATA / "sprout2023"
ZONES = ("US-TEX-ERCO", "US-CAL-CISO", "AU-SA", "NL", "GB")
STARTS, WINDOW_H, XI, EMBODIED_G_PER_S = (800, 3900, 7000), 720, 0.1, 1.6715e-4
JOULES_PER_TOKEN = 5.9  # of the published 13B runs
POINT = 0.01


class Recorded:
    """The recorded preferences, and what goes with them."""

    def __init__(self) -> None:
        with gzip.open(BUNDLE / "requests.csv.gz", "rt") as file:
            rows = [row for row in csv.DictReader(file) if row["preferred"]]
        self.tasks = sorted({row["task"] for row in rows})
        self.of = np.array([self.tasks.index(row["task"]) for row in rows])
        self.scores = np.eye(3)[[int(row["preferred"]) for row in rows]]
        self.wh = np.array([[float(row[f"wh_l{i}"]) for i in range(3)] for row in rows])
        self.seconds = np.array([[float(row[f"s_l{i}"]) for i in range(3)] for row in rows])
        self.by_class = [self.scores[self.of == c] for c in range(len(self.tasks))]
        self.q = np.array([scores.mean(axis=0) for scores in self.by_class])
        self.pairwise = [self._pairwise(q) for q in self.q]
        with (BUNDLE / "mix.csv").open() as file:
            mix = np.array([[float(r[t]) for t in self.tasks] for r in csv.DictReader(file)])
        self.mix = mix / mix.sum(axis=1, keepdims=True)
        self.grid = {}
        for zone in ZONES:
            with (BUNDLE / "carbon" / f"{zone}.csv").open() as file:
                self.grid[zone] = [float(r["gco2_per_kwh_direct"]) for r in csv.DictReader(file)]

    @staticmethod
    def _pairwise(q: Array, size: int = 20_000) -> Array:
        """Scores of a pairwise judge as in `bias`, without a leaning, both orders."""
        rng = np.random.default_rng(0)
        p = logistic(np.log(q[1:] / q[0]) + rng.standard_normal((size, len(q) - 1)))
        return np.column_stack([np.ones(size), (rng.random((2, *p.shape)) < p).sum(axis=0)])

    def hours(self, rng: np.random.Generator, shares: Array) -> tuple[int, list[Hour]]:
        """An hour of a window, and the plan's hours: it and every sixth of the day from it on."""
        grid = self.grid[ZONES[rng.integers(len(ZONES))]]
        hour = int(rng.integers(WINDOW_H - 24))
        first = STARTS[rng.integers(len(STARTS))] + hour
        within = Range(min(grid), max(grid), "year")
        kwh = shares @ [self.wh[self.of == c].mean(axis=0) / 1000 for c in range(len(shares))]
        s = shares @ [self.seconds[self.of == c].mean(axis=0) for c in range(len(shares))]
        return hour, [
            Hour(
                tuple(grid[t] * kwh + EMBODIED_G_PER_S * s), place(grid[t], within, XI, 0).relative
            )
            for t in range(first, first + 24, 6)
        ]


@dataclass
class Situation:
    name: str
    truth: Array  # (levels,) q
    hours: list[Hour]
    shares: Array  # (classes,) of the requests
    method: Method = "choice"

    def draw(self, data: Recorded, rng: np.random.Generator, n: int) -> Array:
        classes = rng.choice(len(self.shares), size=n, p=self.shares)
        found = np.empty((n, 3))
        for c in set(classes.tolist()):
            pool = data.by_class[c] if self.method == "choice" else data.pairwise[c]
            found[classes == c] = pool[rng.integers(len(pool), size=int((classes == c).sum()))]
        return found


def by_class(data: Recorded, rng: np.random.Generator) -> list[Situation]:
    one = np.eye(len(data.tasks))
    return [
        Situation(name, data.q[c], data.hours(rng, one[c])[1], one[c])
        for c, name in enumerate(data.tasks)
    ]


def by_class_pairwise(data: Recorded, rng: np.random.Generator) -> list[Situation]:
    return [
        replace(s, truth=data.pairwise[c].mean(axis=0), method="pairwise")
        for c, s in enumerate(by_class(data, rng))
    ]


def by_hour(data: Recorded, rng: np.random.Generator, count: int = 12) -> list[Situation]:
    found = []
    for _ in range(count):
        hour = data.hours(rng, data.mix[0])[0]
        shares = data.mix[hour]
        found.append(Situation(f"hour {hour}", shares @ data.q, data.hours(rng, shares)[1], shares))
    return found


# --- coverage ------------------------------------------------------------------------------------


Draw = Callable[[np.random.Generator, int], Array]
# Judgments made up where the recorded ones are not of the method: name, method, draw, true ratios.
MADE: tuple[tuple[str, Method, Draw, tuple[float, ...]], ...] = (
    (
        "exact, one difficulty a prompt",
        "exact",
        lambda rng, n: (rng.random((n, 1)) < [0.6, 0.5, 0.4]).astype(float),
        (5 / 6, 2 / 3),
    ),
    (
        "exact, levels independent",
        "exact",
        lambda rng, n: (rng.random((n, 3)) < [0.6, 0.5, 0.4]).astype(float),
        (5 / 6, 2 / 3),
    ),
    (
        "pairwise, 30 % ties",
        "pairwise",
        lambda rng, n: _pairs(rng.choice([0, 0.5, 1], size=(n, 2, 2), p=[0.35, 0.3, 0.35]).sum(2)),
        (1.0, 1.0),
    ),
    (
        "pairwise, 90 % ties",
        "pairwise",
        lambda rng, n: _pairs(rng.choice([0, 1, 2], size=(n, 2), p=[0.07, 0.9, 0.03])),
        (0.96, 0.96),
    ),
    (
        "pairwise, one-sided",
        "pairwise",
        lambda rng, n: _pairs(2 * (rng.random((n, 2)) < 0.1)),
        (0.2, 0.2),
    ),
)


def _pairs(others: NDArray[Any]) -> Array:
    return np.column_stack([np.ones(len(others)), others])


def coverage(data: Recorded, runs: int) -> None:
    rng = np.random.default_rng(1)
    print("\nTrue q_i / q_0 inside the 95 % interval (L1, L2 together), % of evaluations")
    sizes = (10, 30, 100, 300, 1000)
    print("| drawn from | " + " | ".join(f"{n} prompts" for n in sizes) + " |")
    print("| --- |" + " --- |" * len(sizes))
    for name, pool in (
        ("all classes", data.scores),
        *zip(data.tasks, data.by_class, strict=True),
    ):
        q = pool.mean(axis=0)

        def again(rng: np.random.Generator, n: int, pool: Array = pool) -> Array:
            return pool[rng.integers(len(pool), size=n)]

        row = [_held(rng, "choice", again, q[1:] / q[0], n, runs) for n in sizes]
        print(f"| {name} | " + " | ".join(f"{100 * x:.1f}" for x in row) + " |", flush=True)
    for name, method, draw, truth in MADE:
        row = [_held(rng, method, draw, np.array(truth), n, runs) for n in sizes]
        print(f"| {name} | " + " | ".join(f"{100 * x:.1f}" for x in row) + " |", flush=True)


def _held(
    rng: np.random.Generator, method: Method, draw: Draw, truth: Array, n: int, runs: int
) -> float:
    """Evaluations without a ratio don't count; they say so themselves."""
    held = [
        ratio.low <= true <= ratio.high
        for _ in range(runs)
        for ratio, true in zip(measure(draw(rng, n), method=method).ratios[1:], truth, strict=True)
        if isinstance(ratio, Interval)
    ]
    return float(np.mean(held))


# --- stopping ------------------------------------------------------------------------------------


def stopping(data: Recorded, runs: int, most: int) -> None:
    print("\n| situations | excess | points | planned | foreseen | stopped |", end="")
    print(" of planned | of foreseen | region held then | ever | 95 % intervals then |", end="")
    print(" limits met | runs |")
    print("| --- |" + " --- |" * 12)
    rng = np.random.default_rng(2)
    classes, hours = by_class(data, rng), by_hour(data, rng)
    pairwise = by_class_pairwise(data, np.random.default_rng(2))
    for name, situations, limits in (
        ("classes, pairwise", pairwise, (0.1, 10.0)),
        ("classes, pairwise", pairwise, (0.3, 5.0)),
        ("classes", classes, (0.1, 10.0)),
        ("classes", classes, (0.3, 10.0)),
        ("classes", classes, (0.5, 15.0)),
        ("hours", hours, (0.5, 15.0)),
        ("hours", hours, (1.0, 10.0)),
        ("hours", hours, (1.0, 15.0)),
    ):
        many = runs if name == "hours" else 2 * runs
        _compare(data, name, situations, limits, many, most, rng)


def _looks(most: int) -> list[int]:
    """When the rule is asked: after each ten at first, then each 6 % more."""
    looks = [50]
    while looks[-1] < most:
        looks.append(min(most, max(looks[-1] + 10, int(1.06 * looks[-1]))))
    return looks


@dataclass
class Stop:
    judged: int
    held: bool  # the region held the truth then
    ever: bool  # and always up to then
    plain: float  # share of the fixed-size intervals that did then
    met: bool  # true regret within the limits
    cut: bool


def _compare(
    data: Recorded,
    name: str,
    situations: list[Situation],
    limits: tuple[float, float],
    runs: int,
    most: int,
    rng: np.random.Generator,
) -> None:
    stops = [_stopped(data, s, limits, most, rng) for s in situations for _ in range(runs)]
    needed = [_needed(data, s, limits, most, rng) for s in situations]
    whole = [stop for stop in stops if not stop.cut]
    mean, planned, foreseen = np.mean([s.judged for s in stops]), max(needed), np.mean(needed)
    least = "≥ " if planned == most else ""
    cut = f" ({len(stops) - len(whole)} of {len(stops)} cut)" if len(whole) < len(stops) else ""
    shares = [
        100 * np.mean([getattr(s, what) for s in of])
        for what, of in (("held", whole), ("ever", stops), ("plain", whole), ("met", whole))
    ]
    print(
        f"| {name} | {100 * limits[0]:g} % | {limits[1]:g} | {least}{planned:,} | {foreseen:,.0f} |"
        f" {mean:,.0f}{cut} | {100 * mean / planned:.0f} % | {100 * mean / foreseen:.0f} % | "
        + " | ".join(f"{share:.1f} %" for share in shares)
        + f" | {len(stops)} |",
        flush=True,
    )


def _stopped(
    data: Recorded,
    situation: Situation,
    limits: tuple[float, float],
    most: int,
    rng: np.random.Generator,
) -> Stop:
    judged = situation.draw(data, rng, most)
    truth = situation.truth / situation.truth[0]
    rule = Stopping(
        situation.hours,
        method=situation.method,
        most_g_ratio=limits[0],
        most_points=limits[1],
    )
    before, ever = 0, True
    for n in _looks(most):
        verdict = rule.update(judged[before:n])
        before = n
        low, high = np.array(verdict.low), np.array(verdict.high)
        held = bool(((low <= truth + 1e-9) & (truth - 1e-9 <= high)).all())
        ever &= held
        if verdict.stop:
            break
    regret = rule.regret(verdict.shares, truth, truth)
    found = measure(judged[:n], method=situation.method).ratios[1:]
    inside = [
        isinstance(r, Interval) and r.low <= t <= r.high
        for r, t in zip(found, truth[1:], strict=True)
    ]
    met = regret.g_ratio <= limits[0] and regret.points <= limits[1]
    return Stop(n, held, ever, float(np.mean(inside)), met, cut=not verdict.stop)


def _needed(
    data: Recorded,
    situation: Situation,
    limits: tuple[float, float],
    most: int,
    rng: np.random.Generator,
) -> int:
    """The smallest n at which 19 of 20 samples of n meet the limits."""
    samples = [situation.draw(data, rng, most) for _ in range(20)]
    regions = [_choice_regions(x) if situation.method == "choice" else _regions(x) for x in samples]
    for n in _looks(most):
        if sum(_meets(situation.hours, region(n), limits) for region in regions) >= 19:
            return n
    return most


# q / q_0 of the first n judgments with a region that is made for this one sample size: estimate,
# low, high (levels,) each; None where there is none.
Regions = Callable[[int], tuple[Array, Array, Array] | None]


def _choice_regions(judged: Array) -> Regions:
    """As `measure`'s but for its blank judgment, of running sums: thousands are asked for."""
    sums = judged.cumsum(axis=0)

    def region(n: int) -> tuple[Array, Array, Array] | None:
        won = sums[n - 1]
        if won[0] == 0:
            return None
        low, high = np.ones(3), np.ones(3)
        for i in (1, 2):
            share, t = won[i] / (won[i] + won[0]), student_t(1 - 0.05 / 4, n - 1)
            ends = wilson(share, won[i] + won[0], t)
            low[i], high[i] = (end / (1 - end) for end in ends)
        return won / won[0], low, high

    return region


def _regions(judged: Array) -> Regions:
    def region(n: int) -> tuple[Array, Array, Array] | None:
        found = measure(judged[:n], method="pairwise", confidence=1 - 0.05 / 2).ratios
        whole = [r for r in found if isinstance(r, Interval)]
        value, low, high = (np.array([getattr(r, x) for r in whole]) for x in _ENDS)
        return value, low, high

    return region


_ENDS = ("value", "low", "high")


def _meets(
    hours: list[Hour], region: tuple[Array, Array, Array] | None, limits: tuple[float, float]
) -> bool:
    """Whether the regret of the plan at the estimate is within limits over the region."""
    if region is None:
        return False
    value, low, high = region
    plan = [_mix(hour, value) for hour in hours]
    if max(h.floor - low @ x for h, x in zip(hours, plan, strict=True)) > limits[1] * POINT:
        return False
    spent = sum(h.weight * np.dot(h.costs_g, x) for h, x in zip(hours, plan, strict=True))
    best = sum(h.weight * np.dot(h.costs_g, _mix(h, high)) for h in hours)
    return bool(spent / best - 1 <= limits[0])


def _mix(hour: Hour, ratios: Array) -> Array:
    top, dearest = float(ratios.max()), max(hour.costs_g)
    costs = [cost / dearest for cost in hour.costs_g]
    return np.array(closed_form(costs, (ratios / top).tolist(), hour.floor / top)[0])


# --- limits --------------------------------------------------------------------------------------

SIZES = (100, 300, 1000)
BATCH = 10  # prompts between two looks; the bounds keep the tightest of all looks


def limits(data: Recorded, runs: int) -> None:
    """Per situation runs x 3 starts of the grid, each zone in turn."""
    rng = np.random.default_rng(6)
    schedule = Config().evaluate.schedule
    print(
        f"\nRegret that is left over the region, median (90 % of evaluations): % of the grams, "
        f"points under the floor; and how many met {100 * schedule.stop_g_ratio:g} %, "
        f"{schedule.stop_points:g} points by then ({len(STARTS) * runs} evaluations each)"
    )
    print("| prompts of | " + " | ".join(f"{n:,}: grams | points | met" for n in SIZES) + " |")
    print("| --- |" + " --- |" * 3 * len(SIZES))
    one = np.eye(len(data.tasks))
    for name, shares in (
        ("all classes", data.mix.mean(axis=0)),
        *((task, one[c]) for c, task in enumerate(data.tasks)),
    ):
        found = np.array(
            [
                _regrets(data, rng, shares, ZONES[run % len(ZONES)], start)
                for run in range(runs)
                for start in STARTS
            ]
        )  # (evaluations, sizes, 2)
        # Once met, it has ended.
        met = (found[..., 0] <= schedule.stop_g_ratio) & (found[..., 1] <= schedule.stop_points)
        cells = []
        for k in range(len(SIZES)):
            grams, points = ((found[:, k, i] * (100, 1)[i]) for i in (0, 1))
            cells += [
                f"{np.median(x):.0f} ({np.quantile(x, 0.9):.0f})"
                if i == 0
                else f"{np.median(x):.1f} ({np.quantile(x, 0.9):.1f})"
                for i, x in enumerate((grams, points))
            ] + [f"{100 * met[:, : k + 1].any(axis=1).mean():.0f} %"]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def _regrets(
    data: Recorded, rng: np.random.Generator, shares: Array, zone: str, start: int
) -> Array:
    """(sizes, 2) g_ratio and points that are left after so many prompts."""
    situation = Situation("", np.ones(3), _horizon(data, shares, zone, start), shares, "pairwise")
    schedule = Config().evaluate.schedule
    rule = Stopping(
        situation.hours,
        method="pairwise",
        most_g_ratio=schedule.stop_g_ratio,
        most_points=schedule.stop_points,
    )
    judged = situation.draw(data, rng, max(SIZES))
    left = []
    for first in range(0, len(judged), BATCH):
        verdict = rule.update(judged[first : first + BATCH])
        if first + BATCH in SIZES:
            left.append((verdict.regret_g_ratio, verdict.violation_points))
    return np.array(left)


def _horizon(data: Recorded, shares: Array, zone: str, start: int) -> list[Hour]:
    """As `horizon.hours` makes them of a policy that is in force at an hour of the grid."""
    grid = data.grid[zone]
    trailing = grid[start - 168 : start]
    why = pb.Explanation(k0_min_g_per_kwh=min(trailing), k0_max_g_per_kwh=max(trailing), xi=XI)
    for level in range(3):
        wh = shares @ [data.wh[data.of == c, level].mean() for c in range(len(shares))]
        s = shares @ [data.seconds[data.of == c, level].mean() for c in range(len(shares))]
        why.profile.add(energy_joules=3600 * float(wh), device_seconds=float(s))
    return horizon.hours(
        pb.Policy(
            intensity=pb.Intensity(g_per_kwh=grid[start]),
            explanation=why,
            pue=1.0,
            embodied_g_per_s=EMBODIED_G_PER_S,
        )
    )


# --- leanings ------------------------------------------------------------------------------------


def logistic(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def bias(data: Recorded, runs: int) -> None:
    """Pairwise judges made from the recorded shares: level i beats L0 with odds q_i / q_0 of the
    class, times a prompt's own factor (log-normal, sigma 1)."""
    rng = np.random.default_rng(3)
    tokens = np.round(data.wh * 3600 / JOULES_PER_TOKEN)
    labels = [data.tasks[c] for c in data.of]
    found: dict[str, list[Array]] = {}

    def note(name: str, q: Array, truth: Array) -> None:
        found.setdefault(name, []).append(100 * (q - truth))

    for _ in range(runs):
        odds = np.log(data.q[:, 1:] / data.q[:, :1])[data.of]
        odds = odds + rng.standard_normal(odds.shape)
        p = logistic(odds)
        truth = 2 * p.mean(axis=0)
        lean = _leaning(odds, 0.2)
        for name, first, second in (
            ("adds 20 points", np.clip(p - 0.2, 0, 1), np.clip(p + 0.2, 0, 1)),
            (f"adds {lean:.1f} to the log-odds", logistic(odds - lean), logistic(odds + lean)),
        ):
            orders = (rng.random((*p.shape, 2)) < np.stack([first, second], axis=-1)).astype(float)
            note(f"position, {name}: L0 always first", 2 * orders[..., 0].mean(axis=0), truth)
            note(f"position, {name}: both orders", 2 * orders.mean(axis=(0, 2)), truth)
            note(
                f"position, {name}: without (logit)",
                position.without(orders).preferences[1:],
                truth,
            )
        more = tokens[:, 1:] - tokens[:, :1]
        prefers = logistic(odds + np.tanh(more / more.std()))
        scores = np.ones((len(p), 3))
        scores[:, 1:] = (rng.random((2, *p.shape)) < prefers).sum(axis=0)
        note("length, adds up to 1 to the log-odds: as judged", scores.mean(axis=0)[1:], truth)
        for name, given in (("without", None), ("without, by class", labels)):
            q = length.without(scores, tokens, labels=given).corrected.preferences[1:]
            note(f"length, adds up to 1 to the log-odds: {name}", q, truth)
    print("\nError of q in points (L1, L2): mean over runs of 6,000 prompts, and its sd")
    for name, errors in found.items():
        mean, sd = np.mean(errors, axis=0), np.std(errors, axis=0)
        print(f"| {name} | {mean[0]:+.1f} ± {sd[0]:.1f} | {mean[1]:+.1f} ± {sd[1]:.1f} |")
    _choices(data, runs, rng)


def _leaning(odds: Array, points: float) -> float:
    """What makes the first shown win `points` too often."""
    low, high = 0.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        first = (logistic(odds + middle) + 1 - logistic(odds - middle)).mean() / 2
        low, high = (middle, high) if first < 0.5 + points else (low, middle)
    return low


def _choices(data: Recorded, runs: int, rng: np.random.Generator) -> None:
    """Three-way choices of a judge who picks the first shown as often as the published one."""
    lean = np.log([0.486, 0.324, 0.190])
    utility = np.log(data.q)[data.of]
    truth = data.q[data.of].mean(axis=0)
    errors: dict[str, list[Array]] = {"balanced": [], "without (logit)": []}
    for _ in range(runs):
        at = np.argsort(rng.random(utility.shape), axis=1)
        won = (utility + lean[at] + rng.gumbel(size=utility.shape)).argmax(axis=1)
        found = choice.without(won, at)
        errors["balanced"].append(100 * (found.balanced - truth))
        errors["without (logit)"].append(100 * (found.preferences - truth))
    for name, values in errors.items():
        mean, sd = np.mean(values, axis=0), np.std(values, axis=0)
        cells = " | ".join(f"{m:+.2f} ± {s:.2f}" for m, s in zip(mean, sd, strict=True))
        print(f"| choice, position: {name} (q0, q1, q2) | {cells} |")


# --- shrinkage -----------------------------------------------------------------------------------


def shrinking(data: Recorded, runs: int) -> None:
    rng = np.random.default_rng(4)
    sizes = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    print(
        "\n| prompts in all | mean squared error, shrunk / own | small half | large half |", end=""
    )
    print(" amount small | large | ± 1.96 sd holds: own | shrunk |\n| --- |" + " --- |" * 7)
    for n in (60, 120, 300, 1000):
        own, shrunk = np.zeros(6), np.zeros(6)
        amount = np.zeros(6)
        held = np.zeros(2)
        for _ in range(runs):
            order = rng.permutation(6)  # the classes from the largest to the smallest
            counts = np.maximum(2, np.round(n * sizes)).astype(int)
            classes: list[Quality] = []
            for c, count in zip(order, counts, strict=True):
                pool = data.by_class[c]
                classes.append(
                    measure(
                        pool[rng.integers(len(pool), size=count)],
                        method="choice",
                        task=data.tasks[c],
                    )
                )
            after = shrinkage.shrink(classes).classes
            for k, (c, before, now) in enumerate(zip(order, classes, after, strict=True)):
                d0, d1 = before.preferences - data.q[c], now.preferences - data.q[c]
                own[k] += d0 @ d0
                shrunk[k] += d1 @ d1
                amount[k] += now.amount / runs
                held[0] += np.mean(np.abs(d0) <= 1.96 * np.sqrt(np.diag(before.covariance)))
                held[1] += np.mean(np.abs(d1) <= 1.96 * np.sqrt(np.diag(now.covariance)))
        held *= 100 / (6 * runs)
        parts = [shrunk.sum() / own.sum()] + [
            shrunk[k].sum() / own[k].sum() for k in (slice(3, 6), slice(0, 3))
        ]
        print(
            f"| {n} | "
            + " | ".join(f"{x:.2f}" for x in parts)
            + f" | {amount[3:].mean():.2f} | {amount[:3].mean():.2f} | {held[0]:.1f} % | "
            f"{held[1]:.1f} % |",
            flush=True,
        )


# --- cost ----------------------------------------------------------------------------------------


def cost(calls: int) -> None:
    """Of asking after each ten prompts, three levels."""
    rng = np.random.default_rng(5)
    for method, hours in (("choice", 1), ("pairwise", 1), ("pairwise", 24)):
        rule = Stopping(
            [Hour((1.2, 0.3, 0.2), 0.95)] * hours,
            method="choice" if method == "choice" else "pairwise",
            most_g_ratio=0.1,
            most_points=5,
        )
        seconds = []
        for _ in range(calls):
            if method == "choice":
                scores = np.eye(3)[rng.choice(3, size=10)]
            else:
                scores = _pairs(rng.choice([0, 0.5, 1, 1.5, 2], size=(10, 2)))
            start = time.perf_counter()
            rule.update(scores)
            seconds.append(time.perf_counter() - start)
        print(f"one call, {method}, {hours} h: {1000 * np.median(seconds):.1f} ms (median)")


def main() -> int:
    parser = argparse.ArgumentParser(description="q's statistics on the published preferences")
    names = ("coverage", "stopping", "limits", "bias", "shrinkage", "cost")
    parser.add_argument("parts", nargs="*", help="of " + ", ".join(names))
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs")
    options = parser.parse_args()
    unknown = set(options.parts) - set(names)
    if unknown:
        parser.error(f"no such part: {sorted(unknown)}")
    if not BUNDLE.is_dir():
        print(f"no replay data at {BUNDLE} (SPROUT_DATA)", file=sys.stderr)
        return 1
    data = Recorded()
    few = 10 if options.quick else 1
    parts: dict[str, Callable[[], None]] = {
        "coverage": lambda: coverage(data, 2000 // few),
        "bias": lambda: bias(data, 20 // few),
        "shrinkage": lambda: shrinking(data, 300 // few),
        "cost": lambda: cost(100),
        "limits": lambda: limits(data, 20 // few),
        "stopping": lambda: stopping(data, 10 // few, 40_000),
    }
    for name, part in parts.items():
        if not options.parts or name in options.parts:
            part()
    return 0


if __name__ == "__main__":
    sys.exit(main())
