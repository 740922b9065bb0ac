# SPDX-License-Identifier: Apache-2.0
"""Hashed grams and the linear model over them, in NumPy (csrc/grams.h, csrc/scorer.h)."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOST_BYTES = 4096
USUAL_BYTES = 256.0
LEAST_CLASS = 1e-3
MOST_EXPONENT = 60.0


def fold_text(text: bytes) -> NDArray[np.uint8]:
    """What grams are cut from: the text's two ends, A-Z small, digits 0, a zero byte around."""
    if len(text) > MOST_BYTES:
        text = text[: MOST_BYTES // 2] + text[-MOST_BYTES // 2 :]
    read = np.frombuffer(text.lower(), dtype=np.uint8)  # of bytes: A-Z alone
    read = np.where((read >= ord("0")) & (read <= ord("9")), ord("0"), read).astype(np.uint8)
    return np.concatenate([[0], read, [0]]).astype(np.uint8)


def gram_slots(
    texts: Sequence[bytes], orders: Sequence[int], bits: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """As `sprout_ext.scorer.gram_slots`."""
    _check(orders, bits)
    slots = [_slots(fold_text(text), orders, bits) for text in texts]
    starts = np.cumsum([0, *map(len, slots)], dtype=np.int64)
    return np.concatenate([np.empty(0, dtype=np.uint32), *slots]), starts


def _check(orders: Sequence[int], bits: int) -> None:
    if not 1 <= len(orders) <= 8 or not all(1 <= order <= 8 for order in orders):
        raise ValueError("orders: 1 to 8 of them, each from 1 to 8")
    if list(orders) != sorted(set(orders)):
        raise ValueError("orders: ascending")
    if not 4 <= bits <= 20:
        raise ValueError("bits: 4 to 20")


def _slots(folded: NDArray[np.uint8], orders: Sequence[int], bits: int) -> NDArray[np.uint32]:
    found = [np.empty(0, dtype=np.uint32)]
    for order in orders:
        if order > len(folded):
            break
        windows = np.lib.stride_tricks.sliding_window_view(folded, order).astype(np.uint64)
        # The first byte lowest, all of them in the word's upper end; the order below.
        shifts = np.uint64(8) * np.arange(8 - order, 8, dtype=np.uint64)
        word = np.bitwise_or.reduce(windows << shifts, axis=1)
        h = (word | np.uint64(order)) * np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ (h >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
        found.append((h >> np.uint64(64 - bits)).astype(np.uint32))
    return np.concatenate(found)


class Scorer:
    """As `sprout_ext.scorer.Scorer`."""

    def __init__(
        self,
        *,
        orders: Sequence[int],
        bits: int,
        table: NDArray[np.int8],
        scales: Array,
        biases: Array,
        second: Array,
    ) -> None:
        _check(orders, bits)
        self.levels = len(second) // 2
        self.classes = table.shape[1] - self.levels
        self._orders, self._bits = tuple(orders), bits
        self._table = table.astype(np.int64)
        self._scales, self._biases, self._second = scales, biases, second

    @classmethod
    def of(cls, **weights: Any) -> Self:
        return cls(**weights)

    def heads_many(self, texts: Sequence[bytes]) -> Array:
        return np.array([self._heads(text) for text in texts]).reshape(len(texts), -1)

    def score_many(self, texts: Sequence[bytes]) -> Array:
        out = np.empty((len(texts), 2 * self.levels))
        for text, row in zip(texts, out, strict=True):
            self.score(text, row)
        return out

    def score(self, text: bytes, out: Array) -> None:
        heads = self._heads(text)
        length = np.log(len(fold_text(text)) / USUAL_BYTES)
        out[:] = second_stage(heads[None], np.array([length]), self._second)[0]

    def _heads(self, text: bytes) -> Array:
        slots = _slots(fold_text(text), self._orders, self._bits)
        sums = self._table[slots].sum(axis=0)
        found: Array = sums * self._scales / np.sqrt(max(len(slots), 1)) + self._biases
        return found


def base_of(heads: Array, length: Array, levels: int) -> tuple[Array, Array]:
    """What the second stage is linear in: classes (n, C + 1), the first always 1, the others
    summing to 1; and (n, L + 2): 1, log length, heads of the levels."""
    classes = np.maximum(heads[:, levels:], 0.0) + LEAST_CLASS
    classes /= classes.sum(axis=1, keepdims=True)
    one = np.ones((len(heads), 1))
    return np.hstack([one, classes]), np.hstack([one, length[:, None], heads[:, :levels]])


def second_stage(heads: Array, length: Array, second: Array) -> Array:
    """(n, 2 L) of heads (n, H), log lengths (n,) and second (2 L, C + 1, L + 2)."""
    levels = len(second) // 2
    classes, base = base_of(heads, length, levels)
    linear = np.einsum("nc,oci,ni->no", classes, second, base)
    logits = linear[:, :levels] - linear[:, :levels].max(axis=1, keepdims=True)
    preferences = np.exp(logits)
    preferences /= preferences.sum(axis=1, keepdims=True)
    joules = np.exp(np.clip(linear[:, levels:], -MOST_EXPONENT, MOST_EXPONENT))
    return np.hstack([preferences, joules])
