# SPDX-License-Identifier: Apache-2.0
"""The one price at which a mean is met: `prompt.solve` for a single row, in a few passes.

A dearer price buys more of the gain, so the price is bracketed. Each pass asks for K prices at
once, all between the ends, and keeps the two neighbours that the target lies between: evenly
spread ones, so that the bracket narrows K-fold whatever the prompts are; the one at which both ends
cost the same, which is the atom's own where a single one lies between; and the one at which the
line between the ends meets the target. Prompts that tie at the price are split by a fraction: the
answer is a blend of both ends. At any price y

    mean cost + y (least - mean gain)

is no more than the optimum, which says when to end and how far off the answer can be.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sprout.errors import InfeasibleError
from sprout.optimize.means import Device, Means
from sprout.optimize.prompt import ENOUGH, SHARE, Prices, Row, Solution, check_scores
from sprout_ext.price_table import MOST_PRICES

Array = NDArray[np.float64]

MOST_PASSES = 60
# Of a pass. On a GPU more prices cost next to nothing until its arithmetic is as long as its
# reading; on the CPU each costs its own.
TOGETHER: dict[Device, int] = {"cpu": 8, "cuda": 32}
WIDE = 1e6  # about the mean cost over the mean gain: where the first pass looks
TOP = 1e18  # a price at which the gain alone counts, and the cost of what ties
STEEP = 2.0  # ends so far apart are divided up in their logarithm


@dataclass(frozen=True)
class _Units:
    cost: float  # grams
    gain: float

    @property
    def price(self) -> float:
        return self.cost / self.gain


@dataclass(frozen=True)
class _Point:
    """All in units that make them about 1: `_Units`."""

    price: float
    cost: float
    gain: float


def meet(
    costs_g: Array, weights: Array, row: Row, *, device: Device = "cpu", together: int | None = None
) -> Solution:
    """As `prompt.solve` with this row alone. together: prices of a pass, 4 to `MOST_PRICES`.

    ValueError for impossible numbers; InfeasibleError says by how much the row can't be met;
    PrerequisiteError where "cuda" can't be had.
    """
    check_scores(costs_g, weights, [row])
    many = TOGETHER[device] if together is None else together
    if not 4 <= many <= MOST_PRICES:
        raise ValueError(f"together is {many}: 4 to {MOST_PRICES}")
    w = weights / weights.sum()
    cost, gain = (float(np.abs(w @ each).max()) for each in (costs_g, row.gains))
    units = _Units(cost or 1.0, max(gain, 1e-12))
    means = Means(costs_g, weights, [row.gains], device)
    least = row.least / units.gain

    def points(prices: Array) -> list[_Point]:
        found = means.at(prices[:, None] * units.price) / (units.cost, units.gain)
        return [_Point(p, *v) for p, v in zip(prices.tolist(), found.tolist(), strict=True)]

    def bound(point: _Point) -> float:
        return point.cost + point.price * (least - point.gain)

    grid = np.geomspace(1 / WIDE, WIDE, many - 2)
    known = points(np.concatenate([[0.0], grid, [TOP]]))
    passes, best = 1, max(known, key=bound)
    low, high = _around(known, least)
    if low is None:
        return _solution(row, units, [(known[0], 1.0)], marginal=0.0, gap=0.0, passes=1)
    if high is None:
        lacks = least - known[-1].gain
        if lacks > 10 * ENOUGH:
            raise InfeasibleError(
                f"{row.name}: {row.least:.6g} is {lacks * units.gain:.6g} more than can be had"
            )
        high = low = known[-1]
    while True:
        part = (least - low.gain) / (high.gain - low.gain) if high.gain > low.gain else 1.0
        gap = max((1 - part) * low.cost + part * high.cost - bound(best), 0.0)
        between = _between(low, high, least, many)
        if gap <= ENOUGH or len(between) == 0 or passes == MOST_PASSES:
            blend = [(low, 1 - part), (high, part)]
            return _solution(row, units, blend, marginal=best.price, gap=gap, passes=passes)
        found = points(between)
        passes, best = passes + 1, max(best, *found, key=bound)
        low, high = _ends(_around([low, *found, high], least))


def _around(points: list[_Point], least: float) -> tuple[_Point | None, _Point | None]:
    """The first that has the target, and the one before; of points by price."""
    for before, point in zip([None, *points], points, strict=False):
        if point.gain >= least:
            return before, point
    return points[-1], None


def _ends(found: tuple[_Point | None, _Point | None]) -> tuple[_Point, _Point]:
    low, high = found
    assert low is not None
    assert high is not None
    return low, high


def _between(low: _Point, high: _Point, least: float, many: int) -> Array:
    """Prices strictly between, ascending; none where no number lies between."""
    if low.price > 0 and high.price > STEEP * low.price:
        even = np.geomspace(low.price, high.price, many)[1:-1]
    else:
        even = np.linspace(low.price, high.price, many)[1:-1]
    rise = high.gain - low.gain
    own = []
    if rise > 0:
        own.append((high.cost - low.cost) / rise)
        own.append(low.price + (high.price - low.price) * (least - low.gain) / rise)
    found: Array = np.unique(np.concatenate([even, own]))
    return found[(found > low.price) & (found < high.price)]


def _solution(
    row: Row,
    units: _Units,
    blend: list[tuple[_Point, float]],
    *,
    marginal: float,
    gap: float,
    passes: int,
) -> Solution:
    """blend: ends and their shares."""
    used = [(point, share) for point, share in blend if share > SHARE]
    fractions = np.array([share for _, share in used])
    fractions /= fractions.sum()
    vectors = np.array([[point.price * units.price] for point, _ in used])
    cost = float(fractions @ [point.cost for point, _ in used]) * units.cost
    reached = np.array([float(fractions @ [point.gain for point, _ in used]) * units.gain])
    return Solution(
        Prices((row.name,), vectors, fractions),
        np.array([marginal * units.price]),
        cost,
        reached,
        gap * units.cost,
        passes,
    )
