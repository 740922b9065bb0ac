# SPDX-License-Identifier: Apache-2.0
"""The linear program with a variable per prompt and level, solved by its prices.

    minimise  sum_i w_i  c_i . x_i                    c (n, L) grams, w (n,) weights
    subject   sum_i w_i  a_ri . x_i  >=  b_r          each row r: what must be had on the mean
              x_i a mix of the levels                 each prompt i

Rows are whatever is linear in the prompts' levels: a mean preference (a = q / q0), the same of one
hour's prompts, of one class's, or a cap on a level (a = -1 there, b = minus the cap). At prices
y >= 0 of the rows each prompt goes its own way:

    argmin_l  c_il - sum_r y_r a_ril                  the cheaper level if tied, then the lower

which is the rule that a request path applies to prompts that it has never seen; that is what the
program is solved for. Everybody on one vector of prices seldom meets the rows exactly: prompts tied
at a price are atoms. So the answer is a *blend*: with a published probability one vector of prices,
else another (at most one more than there are rows).

Method: Dantzig and Wolfe's decomposition (Operations Research 8, 1960). A master program (HiGHS)
blends the policies found so far; its duals are the next prices; the policy that they make joins in,
until none could gain. Each round costs one argmin over (n, L), on the CPU or a GPU (`means`), and
bounds the optimum from below: the answer says by how much it can be off. One row alone is met in
fewer passes by `price.meet`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sprout.errors import InfeasibleError
from sprout.optimize.means import Device, Means
from sprout.optimize.program import INFINITY, Program

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

ENOUGH = 1e-9  # of the largest mean cost of a level: where rounds end
MOST_ROUNDS = 500
MUCH = 1e9  # prices at which a cost decides ties alone
SHARE = 1e-9  # a policy blended in by less is rounding


@dataclass(frozen=True, eq=False)
class Row:
    name: str
    gains: Array  # (n, L)
    least: float


@dataclass(frozen=True, eq=False)
class Prices:
    """What the request path needs. K vectors, R rows."""

    rows: tuple[str, ...]  # (R,)
    vectors: Array  # (K, R) grams per unit of each row's gain, >= 0
    fractions: Array  # (K,) of requests, sums to 1

    def choose(self, costs_g: Array, gains: Sequence[Array], draws: Array) -> Indices:
        """Levels (n,) at costs and gains (n, L) each, by uniform draws (n,) in [0, 1)."""
        cuts = np.cumsum(self.fractions)[:-1]
        vector = np.searchsorted(cuts, draws, side="right")
        levels = np.empty(len(costs_g), dtype=np.int64)
        for k, prices in enumerate(self.vectors):
            own = vector == k
            levels[own] = cheapest(costs_g[own], [g[own] for g in gains], prices)
        return levels


@dataclass(frozen=True, eq=False)
class Solution:
    prices: Prices
    marginal: Array  # (R,) grams that one more unit of each row's right side costs
    cost_g: float  # weighted mean per prompt
    reached: Array  # (R,) left sides
    gap_g: float  # the optimum is at most so much lower
    rounds: int


def cheapest(costs_g: Array, gains: Sequence[Array], prices: Array) -> Indices:
    """(n,) the level that each prompt takes at these prices."""
    reduced = costs_g.copy()
    for gain, price in zip(gains, prices, strict=True):
        if price:
            reduced -= price * gain
    tied = reduced == reduced.min(axis=1, keepdims=True)
    found: Indices = np.where(tied, costs_g, np.inf).argmin(axis=1)
    return found


def solve(
    costs_g: Array, weights: Array, rows: Sequence[Row], *, device: Device = "cpu"
) -> Solution:
    """ValueError for impossible numbers, more than 64 rows (8 on "cuda"), more than 8 levels;
    InfeasibleError names a row that can't be met with the others, and by how much;
    PrerequisiteError where "cuda" can't be had."""
    check_scores(costs_g, weights, rows)
    w = weights / weights.sum()
    scale = float((w @ costs_g).max()) or 1.0
    blend = _Blend(costs_g / scale, w, rows, device)
    rounds = blend.rounds(lacking=True)
    blend.must_meet(rows)
    rounds += blend.rounds(lacking=False)
    found = blend.master(lacking=False)
    used = np.flatnonzero(found.shares > SHARE)
    fractions = found.shares[used] / found.shares[used].sum()
    vectors = np.array([blend.vectors[k] for k in used]).reshape(len(used), len(rows)) * scale
    points = np.array([blend.points[k] for k in used])
    prices = Prices(tuple(row.name for row in rows), vectors, fractions)
    mean = fractions @ points
    return Solution(
        prices, found.prices * scale, float(mean[0]) * scale, mean[1:], blend.gap * scale, rounds
    )


