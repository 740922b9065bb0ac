# SPDX-License-Identifier: Apache-2.0
"""From a prompt's bytes to what each level would cost and how it would please (csrc/scorer.h).

Hashed n-grams of the folded bytes pick rows of a small table; their sums, over the root of how many
grams there are, are the *heads*: a centred log energy for each level, then for each class how much
the text is of it. A table for each class makes preferences and energies of them. Any bytes are a
text; of one longer than `MOST_BYTES` the first and the last half count.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sprout_ext import _core

__all__ = ["MOST_BYTES", "Scorer", "gram_slots"]

MOST_BYTES = _core.most_bytes


class Scorer(_core.Scorer):
    """Immutable, for any number of threads; made by `Scorer.of`. L levels, C classes, H = L + C.

    `score(text, out)` writes the preference of each level (they sum to 1) and the joules of each
    level to out (2 L,), a contiguous float64 array; nothing is allocated. `score_many(texts)` gives
    (n, 2 L) and `heads_many(texts)` the first stage alone, (n, H), without holding the GIL; with
    `cuda=True` on the GPU: the same heads bit for bit, scores within 1e-11 relative. RuntimeError:
    CUDA where it is not built, no device is found, or its memory does not suffice.
    """

    @classmethod
    def of(
        cls,
        *,
        orders: Sequence[int],
        bits: int,
        table: NDArray[np.int8],
        scales: NDArray[np.float64],
        biases: NDArray[np.float64],
        second: NDArray[np.float64],
    ) -> Self:
        """table (2^bits, H), scales and biases (H,), second (2 L, C + 1, L + 2).

        orders: lengths of grams in bytes, ascending, 1 to 8; bits: 4 to 20. ValueError: sizes that
        don't fit each other, more than 8 levels or 48 heads, a number not finite, a -128.
        """
        if second.ndim != 3 or table.ndim != 2:
            raise ValueError("table: must be (slots, heads); second: (outputs, classes, base)")
        levels = len(second) // 2
        if second.shape != (2 * levels, table.shape[1] - levels + 1, levels + 2):
            raise ValueError(f"second {second.shape} does not fit a table {table.shape}")
        return cls(orders, bits, levels, table.shape[1] - levels, table, scales, biases, second)

    @classmethod
    def from_weights(cls, data: bytes) -> Self:
        """Of a file that `sprout_ext.weights.pack` wrote. ValueError: it is none, or damaged."""
        return cls(data)


def gram_slots(
    texts: Sequence[bytes], orders: Sequence[int], bits: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Slots of all grams of all texts, one text behind the other, and where each begins, (n + 1,).

    Per text order by order, each from the text's beginning to its end. ValueError as in `Scorer`.
    """
    return _core.gram_slots(list(texts), orders, bits)
