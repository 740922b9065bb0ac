# SPDX-License-Identifier: Apache-2.0
"""What policies said of the grid over time: steps, and which series each step belongs to.

Grams are comparable within a series alone (zone, source, factor type, signal). After a fallback to
another source there are two sums, never one.
"""

import bisect
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sprout.carbon.intensity import Series
from sprout.control.archive import Span
from sprout.control.notes import Note

# Grams of requests whose series is none of the grid's.
DRILL = "an operator's intensity, not the grid's"
FORGOTTEN = "a policy that is no longer stored"
UNKNOWN = "a policy that knew no intensity"


def title(series: Series) -> str:
    """For people, and the key that grams are kept apart by."""
    zone, source, factor_type, signal = series
    return f"{zone} {source}, {factor_type}, {signal}"


def intensity(made: Note | None) -> float | None:
    """g/kWh of the grid as the policy knew it; None: unknown, or not the grid's."""
    return None if made is None or made.overridden else made.g_per_kwh


def series_of(made: Note | None) -> Series | None:
    """None: the policy knew no intensity of the grid."""
    return None if made is None or intensity(made) is None else made.series


def grams_as(made: Note | None) -> str:
    """What the grams of requests under a policy are a part of: its series, or why there is none.

    made: None where the policy is not stored any more.
    """
    if made is None:
        return FORGOTTEN
    if made.series is None:
        return UNKNOWN
    return DRILL if made.overridden else title(made.series)


class Grid:
    """Intensity, PUE and embodied carbon of the policies in force."""

    def __init__(self, notes: Sequence[Note]) -> None:
        self.notes = sorted(notes, key=lambda n: n.issued_at)
        self._times = [n.issued_at for n in self.notes]
        self._array = np.array(self._times, np.float64)

    def at(self, time: float) -> Note | None:
        """The policy in force; None before the first."""
        index = bisect.bisect_right(self._times, time) - 1
        return self.notes[index] if index >= 0 else None

    def steps(
        self, since: NDArray[np.float64], until: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices into `notes` of the policies in force at each start and just before each end; -1:
        before the first."""
        first = np.searchsorted(self._array, since, side="right") - 1
        return first, np.searchsorted(self._array, until, side="left") - 1

    def pieces(self, span: Span) -> list[tuple[float, Note | None]]:
        """(seconds, policy in force) that make up the span."""
        first = bisect.bisect_right(self._times, span.since)
        last = bisect.bisect_left(self._times, span.until)
        edges = [span.since, *self._times[first:last], span.until]
        return [(b - a, self.at(a)) for a, b in pairwise(edges) if b > a]

    def mean(self, span: Span) -> tuple[Series, float] | str:
        """(series, mean g/kWh over time), or why there is none: a part is unknown, or an operator's
        drill, or the series changed."""
        pieces = self.pieces(span)
        found = {series_of(made) for _, made in pieces}
        if len(found) > 1 and None not in found:
            return "the intensity's series changed"
        series = found.pop() if len(found) == 1 else None
        if series is None:
            return "the intensity is not known"
        total = math.fsum(s * (intensity(made) or 0.0) for s, made in pieces)
        return series, total / (span.until - span.since)
