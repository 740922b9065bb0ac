# SPDX-License-Identifier: Apache-2.0
"""Blocks of prompts with a row in common: against HiGHS on the whole program."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sprout.errors import InfeasibleError
from sprout.optimize.blocks import Blend, Block, Blocks
from sprout.optimize.prompt import Row, cheapest

optimize = pytest.importorskip("scipy.optimize")


def block(seed: int, n: int, share: float, *, coarse: bool = False, **more: Any) -> Block:
    """`coarse`: many prompts tie at a price."""
    rng = np.random.default_rng(seed)
    gains = rng.dirichlet((4.0, 3.0, 2.5), n) * 2.6
    costs = rng.gamma(2.0, 1.0, (n, 1)) * rng.uniform(0.7, 1.3, (n, 3)) * (9.0, 2.5, 1.6)
    if coarse:
        gains, costs = np.round(gains, 1), np.round(costs)
    fields: dict[str, Any] = {"worth": share, "weights": rng.uniform(0.2, 1.0, n)}
    return Block(f"b{seed}", share, costs_g=costs, gains=gains, **(fields | more))


def capped(given: Block, level: int, most: float) -> Block:
    gains = np.zeros_like(given.costs_g)
    gains[:, level] = -1.0
    return replace(given, rows=(*given.rows, Row(f"most L{level}", gains, -most)))


def whole(blocks: list[Block], least: float) -> Any:
    """(objective, mean gain of each block) by HiGHS, a variable per prompt and level."""
    sizes = [b.costs_g.size for b in blocks]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    n = starts[-1]
    spread = [np.repeat(b.weights / b.weights.sum(), 3) for b in blocks]
    cost, common = np.zeros(n), np.zeros(n)
    rows, bars, means = [], [], []
    for b, w, at in zip(blocks, spread, starts, strict=False):
        part = slice(at, at + b.costs_g.size)
        cost[part] = b.share * w * b.costs_g.ravel()
        common[part] = b.worth * w * b.gains.ravel()
        own = [(b.gains, b.least)] if math.isfinite(b.least) else []
        for gains, bar in [*own, *((r.gains, r.least) for r in b.rows)]:
            row = np.zeros(n)
            row[part] = w * gains.ravel()
            rows.append(-row)
            bars.append(-bar)
        mean = np.zeros(n)
        mean[part] = w * b.gains.ravel()
        means.append(mean)
    done = optimize.linprog(
        cost,
        A_ub=np.array([-common, *rows]),
        b_ub=[-least, *bars],
        A_eq=np.kron(np.eye(n // 3), np.ones(3)),
        b_eq=np.ones(n // 3),
    )
    return done, np.array(means)


def followed(given: Block, blend: Blend) -> tuple[float, float, Any]:
    """(mean cost, mean gain, means of its rows) where its prompts go by the blend's prices."""
    w, at = given.weights / given.weights.sum(), np.arange(len(given.weights))
    gains = [given.gains, *(row.gains for row in given.rows)]
    found = np.zeros(1 + len(gains))
    for vector, fraction in zip(blend.vectors, blend.fractions, strict=True):
        levels = cheapest(given.costs_g, gains, vector)
        found += fraction * np.array([w @ each[at, levels] for each in (given.costs_g, *gains)])
    return float(found[0]), float(found[1]), found[2:]


