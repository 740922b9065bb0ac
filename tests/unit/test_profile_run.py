# SPDX-License-Identifier: Apache-2.0
"""The profiling run on a stand-in for Triton and one for the meter: loads, windows, sums, files."""

import json
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from sprout.console import profile as console
from sprout.console import profile_view
from sprout.console.profile import numbers, options, read_prompts
from sprout.directives import PACKS
from sprout.errors import ConfigError, ControlError, EngineError
from sprout.profile import document
from sprout.profile.change import Costs, Monitor, _joined, learn
from sprout.profile.document import Made
from sprout.profile.service import Demand
from sprout.profile.spans import concurrency
from sprout.serve.analysis import analyse, row
from sprout.serve.load import Load, Reply, Shot
from sprout.serve.node_energy import NodeEnergy, Reading, from_clock, from_nodes, settled_by
from sprout.serve.profiling import Condition, Measurement, Runner, Timing, conditions
from sprout.v1 import control_pb2 as pb
from sprout_ext.clock import ClockWriter

LEVELS = ("L0", "L1", "L2")
SECONDS = (0.06, 0.03, 0.02)  # of an answer
TOKENS = (60, 30, 20)
IDLE_WATTS, BUSY_WATTS = 50.0, 200.0
TIMING = Timing(warm_s=0.1, window_s=0.4, windows=2, cool_s=0.05)


class Engine:
    """Answers after a while, and draws 50 W, or 250 W while it has anything to do."""

    def __init__(self) -> None:
        self.active = self.most = 0
        self.served: list[tuple[str, str]] = []
        self.fail: Exception | None = None
        self.serves: int | None = None  # a level, whatever was asked for
        self._busy_s, self._since = 0.0, math.nan
        self._lock = threading.Lock()
        self._born = time.monotonic()

    def ask(self, prompt: str, level: str) -> Reply:
        index = LEVELS.index(level)
        if self.fail is not None:
            raise self.fail
        with self._lock:
            self.active += 1
            self.most = max(self.most, self.active)
            if self.active == 1:
                self._since = time.monotonic()
            self.served.append((level, prompt))
        time.sleep(SECONDS[index])
        with self._lock:
            self.active -= 1
            if self.active == 0:
                self._busy_s += time.monotonic() - self._since
        served = index if self.serves is None else self.serves
        return Reply(served, 10, TOKENS[index], SECONDS[index] / 10, 4.0 * TOKENS[index])

    def close(self) -> None:
        pass

    def read(self) -> Reading:
        with self._lock:
            now = time.monotonic()
            busy_s = self._busy_s + (now - self._since if self.active else 0.0)
            return Reading(now, IDLE_WATTS * (now - self._born) + BUSY_WATTS * busy_s)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def runner(engine: Engine) -> Iterator[Runner]:
    energy = NodeEnergy(engine.read, poll_s=0.01)
    with energy.recording():
        energy.wait_first()
        yield Runner(engine, energy, ["a", "b", "c"], LEVELS, TIMING, seed=1)


# --- loads ---------------------------------------------------------------------------------------


def test_a_closed_loop_keeps_so_many_in_flight(engine: Engine, runner: Runner) -> None:
    found = runner.measure(Condition("closed", "L1", 3))
    assert engine.most == 3
    assert engine.active == 0  # it waited for the ends
    assert {level for level, _ in engine.served} == {"L1"}
    for window in found.windows:
        assert window.seconds == pytest.approx(0.4)
        assert window.active_seconds / window.seconds == pytest.approx(3, abs=0.6)
        assert window.busy_seconds / window.seconds > 0.9


def test_an_open_loop_has_its_own_pace(engine: Engine) -> None:
    load = Load(engine, ["a"], "L2", 2, seed=3)
    with load.open(200.0):
        done = threading.Event()
        while len(load.shots) < 40 and not done.wait(0.01):
            load.check()
    starts = np.array(sorted(s.start_s for s in load.shots))
    # Exponential gaps: their standard deviation is about their mean, not nought.
    gaps = np.diff(starts)
    assert 0.4 < gaps.std() / gaps.mean() < 3
    assert load.shed == 0
    assert engine.most > 1  # it does not wait for answers


def test_prompts_take_turns_and_the_seed_fixes_the_order(engine: Engine) -> None:
    orders = []
    for seed in (1, 1, 2):
        load = Load(engine, list("abcdefgh"), "L2", 2, seed=seed)
        orders.append([next(load._next) for _ in range(16)])
        assert sorted(orders[-1][:8]) == sorted(orders[-1][8:]) == list("abcdefgh")
    assert orders[0] == orders[1] != orders[2]


def test_a_failure_ends_the_run(engine: Engine, runner: Runner) -> None:
    engine.fail = EngineError("gone")
    for kind in ("closed", "open"):
        with pytest.raises(EngineError, match="gone"):
            runner.measure(Condition(kind, "L0", 4))


