# SPDX-License-Identifier: Apache-2.0
"""Totals at many prices: the compiled pass against NumPy, choices bit for bit."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprout_ext import reference
from sprout_ext.price_table import MOST_PRICES, PriceTable
from sprout_ext.sampler import cuda_available, cuda_built


def scores(seed: int, n: int, levels: int, rows: int, *, coarse: bool) -> Any:
    """Costs, gains and weights. `coarse`: of few distinct numbers, so that many levels tie."""
    rng = np.random.default_rng(seed)
    costs, gains = rng.gamma(2.0, 1e-3, (n, levels)), rng.normal(size=(rows, n, levels))
    if coarse:
        costs, gains = np.round(costs * 1e3) / 4, np.round(gains * 2) / 2
    return costs, list(gains), rng.uniform(0.0, 2.0, n)


def prices_for(seed: int, count: int, rows: int, *, coarse: bool) -> Any:
    rng = np.random.default_rng(seed + 1)
    if coarse:
        return rng.integers(0, 4, (count, rows)) / 2.0
    return rng.exponential(2e-3, (count, rows)) * (rng.random((count, rows)) < 0.9)


@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 2, 7, 8, 9, 255, 256, 257, 700]),
    st.integers(1, 8),
    st.sampled_from([1, 2, 3, 8]),
    st.sampled_from([1, 2, 9, MOST_PRICES]),
    st.booleans(),
    st.booleans(),
)
@settings(deadline=None, max_examples=120)
def test_as_the_reference(
    seed: int, n: int, levels: int, rows: int, count: int, coarse: bool, weighted: bool
) -> None:
    costs, gains, weights = scores(seed, n, levels, rows, coarse=coarse)
    prices = prices_for(seed, count, rows, coarse=coarse)
    given_weights = weights if weighted else None
    ours = PriceTable(costs, gains, given_weights, threads=2)
    theirs = reference.PriceTable(costs, gains, given_weights)
    assert ours.shape == theirs.shape == (n, levels, rows)
    np.testing.assert_array_equal(ours.choose(prices), theirs.choose(prices))
    found = ours.totals(prices)
    # Of each column, the most that could be summed.
    size = np.array([2 * np.abs(each).max(axis=1).sum() for each in (costs, *gains)])
    assert (np.abs(found - theirs.totals(prices)) <= 1e-12 * size).all()
    np.testing.assert_array_equal(found, ours.totals(prices))


def test_the_number_of_threads_changes_no_bit() -> None:
    costs, gains, weights = scores(1, 70_001, 4, 1, coarse=False)
    prices = prices_for(1, 9, 1, coarse=False)
    alone = PriceTable(costs, gains, weights)
    for threads in (2, 3, 64):
        many = PriceTable(costs, gains, weights, threads=threads)
        np.testing.assert_array_equal(alone.totals(prices), many.totals(prices))
        np.testing.assert_array_equal(alone.choose(prices), many.choose(prices))


def test_a_tie_goes_to_the_cheaper_level_then_to_the_lower() -> None:
    """At a price of 2 the dear level costs 3 - 2 = 1, as the cheap one: worked by hand."""
    costs, gains = np.array([[3.0, 1.0, 1.0]]), [np.array([[1.0, 0.0, 0.0]])]
    table = PriceTable(costs, gains)
    assert table.choose(np.array([[1.0], [2.0], [3.0]])).tolist() == [[1], [1], [0]]
    assert table.totals(np.array([[2.0], [3.0]])).tolist() == [[1.0, 0.0], [3.0, 1.0]]


def test_what_is_given_may_change_afterwards() -> None:
    costs, gains, weights = scores(2, 300, 3, 1, coarse=False)
    table, prices = PriceTable(costs, gains, weights), np.array([[1e-3]])
    before = table.totals(prices)
    costs[:], gains[0][:], weights[:] = 0.0, 0.0, 0.0
    np.testing.assert_array_equal(table.totals(prices), before)


ONES = np.ones((2, 3))


@pytest.mark.parametrize(
    ("costs", "gains", "weights", "says"),
    [
        (np.ones((0, 3)), [np.ones((0, 3))], None, "prompt"),
        (np.ones((2, 9)), [np.ones((2, 9))], None, "levels"),
        (np.ones(3), [np.ones(3)], None, "costs"),
        (ONES, [], None, "rows"),
        (ONES, [ONES] * 65, None, "rows"),
        (ONES, [np.ones((2, 2))], None, "gains"),
        (ONES, [ONES], np.ones(3), "weights"),
        (ONES, [ONES], np.array([1.0, -1.0]), "weights"),
        (np.full((2, 3), np.nan), [ONES], None, "costs"),
        (ONES, [np.full((2, 3), np.inf)], None, "gains"),
    ],
)
def test_impossible_scores_are_refused(costs: Any, gains: Any, weights: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PriceTable(costs, gains, weights)


@pytest.mark.parametrize(
    "prices",
    [np.empty((0, 1)), np.ones((65, 1)), np.ones((1, 2)), np.ones(1), np.array([[np.nan]])],
)
def test_impossible_prices_are_refused(prices: Any) -> None:
    with pytest.raises(ValueError, match="prices"):
        PriceTable(ONES, [ONES]).totals(prices)


def test_an_unknown_device_or_no_thread_is_refused() -> None:
    with pytest.raises(ValueError, match="'cpu' or 'cuda'"):
        PriceTable(ONES, [ONES], device="tpu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        PriceTable(ONES, [ONES], threads=0)


NVCC = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"  # as csrc/CMakeLists.txt looks for it


@pytest.mark.skipif(not Path(NVCC).exists(), reason="no nvcc: CUDA is not compiled here")
def test_cuda_is_compiled_where_nvcc_is() -> None:
    assert cuda_built()


@pytest.mark.skipif(cuda_available(), reason="there is a GPU: see tests/gpu")
def test_cuda_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="CUDA"):
        PriceTable(ONES, [ONES], device="cuda")
