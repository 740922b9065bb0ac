# SPDX-License-Identifier: Apache-2.0
"""Which level a request gets: Philox draws against cumulated shares, the same bits everywhere.

Key: `fold_key` of the policy's seed, the node, the stub's boot epoch and its index. Counter: the
stub's sequence number and a stream. Both go into the outcome, so any draw can be replayed. Source:
Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sprout_ext import _core
from sprout_ext._core import Sampler, cuda_available, cuda_built, fold_key, thresholds

__all__ = [
    "Sampler",
    "Stream",
    "cuda_available",
    "cuda_built",
    "draw_batch",
    "fold_key",
    "thresholds",
]


class Stream(IntEnum):
    """Independent draws under one key and sequence number."""

    LEVEL = 0
    CONTROL = 1
    CANARY = 2
    SAMPLE = 3  # which prompts are kept for evaluations
    PROMPT = 4  # whose prompt chooses the level
    POINT = 5  # at which of the prices


def draw_batch(  # noqa: PLR0917 - as the other faces of the sampler
    shares: Sequence[float] | NDArray[np.float64],
    key: int,
    first_sequence: int,
    count: int,
    stream: int = Stream.LEVEL,
    device: Literal["cpu", "cuda"] = "cpu",
) -> NDArray[np.uint8]:
    """Levels (count,) of the draws `first_sequence` … `first_sequence + count - 1`.

    The same as `Sampler(shares, key).draw(s, stream)` for each of them, on either device.
    ValueError: shares as in `thresholds`, an unknown device, or the sequence exceeds 64 bits.
    RuntimeError: "cuda" where it is not built or no device is found.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r}: 'cpu' or 'cuda'")
    return _core.draw_batch(shares, key, first_sequence, count, int(stream), device == "cuda")
