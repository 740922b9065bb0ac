# SPDX-License-Identifier: Apache-2.0
"""The energy clock: flights' costs sum to what was metered, now and after the writer's death."""

import errno
import itertools
import math
import random
import secrets
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sprout_ext import reference
from sprout_ext.clock import ClockReader, ClockWriter

S = 1_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "energy.clock"


def test_absent_clock_knows_nothing(path: Path):
    for reader in (ClockReader(path), reference.ClockReader(path)):
        joules, provisional = reader.energy(0, S)
        assert math.isnan(joules)
        assert provisional
        assert reader.state() is None


def test_clock_by_hand(path: Path):
    """10 s with two flights active, 60 J: 3 J per active-second; then 10 s idle, 20 J."""
    clock = ClockWriter(path)
    clock.tick(100 * S, 0.0, 0.0, 1000.0, True)
    clock.tick(110 * S, 20.0, 60.0, 1060.0, True)
    clock.tick(120 * S, 0.0, 20.0, 1080.0, True)
    assert (clock.last_t_ns, clock.last_meter_joules) == (120 * S, 1080.0)
    assert (clock.metered_joules, clock.settled_joules, clock.idle_joules) == (80.0, 60.0, 20.0)
    reader = ClockReader(path)
    assert reader.energy(100 * S, 110 * S) == (30.0, False)  # one of the two flights
    assert reader.energy(104 * S, 106 * S) == (6.0, False)
    assert reader.energy(90 * S, 101 * S) == (3.0, False)  # before the clock: nothing
    assert reader.energy(109 * S, 115 * S) == (3.0, False)  # idle costs flights nothing
    assert reader.energy(109 * S, 122 * S) == (3.0 + 6.0, True)  # the last rate goes on
    assert reader.energy(130 * S, 131 * S) == (3.0, True)
    assert reader.energy(105 * S, 105 * S) == (0.0, False)
    assert reader.energy(106 * S, 105 * S) == (0.0, False)
    state = reader.state()
    assert state is not None
    assert state == (120 * S, 3.0, 80.0, 60.0, 20.0, True, 0.0, 0, True)
    assert state.estimated is True


@pytest.mark.parametrize("make", [ClockWriter, reference.ClockWriter])
def test_what_was_not_metered_whole_is_nobodys_and_not_known(path: Path, make):
    """A meter that stands still from 110 to 130 s: 0 J, then 500 J at once."""
    clock = make(path)
    clock.tick(100 * S, 0.0, 0.0, 0.0, False)
    clock.tick(110 * S, 10.0, 50.0, 50.0, False)
    clock.tick(120 * S, 10.0, 0.0, 50.0, False, whole=False)
    assert not clock.last_whole
    assert math.isnan(clock.energy(105 * S, 111 * S)[0])
    assert math.isnan(clock.energy(125 * S, 126 * S)[0])  # nor what is to come
    clock.tick(130 * S, 10.0, 500.0, 550.0, False)  # its interval began with a gap
    clock.tick(140 * S, 10.0, 60.0, 610.0, False)
    assert clock.unmetered_ns == (110 * S, 130 * S)
    assert (clock.metered_joules, clock.settled_joules) == (610.0, 110.0)
    assert (clock.idle_joules, clock.unattributed_joules) == (0.0, 500.0)
    for reader in (ClockReader(path), reference.ClockReader(path)):
        for span in ((105, 111), (112, 113), (129, 135), (100, 140)):
            joules, provisional = reader.energy(span[0] * S, span[1] * S)
            assert math.isnan(joules)
            assert provisional
        assert reader.energy(104 * S, 110 * S) == (30.0, False)
        assert reader.energy(130 * S, 135 * S) == (30.0, False)
        assert reader.energy(139 * S, 141 * S) == (12.0, True)
        state = reader.state()
        assert state is not None
        assert (state.unattributed, state.unmetered_until_ns, state.whole) == (500.0, 130 * S, True)


@pytest.mark.parametrize("make", [ClockWriter, reference.ClockWriter])
def test_a_clock_that_begins_without_a_whole_meter(path: Path, make):
    clock = make(path)
    clock.prior_rate(7.0)
    clock.tick(100 * S, 0.0, 0.0, 0.0, False, whole=False)
    assert math.isnan(clock.energy(101 * S, 102 * S)[0])
    clock.tick(110 * S, 1.0, 0.0, 0.0, False, whole=False)
    clock.tick(120 * S, 1.0, 9.0, 9.0, False)
    clock.tick(130 * S, 10.0, 20.0, 29.0, False)
    assert math.isnan(clock.energy(119 * S, 121 * S)[0])
    assert clock.energy(120 * S, 130 * S) == (20.0, False)
    assert (clock.unattributed_joules, clock.settled_joules) == (9.0, 20.0)


def test_a_reborn_writer_knows_that_the_meter_stood_still(path: Path):
    first = ClockWriter(path)
    first.tick(S, 0.0, 0.0, 0.0, False)
    first.tick(2 * S, 1.0, 0.0, 0.0, False, whole=False)
    first.close()
    second = ClockWriter(path)
    assert not second.last_whole
    second.tick(9 * S, 7.0, 700.0, 700.0, False)  # the lump
    assert (second.unattributed_joules, second.settled_joules) == (700.0, 0.0)
    second.tick(10 * S, 1.0, 8.0, 708.0, False)
    assert ClockReader(path).energy(9 * S, 10 * S) == (8.0, False)


