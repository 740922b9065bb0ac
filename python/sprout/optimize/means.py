# SPDX-License-Identifier: Apache-2.0
"""Mean cost and gains of what prompts take at prices: what every search for prices asks for.

On the CPU or a GPU, by `sprout_ext.price_table`: the choices are the same bits, means are equal
within 1e-12 of the largest mean of a level.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sprout.errors import PrerequisiteError
from sprout_ext.price_table import PriceTable

Array = NDArray[np.float64]
Device = Literal["cpu", "cuda"]
DEVICES: tuple[Device, ...] = ("cpu", "cuda")

THREADS = 2  # on the CPU: a search must not take all of a machine that serves


class Means:
    """n prompts, L levels, R rows."""

    def __init__(
        self, costs: Array, weights: Array, gains: Sequence[Array], device: Device = "cpu"
    ) -> None:
        """costs and each of gains (n, L), weights (n,). ValueError as in `PriceTable`;
        PrerequisiteError where "cuda" can't be had."""
        even = bool((weights == weights[0]).all())  # then nobody needs to read them again
        self._sum = float(len(weights) if even else weights.sum())
        given = None if even else weights
        try:
            self._table = PriceTable(costs, gains, given, device=device, threads=THREADS)
        except RuntimeError as error:
            raise PrerequisiteError(f"device {device}: {error}") from None

    def at(self, prices: Array) -> Array:
        """(K, 1 + R) at prices (K, R), K at most `MOST_PRICES`."""
        found: Array = self._table.totals(prices) / self._sum
        return found
