# SPDX-License-Identifier: Apache-2.0
"""What blocks say together: savings over pairs that saw the same arrivals, and grams of a zone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
LEAST_PAIRS = 4  # behind an interval around a line
SECONDS_PER_H = 3600.0
WATTS_PER_KW = 1e3


@dataclass(frozen=True)
class Pair:
    """Two blocks of one hour."""

    zone: str
    g_per_kwh: float
    weight: float  # the share of the zone's hours that it stands for
    given_up: float  # of L0's preference, by the hour's floor
    base_watts: float
    watts: float


@dataclass(frozen=True)
class Zone:
    base_g_per_h: float
    g_per_h: float
    saved: float
    half_width: float | None  # of `saved`, 95 %; None: too few pairs


def zones(pairs: Sequence[Pair]) -> dict[str, Zone]:
    """Grams of GPU energy of each zone, hours weighted by what they stand for.

    A zone has as many pairs as hours, and its hours differ by their floors, so their spread is no
    error. The error is that of the difference in watts around a line in what the floor gives up,
    over the pairs of all zones together.
    """
    noise = scatter(
        np.array([p.given_up for p in pairs]), np.array([p.base_watts - p.watts for p in pairs])
    )
    found = {}
    for name in sorted({p.zone for p in pairs}):
        own = [p for p in pairs if p.zone == name]
        weights = np.array([p.weight * p.g_per_kwh for p in own]) / sum(p.weight for p in own)
        base = float(weights @ [p.base_watts for p in own]) / WATTS_PER_KW
        grams = float(weights @ [p.watts for p in own]) / WATTS_PER_KW
        half = None
        if noise is not None:
            spread = noise[0] * math.sqrt(float((weights**2).sum())) / WATTS_PER_KW
            half = quantile(noise[1]) * spread / base
        found[name] = Zone(base, grams, 1 - grams / base, half)
    return found


def scatter(x: Floats, y: Floats) -> tuple[float, int] | None:
    """(standard deviation of y around its line in x, degrees of freedom); None: too few."""
    n = len(x)
    if n < LEAST_PAIRS:
        return None
    columns = np.column_stack([np.ones(n), x]) if float(np.ptp(x)) > 0 else np.ones((n, 1))
    fit, *_ = np.linalg.lstsq(columns, y, rcond=None)
    free = n - columns.shape[1]
    return math.sqrt(float(((y - columns @ fit) ** 2).sum()) / free), free


def ratio(top: Sequence[float], bottom: Sequence[float]) -> tuple[float, float | None]:
    """Sum over sum, and half of its 95 % interval by leaving out each in turn (jackknife); None
    where that leaves nothing to divide by, nan where there is nothing at all."""
    a, b = np.array(top, dtype=float), np.array(bottom, dtype=float)
    n, whole = len(a), float(a.sum() / b.sum()) if b.sum() > 0 else math.nan
    if n < 2 or (b.sum() - b).min() <= 0:
        return whole, None
    without = (a.sum() - a) / (b.sum() - b)
    error = math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    return whole, quantile(n - 1) * error


def quantile(free: int) -> float:
    return float(student.ppf((1 + CONFIDENCE) / 2, free))
