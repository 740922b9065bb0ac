# SPDX-License-Identifier: Apache-2.0
"""Joules are neither made nor lost: what the meter saw while flights were active is theirs."""

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprout.agent.settle import RUNNING, Settlement, Span
from sprout.units import NS_PER_S

MS = 1_000_000
T0 = 1000 * NS_PER_S


@dataclass
class PlainClock:
    """The energy clock's definition, in lists: C at every tick, straight lines between."""

    times: list[int] = field(default_factory=list)
    integral: list[float] = field(default_factory=list)
    last_meter_joules: float = 0.0
    settled: float = 0.0
    idle: float = 0.0
    unattributed: float = 0.0
    last_whole: bool = True
    unmetered_ns: tuple[int, int] = (0, 0)

    @property
    def last_t_ns(self) -> int:
        return self.times[-1] if self.times else 0

    def tick(
        self,
        t_ns: int,
        active_seconds: float,
        joules: float,
        meter_joules: float,
        estimated: bool,
        *,
        whole: bool,
    ) -> None:
        step = 0.0
        if not (whole and self.last_whole) and self.times:
            self.unattributed += joules
            since, until = self.unmetered_ns
            self.unmetered_ns = (since if until == self.last_t_ns else self.last_t_ns, t_ns)
        elif active_seconds > 0:
            step = joules / active_seconds * (t_ns - self.last_t_ns) / NS_PER_S
            self.settled += joules
        else:
            self.idle += joules
        self.integral.append((self.integral[-1] if self.integral else 0.0) + step)
        self.times.append(t_ns)
        self.last_meter_joules = meter_joules
        self.last_whole = whole

    def at(self, t_ns: int) -> float:
        i = min(max(bisect.bisect_left(self.times, t_ns), 1), len(self.times) - 1)
        a, b = self.times[i - 1], self.times[i]
        return self.integral[i - 1] + (self.integral[i] - self.integral[i - 1]) * (t_ns - a) / (
            b - a
        )

    def energy(self, start_ns: int, end_ns: int) -> tuple[float, bool]:
        since, until = self.unmetered_ns
        if until and start_ns < until and end_ns > since:
            return math.nan, True
        return self.at(end_ns) - self.at(start_ns), end_ns > self.last_t_ns


@dataclass
class Made:
    """A flight as it was, and how much later the ledger told of its start and end."""

    start: int
    end: int
    start_late: int = 0
    end_late: int = 0

    def span(self, key: tuple[int, int], now: int) -> Span | None:
        seen = now + 3 * MS
        if seen < self.end + self.end_late:
            return Span(key, self.start, RUNNING) if seen >= self.start + self.start_late else None
        return Span(key, self.start, self.end)


GRID = 10 * MS  # of the flights that are on time: every overlap is then at least this
late = st.integers(0, 400 * MS)


