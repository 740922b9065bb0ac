# SPDX-License-Identifier: Apache-2.0
"""The hourly linear program of arXiv 2403.12900: which share of requests gets each level.

    minimise  c . x      c (levels,)  grams of CO2e per request at each level
    subject   q . x >= floor           q (levels,)  preference share of each level
              sum x = 1, 0 <= x <= 1

HiGHS solves it by dual simplex. One inequality leaves at most two levels non-zero, so the optimum
is also known by enumeration: the best of all feasible single levels and of all pairs that straddle
the floor. The two are compared each time. Where they differ the enumeration's answer is used, which
is plain arithmetic and feasible by construction, and `Solution.mismatch` says so. Where several
mixes are equally cheap HiGHS may return any; the enumeration picks that of the highest preference.

The shares are of the requests that are *under the policy*: the control group gets L0 by a draw of
its own before levels are drawn. It is deliberately not counted towards the floor, so that the
treated requests meet the floor by themselves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import highspy
import numpy as np

from sprout.errors import InfeasibleError

# Relative to the largest cost or preference: what floating point may differ by.
TOLERANCE = 1e-7


@dataclass(frozen=True)
class Solution:
    """The cheapest feasible mix; among equally cheap ones, that of the highest preference."""

    shares: tuple[float, ...]  # (levels,), sums to 1
    active: str  # "quality": the floor costs something; "none": it does not
    mismatch: str | None = None  # how HiGHS and the closed form differ; None: they agree


def solve(costs: Sequence[float], preferences: Sequence[float], floor: float) -> Solution:
    """Solve for costs (levels,) >= 0 and preferences (levels,) >= 0.

    Raises ValueError for lengths that differ, nothing at all, negative or non-finite numbers;
    InfeasibleError if the floor is above every level's preference.
    """
    _check(costs, preferences, floor)
    # HiGHS's tolerances are absolute (1e-7) and a request costs some 1e-5 g: scale to about 1.
    cost_scale = max(costs) or 1.0
    preference_scale = max(preferences) or 1.0
    c = [cost / cost_scale for cost in costs]
    q = [preference / preference_scale for preference in preferences]
    bound = floor / preference_scale
    if bound > max(q) + TOLERANCE:
        raise InfeasibleError(
            f"quality floor {floor:.4f} is above every level's preference (at most "
            f"{max(preferences):.4f})"
        )
    bound = min(bound, max(q))

    exact = closed_form(c, q, bound)
    shares, mismatch = exact, None
    try:
        found = _highs(c, q, bound)
    except RuntimeError as error:
        mismatch = f"HiGHS: {error}"
    else:
        gap = _dot(c, found) - _dot(c, exact)
        short = bound - _dot(q, found)
        if abs(gap) > 10 * TOLERANCE or short > 10 * TOLERANCE:
            mismatch = (
                f"HiGHS costs {gap * cost_scale:+.3g} against the closed form, "
                f"floor missed by {max(short, 0.0) * preference_scale:.3g}"
            )
        elif max(abs(x - y) for x, y in zip(found, exact, strict=True)) < 1e-6:
            shares = found  # not a tie
    active = "quality" if _dot(c, shares) > min(c) + TOLERANCE else "none"
    return Solution(shares, active, mismatch)


def closed_form(c: Sequence[float], q: Sequence[float], floor: float) -> tuple[float, ...]:
    """The optimum by enumeration; ties go to the higher preference, then to the earlier level."""
    levels = range(len(c))
    candidates = [_unit(len(c), {i: 1.0}) for i in levels if q[i] >= floor - TOLERANCE]
    for a, b in product(levels, levels):
        if q[a] >= floor > q[b]:
            t = (floor - q[b]) / (q[a] - q[b])
            candidates.append(_unit(len(c), {a: t, b: 1.0 - t}))
    if not candidates:
        raise InfeasibleError(f"quality floor {floor:.4f} is above every level's preference")
    best = min(_dot(c, x) for x in candidates)
    ties = [x for x in candidates if _dot(c, x) <= best + 1e-9 * (1.0 + abs(best))]
    return max(ties, key=lambda x: (round(_dot(q, x), 9), x))


def _highs(c: Sequence[float], q: Sequence[float], floor: float) -> tuple[float, ...]:
    """(levels,) shares by dual simplex. RuntimeError unless optimal."""
    n = len(c)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = n, 2
    lp.col_cost_ = np.asarray(c, dtype=np.float64)
    lp.col_lower_, lp.col_upper_ = np.zeros(n), np.ones(n)
    lp.row_lower_ = np.array([1.0, floor])
    lp.row_upper_ = np.array([1.0, highspy.kHighsInf])
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.array([0, n, 2 * n])
    lp.a_matrix_.index_ = np.tile(np.arange(n), 2)
    lp.a_matrix_.value_ = np.concatenate([np.ones(n), np.asarray(q, dtype=np.float64)])
    highs = highspy.Highs()  # type: ignore[no-untyped-call]
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("threads", 1)
    highs.setOptionValue("solver", "simplex")
    highs.setOptionValue("simplex_strategy", 1)  # dual, serial
    highs.passModel(lp)
    highs.run()
    status = highs.getModelStatus()
    if status != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(highs.modelStatusToString(status))
    # Simplex noise around 0 is no share.
    shares = [x if (x := float(v)) > 1e-12 else 0.0 for v in highs.getSolution().col_value]
    total = math.fsum(shares)
    return tuple(x / total for x in shares)


def _check(costs: Sequence[float], preferences: Sequence[float], floor: float) -> None:
    if not costs or len(costs) != len(preferences):
        raise ValueError(f"{len(costs)} costs, {len(preferences)} preferences: want as many, >= 1")
    for what, values in (("cost", costs), ("preference", preferences), ("floor", [floor])):
        if any(not math.isfinite(v) or v < 0 for v in values):
            raise ValueError(f"{what} must be finite and not negative: {list(values)}")


def _unit(n: int, parts: dict[int, float]) -> tuple[float, ...]:
    return tuple(parts.get(i, 0.0) for i in range(n))


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))
