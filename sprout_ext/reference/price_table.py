# SPDX-License-Identifier: Apache-2.0
"""What prompts come to at prices, in NumPy (csrc/price_table.h)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class PriceTable:
    """As `sprout_ext.price_table.PriceTable`; `device` and `threads` make no difference."""

    def __init__(
        self, costs: Array, gains: Sequence[Array], weights: Array | None = None, **_: Any
    ) -> None:
        self._costs, self._gains = costs, list(gains)
        self._weights = np.ones(len(costs)) if weights is None else weights
        self.shape = (*costs.shape, len(self._gains))

    def totals(self, prices: Array) -> Array:
        at = np.arange(len(self._costs))
        return np.array(
            [
                [self._weights @ values[at, levels] for values in (self._costs, *self._gains)]
                for levels in self.choose(prices)
            ]
        )

    def choose(self, prices: Array) -> NDArray[np.uint8]:
        return np.array([self._levels(vector) for vector in prices])

    def _levels(self, prices: Array) -> NDArray[np.uint8]:
        reduced = self._costs.copy()
        for gain, price in zip(self._gains, prices, strict=True):
            reduced -= price * gain
        tied = reduced == reduced.min(axis=1, keepdims=True)
        found: NDArray[np.uint8] = np.where(tied, self._costs, np.inf).argmin(axis=1).astype("u1")
        return found
