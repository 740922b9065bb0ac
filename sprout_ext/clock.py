# SPDX-License-Identifier: Apache-2.0
"""The energy clock: the running integral C of joules per active-second (csrc/clock.h).

An interval with A active-seconds over all flights and E joules has slope E / A, so a flight that is
active over [s, e] costs C(e) - C(s), and the costs of all flights sum to what was metered while any
was active. What was not metered whole belongs to nobody, and what a flight cost in it is not known.
Times are CLOCK_MONOTONIC in nanoseconds.
"""

from os import PathLike, fspath
from typing import NamedTuple

from sprout_ext import _core

__all__ = ["ClockReader", "ClockState", "ClockWriter"]


class ClockState(NamedTuple):
    """The clock at its last tick."""

    t_ns: int  # 0 = it never ticked
    rate: float  # joules per active-second, now
    metered: float  # joules since the clock was made = settled + idle + unattributed
    settled: float  # joules while any flight was active
    idle: float  # joules while none was
    estimated: bool  # the last interval's joules come from a model, not from a meter
    unattributed: float  # joules of intervals that were not metered whole
    unmetered_until_ns: int  # end of the latest of those; 0 = there was none
    whole: bool  # the last reading of the meter had everything that was used


class ClockWriter(_core.ClockWriter):
    """The clock's one writer; goes on where the last one stopped, if that was in this boot.

    `tick(t_ns, active_seconds, joules, meter_joules, estimated, whole=True)` adds the interval
    since the last tick; the first sets the time only (its joules count as idle). whole: the meter's
    reading has everything that was used up to now; an interval that begins or ends with one that
    has not is nobody's. ValueError: time does not move on, or a number is negative or not finite.
    `prior_rate(joules_per_active_second)` serves until the first measured interval. `energy` as the
    reader's.
    OSError: the file can't be made; with errno EBUSY, another process is writing it.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        super().__init__(fspath(path))


class ClockReader(_core.ClockReader):
    """Reads the clock.

    `energy(start_ns, end_ns)` gives (joules, provisional): provisional if the end lies beyond the
    last tick, where the last rate goes on; (nan, True) if there is no clock or no rate yet, or if
    some of the time was not metered. Never raises. What lies before the clock's memory (8191
    changes of slope) counts as nothing.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        super().__init__(fspath(path))

    def state(self) -> ClockState | None:
        """The clock at its last tick; None if it is absent or corrupt."""
        found = self._state()
        return None if found is None else ClockState(*found)
