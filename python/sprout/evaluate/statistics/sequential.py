# SPDX-License-Identifier: Apache-2.0
"""When there are judgments enough: the plan's regret is small wherever q may be.

The plan at an hour is the x of the linear program at the q estimated. Over the region of q / q_0
that the judgments leave (`region.Region`, valid at every moment) it can be wrong in two ways:

    violation  most over the region of  tau - x . q / q_0                 points of preference
    excess     most over the region of  c . x / c . x*(q) - 1             x*(q) the optimum at q

A level that is better than thought makes the program's feasible set larger and its optimum cheaper,
and a level that is worse makes x's preference lower. So with bounds per level the first is attained
where every level is at its lowest, the second where every level is at its highest: one solve each,
exactly. Over several hours (intensity and floor differ) the same region serves all: the excess is
that of all their grams together, the violation that of the worst.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sprout.evaluate.statistics.quality import Method
from sprout.evaluate.statistics.region import Region
from sprout.optimize.lp import PaperModel
from sprout.optimize.problem import POINT

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Hour:
    """What the plan is made for."""

    costs_g: tuple[float, ...]  # (levels,) CO2e per request
    floor: float  # tau = q_lb / q_0, in [0, 1]
    weight: float = 1.0  # requests expected, up to a factor


@dataclass(frozen=True)
class Regret:
    """Of a plan, at its worst over a region."""

    g_ratio: float  # excess over the optimum's grams, >= 0
    points: float  # violation of the floor in the worst hour, >= 0


@dataclass(frozen=True)
class Verdict:
    stop: bool
    regret_g_ratio: float  # inf before there is a plan
    violation_points: float
    why: str  # for people
    judged: int
    shares: tuple[tuple[float, ...], ...]  # (hours, levels) the plan; () before there is one
    low: tuple[float, ...]  # (levels,) of q_i / q_0, together and at every moment
    high: tuple[float, ...]


class Stopping:
    """To be asked after each batch. For one thread at a time."""

    def __init__(
        self,
        hours: Sequence[Hour],
        *,
        method: Method,
        most_g_ratio: float,
        most_points: float,
        alpha: float = 0.05,
        most_weight: float = 1.0,
    ) -> None:
        """Stop once excess <= `most_g_ratio` and violation <= `most_points`, with confidence
        1 - alpha. ValueError for no hours, or hours of different levels, or limits <= 0.
        """
        if not hours:
            raise ValueError("no hour to plan for")
        self._levels = len(hours[0].costs_g)
        if any(len(hour.costs_g) != self._levels for hour in hours):
            raise ValueError("the hours have different numbers of levels")
        for hour in hours:
            if not (0 <= hour.floor <= 1 and 0 < hour.weight < math.inf):
                raise ValueError(f"floor must be in [0, 1] and weight finite and above 0: {hour}")
            if not all(0 < cost < math.inf for cost in hour.costs_g):
                raise ValueError(f"costs must be finite and above 0: {hour.costs_g}")
        if not (most_g_ratio > 0 and most_points > 0):
            raise ValueError("regret of 0 is never reached: both limits must be above 0")
        self._hours = tuple(hours)
        self._most_g_ratio, self._most_points = most_g_ratio, most_points
        self._model = PaperModel(self._levels)
        self.region = Region(
            self._levels,
            method=method,
            alpha=alpha,
            aim=most_points * POINT,
            most_weight=most_weight,
        )

    def update(
        self,
        scores: ArrayLike,
        weights: ArrayLike | None = None,
        shares: Sequence[Sequence[float]] | None = None,
    ) -> Verdict:
        """Take in what was judged since the last call, (n, levels) and (n,), and say what now.

        `shares` (hours, levels) is the plan in force, None: the program's at the present estimate.
        """
        self.region.add(scores, weights)
        region = self.region
        low, high = tuple(region.low.tolist()), tuple(region.high.tolist())

        def verdict(
            why: str,
            regret: Regret = Regret(math.inf, math.inf),
            plan: Sequence[Sequence[float]] = (),
            *,
            stop: bool = False,
        ) -> Verdict:
            x = tuple(tuple(map(float, row)) for row in plan)
            return Verdict(stop, regret.g_ratio, regret.points, why, region.judged, x, low, high)

        q = region.preferences
        if region.judged == 0:
            return verdict("no prompt was judged")
        if q[0] == 0:
            return verdict("L0 never won yet: nothing can be relative to it")
        if region.contradicts_itself:
            return verdict("judgments contradict earlier ones: have the requests changed?")
        plan = shares if shares is not None else self.plan(np.clip(q / q[0], low, high))
        regret = self.regret(plan, region.low, region.high)
        stop = regret.g_ratio <= self._most_g_ratio and regret.points <= self._most_points
        return verdict(self._why(regret, stop=stop), regret, plan, stop=stop)

    def plan(self, ratios: Array) -> list[tuple[float, ...]]:
        """(hours, levels) the program's mixes at q / q_0 = ratios (levels,), ratios[0] = 1."""
        r = ratios.tolist()
        return [self._model.solve(hour.costs_g, r, hour.floor).shares for hour in self._hours]

    def regret(self, plan: Sequence[Sequence[float]], low: Array, high: Array) -> Regret:
        """Of a plan (hours, levels) over low <= q / q_0 <= high, (levels,) each; high may be inf.

        ValueError if the plan has another shape.
        """
        if len(plan) != len(self._hours) or any(len(x) != self._levels for x in plan):
            raise ValueError(f"the plan is not for {len(self._hours)} hours, {self._levels} levels")
        planned = self._grams(plan)
        if np.isfinite(high).all():
            best = self._grams(self.plan(high))
        else:  # as good as one likes: then next to nothing but the cheapest is needed
            best = math.fsum(hour.weight * min(hour.costs_g) for hour in self._hours)
        worst = max(hour.floor - float(low @ x) for hour, x in zip(self._hours, plan, strict=True))
        return Regret(max(0.0, planned / best - 1), max(0.0, worst / POINT))

    def _grams(self, plan: Sequence[Sequence[float]]) -> float:
        return math.fsum(
            hour.weight * cost * x
            for hour, mix in zip(self._hours, plan, strict=True)
            for cost, x in zip(hour.costs_g, mix, strict=True)
        )

    def _why(self, regret: Regret, *, stop: bool) -> str:
        """Both kinds of regret beside their limits."""
        grams = f"{100 * regret.g_ratio:.1f} % of the grams ({100 * self._most_g_ratio:g} %)"
        points = f"{regret.points:.1f} points under the floor ({self._most_points:g})"
        return f"regret {'within' if stop else 'not yet within'} limits: {grams}, {points}"
