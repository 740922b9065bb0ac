# SPDX-License-Identifier: Apache-2.0
"""The program with a variable per prompt and level: its prices against HiGHS on the whole of it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprout.errors import InfeasibleError
from sprout.optimize.prompt import Prices, Row, Solution, cheapest, solve

optimize = pytest.importorskip("scipy.optimize")


def whole(costs: Any, weights: Any, rows: list[Row]) -> Any:
    """Every variable written out, for scipy's HiGHS."""
    n, levels = costs.shape
    w = weights / weights.sum()
    return optimize.linprog(
        (w[:, None] * costs).ravel(),
        A_ub=np.array([-(w[:, None] * row.gains).ravel() for row in rows]),
        b_ub=[-row.least for row in rows],
        A_eq=np.kron(np.eye(n), np.ones(levels)),
        b_eq=np.ones(n),
    )


def instance(seed: int, n: int, levels: int, *, coarse: bool, several: bool) -> Any:
    """`coarse`: few distinct numbers, so that many prompts tie at a price."""
    rng = np.random.default_rng(seed)
    costs, q = rng.gamma(2.0, 1e-4, (n, levels)), rng.dirichlet(np.ones(levels), n)
    if coarse:
        costs, q = np.round(costs, 4), np.round(q, 1)
    label, weights = rng.integers(0, 2, n), rng.uniform(0.1, 1.0, n)
    q0 = max(float(q[:, 0].mean()), 0.05)
    rows = [Row("mean preference", q / q0, float(rng.uniform(0.6, 1.6)))]
    if several:
        rows += [
            Row(f"class {c}", (label == c)[:, None] * (q - 0.9 * q[:, :1]), 0.0) for c in (0, 1)
        ]
        cap = np.zeros((n, levels))
        cap[:, -1] = -1.0
        rows.append(Row("most of the last level", cap, -float(rng.uniform(0.1, 0.9))))
    return costs, weights, rows


@given(
    st.integers(0, 10_000),
    st.integers(1, 40),
    st.integers(1, 5),
    st.booleans(),
    st.booleans(),
)
@settings(deadline=None, max_examples=80)
def test_as_cheap_as_highs_on_the_whole_program(
    seed: int, n: int, levels: int, coarse: bool, several: bool
) -> None:
    costs, weights, rows = instance(seed, n, levels, coarse=coarse, several=several)
    best = whole(costs, weights, rows)
    if best.status == 2:
        with pytest.raises(InfeasibleError, match="than can be had"):
            solve(costs, weights, rows)
        return
    found = solve(costs, weights, rows)
    assert found.cost_g == pytest.approx(best.fun, rel=1e-6, abs=1e-12)
    assert found.gap_g <= 1e-6 * max(best.fun, 1e-9)
    least = np.array([row.least for row in rows])
    assert (found.reached >= least - 1e-6 * np.maximum(np.abs(least), 1)).all()
    assert (found.marginal >= 0).all()


def expected(found: Solution, costs: Any, weights: Any, rows: list[Row]) -> Any:
    """Cost and left sides of what the published rule makes of these prompts, in expectation."""
    w, at = weights / weights.sum(), np.arange(len(costs))
    points = []
    for vector in found.prices.vectors:
        levels = cheapest(costs, [row.gains for row in rows], vector)
        points.append([w @ costs[at, levels], *(w @ row.gains[at, levels] for row in rows)])
    return found.prices.fractions @ np.array(points)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_published_prices_make_the_solution(seed: int, several: bool) -> None:
    """The rule alone, with nothing else of the solver's, comes to its cost and left sides."""
    costs, weights, rows = instance(seed, 200, 3, coarse=True, several=several)
    rows[0] = Row(rows[0].name, rows[0].gains, 1.05)
    found = solve(costs, weights, rows)
    assert len(found.prices.fractions) <= len(rows) + 1
    assert found.prices.fractions.sum() == pytest.approx(1)
    assert expected(found, costs, weights, rows) == pytest.approx(
        [found.cost_g, *found.reached], rel=1e-9, abs=1e-12
    )


def test_the_most_that_can_be_had_is_had() -> None:
    """At the edge of what is feasible the prices must still choose right."""
    costs, weights, rows = instance(3, 60, 3, coarse=False, several=False)
    w = weights / weights.sum()
    most = float(w @ rows[0].gains.max(axis=1))
    found = solve(costs, weights, [Row("mean", rows[0].gains, most)])
    assert found.reached[0] == pytest.approx(most, rel=1e-7)
    with pytest.raises(InfeasibleError, match="mean: "):
        solve(costs, weights, [Row("mean", rows[0].gains, most * 1.001)])


def test_worked_by_hand() -> None:
    """Two alike prompts: the short answer saves 2 g and loses 1/2 each; 1/4 may be lost. One price,
    4 g per unit, at which both tie; half of the draws go either way."""
    costs = np.array([[3.0, 1.0], [3.0, 1.0]])
    gains = np.array([[1.0, 0.5], [1.0, 0.5]])
    found = solve(costs, np.ones(2), [Row("mean", gains, 0.75)])
    assert found.cost_g == pytest.approx(2.0)
    assert found.marginal[0] == pytest.approx(4.0)
    assert found.prices.fractions == pytest.approx([0.5, 0.5], abs=1e-6)
    draws = np.array([0.25, 0.75])
    assert sorted(found.prices.choose(costs, [gains], draws).tolist()) == [0, 1]


def test_a_row_that_does_not_bind_has_no_price() -> None:
    costs, weights, rows = instance(5, 50, 3, coarse=False, several=False)
    found = solve(costs, weights, [Row("mean", rows[0].gains, 0.0)])
    assert found.prices.vectors.tolist() == [[0.0]]
    assert found.cost_g == pytest.approx(
        float((weights / weights.sum()) @ costs.min(axis=1)), rel=1e-9
    )


def test_draws_follow_the_fractions() -> None:
    prices = Prices(("mean",), np.array([[0.0], [100.0]]), np.array([0.25, 0.75]))
    draws = np.random.default_rng(0).random(20_000)
    costs, gains = np.tile([2.0, 1.0], (20_000, 1)), np.tile([1.0, 0.0], (20_000, 1))
    share = float((prices.choose(costs, [gains], draws) == 0).mean())
    assert abs(share - 0.75) < 5 * (0.75 * 0.25 / 20_000) ** 0.5


@pytest.mark.parametrize(
    ("costs", "weights", "gains"),
    [
        (np.ones((2, 2)), np.ones(3), np.ones((2, 2))),
        (np.ones((2, 2)), np.zeros(2), np.ones((2, 2))),
        (np.ones((2, 2)), -np.ones(2), np.ones((2, 2))),
        (np.full((2, 2), np.nan), np.ones(2), np.ones((2, 2))),
        (np.ones((2, 2)), np.ones(2), np.ones((2, 3))),
        (np.ones((2, 2)), np.ones(2), np.full((2, 2), np.inf)),
        (np.ones((0, 2)), np.ones(0), np.ones((0, 2))),
    ],
)
def test_impossible_numbers_are_refused(costs: Any, weights: Any, gains: Any) -> None:
    with pytest.raises(ValueError, match=r"costs|weight|mean"):
        solve(costs, weights, [Row("mean", gains, 0.5)])
