# SPDX-License-Identifier: Apache-2.0
"""The quality floor of arXiv 2403.12900 and the range that an intensity stands in.

    q_lb = (1 - fraction * xi) * q0,   fraction = (k0 - k0_min) / (k0_max - k0_min)

Edges that the paper leaves open: the fraction is clamped to [0, 1] (an intensity outside the range
that was seen); where there is no range, or it is under 1 g/kWh wide, a configured fraction stands
in, and the basis says why.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MIN_RANGE_G_PER_KWH = 1.0
HOUR_S = 3600.0
STAND_IN = "configured fraction: "
TOO_NARROW = f" is under {MIN_RANGE_G_PER_KWH:g} g/kWh wide"


@dataclass(frozen=True)
class Range:
    """What intensities the present one is compared with. `low` and `high` may be nan: none."""

    low: float  # k0_min, g/kWh
    high: float  # k0_max, g/kWh
    basis: str  # "trailing 168 h", "whole trace", or why there is none


@dataclass(frozen=True)
class Floor:
    fraction: float  # position of k0 in the range, 0 ... 1
    relative: float  # q_lb / q0
    basis: str  # of the fraction


def trailing(
    samples: Sequence[tuple[float, float]], now_s: float, hours: float, min_hours: float
) -> Range:
    """The range of the last `hours`, from samples (time in s, g/kWh) in any order.

    Its length is the number of distinct hours that have a value, so that two samples a day apart
    don't pass for a day of history. Under `min_hours` there is no range.
    """
    window = [(t, g) for t, g in samples if now_s - hours * HOUR_S < t <= now_s]
    covered = len({t // HOUR_S for t, _ in window})
    if not window or covered < min_hours:
        why = f"{covered} h of history, {min_hours:g} h needed"
        return Range(math.nan, math.nan, why)
    values = [g for _, g in window]
    length = f"trailing {hours:g} h"
    if covered < hours:
        length += f" ({covered} h have a value)"
    return Range(min(values), max(values), length)


def place(k0: float, within: Range, xi: float, configured_fraction: float) -> Floor:
    """The floor at intensity k0 (g/kWh).

    Raises ValueError if k0 is not finite, or xi or the configured fraction is outside [0, 1].
    """
    if not math.isfinite(k0):
        raise ValueError(f"intensity must be finite: {k0}")
    for what, value in (("xi", xi), ("configured fraction", configured_fraction)):
        if not 0 <= value <= 1:
            raise ValueError(f"{what} must be in [0, 1]: {value}")
    width = within.high - within.low
    if math.isnan(width):
        fraction, basis = configured_fraction, f"{STAND_IN}{within.basis}"
    elif width < MIN_RANGE_G_PER_KWH:
        fraction = configured_fraction
        basis = f"{STAND_IN}{within.basis}{TOO_NARROW}"
    else:
        fraction = min(1.0, max(0.0, (k0 - within.low) / width))
        basis = within.basis
    return Floor(fraction, 1.0 - fraction * xi, basis)


def basis_of_range(basis: str) -> str:
    """The range's own basis, of the one that `place` made of it."""
    return basis.removeprefix(STAND_IN).removesuffix(TOO_NARROW)
