# SPDX-License-Identifier: Apache-2.0
"""A zone's intensities by hour, through the source that replays traces to the live feed."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sprout.carbon import forecast
from sprout.carbon.intensity import FactorType, Intensity
from sprout.carbon.trace import TraceSource
from sprout.optimize.floor import Range

Array = NDArray[np.float64]
EVER_H = 24 * 366 * 100.0


@dataclass(frozen=True, eq=False)
class Grid:
    zone: str
    first: datetime  # start of hour 0, UTC
    g_per_kwh: Array  # (hours of the trace,); an hour without a value has the one before it
    within: Range  # of the whole trace, its future included, as published

    def at(self, hour: int) -> datetime:
        return self.first + timedelta(hours=hour)


def read_grid(path: Path, factor_type: FactorType) -> Grid:
    """ConfigError as TraceSource raises it."""
    source = TraceSource(
        path, zone=path.stem, factor_type=factor_type, foresee=True, monotonic=lambda: 0.0
    )
    rows = asyncio.run(_all(source))
    _, values = forecast.hourly(rows)
    known = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(len(values)), 0))
    low, high = source.extent()
    return Grid(path.stem, rows[0].time, values[known], Range(low, high, "whole trace"))


async def _all(source: TraceSource) -> list[Intensity]:
    return [await source.now(), *await source.forecast(EVER_H)]
