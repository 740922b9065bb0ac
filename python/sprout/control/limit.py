# SPDX-License-Identifier: Apache-2.0
"""What the mixes of one hour cost for, where several are decided together: as in Plan."""

import math
from dataclasses import replace

from sprout.optimize.caps import NO_CAPS
from sprout.optimize.greedy import most_preferred
from sprout.optimize.problem import Problem, Solution

FREE = 1e-9  # of a level's cost: what it costs less than is nothing


def limit(problem: Problem, found: Solution, price_g_per_point: float) -> str:
    """problem: as it was solved, with the caps of each row.

    Exploration shares are no limit, as in `optimize.lp`: they are explored on purpose.
    """
    scale = float(problem.costs_g.max()) or 1.0
    if price_g_per_point > FREE * scale or not math.isfinite(price_g_per_point):
        return "quality"
    nothing = FREE * scale * float(problem.requests.sum())
    if found.expected_g > _cheapest_g(problem) + nothing:
        return "minima"
    without = replace(problem, caps=tuple(replace(own, least=None) for own in problem.class_caps))
    free = replace(problem, caps=NO_CAPS)
    return "caps" if _cheapest_g(without) > _cheapest_g(free) + nothing else "none"


def _cheapest_g(problem: Problem) -> float:
    """Of the cheapest mixes within the caps, whatever their quality."""
    c = problem.costs_g
    mixes = most_preferred(-c, c, *problem.bounds)
    return float((problem.requests[..., None] * c * mixes).sum())
