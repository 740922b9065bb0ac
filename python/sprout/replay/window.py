# SPDX-License-Identifier: Apache-2.0
"""One zone's window under one workload: what schemes decide from, and what they are scored by."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sprout.errors import ConfigError
from sprout.optimize import lp
from sprout.optimize.floor import Range, place
from sprout.replay.bundle import Bundle
from sprout.replay.grid import Grid
from sprout.replay.workload import Workload
from sprout.units import JOULES_PER_KWH, request_g

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Window:
    """H hours, L levels; where there is a small model it is a column more, the last one."""

    bundle: Bundle
    grid: Grid
    start: int  # hour of the trace
    work: Workload

    def __post_init__(self) -> None:
        hours, trace = len(self.work.truth), len(self.grid.g_per_kwh)
        if not 0 <= self.start <= trace - hours:
            raise ConfigError(
                f"a window of {hours} h from hour {self.start} on does not fit into the "
                f"{trace} h of {self.grid.zone}"
            )

    @property
    def hours(self) -> int:
        return len(self.work.truth)

    @property
    def levels(self) -> int:
        return self.bundle.levels

    @property
    def k0(self) -> Array:
        """(H,) g/kWh."""
        return self.grid.g_per_kwh[self.start : self.start + self.hours]

    @property
    def within(self) -> Range:
        return self.grid.within

    @cached_property
    def costs_g(self) -> Array:
        """(H, L [+ 1]) grams per request, the mean of the hour's requests."""
        return self.grams(self.work.energy_kwh, self.work.seconds, self.k0[:, None])

    @cached_property
    def ratios(self) -> Array:
        """(L,) mean over the hours of each level's assessed preference relative to L0's."""
        mean: Array = (self.work.assessed / self.work.assessed[:, :1]).mean(axis=0)
        return mean

    def grams(self, energy_kwh: Array, seconds: Array, k0: Array) -> Array:
        meta = self.bundle.meta
        return request_g(
            energy_kwh * JOULES_PER_KWH,
            seconds,
            intensity_g_per_kwh=k0,
            pue=np.array(meta.pue),
            embodied_g_per_s=np.array(meta.embodied_g_per_s),
        )

    def floor(self, k0: float, xi: float) -> float:
        """The least q . x / q0 at an intensity. A zone that never varies has no range to stand in:
        its floor is then L0's own."""
        return place(k0, self.within, xi, configured_fraction=0.0).relative


@dataclass(frozen=True, eq=False)
class Plan:
    """What a scheme does with a window. `columns`: which of the window's the shares are of."""

    shares: Array  # (H, columns)
    columns: tuple[int, ...]
    evaluations: tuple[int, ...] = ()  # hours
    by_request: bool = False  # the shorter levels go to the requests that save most by them
    mismatches: int = 0  # solves in which HiGHS and the closed form differed


@dataclass(frozen=True, eq=False)
class Outcome:
    """All (H,)."""

    grams: Array  # per request
    base_grams: Array  # per request, all at L0
    preference: Array  # normalised, by the hour's assessment
    expected: Array  # the same without the noise of assessments


class Solver:
    """The live program, warm, and how often its two answers differed."""

    def __init__(self, levels: int) -> None:
        self._model = lp.PaperModel(levels)
        self.mismatches = 0

    def mix(self, costs_g: Array, preferences: Array, floor: float) -> tuple[float, ...]:
        """`floor` is relative to the first level's preference. InfeasibleError as `lp.solve`."""
        q = preferences.tolist()
        solution = self._model.solve(costs_g.tolist(), q, floor * q[0])
        self.mismatches += solution.mismatch is not None
        return solution.shares
