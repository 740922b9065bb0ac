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


NOTHING = Memory()


class Tally:
    """Joules as the sum of what each of several raw counters advanced by.

    A counter's first reading is where it starts from and adds nothing. `names`: the counters that
    are read now; what is remembered of others is dropped, or their absence would count on return.
    """

    def __init__(self, memory: Memory, names: Collection[str], *, raw_per_joule: float) -> None:
        self.joules = memory.joules
        self._raw = {name: raw for name, raw in memory.counters.items() if name in names}
        self._raw_per_joule = raw_per_joule

    def update(self, name: str, raw: float, *, wraps_at: float | None = None) -> None:
        """Take a reading. wraps_at: the value after which the counter goes on from 0."""
        before = self._raw.get(name)
        self._raw[name] = raw
        if before is not None:
            self.joules += advance(before, raw, wraps_at) / self._raw_per_joule

    def memory(self) -> Memory:
        return Memory(self.joules, dict(self._raw))


def advance(before: float, now: float, wraps_at: float | None = None) -> float:
    """How far a counter went, in its own unit; never negative.

    One that fell has wrapped where `wraps_at` says that it can (once: several times between two
    readings can't be told from once). Without, it has begun anew at 0: a driver that was loaded
    again, a server that was restarted.
    """
    if now >= before:
        return now - before
    return now if wraps_at is None else max(now + wraps_at - before, 0.0)
