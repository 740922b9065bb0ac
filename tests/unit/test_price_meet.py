# SPDX-License-Identifier: Apache-2.0
"""The price of one row, found by passes of many prices: against the general program's answer."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprout.errors import InfeasibleError, PrerequisiteError
from sprout.optimize.price import TOGETHER, meet
from sprout.optimize.prompt import Row, cheapest, solve
from sprout_ext.sampler import cuda_available


def instance(seed: int, n: int, levels: int, *, coarse: bool, even: bool) -> Any:
    rng = np.random.default_rng(seed)
    costs, q = rng.gamma(2.0, 1e-4, (n, levels)), rng.dirichlet(np.ones(levels), n)
    if coarse:  # few distinct numbers: many prompts tie at a price
        costs, q = np.round(costs, 4), np.round(q, 1)
    weights = np.ones(n) if even else rng.uniform(0.1, 1.0, n)
    q0 = max(float(q[:, 0].mean()), 0.05)
    return costs, weights, Row("mean preference", q / q0, float(rng.uniform(0.3, 1.8)))


@given(
    st.integers(0, 10_000),
    st.integers(1, 60),
    st.integers(1, 5),
    st.sampled_from([4, 8, 64]),
    st.booleans(),
    st.booleans(),
)
@settings(deadline=None, max_examples=120)
def test_as_the_general_program(
    seed: int, n: int, levels: int, together: int, coarse: bool, even: bool
) -> None:
    costs, weights, row = instance(seed, n, levels, coarse=coarse, even=even)
    try:
        best = solve(costs, weights, [row])
    except InfeasibleError:
        with pytest.raises(InfeasibleError, match=r"mean preference: .* more than can be had"):
            meet(costs, weights, row, together=together)
        return
    found = meet(costs, weights, row, together=together)
    enough = 1e-7 * max(best.cost_g, 1e-9)
    # HiGHS may miss the row by 1e-7 of it, which is worth up to a like part of the cost.
    assert found.cost_g == pytest.approx(best.cost_g, rel=0, abs=10 * enough + 2 * best.gap_g)
    assert found.gap_g <= enough
    assert found.reached[0] >= row.least - 1e-7 * abs(row.least)
    # The rule alone, with nothing else of the search, comes to the same.
    w, at = weights / weights.sum(), np.arange(n)
    points = []
    for vector in found.prices.vectors:
        taken = cheapest(costs, [row.gains], vector)
        points.append([w @ costs[at, taken], w @ row.gains[at, taken]])
    mean = found.prices.fractions @ np.array(points)
    assert mean == pytest.approx([found.cost_g, found.reached[0]], rel=1e-9, abs=1e-12)


def test_worked_by_hand() -> None:
    """As in test_prompt_prices: two alike prompts tie at 4 g per unit; half go either way."""
    costs, gains = np.array([[3.0, 1.0]] * 2), np.array([[1.0, 0.5]] * 2)
    found = meet(costs, np.ones(2), Row("mean", gains, 0.75))
    assert found.cost_g == pytest.approx(2.0)
    assert found.marginal[0] == pytest.approx(4.0)
    assert found.prices.fractions == pytest.approx([0.5, 0.5])


def test_a_row_that_does_not_bind_has_no_price() -> None:
    costs, weights, row = instance(5, 50, 3, coarse=False, even=True)
    found = meet(costs, weights, Row("mean", row.gains, 0.0))
    assert found.prices.vectors.tolist() == [[0.0]]
    assert found.marginal.tolist() == [0.0]


@pytest.mark.parametrize("together", [4, 8, 32, 64])
def test_a_pass_narrows_as_many_fold(together: int) -> None:
    """The bracket begins 12 decades wide; the gap is of second order in what is left of it, so half
    of the digits are enough. One more for the first pass, one to spare."""
    costs, weights, row = instance(1, 20_000, 4, coarse=False, even=True)
    found = meet(costs, weights, Row("mean", row.gains, 1.1), together=together)
    decades = 12 + 9 / 2
    assert found.rounds <= decades / np.log10(together - 1) + 2


def test_impossible_numbers_are_refused() -> None:
    costs, weights, row = instance(1, 10, 3, coarse=False, even=True)
    for together in (3, 65):
        with pytest.raises(ValueError, match="together"):
            meet(costs, weights, row, together=together)
    with pytest.raises(ValueError, match="finite"):
        meet(costs, weights, Row("mean", np.full((10, 3), np.nan), 1.0))
    assert all(4 <= each <= 64 for each in TOGETHER.values())


@pytest.mark.skipif(cuda_available(), reason="there is a GPU: see tests/gpu")
def test_cuda_says_what_is_missing() -> None:
    costs, weights, row = instance(1, 10, 3, coarse=False, even=True)
    with pytest.raises(PrerequisiteError, match=r"device cuda: .*CUDA"):
        meet(costs, weights, row, device="cuda")
    with pytest.raises(PrerequisiteError, match=r"device cuda: .*CUDA"):
        solve(costs, weights, [row], device="cuda")
