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

# A counter that began anew comes up to where it was before by steps like those it made since: idle
# and full load are not so far apart.
LEAP = 30.0
MOST_LIVES = 8  # that are kept of a counter; each ended lower than the one before


@dataclass
class _Life:
    """Of a counter before it seemed to begin anew, until it has passed where it was."""

    end: float  # its last reading, raw like all here
    counted: float = 0.0  # since
    longest: float = 0.0  # step since


class Tally:
    """Joules as the sum of what each of several raw counters advanced by.

    A counter's first reading is where it starts from and adds nothing. `names`: the counters that
    are read now; what is remembered of others is dropped, or their absence would count on return.

    A reading below the last one is believed when a later one has moved on from it and is still
    below: then the counter has wrapped or begun anew, and what it counted since is added at once.
    If the counter comes back to where it was, the low reading was false and adds nothing; believed,
    it would have added the counter's whole life. False readings that rise are believed at first. Of
    a counter that does not wrap they are known when it leaps back, by more than LEAP of the longest
    step since, to where it was or beyond: then it goes on from there, and what the false ones had
    added is set off against what it counts next.

    So joules lag by a reading behind a wrap or a new beginning, and are lost in two cases alone,
    each bounded: a counter that began anew and is past its last reading of before by a leap, at
    once or (where the agent did not read for long) later: at most that reading is lost; and one
    that began anew, or turned, twice within two readings: what was counted in between.

    They are too many where false readings rise and nothing tells: of a counter that wraps by at
    most one turn; where they stand within LEAP of their own steps under the true ones (a copy of a
    moment ago, twice), or the agent was started again between them and the true one, for the doubt
    is not kept: by at most the last true reading before them.
    """

    def __init__(self, memory: Memory, names: Collection[str], *, raw_per_joule: float) -> None:
        self.joules = memory.joules
        self._raw = {name: raw for name, raw in memory.counters.items() if name in names}
        self._lows = {name: raw for name, raw in memory.lows.items() if name in self._raw}
        self._raw_per_joule = raw_per_joule
        self._former: dict[str, list[_Life]] = {}  # the newest, which ended lowest, is last
        self._ahead: dict[str, float] = {}  # raw, counted of false readings and not set off yet

    def update(self, name: str, raw: float, *, wraps_at: float | None = None) -> None:
        """Take a reading. wraps_at: the value after which the counter goes on from 0."""
        before = self._raw.get(name)
        low = self._lows.pop(name, None)
        if before is not None and raw < before and (low is None or raw <= low):
            # A false value may stand for several readings; a counter that runs moves on.
            self._lows[name] = raw
            return
        self._raw[name] = raw
        if before is None:
            return
        went = advance(before, raw, wraps_at)
        if wraps_at is None:
            step = went if low is None or raw >= before else raw - low
            went = self._doubted(name, before, raw, went, step)
        self.joules += went / self._raw_per_joule

    def _doubted(self, name: str, before: float, raw: float, went: float, step: float) -> float:
        """What to count of the way from `before` to `raw`. step: from the reading just before."""
        lives = self._former.setdefault(name, [])
        if raw < before:
            lives.append(_Life(before))
            del lives[:-MOST_LIVES]
        ahead = self._ahead.pop(name, 0.0)
        while lives and raw >= lives[-1].end:
            life = lives.pop()
            if life.end - before > LEAP * life.longest:  # what came after it was false
                before = life.end
                went = step = raw - before
                ahead += life.counted
                for older in lives:
                    older.counted -= life.counted
        for life in lives:
            life.counted += went
            life.longest = max(life.longest, step)
        if ahead > went:
            self._ahead[name] = ahead - went
        return max(0.0, went - ahead)

    @property
    def doubtful(self) -> bool:
        """Whether a counter reads lower than before, and it is not known yet what that means."""
        return bool(self._lows)

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
