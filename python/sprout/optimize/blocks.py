# SPDX-License-Identifier: Apache-2.0
"""Programs of prompts that have one row in common, and rows of their own beside it.

    minimise   sum_b n_b C_b                C_b mean cost of block b's prompts, A_b their mean gain
    subject    sum_b v_b A_b >= least       the row in common
               A_b >= least_b,  rows of b   what must be had of block b alone

It is `prompt.solve` with all prompts in one table, where a block's own row would be nothing to the
prompts of all others, and yet be worked through for each. Here Dantzig and Wolfe's master has a
convexity row for each block, and blends policies of blocks. With the duals y of the row in common
and z_b of a block's own, its prompts take

    argmin_l  c_l - (v_b y + z_b0) / n_b  a_l - sum_r z_br / n_b  a_rl

so a guard of one block is a price on top of everybody's. A vertex of the master has no more
policies than rows: each block has at most one more than rows of its own that bind, and one more in
all for the row in common.

A policy was found at some prices, and may be the same for these prompts over a range of them. All
that are blended tie at the duals; and whoever takes a level at one end of a line and may take it at
the other takes it in between. So each is given prices next to the duals, on the line to its own:
for prompts that nobody has seen, one price is one price.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sprout.errors import InfeasibleError
from sprout.optimize.means import Means
from sprout.optimize.program import INFINITY, Program
from sprout.optimize.prompt import ENOUGH, MOST_ROUNDS, MUCH, SHARE, Row, check_scores

Array = NDArray[np.float64]

NEXT_TO = 1e-6  # of the way from the duals to the prices that a policy was found at


@dataclass(frozen=True, eq=False)
class Block:
    """n prompts, L levels. Gains of about 1 on the mean."""

    name: str
    share: float  # n_b > 0: of the requests
    worth: float  # v_b >= 0: of a unit of its mean gain, in the row in common
    costs_g: Array  # (n, L)
    weights: Array  # (n,)
    gains: Array  # (n, L)
    least: float = -math.inf  # of its own mean gain
    rows: Sequence[Row] = ()


@dataclass(frozen=True, eq=False)
class Blend:
    """What a block takes: K vectors of prices, of its gain and of each of its rows."""

    vectors: Array  # (K, 1 + rows) grams per unit, >= 0
    fractions: Array  # (K,) of its requests, sums to 1
    gain: float  # mean


@dataclass(frozen=True, eq=False)
class _Column:
    block: int
    vector: Array  # (1 + rows,) in units of the scale
    point: Array  # (2 + rows,) mean cost in units of the scale, gain, rows


@dataclass(frozen=True, eq=False)
class _Found:
    x: Array  # (columns,)
    constants: Array  # (B,) duals of "a block's policies sum to 1"
    common: float  # dual, as the next
    own: list[Array]  # of each block (1 + rows,)
    lacks: Array  # (rows of the master,)
    objective: float


class Blocks:
    """Keeps the policies that it found: another `least` takes few rounds more."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        """ValueError for impossible numbers, more than 63 rows of a block, more than 8 levels."""
        for block in blocks:
            check_scores(block.costs_g, block.weights, [Row(block.name, block.gains, 0.0)])
            check_scores(block.costs_g, block.weights, block.rows)
            if not block.share > 0 or not block.worth >= 0:
                raise ValueError(f"{block.name}: share {block.share}, worth {block.worth}")
        self._blocks = blocks
        means = (b.share * float((b.weights @ b.costs_g).max()) / b.weights.sum() for b in blocks)
        # A power of two: prices of scaled costs choose as the same times the scale do of costs.
        self._scale = 2.0 ** round(math.log2(math.fsum(means) or 1.0))
        tables: dict[tuple[int, ...], Means] = {}  # blocks of the very same prompts have one
        self._means = [self._table(block, tables) for block in blocks]
        self._columns: list[_Column] = []
        for number, block in enumerate(blocks):
            self._add(number, np.zeros(1 + len(block.rows)))

    def _table(self, block: Block, tables: dict[tuple[int, ...], Means]) -> Means:
        gains = [block.gains, *(row.gains for row in block.rows)]
        key = tuple(map(id, (block.costs_g, block.weights, *gains)))
        if key not in tables:
            tables[key] = Means(block.costs_g / self._scale, block.weights, gains)
        return tables[key]

    def solve(self, least: float) -> list[Blend]:
        """InfeasibleError names what can't be had, and by how much."""
        self._rounds(least, lacking=True)
        self._must_meet(least)
        found = self._rounds(least, lacking=False)
        return [self._blend(number, found) for number in range(len(self._blocks))]

    def _blend(self, number: int, found: _Found) -> Blend:
        merged: dict[bytes, tuple[_Column, float]] = {}  # by what they come to
        for column, share in zip(self._columns, found.x.tolist(), strict=True):
            if column.block == number and share > SHARE:
                key = column.point.tobytes()
                merged[key] = column, share + merged.get(key, (column, 0.0))[1]
        used = list(merged.values())
        fractions = np.array([share for _, share in used])
        fractions /= fractions.sum()
        duals = self._prices(number, found)
        return Blend(
            np.array([self._next_to(duals, column) for column, _ in used]) * self._scale,
            fractions,
            float(fractions @ [column.point[1] for column, _ in used]),
        )

    def _next_to(self, duals: Array, column: _Column) -> Array:
        """Prices near the duals at which the policy is the same; its own where rounding has it."""
        near: Array = duals + NEXT_TO * (column.vector - duals)
        point = self._means[column.block].at(near[None])[0]
        same = np.allclose(point, column.point, rtol=0, atol=ENOUGH)
        return near if same else column.vector

    def _prices(self, number: int, found: _Found) -> Array:
        """(1 + rows,) of a block's prompts."""
        block, prices = self._blocks[number], found.own[number].copy()
        prices[0] += block.worth * found.common
        return np.asarray(prices / block.share)

    def _rounds(self, least: float, *, lacking: bool) -> _Found:
        """Until no policy could gain. `lacking`: minimise what the rows lack, not the cost."""
        found = self._master(least, lacking=lacking)
        for _ in range(MOST_ROUNDS):
            if lacking and found.objective <= ENOUGH:
                break
            gap = 0.0
            for number, block in enumerate(self._blocks):
                prices = self._prices(number, found)
                point = self._add(number, prices * MUCH if lacking else prices)
                value = (0.0 if lacking else point[0]) - float(prices @ point[1:])
                gap += max(float(found.constants[number]) - block.share * value, 0.0)
            found = self._master(least, lacking=lacking)
            if gap <= ENOUGH:
                break
        return found

    def _must_meet(self, least: float) -> None:
        found = self._master(least, lacking=True)
        if found.objective > 10 * ENOUGH:
            worst = int(np.argmax(found.lacks))
            name, bar = self._bars(least)[worst]
            raise InfeasibleError(
                f"{name}: {bar:.6g} is {found.lacks[worst]:.6g} more than can be had together with "
                "the other rows"
            )

    def _bars(self, least: float) -> list[tuple[str, float]]:
        """Each row of the master behind the convexity rows, and its right side."""
        bars = [("all", least)]
        for block in self._blocks:
            bars.append((block.name, block.least))
            bars += [(f"{block.name}, {row.name}", row.least) for row in block.rows]
        return bars

    def _master(self, least: float, *, lacking: bool) -> _Found:
        """The best blends, and what each row still lacks >= 0."""
        bars, blocks, count = self._bars(least), len(self._blocks), len(self._columns)
        rows = len(bars)
        matrix = np.zeros((blocks + rows, count + rows))
        starts = np.cumsum([blocks + 1, *(1 + len(block.rows) for block in self._blocks)])
        for k, column in enumerate(self._columns):
            block = self._blocks[column.block]
            matrix[column.block, k] = 1.0
            matrix[blocks, k] = block.worth * column.point[1]
            at = starts[column.block]
            matrix[at : at + 1 + len(block.rows), k] = column.point[1:]
        matrix[blocks:, count:] = np.eye(rows)
        spent = [self._blocks[c.block].share * float(c.point[0]) for c in self._columns]
        upper = np.full(count + rows, INFINITY)
        if lacking:
            costs = np.concatenate([np.zeros(count), np.ones(rows)])
        else:
            costs = np.concatenate([spent, np.zeros(rows)])
            upper[count:] = 10 * ENOUGH  # what was found out to be met
        lower = np.array([bar if math.isfinite(bar) else -INFINITY for _, bar in bars])
        of_rows, of_columns = np.nonzero(matrix)
        done = Program(
            costs=costs,
            lower=np.zeros(count + rows),
            upper=upper,
            row_lower=np.concatenate([np.ones(blocks), lower]),
            row_upper=np.concatenate([np.ones(blocks), np.full(rows, INFINITY)]),
            starts=np.searchsorted(of_rows, np.arange(blocks + rows + 1)).astype(np.int32),
            indices=of_columns.astype(np.int32),
            values=matrix[of_rows, of_columns],
        ).run_surely()
        x, duals = np.asarray(done.x), np.asarray(done.row_prices)
        prices = np.maximum(duals[blocks:], 0.0)
        own = np.split(prices[1:], starts[1:-1] - starts[0]) if blocks > 1 else [prices[1:]]
        return _Found(
            np.maximum(x[:count], 0.0),
            duals[:blocks],
            float(prices[0]),
            own,
            x[count:],
            done.objective,
        )

    def _add(self, number: int, prices: Array) -> Array:
        point: Array = self._means[number].at(prices[None])[0]
        self._columns.append(_Column(number, prices, point))
        return point