def test_a_pin_that_is_not_honoured_is_an_error(engine: Engine, runner: Runner) -> None:
    engine.serves = 0
    with pytest.raises(ConfigError, match=r"request\.hints must hold sprout_level"):
        runner.measure(Condition("closed", "L2", 1))


def test_conditions_are_all_there_in_an_order_that_the_seed_draws() -> None:
    one, same, other = (conditions(LEVELS, (1, 4), (0.5,), seed=s) for s in (1, 1, 2))
    assert one == same != other
    assert sorted(map(str, one)) == sorted(map(str, other))
    assert len(one) == 1 + 3 * 2 + 3
    assert sum(c.kind == "idle" for c in one) == 1


# --- energy --------------------------------------------------------------------------------------


def test_idle_and_busy_power_are_read_off_the_meter(runner: Runner) -> None:
    idle = row(runner.measure(Condition("idle", "", 0)))
    assert idle.watts == pytest.approx(IDLE_WATTS, rel=0.02)
    assert (idle.requests, idle.busy, idle.p50_s, idle.node_j_per_request) == (0, 0, None, None)
    busy = row(runner.measure(Condition("closed", "L0", 2)))
    assert busy.watts == pytest.approx(IDLE_WATTS + BUSY_WATTS * busy.busy, rel=0.05)
    assert busy.tokens == 60
    assert busy.attributed_j_per_request == 240
    assert busy.node_j_per_request == pytest.approx(busy.watts / busy.requests_per_s)
    assert busy.p50_s is not None
    assert busy.p50_s >= SECONDS[0]


class Told:
    """Readings as they are told."""

    def __init__(self, *readings: tuple[float, float]) -> None:
        self.left = [Reading(*r) for r in readings]

    def read(self) -> Reading | None:
        return self.left.pop(0) if self.left else None


def test_readings_are_interpolated() -> None:
    energy = NodeEnergy(Told((0, 0), (1, 100), (3, 100), (4, 250)).read, poll_s=0.001)
    with energy.recording():
        assert energy.joules(0.5, 2) == pytest.approx(50)
        assert energy.joules(2, 3.5) == pytest.approx(75)


def test_what_a_meter_must_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sprout.serve.node_energy.SILENCE_S", 0.05)
    for readings, message in (
        (((5, 0), (9, 9)), "not read yet"),
        (((0, 50), (9, 9)), "fell"),
        (((0, 50),), "no reading"),
    ):
        energy = NodeEnergy(Told(*readings).read, poll_s=0.001)
        with energy.recording(), pytest.raises(ControlError, match=message):
            energy.joules(1, 2)
    energy = NodeEnergy(lambda: None, poll_s=0.001)
    with energy.recording(), pytest.raises(ControlError, match="no agent reports"):
        energy.wait_first()


def test_nodes_are_added_up_at_their_own_times() -> None:
    began_s = time.monotonic()
    nodes = [pb.NodeStatus(metered_joules=j) for j in (3.0, 4.0)]
    for node, age_s in zip(nodes, (1.0, 2.0), strict=True):
        node.time.FromNanoseconds(time.time_ns() - int(age_s * 1e9))
    reading = from_nodes(lambda: nodes)()
    assert reading is not None
    assert reading.joules == 7
    # Halfway between both; two clocks, so not to the millisecond.
    assert began_s - 0.1 < reading.time_s + 1.5 < time.monotonic() + 0.1
    assert from_nodes(list)() is None
    nodes[0].time.FromNanoseconds(time.time_ns() + int(60e9))
    with pytest.raises(ControlError, match="clock"):
        from_nodes(lambda: nodes)()


# --- the whole run -------------------------------------------------------------------------------

MADE = Made(
    time=datetime(2026, 1, 1, tzinfo=UTC),
    sprout_version="1",
    commit="",
    model="m",
    engine="echo",
    pack="explicit",
    pack_hash=f"{PACKS['explicit'].hash:016x}",
    meter="stand-in",
    energy_estimated=True,
    nodes=1,
    prompts=3,
    prompts_sha256="",
    max_tokens=96,
    seed=1,
)


@pytest.fixture(scope="module")
def measured() -> list:
    engine = Engine()
    energy = NodeEnergy(engine.read, poll_s=0.01)
    with energy.recording():
        energy.wait_first()
        runner = Runner(engine, energy, ["a", "b", "c"], LEVELS, TIMING, seed=1)
        planned = conditions(LEVELS, (1, 4), (8.0,), seed=1)
        return [runner.measure(condition) for condition in planned]


