# SPDX-License-Identifier: Apache-2.0
"""Which hours of a zone's month a few blocks of measurement stand for, and their floors."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprout.optimize.floor import Range, place
from sprout.replay.grid import Grid, read_grid

Floats = NDArray[np.float64]

MONTH_H = 720  # of the published windows


@dataclass(frozen=True)
class Hour:
    zone: str
    at: str  # its start, ISO, UTC
    g_per_kwh: float
    floor: float  # of preference, relative to L0's: the published rule with the whole year's range
    rank: int  # 0: of the cleanest hours …
    weight: float  # the share of the month that it stands for

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def middle_hours(g_per_kwh: Floats, count: int) -> list[int]:
    """Of (hours,) intensities the middle hour, by rank, of each of `count` equal parts: clean to
    dirty. With 3 those that a sixth, a half and five sixths of the hours are cleaner than.
    """
    n = len(g_per_kwh)
    if not 1 <= count <= n:
        raise ValueError(f"{count} hours of {n}")
    order = np.argsort(g_per_kwh, kind="stable")
    return [int(order[int((2 * part + 1) * n / (2 * count))]) for part in range(count)]


def hours(grid: Grid, start: int, count: int, xi: float) -> list[Hour]:
    """Of the month that begins with the trace's hour `start`."""
    month = grid.g_per_kwh[start : start + MONTH_H]
    if len(month) < MONTH_H:
        raise ValueError(f"{grid.zone} has no {MONTH_H} h from hour {start} on")
    return [
        Hour(
            zone=grid.zone,
            at=grid.at(start + hour).isoformat(),
            g_per_kwh=float(month[hour]),
            floor=floor(float(month[hour]), grid.within, xi),
            rank=rank,
            weight=1 / count,
        )
        for rank, hour in enumerate(middle_hours(month, count))
    ]


def floor(g_per_kwh: float, within: Range, xi: float) -> float:
    return place(g_per_kwh, within, xi, configured_fraction=0.0).relative


def read_hours(
    bundle: Path, zones: Sequence[str], start: int, count: int, xi: float
) -> list[list[Hour]]:
    """By zone, those of the bundle's carbon/ZONE.csv (docs/replay.md); direct emissions, as
    published. ConfigError as `read_grid`."""
    grids = [read_grid(bundle / "carbon" / f"{zone}.csv", "direct") for zone in zones]
    return [hours(grid, start, count, xi) for grid in grids]


def in_turn(by_zone: Sequence[Sequence[Hour]], rng: np.random.Generator) -> list[Hour]:
    """Every zone has had an hour before one has its second: what is cut off by the time is cut off
    of all alike. Which hour, and which zone first, is random."""
    left = [list(rng.permutation(np.array(zone, dtype=object))) for zone in by_zone]
    found: list[Hour] = []
    for _ in range(max(map(len, left), default=0)):
        found += [left[i].pop() for i in rng.permutation(len(left)) if left[i]]
    return found