def test_prior_serves_until_something_was_measured(path: Path):
    clock, reader = ClockWriter(path), ClockReader(path)
    assert math.isnan(reader.energy(5 * S, 6 * S)[0])
    clock.prior_rate(40.0)
    assert reader.energy(5 * S, 7 * S) == (80.0, True)
    clock.tick(10 * S, 0.0, 0.0, 0.0, False)
    assert reader.energy(9 * S, 11 * S) == (40.0, True)
    clock.tick(11 * S, 1.0, 7.0, 7.0, False)
    clock.prior_rate(99.0)  # too late
    assert reader.energy(11 * S, 12 * S) == (7.0, True)


@pytest.mark.parametrize("make", [ClockWriter, reference.ClockWriter])
def test_bad_ticks_are_refused_and_change_nothing(path: Path, make):
    clock = make(path)
    clock.tick(S, 0.0, 0.0, 0.0, False)
    clock.tick(2 * S, 1.0, 5.0, 5.0, False)
    before = path.read_bytes()
    for bad, named in (
        ((2 * S, 1.0, 1.0, 1.0, False), "t_ns"),
        ((1 * S, 1.0, 1.0, 1.0, False), "t_ns"),
        ((-1, 1.0, 1.0, 1.0, False), "t_ns"),
        ((3 * S, -1.0, 1.0, 1.0, False), "active_seconds"),
        ((3 * S, 1.0, math.nan, 1.0, False), "joules"),
        ((3 * S, 1.0, 1.0, math.inf, False), "meter_joules"),
    ):
        with pytest.raises(ValueError, match=named):
            clock.tick(*bad)
    with pytest.raises(ValueError, match="joules_per_active_second"):
        clock.prior_rate(-1.0)
    assert path.read_bytes() == before


def test_two_writers_are_refused(path: Path):
    first = ClockWriter(path)
    with pytest.raises(OSError, match="another writer") as refused:
        ClockWriter(path)
    assert refused.value.errno == errno.EBUSY
    first.close()
    ClockWriter(path).close()
    with pytest.raises(ValueError, match="closed"):
        first.tick(S, 0.0, 0.0, 0.0, False)


def test_reborn_writer_goes_on(path: Path):
    first = ClockWriter(path)
    first.tick(S, 0.0, 0.0, 0.0, False)
    first.tick(2 * S, 1.0, 5.0, 105.0, False)
    first.close()
    reader = ClockReader(path)
    second = ClockWriter(path)
    assert (second.last_t_ns, second.last_meter_joules) == (2 * S, 105.0)
    second.tick(4 * S, 2.0, 10.0, 115.0, False)
    assert reader.energy(S, 4 * S) == (15.0, False)
    assert second.metered_joules == 15.0


def test_clock_of_another_boot_starts_anew(path: Path):
    first = ClockWriter(path)
    first.tick(S, 0.0, 0.0, 0.0, False)
    first.close()
    body = bytearray(path.read_bytes())
    body[16] ^= 1
    path.write_bytes(bytes(body))
    assert math.isnan(ClockReader(path).energy(0, S)[0])
    second = ClockWriter(path)
    assert second.last_t_ns == 0


