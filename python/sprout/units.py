# SPDX-License-Identifier: Apache-2.0
"""Unit conversions, named once; and how a node is numbered."""

import hashlib
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Sci:
    """Software carbon intensity (ISO/IEC 21031:2024): gCO2e per functional unit."""

    operational_g: float  # O / R
    embodied_g: float  # M / R

    @property
    def total_g(self) -> float:
        return self.operational_g + self.embodied_g


def sci(
    joules: float,
    device_s: float,
    *,
    intensity_g_per_kwh: float,
    pue: float,
    embodied_g_per_s: float,
    requests: int = 1,
    reserved_share: float = 1.0,
) -> Sci:
    """SCI = (O + M) per R, with the functional unit R = one request.

    O = E * I: `joules` of all `requests`, those of reserved but idle hardware with them, times
    `pue`; I must be location-based (the grid's own average or marginal intensity, no certificates
    or offsets). M = TE * TiR / EL * RR / ToR: `embodied_g_per_s` is TE / EL of the device,
    `device_s` TiR, and `reserved_share` RR / ToR, which is below 1 where others share the device in
    that time. With one request and a share of 1 the total is `request_g`.
    """
    if requests < 1 or not 0 <= reserved_share <= 1:
        raise ValueError(f"{requests} requests with a share of {reserved_share}")
    operational = operational_g(joules, intensity_g_per_kwh, pue)
    return Sci(operational / requests, embodied_g_per_s * device_s * reserved_share / requests)


def node_id(name: str) -> int:
    """64 bits that stand for a node in draws and outcomes: no name leaves the node with them."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
