# SPDX-License-Identifier: Apache-2.0
"""What prompts come to at many prices at once, on the CPU or a GPU (csrc/price_table.h).

At prices y (R,) a prompt takes the level of the least c_l - sum_r y_r a_rl, the cheaper if tied,
then the lower. Products and differences are rounded one by one in the rows' order, so the choices
are NumPy's, bit for bit, on either device. Sums are of double precision and the same in each run
of one device; between devices they differ by the order of the additions.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sprout_ext import _core

__all__ = ["MOST_PRICES", "MOST_ROWS_ON_CUDA", "PriceTable"]

MOST_PRICES = _core.most_prices
MOST_ROWS_ON_CUDA = _core.most_rows_on_cuda

Array = NDArray[np.float64]


class PriceTable:
    """n prompts of L levels under R rows, copied to where they are worked on. For any number of
    threads; `threads` is how many a call works with on the CPU.

    ValueError: no prompt, more than 8 levels or 64 rows (8 on "cuda"), shapes that don't fit,
    a number that is not finite, a weight below 0, an unknown device. RuntimeError: "cuda" where it
    is not built, no device is found, or its memory does not suffice.
    """

    def __init__(
        self,
        costs: Array,
        gains: Sequence[Array],
        weights: Array | None = None,
        *,
        device: Literal["cpu", "cuda"] = "cpu",
        threads: int = 1,
    ) -> None:
        """costs and each of gains (n, L), weights (n,); without, each prompt counts 1."""
        if device not in ("cpu", "cuda"):
            raise ValueError(f"device {device!r}: 'cpu' or 'cuda'")
        if threads < 1:
            raise ValueError(f"threads {threads}: at least 1")
        self._table = _core.PriceTable(costs, list(gains), weights, threads, device == "cuda")

    @property
    def shape(self) -> tuple[int, int, int]:
        """n, L, R."""
        return self._table.prompts, self._table.levels, self._table.rows

    def totals(self, prices: Array) -> Array:
        """(K, 1 + R) weighted sums of cost and of each row's gain over what is taken at prices
        (K, R), K at most `MOST_PRICES`. One pass over the scores, but for several rows on "cuda":
        of 2 rows 32 prices a pass, of up to 4 rows 16, of up to 8 rows 8."""
        return self._table.totals(prices)

    def choose(self, prices: Array) -> NDArray[np.uint8]:
        """(K, n) the levels that are taken at prices (K, R), for any K."""
        return self._table.choose(prices)

    def device_seconds(self) -> float:
        """How long the GPU took over the last `totals`, by its own clock; 0 on the CPU."""
        return self._table.device_seconds()
