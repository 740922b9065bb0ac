# SPDX-License-Identifier: Apache-2.0
"""How many judgments stopping in time saves, against samples of a fixed size."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from _evaluation import Array, Recorded, Situation, by_class, by_class_pairwise, by_hour, pairs

from sprout.evaluate.statistics.quality import measure, wilson
from sprout.evaluate.statistics.sequential import Hour, Stopping
from sprout.optimize.closed_form import closed_form
from sprout.proof.interval import Interval, student_t

POINT = 0.01


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
    stops = [stopped(data, s, limits, most, rng) for s in situations for _ in range(runs)]
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


def stopped(
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
                scores = pairs(rng.choice([0, 0.5, 1, 1.5, 2], size=(10, 2)))
            start = time.perf_counter()
            rule.update(scores)
            seconds.append(time.perf_counter() - start)
        print(f"one call, {method}, {hours} h: {1000 * np.median(seconds):.1f} ms (median)")
