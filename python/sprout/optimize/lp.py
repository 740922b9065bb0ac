# SPDX-License-Identifier: Apache-2.0
"""The hourly linear program of arXiv 2403.12900: which share of requests gets each level.

    minimise  c . x      c (levels,)  grams of CO2e per request at each level
    subject   q . x >= floor           q (levels,)  preference share of each level
              sum x = 1, lower <= x <= upper      0 and 1 unless there are caps

HiGHS solves it by dual simplex, in a model that is kept and changed in place. One inequality leaves
at most two levels off their bounds, so the optimum is also known by enumeration. The two are
compared each time. The enumeration's answer is the one that is used: plain arithmetic, feasible by
construction, and the same for the same inputs whatever was solved before, so that a stored decision
can be solved again. Where the two differ, `Solution.mismatch` says how. Where several mixes are
equally cheap HiGHS may stop at any; the enumeration picks that of the highest preference.

The shares are of the requests that are *under the policy*: the control group gets L0 by a draw of
its own before levels are drawn. It is deliberately not counted towards the floor, so that the
treated requests meet the floor by themselves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sprout.errors import InfeasibleError
from sprout.optimize.caps import NO_CAPS, Caps
from sprout.optimize.closed_form import TOLERANCE, closed_form, dot, most_preferred
from sprout.optimize.program import INFINITY, OPTIMAL, Found, Program

SUM, FLOOR = 0, 1  # the rows


@dataclass(frozen=True)
class Solution:
    """The cheapest feasible mix; among equally cheap ones, that of the highest preference."""

    shares: tuple[float, ...]  # (levels,), sums to 1
    # "quality": the floor costs something; "caps": they alone do, least shares aside (those are
    # explored on purpose); "none": nothing does.
    active: str
    # What the last point of the floor cost, >= 0: grams per request that a floor lower by one point
    # (0.01 q0) would save. 0 where the floor does not bind.
    price_g_per_point: float
    status: str  # HiGHS's own word
    binding_caps: tuple[str, ...] = ()  # "least L2", "most L1", "step L1", ...
    mismatch: str | None = None  # how HiGHS and the closed form differ; None: they agree


class PaperModel:
    """The program for a number of levels, warm. For one thread at a time."""

    def __init__(self, levels: int) -> None:
        if levels < 1:
            raise ValueError(f"at least one level is needed: {levels}")
        self.levels = levels
        self._bounds = self._free = ((0.0,) * levels, (1.0,) * levels)
        self._program = Program(
            costs=np.zeros(levels),
            lower=np.zeros(levels),
            upper=np.ones(levels),
            row_lower=np.array([1.0, 0.0]),
            row_upper=np.array([1.0, INFINITY]),
            starts=np.array([0, levels, 2 * levels], dtype=np.int32),
            indices=np.tile(np.arange(levels, dtype=np.int32), 2),
            # A coefficient of 0 would be dropped, and so could not be changed in place.
            values=np.ones(2 * levels),
        )
        self._q = [1.0] * levels

    def solve(
        self,
        costs: Sequence[float],
        preferences: Sequence[float],
        floor: float,
        caps: Caps = NO_CAPS,
        previous: Sequence[float] | None = None,
    ) -> Solution:
        """Solve for costs (levels,) >= 0 in g, preferences (levels,) >= 0 and floor = q_lb.

        `previous` (levels,) is the mix that `caps.step` is counted from; None: no limit.
        Raises ValueError for lengths that differ and negative or non-finite numbers;
        InfeasibleError if no mix within the caps meets the floor: by how much, and what is in the
        way.
        """
        _check(costs, preferences, floor, self.levels)
        free = caps is NO_CAPS or caps == NO_CAPS
        bounds = self._free if free else caps.bounds(self.levels, previous)
        # HiGHS's tolerances are absolute and a request costs some 1e-5 g: scale to about 1.
        cost_scale = max(costs) or 1.0
        q_scale = max(preferences) or 1.0
        c = [cost / cost_scale for cost in costs]
        q = [preference / q_scale for preference in preferences]
        most = max(q) if free else dot(q, most_preferred(c, q, *bounds))
        wanted = floor / q_scale
        if wanted > most + TOLERANCE:
            raise InfeasibleError(
                _why(preferences, floor, most * q_scale, None if free else caps, previous)
            )
        wanted = min(wanted, most)

        shares, price = closed_form(c, q, wanted, *(() if free else bounds))
        found = self._highs(c, q, wanted, bounds)
        mismatch = None
        if found.status != OPTIMAL:
            mismatch = f"HiGHS: {found.status}"
        else:
            gap, short = found.objective - dot(c, shares), wanted - dot(q, found.x)
            if abs(gap) > 10 * TOLERANCE or short > 10 * TOLERANCE:
                mismatch = (
                    f"HiGHS costs {gap * cost_scale:+.3g} g against the closed form, "
                    f"floor missed by {max(short, 0.0) * q_scale:.3g}"
                )
        if price > TOLERANCE:
            active = "quality"
        else:
            price = 0.0
            # Off the cheapest level by more than the exploration shares, which are no limit.
            held = not free and dot(c, shares) > min(c) + TOLERANCE
            active = "caps" if held and self._held(c, q, caps, previous) else "none"
        return Solution(
            shares,
            active,
            price_g_per_point=price * cost_scale / q_scale * preferences[0] / 100,
            status=found.status,
            binding_caps=() if free else caps.binding(shares, previous),
            mismatch=mismatch,
        )

    def _held(
        self, c: list[float], q: list[float], caps: Caps, previous: Sequence[float] | None
    ) -> bool:
        """Whether the largest shares or the step keep a mix from the cheapest level."""
        try:
            limits = replace(caps, least=None).bounds(self.levels, previous)
        except (
            InfeasibleError
        ):  # they leave so little that there is a mix by the least shares alone
            return True
        return dot(c, closed_form(c, q, 0.0, *limits)[0]) > min(c) + TOLERANCE

    def _highs(
        self,
        c: list[float],
        q: list[float],
        floor: float,
        bounds: tuple[tuple[float, ...], tuple[float, ...]],
    ) -> Found:
        program = self._program
        program.set_costs(np.array(c))
        if bounds != self._bounds:
            program.set_bounds(np.array(bounds[0]), np.array(bounds[1]))
            self._bounds = bounds
        if q != self._q:
            for i, value in enumerate(q):
                program.set_value(FLOOR, i, value)
            self._q = q
        program.set_row(FLOOR, floor, INFINITY)
        return program.run_twice()


def solve(
    costs: Sequence[float],
    preferences: Sequence[float],
    floor: float,
    caps: Caps = NO_CAPS,
    previous: Sequence[float] | None = None,
) -> Solution:
    """`PaperModel.solve` with a model of its own: for callers that solve once."""
    if not costs:
        raise ValueError("0 costs: want as many as preferences, >= 1")
    return PaperModel(len(costs)).solve(costs, preferences, floor, caps, previous)


def _why(
    preferences: Sequence[float],
    floor: float,
    most: float,
    caps: Caps | None,
    previous: Sequence[float] | None,
) -> str:
    """Which constraint leaves no mix, and by how much."""
    top = max(preferences)
    if caps is None or top < floor:
        return (
            f"quality floor {floor:.4f} is above every level's preference (at most {top:.4f}), "
            f"by {floor - top:.4f}"
        )
    enough = [
        name
        for name, fewer in caps.without().items()
        if _most(preferences, fewer, previous) >= floor
    ]
    way = " or ".join(enough) + ("" if len(enough) > 1 else " alone") if enough else "several caps"
    return (
        f"quality floor {floor:.4f} is {floor - most:.4f} above the most that the caps allow "
        f"({most:.4f}); in the way: {way}"
    )


def _most(preferences: Sequence[float], caps: Caps, previous: Sequence[float] | None) -> float:
    try:
        bounds = caps.bounds(len(preferences), previous)
    except InfeasibleError:
        return -math.inf
    return dot(preferences, most_preferred(preferences, preferences, *bounds))


def _check(costs: Sequence[float], preferences: Sequence[float], floor: float, levels: int) -> None:
    if not len(costs) == len(preferences) == levels:
        raise ValueError(
            f"{len(costs)} costs, {len(preferences)} preferences: want as many, {levels}"
        )
    for what, values in (("cost", costs), ("preference", preferences), ("floor", (floor,))):
        for v in values:
            if not 0 <= v < math.inf:  # nan is neither
                raise ValueError(f"{what} must be finite and not negative: {list(values)}")
