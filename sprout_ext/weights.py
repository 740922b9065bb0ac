# SPDX-License-Identifier: Apache-2.0
"""The scorer's weights as a file, which policies name by its SHA-256 (csrc/weights.h).

Little-endian: magic "SPRWTS01"; in 32 bits layout, levels L, classes C, bits, number of orders,
eight orders (the rest 0) and a 0; then, in doubles, scales (H,), biases (H,) with H = L + C, and
second (2 L, C + 1, L + 2); then the table (2^bits, H) in bytes. The same arrays are the same bytes.
"""

import hashlib
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sprout_ext import _core
from sprout_ext.scorer import Scorer

__all__ = ["MOST_WEIGHTS", "name", "pack", "scorer"]

MOST_WEIGHTS = _core.most_weights  # bytes, 3 MiB
_MAGIC, _LAYOUT, _MOST_ORDERS = b"SPRWTS01", 1, 8


def pack(  # noqa: PLR0917 - as the file has them
    orders: Sequence[int],
    bits: int,
    table: NDArray[np.int8],
    scales: ArrayLike,
    biases: ArrayLike,
    second: ArrayLike,
    levels: int,
    classes: int,
) -> bytes:
    """The file of these arrays, as in `Scorer.of`; at most `MOST_WEIGHTS`.

    ValueError: too large, or arrays that no scorer takes, and why.
    """
    if table.dtype != np.int8 or table.shape[1:] != (levels + classes,):
        kind = f"{table.dtype} {table.shape}"
        raise ValueError(f"table: {kind}, not of 8-bit integers for {levels} + {classes} heads")
    if len(orders) > _MOST_ORDERS:
        raise ValueError(f"orders: 1 to {_MOST_ORDERS} of them")
    if len(table) * table.shape[1] > MOST_WEIGHTS:
        raise ValueError(f"table: larger than {MOST_WEIGHTS} bytes")
    padded = [*orders, *[0] * (_MOST_ORDERS - len(orders))]
    try:
        head = struct.pack("<14I", _LAYOUT, levels, classes, bits, len(orders), *padded, 0)
    except struct.error:
        raise ValueError("orders, bits: not in 32 bits") from None
    doubles = [np.asarray(part, dtype="<f8").tobytes() for part in (scales, biases, second)]
    data = b"".join([_MAGIC, head, *doubles, table.tobytes()])
    scorer(data)
    return data


def scorer(data: bytes) -> Scorer:
    """The scorer of a file. ValueError: it is none, or damaged, and how."""
    return Scorer.from_weights(data)


def name(data: bytes) -> str:
    """SHA-256 of a file, 64 small hex digits."""
    return hashlib.sha256(data).hexdigest()