def test_a_run_becomes_a_profile_and_a_file(measured: list, tmp_path: Path) -> None:
    profile, notes = analyse(measured, MADE, LEVELS)
    power, service = profile.power, profile.service
    assert power is not None
    assert service is not None
    model = power.model
    assert model.idle_watts == pytest.approx(IDLE_WATTS, rel=0.15)
    # While busy it draws 250 W; tokens and busy time go together here, so only the sum is sure.
    assert model.watts(300, 1000, 1.0) > 150
    assert power.r2 > 0.95
    assert [t.output_tokens for t in profile.levels] == [60, 30, 20]
    assert {a.level for a in profile.attributed} == set(LEVELS)
    assert all(a.estimated for a in profile.attributed)
    assert profile.attributed[0].joules == pytest.approx(240)
    assert notes == [] or "change-point" in notes[0]

    file = tmp_path / "profile.json"
    file.write_text(document.dump(profile))
    assert document.load(file, pack_hash=PACKS["explicit"].hash) == profile
    traffic = [Demand(t.level, 1.0, t.input_tokens, t.output_tokens) for t in profile.levels]
    energies = profile.marginal(traffic)
    assert energies is not None
    assert [e.level for e in energies] == list(LEVELS)
    assert energies[0].joules > energies[2].joules
    assert all(e.estimated for e in energies)
    assert replace(profile, power=None).marginal(traffic) is None


def driven(rng: np.random.Generator, rate: float, overhead_s: float) -> Measurement:
    """Requests of 0.2 s in the engine, for a client 0.2 s + overhead; joules per token fall with
    the company. Receipts are a tenth too high."""
    n = 1500
    begin = 1000.0 + np.sort(rng.uniform(0, n / rate, n))
    end = begin + 0.2 * rng.uniform(0.8, 1.2, n)
    joules = 50.0 / concurrency(begin, end) * np.exp(rng.normal(0, 0.05, n))
    shots = tuple(
        Shot(
            b - overhead_s / 2,
            b + 0.01,
            e + overhead_s / 2,
            Reply(0, 10, 100, 0.01, 1.1 * j, round(b * 1e9), round(e * 1e9)),
        )
        for b, e, j in zip(begin, end, joules, strict=True)
    )
    return Measurement(
        Condition("open", "L0", rate), (), shots, shots, tuple(map(float, joules)), 0
    )


@pytest.mark.parametrize("overhead_s", [0.0, 0.05])
def test_the_reference_is_of_outcomes(overhead_s: float) -> None:
    """The way to the engine and back, and a receipt that is only provisional, are no change."""
    rng = np.random.default_rng(3)
    rates = (2.0, 10.0, 25.0)
    profile, notes = analyse([driven(rng, r, overhead_s) for r in rates], MADE, LEVELS)
    assert profile.reference is not None, notes
    monitor = Monitor(profile.reference)
    clients = []  # the same traffic, as its client saw it
    for later in [driven(rng, r, overhead_s) for r in rates * 4]:
        begin, end = np.array([s.work_s for s in later.shots]).T
        level, tokens = np.zeros(len(begin), np.int64), np.full(len(begin), 100.0)
        joules = np.array(later.settled_joules)
        monitor.take(Costs(level, joules, tokens, concurrency(begin, end)))
        wide = concurrency(begin - overhead_s / 2, end + overhead_s / 2)
        clients.append(Costs(level, 1.1 * joules, tokens, wide))
    assert monitor.change is None
    # What it is good for: a reference of what clients see raises the alarm.
    theirs = learn(_joined(clients[: len(rates)]))
    other = Monitor(theirs)
    for costs in clients:
        other.take(replace(costs, energy_joules=costs.energy_joules / 1.1))
    assert other.change is not None


def test_without_settled_energy_there_is_no_reference() -> None:
    rng = np.random.default_rng(3)
    far = driven(rng, 10.0, 0.0)
    far = replace(far, settled_joules=(math.nan,) * len(far.measured))
    profile, notes = analyse([far], MADE, LEVELS)
    assert profile.reference is None
    assert profile.reference_basis == ""
    assert any("no answer's settled energy is known" in note for note in notes)


def test_times_of_another_machine_are_not_the_engines() -> None:
    here = Shot(10.0, 10.1, 11.0, Reply(0, 1, 1, 0.1, 1.0, 10_100_000_000, 10_900_000_000))
    assert here.work_s == (10.1, 10.9)
    for scheduled_ns, last_ns in ((0, 0), (77_000_000_000, 77_100_000_000)):
        reply = Reply(0, 1, 1, 0.1, 1.0, scheduled_ns, last_ns)
        there = replace(here, reply=reply)
        assert there.at_work_ns is None
        assert there.work_s == (10.0, 11.0)


