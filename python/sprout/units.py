# SPDX-License-Identifier: Apache-2.0
"""Unit conversions, named once; and how a node is numbered."""

import hashlib
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

JOULES_PER_KWH = 3.6e6
NS_PER_S = 1_000_000_000

# One, or one of each of many.
Amount = TypeVar("Amount", float, NDArray[np.float64])


def operational_g(joules: Amount, intensity_g_per_kwh: Amount, pue: Amount) -> Amount:
    """Grams of CO2e for `joules` at the device, `pue` covering the building around it."""
    return joules / JOULES_PER_KWH * intensity_g_per_kwh * pue


def request_g(
    joules: Amount,
    device_s: Amount,
    *,
    intensity_g_per_kwh: Amount,
    pue: Amount,
    embodied_g_per_s: Amount,
) -> Amount:
    """Grams of CO2e of one request: CI * E * PUE + C_embodied / T_life * T (arXiv 2403.12900)."""
    return operational_g(joules, intensity_g_per_kwh, pue) + embodied_g_per_s * device_s


def node_id(name: str) -> int:
    """64 bits that stand for a node in draws and outcomes: no name leaves the node with them."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
