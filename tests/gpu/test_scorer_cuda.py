# SPDX-License-Identifier: Apache-2.0
"""Texts scored on the GPU: the CPU's heads bit for bit, its scores within rounding.
`scripts/gpu_check` runs this on a GPU."""

from typing import Any

import numpy as np
import pytest

from sprout_ext.sampler import cuda_available, cuda_built
from sprout_ext.scorer import MOST_BYTES, Scorer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cuda_built(), reason="the core is built without CUDA"),
    pytest.mark.skipif(not cuda_available(), reason="no NVIDIA GPU"),
]

ORDERS = ([2, 5], [1], [8], [1, 2, 3, 4, 5, 6, 7, 8], [3, 7])
# Heads of one, two and three blocks, and the most of each.
SHAPES = ((3, 6), (1, 1), (8, 8), (2, 24), (8, 40), (4, 44))


def scorer(levels: int, classes: int, orders: list[int], bits: int = 12) -> Scorer:
    rng = np.random.default_rng(levels * 100 + classes)
    heads = levels + classes
    return Scorer.of(
        orders=orders,
        bits=bits,
        table=rng.integers(-127, 128, (1 << bits, heads)).astype(np.int8),
        scales=rng.uniform(1e-3, 1e-2, heads),
        biases=rng.normal(size=heads),
        second=rng.normal(size=(2 * levels, classes + 1, levels + 2)),
    )


def texts(seed: int, count: int, most: int = 700) -> list[bytes]:
    """Any bytes: none, few, about a warp, about as many as are read, and more."""
    rng = np.random.default_rng(seed)
    edges = [0, 1, 2, 3, 7, 8, 30, 31, 32, 33, 64, MOST_BYTES - 1, MOST_BYTES, MOST_BYTES + 1, 9000]
    sizes = [*edges, *rng.integers(0, most, max(count - len(edges), 0))][:count]
    return [rng.integers(0, 256, size).astype(np.uint8).tobytes() for size in sizes]


def same(ours: Scorer, given: list[bytes]) -> None:
    np.testing.assert_array_equal(ours.heads_many(given, cuda=True), ours.heads_many(given))
    found, expected = ours.score_many(given, cuda=True), ours.score_many(given)
    assert found.shape == (len(given), 2 * ours.levels)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-300)


@pytest.mark.parametrize("orders", ORDERS, ids=str)
@pytest.mark.parametrize(("levels", "classes"), SHAPES)
def test_as_the_cpu(levels: int, classes: int, orders: list[int]) -> None:
    same(scorer(levels, classes, orders), texts(1, 400))


@pytest.mark.parametrize("bits", [4, 15, 20])
def test_tables_of_all_sizes(bits: int) -> None:
    same(scorer(3, 6, [2, 5], bits), texts(2, 300))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9])
def test_few_texts(count: int) -> None:
    same(scorer(3, 6, [2, 5]), texts(3, count))


def test_more_texts_than_one_piece_takes() -> None:
    """By number (65,536 a piece) and by bytes (16 MiB a piece); two slots take turns."""
    ours = scorer(3, 6, [2, 5], 15)
    same(ours, texts(4, 200_000, 40))
    same(ours, texts(5, 90_000, 1200))


def test_only_the_two_ends_of_a_long_text_count() -> None:
    ours, half = scorer(3, 6, [2, 5]), MOST_BYTES // 2
    long = texts(6, 1)[0] + bytes(range(256)) * 40
    other = long[:half] + b"nobody reads this" + long[-half:]
    found = ours.score_many([long, other], cuda=True)
    np.testing.assert_array_equal(found[0], found[1])


def test_what_is_no_text_is_refused_on_the_gpu_too() -> None:
    wrong: Any = ["a string"]
    with pytest.raises(TypeError, match="bytes"):
        scorer(3, 6, [2, 5]).score_many(wrong, cuda=True)
