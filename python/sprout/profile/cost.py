# SPDX-License-Identifier: Apache-2.0
"""What a request costs at each level, by what is known of it."""

from collections.abc import Iterable
from typing import Protocol

from sprout.units import request_g


class Use(Protocol):
    """Of one level: a LevelProfile, or that of a message."""

    @property
    def energy_joules(self) -> float: ...

    @property
    def device_seconds(self) -> float: ...


def grams(
    profile: Iterable[Use], *, intensity_g_per_kwh: float, pue: float, embodied_g_per_s: float
) -> list[float]:
    """(levels,) of CO2e per request."""
    return [
        request_g(
            level.energy_joules,
            level.device_seconds,
            intensity_g_per_kwh=intensity_g_per_kwh,
            pue=pue,
            embodied_g_per_s=embodied_g_per_s,
        )
        for level in profile
    ]
