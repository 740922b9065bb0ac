# SPDX-License-Identifier: Apache-2.0
"""Recorded arrivals at another speed. Times alone: a trace's token counts know no levels."""

import csv
import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stretch:
    """A part of a trace, cut into blocks of equal length."""

    blocks: tuple[Floats, ...]  # seconds from each block's start, ascending
    speed: float  # trace seconds per second
    start_s: float  # in the trace
    trace_s: float  # how much of it

    @property
    def rates(self) -> list[float]:
        """Arrivals of each block; they differ as the trace's do."""
        return [float(len(times)) for times in self.blocks]


def read(path: Path) -> Floats:
    """(n,) seconds, ascending, of a trace's `timestamp_s`; gzipped."""
    text = gzip.decompress(path.read_bytes()).decode()
    times = [float(row["timestamp_s"]) for row in csv.DictReader(io.StringIO(text, newline=""))]
    return np.sort(np.array(times))


def stretch(times: Floats, start_s: float, count: int, block_s: float, per_s: float) -> Stretch:
    """`count` blocks of `block_s` from the trace's `start_s` on, as much faster as makes their mean
    rate `per_s`. The bursts within stay, and so do the trace's slower swings, from block to block.
    """
    if count < 1 or block_s <= 0 or per_s <= 0:
        raise ValueError(f"{count} blocks of {block_s} s at {per_s} per second")
    later = times[times >= start_s]
    wanted = round(count * block_s * per_s)
    if wanted < 1 or wanted >= len(later):
        raise ValueError(f"{wanted} arrivals are wanted, {len(later)} follow second {start_s:g}")
    trace_s = float(later[wanted] - start_s)
    speed = trace_s / (count * block_s)
    at = (later[:wanted] - start_s) / speed
    edges = np.searchsorted(at, np.arange(1, count) * block_s)
    blocks = tuple(part - i * block_s for i, part in enumerate(np.split(at, edges)))
    return Stretch(blocks, speed, start_s, trace_s)
