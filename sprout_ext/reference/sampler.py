# SPDX-License-Identifier: Apache-2.0
"""Philox4x32-10 and the draw of a level, in NumPy (csrc/philox.h, csrc/sampler.h)."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sprout_ext.reference.words import fold

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(counter: NDArray[np.uint32], key: int) -> NDArray[np.uint32]:
    """Ten rounds over counters (n, 4) under one key; words (n, 4)."""
    c0, c1, c2, c3 = (counter[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1 = (p1 >> _HALF) ^ c1 ^ np.uint64(k0), p1 & _LOW
        c2, c3 = (p0 >> _HALF) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def fold_key(policy_seed: int, node_id: int, boot_epoch: int, stub_index: int) -> int:
    """The key of the draws of one stub under one policy."""
    return fold((policy_seed, node_id, boot_epoch, stub_index))


def thresholds(shares: Sequence[float] | NDArray[np.float64]) -> NDArray[np.uint64]:
    """Cumulated shares times 2^32, rounded to even; the last is 2^32. ValueError as in the core."""
    values = [float(share) for share in shares]
    if not 1 <= len(values) <= 8:
        raise ValueError("shares: 1 to 8 levels")
    if any(not math.isfinite(share) or share < 0 for share in values):
        raise ValueError("shares: each must be a finite number >= 0")
    total, upper = 0.0, []
    for share in values:
        total += share
        upper.append(round(min(total, 1.0) * 2.0**32))
    if abs(total - 1) > 1e-6:
        raise ValueError("shares: must sum to 1")
    upper[-1] = 1 << 32
    return np.array(upper, dtype=np.uint64)


def draws(key: int, first_sequence: int, count: int, stream: int) -> NDArray[np.uint32]:
    """The draws `first_sequence` … of a stream, (count,), uniform over [0, 2^32)."""
    if count == 0:
        return np.empty(0, dtype=np.uint32)
    first_block = first_sequence >> 2
    blocks = np.arange(((first_sequence + count - 1) >> 2) - first_block + 1, dtype=np.uint64)
    index = blocks + np.uint64(first_block)
    counter = np.stack(
        [index & _LOW, index >> _HALF, np.full_like(index, stream), np.zeros_like(index)], axis=1
    )
    start = first_sequence & 3
    return philox(counter.astype(np.uint32), key).reshape(-1)[start : start + count]


def draw_batch(  # noqa: PLR0917 - the signature of the core
    shares: Sequence[float] | NDArray[np.float64],
    key: int,
    first_sequence: int,
    count: int,
    stream: int = 0,
    device: str = "cpu",
) -> NDArray[np.uint8]:
    """Levels (count,): for each draw the first level whose threshold lies above it."""
    del device
    drawn = draws(key, first_sequence, count, stream).astype(np.uint64)
    return np.searchsorted(thresholds(shares), drawn, side="right").astype(np.uint8)


class Sampler:
    """One draw at a time."""

    def __init__(self, shares: Sequence[float] | NDArray[np.float64], key: int) -> None:
        self.shares, self.key = shares, key

    def draw(self, sequence: int, stream: int = 0) -> int:
        """The level of one draw."""
        return int(draw_batch(self.shares, self.key, sequence, 1, stream)[0])