def check(blocks: list[Block], least: float, solver: Blocks | None = None) -> list[Blend]:
    """The optimum is HiGHS's, and what the published prices make of prompts comes to it."""
    blends = (solver or Blocks(blocks)).solve(least)
    done, _ = whole(blocks, least)
    assert done.status == 0
    cost = common = 0.0
    for given, blend in zip(blocks, blends, strict=True):
        spent, gain, rows = followed(given, blend)
        assert gain == pytest.approx(blend.gain, abs=1e-9)
        assert gain >= given.least - 1e-7
        for row, mean in zip(given.rows, rows, strict=True):
            assert mean >= row.least - 1e-7
        assert blend.fractions.sum() == pytest.approx(1)
        assert blend.vectors.min() >= 0
        assert len(blend.vectors) <= 3 + len(given.rows)
        cost += given.share * spent
        common += given.worth * gain
    assert common >= least - 1e-7
    assert cost == pytest.approx(done.fun, rel=1e-6)
    return blends


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_one_price_for_all_where_nobody_has_a_guard(seed: int, coarse: bool) -> None:
    blocks = [block(seed, 60, 0.5, coarse=coarse), block(seed + 10, 40, 0.3), block(9, 30, 0.2)]
    blends = check(blocks, 0.95)
    prices = np.concatenate([blend.vectors[:, 0] for blend in blends])
    # Those between which ties are split lie on either side of the same price.
    assert prices.min() == pytest.approx(prices.max(), rel=1e-4)


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_guards_are_prices_on_top(seed: int, coarse: bool) -> None:
    """A block that must have more than at everybody's price, one that must and has, one free."""
    blocks = [
        block(seed, 60, 0.5, coarse=coarse),
        block(seed + 10, 40, 0.3, least=1.1, coarse=coarse),
        block(seed + 20, 50, 0.2, least=0.3),
    ]
    blends = check(blocks, 0.95)
    free, guarded, idle = (blend.vectors[:, 0].mean() for blend in blends)
    assert guarded > 1.1 * free
    assert idle == pytest.approx(free, rel=1e-4)
    assert blends[1].gain == pytest.approx(1.1, abs=1e-6)
    # What the guard has above the rest, the others need not have.
    assert blends[0].gain < check([replace(b, least=-math.inf) for b in blocks], 0.95)[0].gain


@pytest.mark.parametrize("seed", range(4))
def test_guards_caps_and_worths_of_all_kinds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = []
    for number in range(6):
        share = float(rng.uniform(0.02, 0.4))
        least = float(rng.choice([-math.inf, 0.8, 1.0]))
        made = block(100 * seed + number, 25, share, least=least, coarse=bool(number % 2))
        made = replace(made, worth=share * float(rng.uniform(0.5, 1.5)))
        if number % 3 == 0:
            made = capped(made, 2, 0.3)
        if number % 3 == 1:
            made = capped(capped(made, 1, 0.5), 2, 0.2)
        blocks.append(made)
    solver = Blocks(blocks)
    most = sum(b.worth * 1.1 for b in blocks)
    for least in (0.8 * most, 0.9 * most, 0.7 * most):  # one after the other, policies kept
        check(blocks, least, solver)


def test_a_row_that_costs_nothing_has_no_price() -> None:
    blends = check([block(1, 30, 0.6), block(2, 30, 0.4)], 0.0)
    assert all((blend.vectors == 0).all() for blend in blends)


def test_one_block_is_the_program_with_one_table() -> None:
    from sprout.optimize.prompt import solve

    given = capped(block(3, 80, 1.0), 2, 0.3)
    blend = Blocks([given]).solve(0.95)[0]
    rows = [Row("gain", given.gains, 0.95), *given.rows]
    assert followed(given, blend)[0] == pytest.approx(
        solve(given.costs_g, given.weights, rows).cost_g, rel=1e-9
    )


def test_what_can_t_be_had_is_named() -> None:
    free, guarded = block(1, 30, 0.6), block(2, 30, 0.4, least=5.0)
    with pytest.raises(InfeasibleError, match=r"^b2: 5 is .* more than can be had"):
        Blocks([free, guarded]).solve(0.5)
    with pytest.raises(InfeasibleError, match=r"^all: 5 is .* more than can be had"):
        Blocks([free]).solve(5.0)
    blocked = capped(capped(capped(free, 0, 0.1), 1, 0.1), 2, 0.1)
    with pytest.raises(InfeasibleError, match=r"^b1, most L"):
        Blocks([blocked]).solve(0.0)


@pytest.mark.parametrize(
    "wrong",
    [{"share": 0.0}, {"share": math.nan}, {"worth": -1.0}, {"weights": np.zeros(30)}],
    ids=["share", "nan", "worth", "weights"],
)
def test_impossible_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Blocks([replace(block(1, 30, 1.0), **wrong)])
