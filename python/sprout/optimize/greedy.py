# SPDX-License-Identifier: Apache-2.0
"""Many mixes at one price of quality: where the bank's simplex starts, in NumPy.

At a price y each class's hour can be solved alone: fill the levels in the order of c - y r, as in
`closed_form`. All arrays are (hours, classes, levels) but for what is said.
"""

import numpy as np
from numpy.typing import NDArray

from sprout.optimize.program import AT_LOWER, AT_UPPER, BASIC

Array = NDArray[np.float64]
Codes = NDArray[np.int8]

# Simplex finds the exact price: that of the start need only be so near that few mixes change
# between the two prices around it.
FEW_MIXES = 8
MOST_HALVINGS = 40


def most_preferred(r: Array, c: Array, lower: Array, upper: Array) -> Array:
    """The mixes of the highest r . x within the bounds; ties go to the lower cost."""
    return _fill(np.lexsort((c, -r), axis=-1), lower, upper)[0]


def start(
    c: Array, r: Array, weight: Array, bounds: tuple[Array, Array], need: float
) -> tuple[Codes, bool]:
    """A basis for the row `sum weight (r . x) >= need`: a code for each level; is the row tight?

    `weight` (hours, classes). There is one BASIC level in each mix, and one more where the row is
    tight: in a mix that changes near the horizon's price. Other rows are not looked at.
    """
    lower, upper = bounds
    free = not lower.any() and bool((upper >= 1).all())

    def at(price: float) -> tuple[float, NDArray[np.int64]]:
        """How much of `need` is reached at a price, and each mix's basic level."""
        key = c - price * r
        if free:  # one level is all of the mix: no need to sort
            basic = np.argmin(key, -1)
            preference = np.take_along_axis(r, basic[..., None], -1)[..., 0]
            return float((weight * preference).sum()), basic
        mixes, codes = _fill(np.argsort(key, axis=-1), lower, upper)
        return float((weight[..., None] * r * mixes).sum()), np.argmax(codes == BASIC, -1)

    low, high = 0.0, 1.0
    reached, below = at(low)
    tight = reached < need
    above = below
    if tight:
        reached, above = at(high)
        while reached < need and high < 1e12:
            low, below, high = high, above, 8 * high
            reached, above = at(high)
        for _ in range(MOST_HALVINGS):
            if np.count_nonzero((below != above) & (weight > 0)) <= FEW_MIXES:
                break
            middle = 0.5 * (low + high)
            reached, basic = at(middle)
            if reached < need:
                low, below = middle, basic
            else:
                high, above = middle, basic
    _, codes = _fill(np.argsort(c - (high if tight else 0.0) * r, axis=-1), lower, upper)
    moving = np.flatnonzero((below != above) & (weight > 0))
    if len(moving):
        t, k = np.unravel_index(moving[0], weight.shape)
        codes[t, k, below[t, k]] = BASIC
    return codes, len(moving) > 0


def _fill(order: NDArray[np.int64], lower: Array, upper: Array) -> tuple[Array, Codes]:
    """Mixes filled in `order` within the bounds, and where each level then stands."""
    room = np.take_along_axis(upper - lower, order, -1)
    left = 1.0 - lower.sum(-1, keepdims=True)
    filled = np.cumsum(room, -1)
    added = np.clip(left - (filled - room), 0.0, room)
    last = np.argmax(filled >= left - 1e-12, axis=-1)[..., None]
    place = np.arange(room.shape[-1])
    ordered = np.where(place < last, AT_UPPER, np.where(place == last, BASIC, AT_LOWER))
    mixes, codes = np.empty_like(lower), np.empty(lower.shape, dtype=np.int8)
    np.put_along_axis(mixes, order, np.take_along_axis(lower, order, -1) + added, -1)
    np.put_along_axis(codes, order, ordered.astype(np.int8), -1)
    return mixes, codes
