# SPDX-License-Identifier: Apache-2.0
"""The compiled scorer against its NumPy reference, on arbitrary bytes."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprout_ext import reference
from sprout_ext.scorer import MOST_BYTES, Scorer, gram_slots

ORDERS = st.sets(st.integers(1, 8), min_size=1).map(sorted)
# Mostly short texts, some about as long as is read, some longer.
LONG = st.integers(MOST_BYTES - 2, MOST_BYTES + 3).flatmap(
    lambda n: st.just(bytes(range(256)) * 17).map(lambda b: b[:n])
)
TEXTS = st.lists(
    st.one_of(st.binary(max_size=300), st.text(max_size=80).map(str.encode), LONG), max_size=6
)


def weights(levels: int, classes: int, bits: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    heads = levels + classes
    return {
        "bits": bits,
        "table": rng.integers(-127, 128, (1 << bits, heads)).astype(np.int8),
        "scales": rng.uniform(1e-3, 1e-2, heads),
        "biases": rng.normal(size=heads),
        "second": rng.normal(size=(2 * levels, classes + 1, levels + 2)),
    }


@given(TEXTS, ORDERS, st.integers(4, 20))
@settings(deadline=None)
def test_grams_are_the_reference_s_bit_for_bit(
    texts: list[bytes], orders: list[int], bits: int
) -> None:
    slots, starts = gram_slots(texts, orders, bits)
    expected, places = reference.gram_slots(texts, orders, bits)
    assert slots.dtype == np.uint32
    assert np.array_equal(slots, expected)
    assert np.array_equal(starts, places)


@given(TEXTS, ORDERS, st.integers(1, 8), st.integers(1, 40), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_heads_are_equal_and_scores_within_rounding(
    texts: list[bytes], orders: list[int], levels: int, classes: int, seed: int
) -> None:
    """Sums are integers, so heads are the same bits. Scores go through exp: 1e-12 relative."""
    given_weights = weights(levels, classes, 8, seed)
    ours = Scorer.of(orders=orders, **given_weights)
    theirs = reference.Scorer.of(orders=orders, **given_weights)
    if texts:
        assert np.array_equal(ours.heads_many(texts), theirs.heads_many(texts))
    found, expected = ours.score_many(texts), theirs.score_many(texts)
    assert found.shape == (len(texts), 2 * levels)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-300)
    np.testing.assert_allclose(found[:, :levels].sum(axis=1), 1.0, rtol=1e-12)
    assert (found[:, levels:] > 0).all()
    assert np.isfinite(found).all()


def test_one_text_is_a_row_of_many() -> None:
    scorer = Scorer.of(orders=(2, 5), **weights(3, 6, 10))
    texts = [b"", b"a", b"What is 2 + 2?", bytes(range(256)) * 100]
    many, out = scorer.score_many(texts), np.empty(6)
    for text, row in zip(texts, many, strict=True):
        scorer.score(text, out)
        assert np.array_equal(out, row)


def test_what_counts_of_a_text() -> None:
    """Case and the digits' values do not; of a long text its two ends do, its middle does not."""
    scorer = Scorer.of(orders=(2, 5), **weights(3, 6, 10))

    def score(text: bytes) -> list[float]:
        return scorer.score_many([text])[0].tolist()

    assert score(b"What is 17?") == score(b"wHAT IS 99?")
    assert score(b"What is 17?") != score(b"What is xx?")
    half = MOST_BYTES // 2
    long = b"a" * half + b"b" * 5000 + b"c" * half
    assert score(long) == score(long.replace(b"b", b"x"))
    assert score(long) != score(long[:-1] + b"d")
    assert score(b"\xc3\x84") != score(b"\xc3\xa4")  # bytes, not letters: only A-Z are folded