def test_long_flights_outlive_idle_time(path: Path):
    """Idle ticks cost no corner: busy time, then 20,000 idle ticks, and all is still known."""
    clock = ClockWriter(path)
    clock.tick(S, 0.0, 0.0, 0.0, False)
    clock.tick(2 * S, 1.0, 8.0, 8.0, False)
    for i in range(20_000):
        clock.tick(2 * S + (i + 1) * 1000, 0.0, 0.25, 8.0, False)
    assert clock.energy(S, 3 * S - S // 2)[0] == pytest.approx(
        8.0 + 8.0 * (S // 2 - 20_000_000) / S
    )
    assert clock.energy(S, 2 * S) == (8.0, False)


def test_the_ring_turns_over(path: Path):
    """After more corners than it holds: exact within the window, nothing from before it."""
    clock, oracle = ClockWriter(path), None
    for i in range(10_000):
        clock.tick((i + 1) * S, 1.0, float(i % 5), 0.0, False)
    reader, oracle = ClockReader(path), reference.ClockReader(path)
    first = 10_000 - 8191  # the oldest corner is the tick before the oldest interval
    for start, end in ((first - 3, first + 2), (first, 10_000), (9_990, 9_995), (1, 5)):
        span = (start * S + S // 3, end * S - S // 7)
        ours = reader.energy(*span)
        assert ours == oracle.energy(*span)
    assert reader.energy(1 * S, 5 * S) == (0.0, False)
    whole = reader.energy(S, 10_000 * S)[0]
    assert whole == pytest.approx(sum(i % 5 for i in range(first, 10_000)))


ticks = st.lists(
    st.tuples(
        st.integers(1, 10 * S),  # until the next tick
        st.one_of(st.just(0.0), st.floats(1e-3, 100)),  # active-seconds
        st.floats(0, 1e6),  # joules
        st.booleans(),
        st.sampled_from([True, True, True, False]),  # metered whole
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ticks, st.floats(0, 50), st.randoms(use_true_random=False))
def test_both_tell_the_same_time(tmp_path: Path, steps, prior, rng):
    name = f"{secrets.token_hex(8)}"
    core, oracle = ClockWriter(tmp_path / name), reference.ClockWriter(tmp_path / (name + "r"))
    t = 5 * S
    times = [1, t]
    for writer in (core, oracle):
        writer.prior_rate(prior)
    for step, active, joules, estimated, whole in steps:
        for writer in (core, oracle):
            writer.tick(t, active, joules, joules / 2, estimated, whole=whole)
        t += step
        times.append(t)
    assert (tmp_path / name).read_bytes() == (tmp_path / (name + "r")).read_bytes()
    for attribute in (
        *("last_t_ns", "last_meter_joules", "metered_joules", "settled_joules"),
        *("unattributed_joules", "last_whole", "unmetered_ns"),
    ):
        assert getattr(core, attribute) == getattr(oracle, attribute)
    parts = core.settled_joules + core.idle_joules + core.unattributed_joules
    assert core.metered_joules == pytest.approx(parts)
    readers = [ClockReader(tmp_path / (name + "r")), reference.ClockReader(tmp_path / name)]
    assert readers[0].state() == readers[1].state()
    for _ in range(20):
        start, end = sorted((rng.randrange(0, t + S), rng.choice(times) + rng.randrange(3)))
        told = [reader.energy(start, end) for reader in readers]
        assert told[0] == pytest.approx(told[1], rel=0, abs=0, nan_ok=True)
    for file in (name, name + "r"):
        (tmp_path / file).unlink()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=12), st.data())
def test_flights_costs_sum_to_what_was_metered(tmp_path: Path, spans, data):
    """Whatever flights overlap whatever ticks: none pays twice, none goes free."""
    path = tmp_path / f"{secrets.token_hex(8)}"
    clock = ClockWriter(path)
    flights = [((100 + s) * S, (100 + s + n) * S) for s, n in spans]
    # Whole milliseconds: joules within a nanosecond would be a rate that no float adds up to 1e-6.
    drawn = {data.draw(st.integers(100_000, 160_000)) * S // 1000 for _ in range(9)}
    times = [99 * S, *sorted(drawn), 170 * S]
    clock.tick(times[0], 0.0, 0.0, 0.0, False)
    settled = 0.0
    for t0, t1 in itertools.pairwise(times):
        joules = data.draw(st.floats(0, 100))
        active = sum(max(0, min(e, t1) - max(s, t0)) for s, e in flights) * 1e-9
        clock.tick(t1, active, joules, 0.0, False)
        settled += joules if active > 0 else 0.0
    costs = [clock.energy(start, end) for start, end in flights]
    assert not any(provisional for _, provisional in costs)
    assert sum(joules for joules, _ in costs) == pytest.approx(settled, rel=1e-9, abs=1e-6)
    assert clock.settled_joules == pytest.approx(settled)
    path.unlink()


def test_no_damage_harms_the_reader(tmp_path: Path):
    path = tmp_path / "energy.clock"
    clock = ClockWriter(path)
    for i in range(50):
        clock.tick((i + 1) * S, 1.0, 3.0, 0.0, False)
    good, rng, damaged = path.read_bytes(), random.Random(3), tmp_path / "damaged"
    unknown = known = 0
    for _ in range(1000):
        body = bytearray(good)
        for _ in range(rng.choice([1, 4])):
            body[rng.randrange(rng.choice([320, 320 + 16 * 60]))] = rng.randrange(256)
        if rng.random() < 0.1:
            body = body[: rng.randrange(len(body))]
        damaged.write_bytes(bytes(body))
        joules, provisional = ClockReader(damaged).energy(3 * S + 5, 33 * S)
        if math.isnan(joules):
            unknown += 1
            assert provisional
        else:
            known += 1
            assert joules >= 0
        if (state := ClockReader(damaged).state()) is not None:
            assert state == reference.ClockReader(damaged).state()
        damaged.unlink()
    assert unknown > 50
    assert known > 50


def test_extreme_times_are_harmless(path: Path):
    clock = ClockWriter(path)
    clock.prior_rate(1.0)
    clock.tick(S, 0.0, 0.0, 0.0, False)
    clock.tick(2**63 - 1, 1.0, 1.0, 0.0, False)
    for span in ((-(2**63), 2**63 - 1), (-(2**63), 0), (2**63 - 2, 2**63 - 1), (0, 0)):
        joules, _ = clock.energy(*span)
        assert math.isfinite(joules)
        assert joules >= 0


def test_writer_replaces_a_damaged_file(path: Path):
    path.write_bytes(b"x" * 200_000)
    clock = ClockWriter(path)
    clock.tick(S, 0.0, 0.0, 0.0, False)
    assert ClockReader(path).state() is not None
