# SPDX-License-Identifier: Apache-2.0
"""Raw counters become joules that never fall, whatever the counters do."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprout.energy.tally import LEAP, Memory, Tally, advance
from sprout.energy.triton import LONGEST_STEP_S, Ramp

RAW = st.integers(0, 10**9)


@pytest.mark.parametrize(
    ("before", "now", "wraps_at", "went"),
    [
        (5, 9, None, 4),
        (9, 9, None, 0),
        (9, 4, None, 4),  # began anew
        (9, 0, None, 0),
        (9, 4, 10, 5),  # 9 → 10 = 0 → 4
        (10, 0, 10, 0),
        (20, 4, 10, 0),  # was beyond where it can be: nonsense adds nothing
    ],
)
def test_how_far_a_counter_went(
    before: float, now: float, wraps_at: float | None, went: float
) -> None:
    assert advance(before, now, wraps_at) == went


@given(st.lists(RAW, min_size=1), st.none() | st.integers(1, 10**9))
def test_joules_never_fall(readings: list[int], wraps_at: int | None) -> None:
    tally = Tally(Memory(), ["a"], raw_per_joule=1000)
    seen = [0.0]
    for raw in readings:
        tally.update("a", raw, wraps_at=wraps_at)
        seen.append(tally.joules)
    assert seen == sorted(seen)
    assert seen[1] == 0  # the first reading is where it starts


@given(
    st.integers(100, 10**6),
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 0.49)), max_size=30),
    st.sets(st.integers(0, 29)),
)
def test_true_energy_is_found_through_wraps_and_restarts(
    wraps_at: int, steps: list[tuple[str, float]], restarts: set[int]
) -> None:
    """Several counters modulo `wraps_at`, none of which turns twice within two readings."""
    true = dict.fromkeys("abc", 12)
    tally = Tally(Memory(), "abc", raw_per_joule=1)
    for name, total in true.items():
        tally.update(name, total % wraps_at, wraps_at=wraps_at)
    last = [(name, 1 / wraps_at) for name in "abc" * 2]  # what moves on is believed
    for number, (name, step) in enumerate([*steps, *last]):
        if number in restarts:  # of the agent: what is remembered is all there is
            tally = Tally(tally.memory(), "abc", raw_per_joule=1)
        true[name] += max(1, int(step * wraps_at))
        tally.update(name, true[name] % wraps_at, wraps_at=wraps_at)
    assert tally.joules == sum(true.values()) - 3 * 12 or _one_of_the_last_wrapped(true, wraps_at)


def _one_of_the_last_wrapped(true: dict[str, int], wraps_at: int) -> bool:
    """Then its step is not believed yet."""
    return any(total % wraps_at == 0 for total in true.values())


@pytest.mark.parametrize("wraps_at", [None, 10_000])
@given(
    st.lists(
        st.tuples(st.integers(1, 50), st.none() | st.lists(st.floats(0, 0.999), max_size=3)),
        min_size=1,
        max_size=30,
    ),
    st.sets(st.integers(0, 29)),
)
def test_a_false_low_reading_counts_nothing(
    wraps_at: int | None,
    steps: list[tuple[int, list[float] | None]],
    restarts: set[int],
) -> None:
    """Falling false readings between true ones, and restarts of the agent."""
    true = 5000
    tally = Tally(Memory(), ["a"], raw_per_joule=1)
    tally.update("a", true, wraps_at=wraps_at)
    for number, (step, false) in enumerate(steps):
        if number in restarts:
            tally = Tally(tally.memory(), ["a"], raw_per_joule=1)
        for part in sorted(false or (), reverse=True):
            tally.update("a", int(part * true), wraps_at=wraps_at)
            assert tally.joules == true - 5000
        true += step
        tally.update("a", true, wraps_at=wraps_at)
        assert tally.joules == true - 5000  # none twice, none lost


@given(
    st.integers(1, 10**6),
    st.lists(st.integers(0, 10**6), min_size=2, max_size=20, unique=True).map(sorted),
)
def test_a_counter_that_began_anew_is_believed_when_it_moves_on(
    before: int, life: list[int]
) -> None:
    """life: its readings after that. What is lost is at most its last reading before, and nothing
    where it passes that by a step like those it made."""
    tally = Tally(Memory(), ["a"], raw_per_joule=1)
    tally.update("a", 0)
    tally.update("a", before)
    for raw in life:
        tally.update("a", raw)
    truth = before + life[-1]
    steps = [b - a for a, b in pairwise(life)]
    if life[0] < before and life[1] < before and max(steps) <= LEAP * steps[0]:
        assert tally.joules == truth
    else:
        assert truth - before <= tally.joules <= truth


@given(
    st.lists(
        st.tuples(st.integers(1, 50), st.lists(st.integers(0, 20), max_size=5)),
        min_size=1,
        max_size=30,
    )
)
def test_false_low_readings_that_rise_count_nothing_in_the_end(
    steps: list[tuple[int, list[int]]],
) -> None:
    """They pass for a new beginning until the counter leaps back; never for its whole life."""
    true = 5000
    tally = Tally(Memory(), ["a"], raw_per_joule=1)
    tally.update("a", true)
    false = 0
    for step, lows in steps:
        for raw in lows:
            tally.update("a", raw)
            false += raw
        true += step
        tally.update("a", true)
        assert true - 5000 <= tally.joules <= true - 5000 + false
    for _ in range(false + 1):  # what they added is set off
        true += 1
        tally.update("a", true)
    assert tally.joules == true - 5000


@given(st.lists(st.integers(1, int(LEAP)), min_size=60, max_size=200), st.integers(50, 900))
def test_a_new_life_that_passes_the_old_one_is_counted_whole(steps: list[int], before: int) -> None:
    """By steps that differ as those of idle and full load do, or more."""
    tally = Tally(Memory(), ["a"], raw_per_joule=1)
    tally.update("a", 0)
    tally.update("a", before)
    raw = 0
    tally.update("a", raw)
    for step in steps:
        raw += step
        tally.update("a", raw)
    assert tally.joules == before + raw


def test_two_false_readings_do_not_add_the_counters_life() -> None:
    tally = Tally(Memory(), ["a"], raw_per_joule=1)
    for raw in (1000, 1010, 0, 3, 1020, 1030):
        tally.update("a", raw)
    assert tally.joules == 30
    for raw in (500, 510, 1040, 1050):  # what a slow restore shows: 510 to be set off
        tally.update("a", raw)
    assert tally.joules == 30 + 510
    tally.update("a", 2000)
    assert tally.joules == 1000


def test_false_readings_of_a_counter_that_had_begun_anew() -> None:
    """Its new life is not counted twice, and goes on to pass the old one."""
    tally = Tally(Memory(), ["a"], raw_per_joule=1)
    for raw in (0, 1000, 0, *range(10, 401, 10)):
        tally.update("a", raw)
    assert tally.joules == 1400
    for raw in (0, 3, 410, 420):
        tally.update("a", raw)
    assert tally.joules == 1420
    for raw in range(430, 1201, 10):
        tally.update("a", raw)
    assert tally.joules == 1000 + 1200


@pytest.mark.parametrize("stuck", [0, 7])
def test_a_false_value_that_stands_for_several_readings(stuck: int) -> None:
    """A driver in trouble may give nought over and over."""
    tally = Tally(Memory(), ["a"], raw_per_joule=1)
    for raw in (1000, stuck, stuck, stuck, 1010):
        tally.update("a", raw)
    assert tally.joules == 10


def test_what_is_no_longer_read_is_forgotten() -> None:
    """A GPU that leaves the configuration and returns does not bring the time in between."""
    tally = Tally(Memory(3.0, {"a": 100, "b": 100}), ["a"], raw_per_joule=1)
    assert set(tally.memory().counters) == {"a"}
    back = Tally(tally.memory(), ["a", "b"], raw_per_joule=1)
    back.update("b", 5_000)
    assert back.joules == 3.0


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 100)), max_size=20), st.floats(0, 9))
def test_a_ramp_never_falls_and_never_runs_ahead(
    steps: list[tuple[float, float]], look_s: float
) -> None:
    now = total = 0.0
    ramp = Ramp(0.0, lambda: now)
    seen = [0.0]
    for waited_s, joules in steps:
        now += min(look_s, waited_s)  # also between the steps
        seen.append(ramp.read())
        now += waited_s - min(look_s, waited_s)
        seen.append(ramp.read())
        assert seen[-1] <= total
        total += joules
        ramp.step(total)
    now += 2 * LONGEST_STEP_S
    assert [*seen, ramp.read()] == sorted([*seen, ramp.read()])
    assert ramp.read() == total


def test_a_ramp_spreads_a_step_over_the_time_that_it_took() -> None:
    now = 0.0
    ramp = Ramp(0.0, lambda: now)
    now = 2.0
    ramp.step(100.0)
    readings = []
    for now in (2.0, 2.5, 3.0, 4.0, 5.0):  # noqa: B007 - the clock reads it
        ramp.step(100.0)  # a look that finds nothing new is no step
        readings.append(ramp.read())
    assert readings == [0, 25, 50, 100, 100]
