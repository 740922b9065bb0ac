# SPDX-License-Identifier: Apache-2.0
"""The CUDA batch draws the CPU's levels, bit for bit. `scripts/gpu_check` runs this on a GPU."""

import numpy as np
import pytest

from sprout_ext import reference
from sprout_ext.sampler import Stream, cuda_available, cuda_built, draw_batch, fold_key

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cuda_built(), reason="the core is built without CUDA"),
    pytest.mark.skipif(not cuda_available(), reason="no NVIDIA GPU"),
]

SHARES = (
    [1.0],
    [0.5, 0.5],
    [0.2, 0.5, 0.3],
    [0.0, 1.0],
    [1.0, 0.0],
    [0.0, 0.0, 0.25, 0.0, 0.75, 0.0],
    [0.125] * 8,
    [1e-9, 1 - 1e-9],
)
KEYS = (0, 2**64 - 1, fold_key(1, 2, 3, 4))
# Starts within a block, at its ends, and around a carry of the counter's low word.
FIRSTS = (0, 1, 2, 3, 4, 1_000_003, 2**34 - 5, 2**63 + 1, 2**64 - 5000)
COUNTS = (0, 1, 2, 3, 4, 5, 255, 256, 257, 1023, 4999)


def both(*args: object) -> tuple[np.ndarray, np.ndarray]:
    return draw_batch(*args, device="cpu"), draw_batch(*args, device="cuda")  # type: ignore[arg-type]


@pytest.mark.parametrize("shares", SHARES, ids=str)
@pytest.mark.parametrize("stream", list(Stream))
def test_cuda_draws_the_same_levels(shares: list[float], stream: Stream):
    for key in KEYS:
        for first in FIRSTS:
            for count in COUNTS:
                cpu, cuda = both(shares, key, first, count, stream)
                np.testing.assert_array_equal(cpu, cuda, err_msg=f"{key=} {first=} {count=}")


@pytest.mark.parametrize("count", [1_000_000, 20_000_003])
def test_large_batches(count: int):
    """More blocks than one grid has threads."""
    cpu, cuda = both([0.2, 0.5, 0.3], 5, 3, count)
    np.testing.assert_array_equal(cpu, cuda)


def test_cuda_draws_the_references_levels():
    args = ([0.2, 0.5, 0.3], KEYS[2], 2**34 - 50_001, 100_003, Stream.CANARY)
    np.testing.assert_array_equal(
        draw_batch(*args, device="cuda"), reference.draw_batch(*args, device="cuda")
    )


def test_bad_arguments_are_refused_on_the_gpu_too():
    with pytest.raises(ValueError, match="sum to 1"):
        draw_batch([0.5], 1, 0, 1, device="cuda")
    with pytest.raises(ValueError, match="64 bits"):
        draw_batch([1.0], 1, 2**64 - 1, 2, device="cuda")
