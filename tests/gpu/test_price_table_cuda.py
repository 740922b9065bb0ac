# SPDX-License-Identifier: Apache-2.0
"""Totals at many prices on the GPU: the CPU's choices bit for bit, its sums within rounding.
`scripts/gpu_check` runs this on a GPU."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from sprout_ext import reference
from sprout_ext.price_table import MOST_PRICES, MOST_ROWS_ON_CUDA, PriceTable
from sprout_ext.sampler import cuda_available, cuda_built

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cuda_built(), reason="the core is built without CUDA"),
    pytest.mark.skipif(not cuda_available(), reason="no NVIDIA GPU"),
]

# About a warp, a block and what blocks share out; and more than one piece of an upload.
SIZES = (1, 2, 31, 32, 33, 255, 256, 257, 5000)
LARGE = (1 << 20) * 2 + 77
COUNTS = (1, 2, 7, 8, 9, 16, 17, 33, MOST_PRICES)


def scores(seed: int, n: int, levels: int, rows: int, *, coarse: bool) -> Any:
    """`coarse`: of few distinct numbers, so that many levels tie."""
    rng = np.random.default_rng(seed)
    costs, gains = rng.gamma(2.0, 1e-3, (n, levels)), rng.normal(size=(rows, n, levels))
    if coarse:
        costs, gains = np.round(costs * 1e3) / 4, np.round(gains * 2) / 2
    return costs, list(gains), rng.uniform(0.0, 2.0, n)


def prices_for(seed: int, count: int, rows: int, *, coarse: bool) -> Any:
    rng = np.random.default_rng(seed + 1)
    if coarse:
        return rng.integers(0, 4, (count, rows)) / 2.0
    found = rng.exponential(2e-3, (count, rows)) * (rng.random((count, rows)) < 0.9)
    found[rng.random(count) < 0.1] *= 1e18  # at which the gain alone counts
    return found


def close(found: Any, expected: Any, costs: Any, gains: Any, weights: Any) -> None:
    """Within 1e-12 of the most that could be summed: the order of additions, nothing else."""
    most = [float(weights @ np.abs(each).max(axis=1)) for each in (costs, *gains)]
    assert found.shape == expected.shape
    assert (np.abs(found - expected) <= 1e-12 * np.array(most)).all()


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, MOST_ROWS_ON_CUDA])
@pytest.mark.parametrize("levels", range(1, 9))
@pytest.mark.parametrize("coarse", [False, True], ids=["fine", "tied"])
def test_as_the_reference(levels: int, rows: int, coarse: bool) -> None:
    for number, n in enumerate(SIZES):
        costs, gains, weights = scores(number, n, levels, rows, coarse=coarse)
        weighted = number % 2 == 0
        own = weights if weighted else np.ones(n)
        given = weights if weighted else None
        cuda = PriceTable(costs, gains, given, device="cuda")
        theirs = reference.PriceTable(costs, gains, given)
        assert cuda.shape == (n, levels, rows)
        for count in COUNTS:
            prices = prices_for(number, count, rows, coarse=coarse)
            np.testing.assert_array_equal(cuda.choose(prices), theirs.choose(prices))
            close(cuda.totals(prices), theirs.totals(prices), costs, gains, own)


@pytest.mark.parametrize(("levels", "rows"), [(4, 1), (3, 2)])
def test_large_tables(levels: int, rows: int) -> None:
    costs, gains, weights = scores(9, LARGE, levels, rows, coarse=False)
    cuda = PriceTable(costs, gains, weights, device="cuda")
    cpu = PriceTable(costs, gains, weights, threads=2)
    prices = prices_for(9, 40, rows, coarse=False)
    close(cuda.totals(prices), cpu.totals(prices), costs, gains, weights)
    np.testing.assert_array_equal(cuda.choose(prices), cpu.choose(prices))


@pytest.mark.parametrize("count", [1, 8, MOST_PRICES])
def test_each_run_gives_the_same_bits(count: int) -> None:
    costs, gains, weights = scores(3, 1_000_003, 4, 1, coarse=False)
    table = PriceTable(costs, gains, weights, device="cuda")
    prices = prices_for(3, count, 1, coarse=False)
    first = table.totals(prices)
    for _ in range(20):
        np.testing.assert_array_equal(table.totals(prices), first)
    again = PriceTable(costs, gains, weights, device="cuda")
    np.testing.assert_array_equal(again.totals(prices), first)
    assert table.device_seconds() > 0


def test_tables_do_not_touch_each_other_nor_what_they_were_made_of() -> None:
    costs, gains, _ = scores(4, 1000, 3, 1, coarse=False)
    prices = prices_for(4, 5, 1, coarse=False)
    one = PriceTable(costs, gains, device="cuda")
    before = one.totals(prices)
    costs[:], gains[0][:] = 1.0, 0.0
    other = PriceTable(costs, gains, device="cuda")
    np.testing.assert_array_equal(other.totals(prices)[:, 0], 1000.0)
    np.testing.assert_array_equal(one.totals(prices), before)


def test_threads_take_turns() -> None:
    costs, gains, _ = scores(5, 100_000, 4, 1, coarse=False)
    table = PriceTable(costs, gains, device="cuda")
    given = [prices_for(seed, 1 + seed, 1, coarse=False) for seed in range(8)]
    expected = [table.totals(prices) for prices in given]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            for found, own in zip(pool.map(table.totals, given), expected, strict=True):
                np.testing.assert_array_equal(found, own)


def test_bad_arguments_are_refused_on_the_gpu_too() -> None:
    ones = np.ones((2, 3))
    with pytest.raises(ValueError, match="rows: 1 to 8 on CUDA"):
        PriceTable(ones, [ones] * (MOST_ROWS_ON_CUDA + 1), device="cuda")
    with pytest.raises(ValueError, match="not finite"):
        PriceTable(np.full((2, 3), np.nan), [ones], device="cuda")
    with pytest.raises(ValueError, match="at most 64"):
        PriceTable(ones, [ones], device="cuda").totals(np.ones((65, 1)))
