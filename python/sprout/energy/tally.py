# SPDX-License-Identifier: Apache-2.0
"""From raw hardware counters to joules that never fall: pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Memory:
    """What a meter goes on from after a restart of the agent."""

    joules: float = 0.0
    counters: Mapping[str, float] = field(default_factory=dict)  # raw readings, by name
    since_ticks: int | None = None  # the meter's start, clock ticks since boot; None: it starts now
    lows: Mapping[str, float] = field(default_factory=dict)  # raw readings not believed yet


NOTHING = Memory()


class Tally:
    """Joules as the sum of what each of several raw counters advanced by.

    A counter's first reading is where it starts from and adds nothing. `names`: the counters that
    are read now; what is remembered of others is dropped, or their absence would count on return.

    A reading below the last one is believed when a later one has moved on from it and is still
    below: then the counter has wrapped or begun anew, and what it counted since is added at once.
    If the counter comes back to where it was, the low reading was false and adds nothing; believed,
    it would have added the counter's whole life. So joules lag by a reading behind a wrap or a new
    beginning, and are lost in two cases alone, each bounded: a counter that began anew so early in
    its life that the next reading is already past its last (at most that last reading is lost), and
    one that began anew, or turned, twice within two readings (what was counted in between).
    """

    def __init__(self, memory: Memory, names: Collection[str], *, raw_per_joule: float) -> None:
        self.joules = memory.joules
        self._raw = {name: raw for name, raw in memory.counters.items() if name in names}
        self._lows = {name: raw for name, raw in memory.lows.items() if name in self._raw}
        self._raw_per_joule = raw_per_joule

    def update(self, name: str, raw: float, *, wraps_at: float | None = None) -> None:
        """Take a reading. wraps_at: the value after which the counter goes on from 0."""
        before = self._raw.get(name)
        low = self._lows.pop(name, None)
        if before is not None and raw < before and (low is None or raw <= low):
            # A false value may stand for several readings; a counter that runs moves on.
            self._lows[name] = raw
            return
        self._raw[name] = raw
        if before is not None:
            self.joules += advance(before, raw, wraps_at) / self._raw_per_joule

    def memory(self) -> Memory:
        return Memory(self.joules, dict(self._raw), lows=dict(self._lows))


def advance(before: float, now: float, wraps_at: float | None = None) -> float:
    """How far a counter went, in its own unit; never negative.

    One that fell has wrapped where `wraps_at` says that it can (once: several times between two
    readings can't be told from once). Without, it has begun anew at 0: a driver that was loaded
    again, a server that was restarted.
    """
    if now >= before:
        return now - before
    return now if wraps_at is None else max(now + wraps_at - before, 0.0)
