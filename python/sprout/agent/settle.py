# SPDX-License-Identifier: Apache-2.0
"""Who used the energy that the meter saw: each interval's joules, shared by active-seconds.

A flight is active from its first schedule to its last token. At every tick each flight is owed the
activity that is known by now and was not yet credited; the interval's joules are divided in that
proportion. So Σ over flights is exactly what was metered while any was active, whatever order the
records arrive in: one that is noticed late, or whose start turns out earlier, is made up for in the
next interval, and what was credited is never taken back. While records are on time it equals
C(end) - C(start) of the energy clock, from which receipts are read.

While a meter stands still the interval's joules are too few, and in the tick in which it is back
they are too many: whoever is active then did not use them. A reading below the last one tells of no
joules either. All these are given to nobody, and a flight that was active at such a time is
`unmetered`: what it used is not known. So is one that is heard of at such a time and was active
before: the interval that was to make up for it has nothing to give.
"""

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sprout.units import NS_PER_S

log = logging.getLogger(__name__)

# Of an interval: the least activity that the clock's rate is taken from. Flights get theirs all the
# same, but a millisecond's flight in an idle interval must not look like the price of a second.
LEAST_ACTIVE = 0.01

RUNNING = (1 << 63) - 1  # end of a flight that has none yet, ns

FlightKey = tuple[int, int]  # (segment uid, ticket)


class Span(NamedTuple):
    """A flight's time in the engine, CLOCK_MONOTONIC."""

    key: FlightKey
    start_ns: int  # first schedule; 0 = still queued, or never scheduled
    end_ns: int  # last token, or RUNNING


@dataclass(slots=True)
class Share:
    """What a flight has been given so far."""

    joules: float = 0.0
    credited_ns: int = 0
    final: bool = False  # as far as is known, its end lies before the last tick
    unmetered: bool = False  # owed of a time without a meter: joules are not all of it


class Clock(Protocol):
    """What is used of sprout_ext's ClockWriter; it outlives the agent, in shared memory."""

    @property
    def last_t_ns(self) -> int: ...
    @property
    def last_meter_joules(self) -> float: ...
    @property
    def last_whole(self) -> bool: ...
    @property
    def unmetered_ns(self) -> tuple[int, int]: ...
    def tick(
        self,
        t_ns: int,
        active_seconds: float,
        joules: float,
        meter_joules: float,
        estimated: bool,
        *,
        whole: bool,
    ) -> None: ...
    def energy(self, start_ns: int, end_ns: int) -> tuple[float, bool]: ...


class Settlement:
    """Shares of the flights in the ledger. A reborn agent goes on from the clock's last tick."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shares: dict[FlightKey, Share] = {}
        self._reborn = clock.last_t_ns > 0  # flights may have been credited before our time

    def tick(
        self,
        now_ns: int,
        meter_joules: float,
        estimated: bool,
        spans: Iterable[Span],
        *,
        whole: bool = True,
    ) -> float:
        """Settle the interval from the last tick to `now_ns`; the active-seconds in it.

        whole: the reading has all that was used up to now, for no part of the meter stands still.
        spans: every flight of the ledger, read at or after `now_ns` (what lies after is cut off).
        A flight that is absent is forgotten. The first tick ever only sets the starting point.
        """
        last_ns = self._clock.last_t_ns
        first_ever = last_ns == 0
        joules = 0.0 if first_ever else meter_joules - self._clock.last_meter_joules
        if joules < 0:
            # Another meter, or one that lost its state: it counts anew from here.
            log.warning("meter fell by %.3f J: what the interval used is not known", -joules)
            joules, whole = 0.0, False
        known = whole and self._clock.last_whole
        shares: dict[FlightKey, Share] = {}
        credits: list[tuple[Share, int]] = []
        started: list[tuple[Share, int, int]] = []
        active_ns = 0
        for key, start_ns, end_ns in spans:
            share = self._shares.get(key)
            if share is None:
                share = self._adopt(start_ns, end_ns, last_ns) if self._reborn else Share()
            shares[key] = share
            share.final = end_ns <= now_ns
            if start_ns > 0:
                started.append((share, start_ns, end_ns))
            due_ns = min(end_ns, now_ns) - start_ns - share.credited_ns if start_ns > 0 else 0
            if due_ns <= 0:
                continue
            share.credited_ns += due_ns
            credits.append((share, due_ns))
            active_ns += due_ns
        self._shares, self._reborn = shares, False
        if known:
            for share, due_ns in credits:
                share.joules += joules * due_ns / active_ns
        elif not first_ever:
            for share, _ in credits:
                share.unmetered = True
        # Nothing was metered before the first tick ever, so nobody was active in its interval.
        active_s = 0.0 if first_ever else active_ns / NS_PER_S
        least_s = LEAST_ACTIVE * (now_ns - last_ns) / NS_PER_S
        clock_s = max(active_s, least_s) if active_s > 0 else 0.0
        self._clock.tick(now_ns, clock_s, joules, meter_joules, estimated, whole=whole)
        self._mark(started)
        return active_s

    def share(self, key: FlightKey) -> Share:
        """What the flight has been given; nothing and not final where it is unknown."""
        return self._shares.get(key) or Share()

    def _mark(self, started: Iterable[tuple[Share, int, int]]) -> None:
        """Those that were active in the latest stretch without a meter, however late they are heard
        of. The clock keeps one stretch: each flight is looked at while it is the latest."""
        since_ns, until_ns = self._clock.unmetered_ns
        if until_ns == 0:
            return
        for share, start_ns, end_ns in started:
            share.unmetered |= start_ns < until_ns and end_ns > since_ns

    def _adopt(self, start_ns: int, end_ns: int, last_ns: int) -> Share:
        """The share that an earlier agent had given: all activity up to the clock's last tick."""
        credited_ns = min(end_ns, last_ns) - start_ns
        if start_ns <= 0 or credited_ns <= 0:
            return Share()
        joules, _ = self._clock.energy(start_ns, start_ns + credited_ns)
        if not math.isfinite(joules):
            return Share(0.0, credited_ns, unmetered=True)
        return Share(joules, credited_ns)