def test_joules_are_what_the_agent_settles(tmp_path: Path) -> None:
    path = tmp_path / "energy.clock"
    writer = ClockWriter(path)
    writer.tick(10**9, 0.0, 0.0, 0.0, False)
    writer.tick(2 * 10**9, 2.0, 100.0, 100.0, False)  # two at work: 50 J each
    settled = settled_by(path)
    assert settled(10**9, 15 * 10**8) == pytest.approx(25)
    assert math.isnan(settled(10**9, 3 * 10**9))  # not ticked past its end
    assert math.isnan(settled_by(tmp_path / "absent")(1, 2))


def test_a_run_in_which_the_meter_stood_still_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "energy.clock"
    writer = ClockWriter(path)
    read = from_clock(path)
    readings = []
    # One tick without a GPU long ago, and one in the run.
    for s, joules, whole in ((1, 0, True), (2, 0, False), (3, 9, True), (4, 1, True), (5, 1, True)):
        writer.tick(s * 10**9, 0.0, float(joules), 0.0, False, whole=whole)
        readings.append(read())
    energy = NodeEnergy(lambda: None)
    energy._readings = [r for r in readings[3:] if r is not None]
    assert energy.joules(4.0, 5.0) == 1.0
    energy._readings = [r for r in readings[1:] if r is not None]
    with pytest.raises(ControlError, match="meter stood still"):
        energy.joules(4.0, 5.0)


def test_a_node_that_is_not_metered_is_refused() -> None:
    status = pb.NodeStatus(node="a", metered_joules=1.0, meter_problem="GPU is lost")
    status.time.GetCurrentTime()
    energy = NodeEnergy(from_nodes(lambda: [status]))
    with energy.recording():
        energy.wait_first()
        with pytest.raises(ControlError, match="meter stood still"):
            energy.joules(0.0, 0.0)


def test_what_people_read_says_estimated(
    measured: list, capsys: pytest.CaptureFixture[str]
) -> None:
    profile, notes = analyse(measured, MADE, LEVELS)
    profile_view.show(profile, [row(m) for m in measured], notes)
    said = capsys.readouterr().out
    for part in ("(estimated)", "idle_watts", "95 % intervals", "R²", "marginal L0", "attributed"):
        assert part in said
    profile_view.show(
        replace(profile, made=replace(MADE, energy_estimated=False)),
        [row(m) for m in measured],
        notes,
    )
    assert "estimated" not in capsys.readouterr().out


def test_a_file_that_does_not_fit_is_named(measured: list, tmp_path: Path) -> None:
    profile, _ = analyse(measured, MADE, LEVELS)
    file = tmp_path / "p.json"
    ours = PACKS["explicit"].hash
    for text, message in (
        (document.dump(profile).replace(MADE.pack_hash, "0" * 16), "other directives"),
        (document.dump(replace(profile, schema_version=9)), "schema 9"),
        ("{}", "p.json"),
        ("no json", "p.json"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            document.load(file, pack_hash=ours)
    with pytest.raises(ConfigError, match="can't read"):
        document.load(tmp_path / "absent", pack_hash=ours)


def test_too_short_a_run_is_said(measured: list) -> None:
    profile, notes = analyse([m for m in measured if m.condition.kind == "idle"], MADE, LEVELS)
    assert profile.power is None
    assert profile.service is None
    assert any("no power model" in note for note in notes)
    assert any("change-point" in note for note in notes)


# --- the command's own words ---------------------------------------------------------------------


def test_prompts_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "one", "id": 3}\n\n{"prompt": "two"}\n')
    assert read_prompts(file) == ["one", "two"]
    assert len(read_prompts(None)) > 5
    for text, message in (
        ("", "holds none"),
        ('{"prompt": "a"}\nnonsense', ":2:"),
        ('{"text": "a"}', ":1:"),
        ('{"prompt": 5}', "no text"),
        (json.dumps(["prompt"]), ":1:"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_prompts(file)
    with pytest.raises(ConfigError, match="can't read"):
        read_prompts(tmp_path / "absent")


def test_options() -> None:
    given = {
        **{"prompts": None, "concurrency": None, "rates": None, "window_s": None, "windows": None},
        **{"max_tokens": 64, "seed": 1},
    }
    assert options(**given, quick=False).in_flight == (1, 4, 8)
    assert options(**given, quick=True).timing == console.QUICK
    own = options(**{**given, "concurrency": "2", "rates": "0.5,1.5", "window_s": 3.0}, quick=True)
    assert (own.in_flight, own.per_s, own.timing.window_s) == ((2,), (0.5, 1.5), 3.0)
    for text in ("x", "0", "-1", "nan", "inf", "1.5"):
        with pytest.raises(ConfigError, match="--concurrency"):
            options(**{**given, "concurrency": text}, quick=False)
    with pytest.raises(ConfigError, match="--concurrency"):
        options(**{**given, "concurrency": "9999"}, quick=False)
    assert numbers("", "--rates", float) == ()