@dataclass(frozen=True, eq=False)
class _Found:
    shares: Array  # (K,)
    prices: Array  # (R,)
    constant: float  # the dual of "shares sum to 1"
    objective: float
    lacks: Array  # (R,)


class _Blend:
    """Policies found so far: each the prices that made it, and the point (cost, gains) it is."""

    def __init__(self, costs: Array, weights: Array, rows: Sequence[Row], device: Device) -> None:
        gains = [row.gains for row in rows]
        self._means = Means(costs, weights, gains, device)
        self._least = np.array([row.least for row in rows])
        # So that prices are about 1 too, whatever the rows' units.
        self._size = np.array([max(float(np.abs(weights @ g).max()), 1e-12) for g in gains])
        self.vectors: list[Array] = []
        self.points: list[Array] = []
        self.gap = 0.0
        self._add(np.zeros(len(rows)))

    def rounds(self, *, lacking: bool) -> int:
        """Until no policy could gain. `lacking`: minimise what the rows lack, not the cost."""
        for number in range(1, MOST_ROUNDS + 1):
            found = self.master(lacking=lacking)
            if lacking and found.objective <= ENOUGH:
                return number
            point = self._add(found.prices * (MUCH if lacking else 1.0))
            value = (0.0 if lacking else point[0]) - float(found.prices @ point[1:])
            self.gap = max(found.constant - value, 0.0)
            if self.gap <= ENOUGH:
                return number
        return MOST_ROUNDS

    def must_meet(self, rows: Sequence[Row]) -> None:
        found = self.master(lacking=True)
        if found.objective > 10 * ENOUGH:
            worst = int(np.argmax(found.lacks / self._size))
            row = rows[worst]
            raise InfeasibleError(
                f"{row.name}: {row.least:.6g} is {found.lacks[worst]:.6g} more than can be had "
                "together with the other rows"
            )

    def master(self, *, lacking: bool) -> _Found:
        """The best blend: shares >= 0 that sum to 1, and what each row still lacks >= 0."""
        count, rows = len(self.points), len(self._least)
        points = np.array(self.points)
        matrix = np.zeros((rows + 1, count + rows))
        matrix[0, :count] = 1.0
        matrix[1:, :count] = points[:, 1:].T / self._size[:, None]
        matrix[1:, count:] = np.eye(rows)
        costs = np.concatenate([np.zeros(count) if lacking else points[:, 0], np.ones(rows)])
        upper = np.full(count + rows, INFINITY)
        if not lacking:
            upper[count:], costs[count:] = 10 * ENOUGH, 0.0  # what was found out to be met
        r, k = np.nonzero(matrix)
        program = Program(
            costs=costs,
            lower=np.zeros(count + rows),
            upper=upper,
            row_lower=np.concatenate([[1.0], self._least / self._size]),
            row_upper=np.concatenate([[1.0], np.full(rows, INFINITY)]),
            starts=np.searchsorted(r, np.arange(rows + 2)).astype(np.int32),
            indices=k.astype(np.int32),
            values=matrix[r, k],
        )
        done = program.run_surely()
        x, duals = np.asarray(done.x), np.asarray(done.row_prices)
        prices = np.maximum(duals[1:], 0.0) / self._size
        lacks = x[count:] * self._size
        return _Found(np.maximum(x[:count], 0.0), prices, float(duals[0]), done.objective, lacks)

    def _add(self, prices: Array) -> Array:
        point: Array = self._means.at(prices[None])[0]
        self.vectors.append(prices)
        self.points.append(point)
        return point


def check_scores(costs_g: Array, weights: Array, rows: Sequence[Row]) -> None:
    if costs_g.ndim != 2 or costs_g.size == 0 or weights.shape != costs_g.shape[:1]:
        raise ValueError(f"costs_g is {costs_g.shape}, weights {weights.shape}")
    if not np.isfinite(costs_g).all() or not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError("costs and weights must be finite, weights not negative")
    if weights.sum() == 0:
        raise ValueError("no prompt has a weight")
    for row in rows:
        if row.gains.shape != costs_g.shape:
            raise ValueError(f"{row.name} is {row.gains.shape}, not {costs_g.shape}")
        if not np.isfinite(row.gains).all() or not np.isfinite(row.least):
            raise ValueError(f"{row.name} must be finite")
