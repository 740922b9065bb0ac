# SPDX-License-Identifier: Apache-2.0
"""Unit conversions, named once; and how a node is numbered."""

import hashlib

JOULES_PER_KWH = 3.6e6
NS_PER_S = 1_000_000_000


def operational_g(joules: float, intensity_g_per_kwh: float, pue: float) -> float:
    """Grams of CO2e for `joules` at the device, `pue` covering the building around it."""
    return joules / JOULES_PER_KWH * intensity_g_per_kwh * pue


def request_g(
    joules: float,
    device_s: float,
    *,
    intensity_g_per_kwh: float,
    pue: float,
    embodied_g_per_s: float,
) -> float:
    """Grams of CO2e of one request: CI * E * PUE + C_embodied / T_life * T (arXiv 2403.12900)."""
    return operational_g(joules, intensity_g_per_kwh, pue) + embodied_g_per_s * device_s


def node_id(name: str) -> int:
    """64 bits that stand for a node in draws and outcomes: no name leaves the node with them."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
