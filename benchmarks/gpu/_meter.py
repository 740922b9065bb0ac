# SPDX-License-Identifier: Apache-2.0
"""Joules between any two moments, from a counter that moves in steps."""

import threading
import time
from collections.abc import Callable
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Joules = Callable[[float, float], float]  # between two moments of time.monotonic

POLL_S = 0.01  # a counter of 100 ms steps is dated this exactly


def edges(times: Floats, joules: Floats) -> tuple[Floats, Floats]:
    """The readings at which the counter had just moved, (m,) each of (n,).

    Between its steps a reading is up to a step old; just behind one it is as old as the poll.
    """
    moved = np.flatnonzero(np.diff(joules) > 0) + 1
    return times[moved], joules[moved]


def between(times: Floats, joules: Floats, since: float, until: float) -> float:
    """Joules within [since, until], linear between the counter's steps.

    ValueError where the steps do not enclose it.
    """
    at, counted = edges(times, joules)
    if len(at) < 2 or since < at[0] or until > at[-1]:
        known = f"{at[0]:.2f} to {at[-1]:.2f} s" if len(at) else "nothing"
        raise ValueError(f"the counter covers {known}, not {since:.2f} to {until:.2f} s")
    low, high = np.interp([since, until], at, counted)
    return float(high - low)


class Sampled:
    """`with Sampled(read) as meter:` - a thread polls `read`, in joules, on `time.monotonic`."""

    def __init__(self, read: Callable[[], float], poll_s: float = POLL_S) -> None:
        self._read, self._poll_s = read, poll_s
        self._times: list[float] = []
        self._joules: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def joules(self, since: float, until: float) -> float:
        """Waits until the counter has moved past `until`; ValueError as `between`."""
        deadline = time.monotonic() + 2.0
        while True:
            n = len(self._joules)
            times, joules = np.array(self._times[:n]), np.array(self._joules[:n])
            if n and edges(times, joules)[0].max(initial=0.0) >= until:
                break
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return between(times, joules, since, until)

    def _run(self) -> None:
        while not self._stop.wait(self._poll_s):
            joules = self._read()
            self._times.append(time.monotonic())
            self._joules.append(joules)