@st.composite
def flights(draw: st.DrawFn, on_time: bool = False) -> list[Made]:
    grid, lateness = (GRID, st.just(0)) if on_time else (1, late)
    starts = st.integers(0, 3 * NS_PER_S // grid)
    lengths = st.integers(0, 2 * NS_PER_S // grid)
    return draw(
        st.lists(
            st.builds(
                lambda start, length, a, b: Made(
                    T0 + start * grid, T0 + (start + length) * grid, a, b
                ),
                starts,
                lengths,
                lateness,
                lateness,
            ),
            max_size=12,
        )
    )


# (GRIDs, joules)
intervals = st.lists(st.tuples(st.integers(2, 30), st.floats(0, 500)), min_size=2, max_size=40)


def run(
    made: list[Made],
    steps: list[tuple[int, float]],
    restart_at: int = -1,
    wholes: Sequence[bool] = (True,),
) -> tuple[PlainClock, dict[int, float], float]:
    """Ticks from before the first flight to after the last; (clock, joules by flight, metered)."""
    clock = PlainClock()
    settlement = Settlement(clock)
    given: dict[int, float] = {}
    metered, now = 0.0, T0 - GRID
    settlement.tick(now, metered, True, [])
    last = max([f.end + f.end_late for f in made], default=T0) + NS_PER_S
    for n, (length, joules) in enumerate(itertools.cycle(steps)):
        if now > last:
            break
        if n == restart_at:  # nothing but the clock outlives the agent
            settlement = Settlement(clock)
        now += length * GRID
        metered += joules
        spans = [s for i, f in enumerate(made) if i not in given and (s := f.span((1, i), now))]
        settlement.tick(now, metered, True, spans, whole=wholes[n % len(wholes)])
        for span in spans:
            share = settlement.share(span.key)
            if span.end_ns != RUNNING and share.final:
                given[span.key[1]] = share.joules
    return clock, given, metered


@settings(max_examples=50, deadline=None)
@given(flights(), intervals)
def test_what_was_metered_while_flights_were_active_is_theirs(
    made: list[Made], steps: list[tuple[int, float]]
) -> None:
    clock, given, metered = run(made, steps)
    assert len(given) == len(made)
    assert sum(given.values()) == pytest.approx(clock.settled, rel=1e-9, abs=1e-9)
    assert clock.settled + clock.idle == pytest.approx(metered, rel=1e-9, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(flights(on_time=True), intervals)
def test_a_share_is_the_clocks_difference_while_records_are_on_time(
    made: list[Made], steps: list[tuple[int, float]]
) -> None:
    clock, given, _ = run(made, steps)
    for i, flight in enumerate(made):
        expected, provisional = clock.energy(flight.start, flight.end)
        assert not provisional
        assert given[i] == pytest.approx(expected, rel=1e-6, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(flights(on_time=True), intervals, st.integers(0, 30))
def test_a_reborn_agent_goes_on_where_the_clock_stopped(
    made: list[Made], steps: list[tuple[int, float]], restart_at: int
) -> None:
    clock, given, _ = run(made, steps, restart_at)
    assert sum(given.values()) == pytest.approx(clock.settled, rel=1e-6, abs=1e-6)


def test_two_flights_share_by_the_time_that_each_was_active() -> None:
    clock = PlainClock()
    settlement = Settlement(clock)
    settlement.tick(T0, 5.0, True, [])
    spans = [Span((1, 1), T0, RUNNING), Span((1, 2), T0 + 50 * MS, RUNNING)]
    settlement.tick(T0 + 100 * MS, 8.0, True, spans)
    assert settlement.share((1, 1)).joules == pytest.approx(2.0)
    assert settlement.share((1, 2)).joules == pytest.approx(1.0)
    assert not settlement.share((1, 1)).final


def test_queued_flights_and_idle_intervals_cost_nothing() -> None:
    clock = PlainClock()
    settlement = Settlement(clock)
    settlement.tick(T0, 0.0, True, [])
    settlement.tick(T0 + 100 * MS, 3.0, True, [Span((1, 1), 0, RUNNING)])
    assert (clock.settled, clock.idle) == (0.0, 3.0)
    settlement.tick(T0 + 200 * MS, 4.0, True, [Span((1, 1), 0, T0 + 150 * MS)])  # refused
    assert settlement.share((1, 1)).final
    assert settlement.share((1, 1)).joules == 0.0


def test_a_flight_that_ends_after_the_tick_waits_for_the_next() -> None:
    clock = PlainClock()
    settlement = Settlement(clock)
    settlement.tick(T0, 0.0, True, [])
    spans = [Span((1, 1), T0 + 10 * MS, T0 + 101 * MS)]
    settlement.tick(T0 + 100 * MS, 9.0, True, spans)
    assert not settlement.share((1, 1)).final
    settlement.tick(T0 + 200 * MS, 10.0, True, spans)
    assert settlement.share((1, 1)).final
    assert settlement.share((1, 1)).joules == pytest.approx(10.0)


def test_a_moment_of_activity_is_paid_for_but_is_no_price_for_the_next() -> None:
    clock = PlainClock()
    settlement = Settlement(clock)
    settlement.tick(T0, 0.0, True, [])
    settlement.tick(T0 + 100 * MS, 1.0, True, [Span((1, 1), T0 + MS, T0 + MS + 1000)])
    assert settlement.share((1, 1)).joules == pytest.approx(1.0)
    rate = clock.energy(T0, T0 + 100 * MS)[0] / 0.1
    assert rate == pytest.approx(1.0 / (0.01 * 0.1))  # and not 1 J over 1 us


def test_a_meter_that_fell_tells_nothing_and_goes_on_from_there() -> None:
    clock = PlainClock()
    settlement = Settlement(clock)
    settlement.tick(T0, 100.0, True, [])
    during, after = Span((1, 1), T0, RUNNING), Span((1, 2), T0 + 200 * MS, RUNNING)
    settlement.tick(T0 + 100 * MS, 2.0, True, [during])
    assert settlement.share(during.key).joules == 0.0
    assert settlement.share(during.key).unmetered
    settlement.tick(T0 + 200 * MS, 5.0, True, [during])
    settlement.tick(T0 + 300 * MS, 9.0, True, [during, after])
    assert settlement.share(during.key).unmetered
    assert settlement.share(after.key).joules == pytest.approx(2.0)
    assert not settlement.share(after.key).unmetered
    assert (clock.settled, clock.idle, clock.unattributed) == (4.0, 0.0, 3.0)


def test_nothing_was_metered_before_the_first_tick_ever() -> None:
    clock = PlainClock()
    settlement = Settlement(clock)
    spans = [Span((1, 1), T0 - NS_PER_S, RUNNING)]
    settlement.tick(T0, 1000.0, True, spans)
    settlement.tick(T0 + 100 * MS, 1001.0, True, spans)
    assert settlement.share((1, 1)).joules == pytest.approx(1.0)
    assert clock.settled == pytest.approx(1.0)


# --- a meter that stands still ------------------------------------------------------------------


def test_a_meter_that_stood_still_gives_nobody_too_few_and_nobody_its_lump() -> None:
    """10 W a request; the GPU is away from 100 to 300 ms, and 2 J come at once at 400 ms."""
    clock = PlainClock()
    settlement = Settlement(clock)
    before = Span((1, 1), T0, T0 + 100 * MS)
    through = Span((1, 2), T0, T0 + 600 * MS)
    within = Span((1, 3), T0 + 110 * MS, T0 + 190 * MS)
    on_return = Span((1, 4), T0 + 310 * MS, T0 + 390 * MS)
    after = Span((1, 5), T0 + 400 * MS, T0 + 500 * MS)
    spans = [before, through, within, on_return, after]
    settlement.tick(T0, 0.0, False, [])
    metered = ((100, 2.0, True), (200, 2.0, False), (300, 2.0, False), (400, 6.0, True))
    for ms, joules, whole in (*metered, (500, 8.0, True), (600, 9.0, True)):
        settlement.tick(T0 + ms * MS, joules, False, spans, whole=whole)
    shares = [settlement.share(span.key) for span in spans]
    assert [share.unmetered for share in shares] == [False, True, True, True, False]
    assert [round(share.joules, 9) for share in shares] == [1.0, 3.0, 0.0, 0.0, 1.0]
    assert all(share.final for share in shares)
    # Every joule is somewhere, once.
    assert (clock.settled, clock.idle, clock.unattributed) == (5.0, 0.0, 4.0)
    assert math.fsum(share.joules for share in shares) == pytest.approx(clock.settled)


def test_one_that_is_heard_of_after_the_gap_is_marked_too() -> None:
    clock = PlainClock()
    settlement = Settlement(clock)
    settlement.tick(T0, 0.0, False, [])
    settlement.tick(T0 + 100 * MS, 0.0, False, [], whole=False)
    settlement.tick(T0 + 200 * MS, 5.0, False, [])
    settlement.tick(T0 + 300 * MS, 6.0, False, [Span((1, 1), T0 + 50 * MS, T0 + 250 * MS)])
    assert settlement.share((1, 1)).unmetered


def test_one_that_ended_before_the_gap_and_is_heard_of_in_it_is_marked() -> None:
    """What it used was idle by then, and the interval that is to make up for it is not known."""
    clock = PlainClock()
    settlement = Settlement(clock)
    span = Span((1, 1), T0 + 20 * MS, T0 + 90 * MS)
    settlement.tick(T0, 0.0, False, [])
    settlement.tick(T0 + 100 * MS, 10.0, False, [])
    settlement.tick(T0 + 200 * MS, 10.0, False, [span], whole=False)
    share = settlement.share(span.key)
    assert (share.joules, share.final, share.unmetered) == (0.0, True, True)
    settlement.tick(T0 + 300 * MS, 30.0, False, [span])  # the lump is not its either
    assert (clock.settled, clock.idle, clock.unattributed) == (0.0, 10.0, 20.0)


def test_what_an_agent_before_saw_without_a_meter_is_not_known() -> None:
    """The agent dies in the gap, and the next finds the counter back."""
    clock = PlainClock()
    first = Settlement(clock)
    span = Span((1, 1), T0, T0 + 150 * MS)
    running = Span((1, 2), T0, RUNNING)
    first.tick(T0, 0.0, False, [])
    first.tick(T0 + 100 * MS, 0.0, False, [span, running], whole=False)
    second = Settlement(clock)
    second.tick(T0 + 200 * MS, 50.0, False, [span, running])
    second.tick(T0 + 300 * MS, 51.0, False, [span, running])
    assert second.share(span.key).unmetered
    assert second.share(running.key).unmetered
    assert (clock.settled, clock.unattributed) == (1.0, 50.0)
    # Whoever comes later is metered as ever.
    later = Span((1, 3), T0 + 300 * MS, T0 + 400 * MS)
    second.tick(T0 + 400 * MS, 53.0, False, [later])
    assert second.share(later.key).joules == pytest.approx(2.0)
    assert not second.share(later.key).unmetered


gaps = st.lists(st.sampled_from([True, True, True, False]), min_size=1, max_size=9)


@settings(max_examples=50, deadline=None)
@given(flights(), intervals, gaps)
def test_with_gaps_every_joule_is_somewhere_once(
    made: list[Made], steps: list[tuple[int, float]], wholes: list[bool]
) -> None:
    clock, given, metered = run(made, steps, wholes=wholes)
    assert sum(given.values()) == pytest.approx(clock.settled, rel=1e-9, abs=1e-9)
    parts = clock.settled + clock.idle + clock.unattributed
    assert parts == pytest.approx(metered, rel=1e-9, abs=1e-9)
