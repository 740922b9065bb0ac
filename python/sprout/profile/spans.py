# SPDX-License-Identifier: Apache-2.0
"""How many were at work together: pure arithmetic on starts and ends."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def concurrency(starts: Floats, ends: Floats) -> Floats:
    """(n,) for each span the mean number of spans, itself included, over its own length.

    starts, ends: (n,) seconds on one clock. A span of no length counts what holds its moment.
    O(n log n): with A(t) the integral of the number at work, span i sees (A(e) - A(s)) / (e - s).
    """
    length = ends - starts
    mean = (_integral(starts, ends, ends) - _integral(starts, ends, starts)) / np.where(
        length > 0, length, 1.0
    )
    at = np.searchsorted(np.sort(starts), starts, "right") - np.searchsorted(
        np.sort(ends), starts, "left"
    )
    return np.maximum(np.where(length > 0, mean, at), 1.0)


def active_seconds(starts: Floats, ends: Floats, since: float, until: float) -> float:
    """Seconds of work of all spans together within [since, until]."""
    return float(np.clip(np.minimum(ends, until) - np.maximum(starts, since), 0, None).sum())


def busy_seconds(starts: Floats, ends: Floats, since: float, until: float) -> float:
    """Seconds of [since, until] in which at least one span was at work."""
    order = np.argsort(starts)
    s, e = np.clip(starts[order], since, until), np.clip(ends[order], since, until)
    reached = np.maximum.accumulate(np.concatenate(([since], e)))
    return float(np.clip(e - np.maximum(s, reached[:-1]), 0, None).sum())


def _integral(starts: Floats, ends: Floats, at: Floats) -> Floats:
    """(n,) seconds of work of all spans before each time of `at`."""
    return _ramp(starts, at) - _ramp(ends, at)


def _ramp(marks: Floats, at: Floats) -> Floats:
    """(n,) sum over marks of max(0, at - mark)."""
    ordered = np.sort(marks)
    # About the first mark: clocks count from 1970, and sums of such numbers lose microseconds.
    zero = ordered[0] if len(ordered) else 0.0
    total = np.concatenate(([0.0], np.cumsum(ordered - zero)))
    before = np.searchsorted(ordered, at, "right")
    result: Floats = before * (at - zero) - total[before]
    return result
