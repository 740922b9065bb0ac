# SPDX-License-Identifier: Apache-2.0
"""The first stage: ridge regression of log energies and classes on hashed grams, then eight bits.

    minimise  |X W - Y|^2 + ridge |W|^2      X (n, slots): how often a slot is met, over the root of
                                             how many grams the text has

by conjugate gradients, all heads at once. Y's columns are the centred log energies and the class
indicators, centred too. Weights are kept as integers in [-127, 127] with one scale a head: sums of
rows are then exact, and the table stays in a processor's second cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprout.errors import PrerequisiteError
from sprout.predict.sample import Indices, Sample
from sprout_ext.scorer import Scorer, gram_slots

Array = NDArray[np.float64]

# Measured on the published prompts: docs/prompt_aware.md.
ORDERS: tuple[int, ...] = (2, 5)
BITS = 15
RIDGE = 1.0
STEPS = 20  # of conjugate gradients; more change nothing that can be seen
MOST_WEIGHT = 127


@dataclass(frozen=True, eq=False)
class First:
    """H = L + C heads."""

    table: NDArray[np.int8]  # (slots, H)
    scales: Array  # (H,)
    biases: Array  # (H,) 0 for energies, the class's share for classes

    def heads(self, texts: Sequence[bytes], levels: int) -> Array:
        """(n, H), by the compiled scorer."""
        classes = self.table.shape[1] - levels
        scorer = Scorer.of(
            orders=ORDERS,
            bits=BITS,
            table=self.table,
            scales=self.scales,
            biases=self.biases,
            second=np.zeros((2 * levels, classes + 1, levels + 2)),
        )
        return scorer.heads_many(list(texts))


class Design:
    """X of all texts, made once."""

    def __init__(self, sample: Sample) -> None:
        try:
            from scipy import sparse  # noqa: PLC0415 - fitting alone needs it
        except ImportError:
            raise PrerequisiteError(
                "fitting a predictor needs scipy: pip install 'sprout-serve[fit]'"
            ) from None
        slots, starts = gram_slots(sample.texts, ORDERS, BITS)
        n, grams = len(sample.texts), np.diff(starts)
        values = np.repeat(1 / np.sqrt(np.maximum(grams, 1)), grams).astype(np.float32)
        shape = (n, 1 << BITS)
        self._x: Any = sparse.csr_matrix((values, slots.astype(np.int32), starts), shape=shape)
        self._x.sum_duplicates()
        kinds = np.eye(len(sample.classes))[sample.label]
        self._y = np.hstack([sample.log_joules, kinds])
        self._levels = len(sample.levels)

    def fit(self, rows: Indices) -> First:
        """From some of the texts."""
        x, y = self._x[rows], self._y[rows]
        mean = y.mean(axis=0)
        weights = ridge(x, (y - mean).astype(np.float32), RIDGE, STEPS)
        scales = np.maximum(np.abs(weights).max(axis=0), 1e-12).astype(np.float64) / MOST_WEIGHT
        table = np.rint(weights / scales).astype(np.int8)
        biases = np.where(np.arange(len(mean)) < self._levels, 0.0, mean)
        return First(table, scales, biases)


def ridge(x: Any, y: NDArray[np.float32], penalty: float, steps: int) -> NDArray[np.float32]:
    """(slots, H) weights; x is sparse (n, slots), y (n, H). Columns are solved side by side."""
    back = x.T.tocsr()
    weights = np.zeros((x.shape[1], y.shape[1]), dtype=np.float32)
    residual = back @ y
    direction = residual.copy()
    square = (residual * residual).sum(axis=0)
    for _ in range(steps):
        image = back @ (x @ direction) + np.float32(penalty) * direction
        length = square / np.maximum((direction * image).sum(axis=0), np.float32(1e-30))
        weights += length * direction
        residual -= length * image
        left = (residual * residual).sum(axis=0)
        direction = residual + left / np.maximum(square, np.float32(1e-30)) * direction
        square = left
    return weights