def test_more_than_256_rows_of_the_largest_weight_do_not_overflow() -> None:
    for sign in (-127, 127):
        table = np.full((16, 4), sign, dtype=np.int8)
        scorer = Scorer.of(
            orders=(1, 2, 3, 4, 5, 6, 7, 8),
            bits=4,
            table=table,
            scales=np.ones(4),
            biases=np.zeros(4),
            second=np.zeros((6, 2, 5)),
        )
        grams = sum(MOST_BYTES + 2 - order + 1 for order in range(1, 9))
        assert scorer.heads_many([b"x" * 10_000])[0].tolist() == [sign * grams / grams**0.5] * 4


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"orders": ()}, "orders"),
        ({"orders": (0,)}, "orders"),
        ({"orders": (9,)}, "orders"),
        ({"orders": (3, 2)}, "orders"),
        ({"orders": (2, 2)}, "orders"),
        ({"orders": (-1,)}, "orders|incompatible"),
        ({"bits": 3}, "bits"),
        ({"bits": 21}, "bits"),
        ({"bits": 9}, "table"),
        ({"table": np.full((256, 9), -128, dtype=np.int8)}, "127"),
        ({"scales": np.ones(8)}, "scales"),
        ({"scales": np.full(9, np.nan)}, "scales"),
        ({"biases": np.full(9, np.inf)}, "biases"),
        ({"second": np.zeros((6, 6, 5))}, "second"),
        ({"second": np.zeros((6, 7))}, "second"),
        ({"second": np.full((6, 7, 5), np.nan)}, "second"),
        ({"table": np.zeros((256, 50), dtype=np.int8), "second": np.zeros((6, 48, 5))}, "classes"),
        ({"table": np.zeros((256, 10), dtype=np.int8), "second": np.zeros((18, 2, 11))}, "levels"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: dict[str, Any], what: str) -> None:
    with pytest.raises((ValueError, TypeError), match=what):
        Scorer.of(**({"orders": (2, 5)} | weights(3, 6, 8) | change))


@pytest.mark.parametrize(
    "out",
    [np.empty(5), np.empty(7), np.empty((1, 6)), np.empty(6, dtype=np.float32), np.empty(12)[::2]],
)
def test_an_out_that_does_not_fit_is_refused(out: Any) -> None:
    scorer = Scorer.of(orders=(2, 5), **weights(3, 6, 8))
    with pytest.raises((ValueError, TypeError)):
        scorer.score(b"text", out)


def test_texts_must_be_bytes() -> None:
    scorer = Scorer.of(orders=(2, 5), **weights(3, 6, 8))
    for wrong in ("text", None, 3, bytearray(b"x")):
        with pytest.raises(TypeError):
            scorer.score_many([b"fine", wrong])  # type: ignore[list-item]
        with pytest.raises(TypeError):
            gram_slots([wrong], (2,), 8)  # type: ignore[list-item]


def test_a_batch_lets_other_threads_run() -> None:
    """Another thread sees the clock in the middle of a batch: with the GIL held it would not."""
    scorer = Scorer.of(orders=(1, 2, 3, 4, 5, 6, 7, 8), **weights(3, 40, 12))
    texts = [bytes(range(256)) * 16] * 5000
    ends: list[float] = []

    def work() -> None:
        ends.append(time.perf_counter())
        scorer.score_many(texts)
        ends.append(time.perf_counter())

    worker, seen = threading.Thread(target=work), []
    worker.start()
    while worker.is_alive():
        seen.append(time.perf_counter())
    worker.join()
    quarter = (ends[1] - ends[0]) / 4
    assert any(ends[0] + quarter < moment < ends[1] - quarter for moment in seen)


@pytest.mark.parametrize("call", ["score_many", "heads_many"])
def test_texts_outlive_a_list_that_is_cleared_meanwhile(call: str) -> None:
    """Sanitizers apart, freed memory may still hold what it held: so references are counted too."""
    scorer = Scorer.of(orders=(1, 2, 3, 4, 5, 6, 7, 8), **weights(3, 40, 12))
    many: Callable[[list[bytes]], Any] = getattr(scorer, call)
    rng = np.random.default_rng(0)
    texts = [rng.bytes(4000) for _ in range(2500)]
    expected, found = many(list(texts)), []
    first = texts[0]
    references = sys.getrefcount(first)
    worker = threading.Thread(target=lambda: found.append(many(texts)))
    worker.start()
    while worker.is_alive() and sys.getrefcount(first) == references:
        pass  # until the call holds it
    assert worker.is_alive(), "texts are not held while they are read"
    texts.clear()
    in_their_place = [bytearray(b"q" * 4032) for _ in range(2500)]
    worker.join()
    assert len(in_their_place) == 2500
    assert np.array_equal(found[0], expected)
