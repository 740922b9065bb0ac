# SPDX-License-Identifier: Apache-2.0
"""The agent as a process: killed, starved of its control plane, with stubs that die."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from recorder import PACK, Recorder, make_policy, prompt_policy
from some_weights import packed
from waiting import PATIENCE_S

from sprout import channel
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub
from sprout_ext import weights
from sprout_ext.board import BoardReader, Flag, weights_name
from sprout_ext.clock import ClockReader, ClockState
from sprout_ext.ledger import SegmentReader

pytestmark = pytest.mark.system

NO_ANSWER = "outcomes wait in the spool"  # said once, when the control plane has gone

FLIER = Path(__file__).parents[1] / "flier.py"
PROCESS = """
import logging
from sprout.{name}.run import serve
from sprout.config import load
logging.basicConfig(level="INFO", format="%(relativeCreated)d %(threadName)s %(message)s")
serve(load())
"""


class Flier:
    """tests/flier.py, owner of one segment."""

    def __init__(self, shm: Path, records: int = 64, per_s: float | None = None) -> None:
        rate = [] if per_s is None else [str(per_s)]
        self.process = subprocess.Popen(
            [sys.executable, str(FLIER), str(shm), str(records), *rate],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        tag, uid = self._line().split()
        self.path, self.uid = shm / f"segment-{tag}", int(uid)

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def ask(self, *command: object) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, command)) + "\n")
        self.process.stdin.flush()
        return self._line().strip()

    def open(self, *commands: str) -> int:
        """A flight that has been through `commands`."""
        ticket = int(self.ask("open"))
        for command in commands:
            assert self.ask(command, ticket) == "True"
        return ticket

    def stop(self, least: int) -> list[int]:
        """The tickets, as soon as there are so many."""
        return [int(ticket) for ticket in self.ask("stop", least).split()]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


class Stack:
    """One node: a recorder as control plane, an agent, fliers."""

    def __init__(self, tmp_path: Path) -> None:
        self.state, self.shm = tmp_path / "state", tmp_path / "shm"
        (self.state / "pids").mkdir(parents=True)
        self.shm.mkdir(mode=0o700)
        self.tmp_path = tmp_path
        self.control = Recorder().start()
        self.reader = BoardReader(self.shm / "policy.board", PACK.hash, 1, 0, 0)
        self.fliers: list[Flier] = []
        self.agents: list[subprocess.Popen[bytes]] = []
        self.controls: list[subprocess.Popen[bytes]] = []

    def agent(self, **settings: object) -> subprocess.Popen[bytes]:
        self.agents.append(self._start("agent", settings))
        return self.agents[-1]

    def real_control(self) -> subprocess.Popen[bytes]:
        """The real control plane in the recorder's place."""
        self.control.stop()
        settings = {"CARBON__CONSTANT_G_PER_KWH": 300, "CONTROL__TTL_S": 600}
        self.controls.append(self._start("control", settings))
        return self.controls[-1]

    def _start(self, name: str, settings: Mapping[str, object]) -> subprocess.Popen[bytes]:
        tree = {
            "STACK__STATE_DIR": self.state,
            "STACK__SHM_DIR": self.shm,
            "CONTROL__PORT": self.control.port,
            "ENERGY__METERS": "cpu_model",  # the same joules whatever this machine has
            "AGENT__TICK_S": 0.05,
            "AGENT__REPORT_INTERVAL_S": 0.1,
            "AGENT__ABANDONED_AFTER_S": 60,  # nobody is so slow to close what was finished
            **settings,
        }
        env = {f"SPROUT_{key}": str(value) for key, value in tree.items()}
        with (self.tmp_path / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", PROCESS.format(name=name)],
                cwd=self.tmp_path,
                env=env,
                stdout=log,
                stderr=log,
            )

    def watching(self) -> None:
        """The agent that was started last has connected."""
        self.control.wait(lambda: self.log().count("control plane 127") == len(self.agents))

    def ready(self) -> None:
        reports = self.control.reports
        self.control.wait(lambda: self.control.reports > reports)

    def goes_away(self) -> None:
        """The control plane, and the agent has noticed."""
        before = self.log().count(NO_ANSWER)
        self.control.stop()
        self.control.wait(lambda: self.log().count(NO_ANSWER) > before)

    def clock(self) -> ClockState:
        state = ClockReader(self.shm / "energy.clock").state()
        assert state is not None
        return state

    def flier(self, records: int = 64, per_s: float | None = None) -> Flier:
        self.fliers.append(Flier(self.shm, records, per_s))
        return self.fliers[-1]

    def metered(self, flier: Flier) -> None:
        """The flier is what the meter looks at."""
        (self.state / "pids" / "engine.pid").write_text(str(flier.process.pid))

    def outcome(self, flier: Flier, ticket: int) -> pb.Outcome:
        key = (flier.uid, ticket)
        self.control.wait(lambda: key in self.control.outcomes)
        return self.control.outcomes[key]

    def log(self) -> str:
        return (self.tmp_path / "agent.log").read_text()

    def close(self) -> None:
        for process in (*self.agents, *self.controls):
            process.kill()
            process.wait()
        for flier in self.fliers:
            flier.kill()
        self.control.stop()


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path)
    yield made
    made.close()


def test_policy_reaches_the_board_and_runs_out_without_a_control_plane(stack: Stack) -> None:
    stack.control.publish(make_policy(1))
    agent = stack.agent()
    stack.control.wait(lambda: stack.reader.state() == "ok")
    stack.control.wait(lambda: stack.control.status.policy_version == 7 << 32 | 1)
    stack.control.publish(make_policy(2, ttl_s=1.5))
    stack.control.wait(lambda: stack.control.status.policy_version == 7 << 32 | 2)
    stack.control.stop()
    # Killed and reborn: the deadline stays what it was.
    before = stack.reader.policy()
    agent.kill()
    agent.wait()
    stack.agent()
    stack.watching()
    assert stack.reader.policy() == before
    stack.control.wait(lambda: stack.reader.state() == "expired")
    choice = stack.reader.choose(1)
    assert (choice.level, choice.intensity_g_per_kwh) == (0, 250.0)
    stack.control.publish(make_policy(3))
    stack.control.start()
    stack.control.wait(lambda: stack.reader.state() == "ok")


def test_weights_come_are_told_of_while_they_do_not_and_outlive_a_kill(stack: Stack) -> None:
    """A policy with prices: in force at once, whole as soon as its weights can be had."""
    data = packed()
    digest = weights.name(data)

    def named() -> str | None:
        policy = stack.reader.policy()
        return policy.prompt.weights if policy and policy.prompt else None

    def priced(counter: int, *, paused: bool = False) -> pb.Policy:
        policy = make_policy(counter)
        policy.paused = paused
        policy.prompt.CopyFrom(prompt_policy(digest))
        return policy

    stack.control.publish(priced(1))
    agent = stack.agent()
    stack.control.wait(lambda: stack.control.status.counters["weights_failed"] > 1)
    assert stack.control.status.policy_version == 7 << 32 | 1
    assert "NOT_FOUND" in stack.control.status.policy_error
    assert (stack.reader.state(), named()) == ("ok", "")
    stack.control.publish(priced(2, paused=True))  # waits for no weights
    stack.control.wait(lambda: stack.reader.choose(1).flags == Flag.PAUSED)
    # Killed while it asks for them, reborn: nothing of the kind is left behind.
    stack.control.weights_held.clear()
    stack.control.weights[digest] = data
    asked = len(stack.control.weights_asked)
    stack.control.wait(lambda: len(stack.control.weights_asked) > asked)
    agent.kill()
    agent.wait()
    stack.control.weights_held.set()
    reborn = stack.agent()
    stack.control.publish(priced(3))
    stack.control.wait(lambda: named() == digest)
    assert [path.name for path in stack.shm.glob("weights-*")] == [weights_name(digest)]
    found = stack.reader.choose_many(0, 100, None, [b"What is 2 + 2?"] * 100)
    assert {choice.flags for choice in found} == {0, Flag.PROMPT, Flag.CONTROL}
    stack.control.wait(lambda: stack.control.status.policy_error == "")
    # Killed with them on the disk: they are not fetched once more.
    asked = len(stack.control.weights_asked)
    reborn.kill()
    reborn.wait()
    assert named() == digest
    stack.agent()
    stack.control.publish(priced(4))
    stack.control.wait(lambda: stack.control.status.policy_version == 7 << 32 | 4)
    assert named() == digest
    assert len(stack.control.weights_asked) == asked


def test_every_ending_is_told(stack: Stack) -> None:
    flier, began = stack.flier(), time.time()
    # These before there is an agent: none that is to be closed can be too late.
    expected = {
        flier.open("schedule", "token", "finish", "close"): pb.ENDING_DELIVERED,
        flier.open("schedule", "token", "finish"): pb.ENDING_ABANDONED,
        flier.open("schedule", "cancel"): pb.ENDING_CANCELLED,
        flier.open("schedule", "fail"): pb.ENDING_FAILED,
    }
    stack.agent(AGENT__LEASE_S=1.0, AGENT__ABANDONED_AFTER_S=0.5)
    stack.ready()
    expected[flier.open("schedule")] = pb.ENDING_LOST  # its lease runs out
    for ticket, ending in expected.items():
        outcome = stack.outcome(flier, ticket)
        assert outcome.ending == ending
        assert (outcome.level, outcome.task, outcome.sequence) == (1, "test", 7)
        assert outcome.segment_uid == flier.uid
        assert began - 1 < outcome.opened_at.ToNanoseconds() / 1e9 < time.time() + 1
        assert outcome.device_seconds > 0
    stack.control.wait(lambda: stack.control.status.active == 0)
    assert stack.control.duplicates == 0


def test_a_dead_stubs_segment_is_drained_and_reclaimed(stack: Stack) -> None:
    living, dead = stack.flier(), stack.flier()
    delivered = dead.open("schedule", "finish", "close")  # beforehand: it can't be too late
    stack.agent(AGENT__ABANDONED_AFTER_S=0.5)
    stack.ready()
    living.ask("count")
    dead.ask("count")
    lost = dead.open("schedule", "token")
    dead.kill()
    assert stack.outcome(dead, delivered).ending == pb.ENDING_DELIVERED
    assert stack.outcome(dead, lost).ending == pb.ENDING_LOST
    stack.control.wait(lambda: not dead.path.exists())
    assert living.path.exists()
    # What the dead one counted stays in the sum.
    reports = stack.control.reports
    stack.control.wait(lambda: stack.control.reports > reports + 2)
    assert stack.control.status.counters["requests"] == 2


def test_a_zombie_is_dead(stack: Stack) -> None:
    stack.agent()
    flier = stack.flier()
    stack.ready()
    flier.process.kill()  # and nobody waits for it
    stack.control.wait(lambda: not flier.path.exists())


def test_outcomes_wait_for_the_control_plane_and_arrive_once(stack: Stack) -> None:
    stack.agent()
    flier = stack.flier(512, per_s=100)
    stack.ready()
    stack.goes_away()
    told = len(stack.control.outcomes)
    tickets = flier.stop(told + 100)
    stack.control.start()
    stack.control.wait(lambda: len(stack.control.outcomes) == len(tickets))
    # Known by (segment_uid, ticket): a report whose answer was cut off came twice.
    assert {ticket for _, ticket in stack.control.outcomes} == set(tickets)


def test_a_full_spool_drops_the_oldest_and_says_how_many(stack: Stack) -> None:
    agent = stack.agent(AGENT__SPOOL_OUTCOMES=20)
    stack.ready()
    stack.control.stop()
    flier = stack.flier()
    tickets = [flier.open("schedule", "finish", "close") for _ in range(50)]
    ledger = SegmentReader(flier.path)
    stack.control.wait(lambda: ledger.scan().size == 0)  # all of it went into the spool
    agent.kill()  # the count outlives it
    agent.wait()
    stack.agent(AGENT__SPOOL_OUTCOMES=20)
    stack.control.start()
    stack.control.wait(lambda: len(stack.control.outcomes) == 20)
    stack.control.wait(lambda: stack.control.status.spooled == 0)
    assert stack.control.status.dropped == 30
    assert {ticket for _, ticket in stack.control.outcomes} == set(tickets[-20:])


def test_kill_9_under_load_loses_nothing_and_doubles_nothing(stack: Stack) -> None:
    draw = random.Random(7)
    flier = stack.flier(1024, per_s=200)
    stack.metered(flier)
    for _ in range(6):
        agent = stack.agent()
        stack.watching()
        time.sleep(draw.uniform(0.05, 0.6))
        agent.kill()
        agent.wait()
        time.sleep(draw.uniform(0, 0.2))
    stack.agent()
    stack.ready()
    tickets = flier.stop(300)
    stack.control.wait(lambda: len(stack.control.outcomes) >= len(tickets))
    stack.control.wait(lambda: stack.control.status.spooled == 0)
    assert {ticket for _, ticket in stack.control.outcomes} == set(tickets)
    outcomes = stack.control.outcomes.values()
    assert {outcome.ending for outcome in outcomes} == {pb.ENDING_DELIVERED}
    # The gaps' energy is there too, and all of it belongs to some flight.
    settled = stack.clock().settled
    assert settled > 0
    given = sum(outcome.energy_joules for outcome in outcomes)
    assert given == pytest.approx(settled, rel=0.02)


def test_outcomes_sum_to_what_was_settled(stack: Stack) -> None:
    """No kill: within 0.1 %."""
    flier = stack.flier(1024, per_s=150)
    stack.metered(flier)
    stack.agent()
    stack.ready()
    tickets = flier.stop(200)
    stack.control.wait(lambda: len(stack.control.outcomes) == len(tickets))
    reports = stack.control.reports
    stack.control.wait(lambda: stack.control.reports > reports + 1)
    status = stack.control.status
    given = sum(outcome.energy_joules for outcome in stack.control.outcomes.values())
    assert given > 0
    assert given == pytest.approx(status.settled_joules, rel=1e-3)
    parts = status.settled_joules + status.idle_joules + status.unattributed_joules
    assert parts == pytest.approx(status.metered_joules)
    assert status.energy_estimated
    assert all(outcome.energy_estimated for outcome in stack.control.outcomes.values())


def test_energy_goes_to_the_flight_that_was_active(stack: Stack) -> None:
    flier = stack.flier()
    stack.metered(flier)
    stack.agent(ENERGY__WATTS_PER_CORE=10)
    stack.ready()
    flier.ask("burn", 0.2)
    stack.control.wait(lambda: stack.clock().idle > 0.9 * 2.0)  # 0.2 s of a core's 10 W
    first = flier.open("schedule")
    flier.ask("burn", 0.5)
    flier.ask("finish", first)
    flier.ask("close", first)
    queued = flier.open("fail")
    outcome = stack.outcome(flier, first)
    assert outcome.energy_joules == pytest.approx(5.0, rel=0.2)
    assert outcome.carbon_g == pytest.approx(outcome.energy_joules / 3.6e6 * 100)
    assert stack.outcome(flier, queued).energy_joules == 0


def test_sigterm_drains_and_ends_before_the_next_report(stack: Stack) -> None:
    agent = stack.agent(AGENT__REPORT_INTERVAL_S=10 * PATIENCE_S)  # nothing but the last report
    flier = stack.flier()
    stack.watching()
    ticket = flier.open("schedule", "finish", "close")
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(PATIENCE_S) == 0
    assert stack.control.outcomes[flier.uid, ticket].ending == pb.ENDING_DELIVERED


def test_one_agent_per_node(stack: Stack) -> None:
    first = stack.agent()
    stack.ready()
    second = stack.agent()
    assert second.wait(PATIENCE_S) == 1
    assert f"an agent already (pid {first.pid}" in stack.log()
    assert first.poll() is None


def test_the_real_control_plane_killed_and_back(stack: Stack) -> None:
    """Its policy is on the board, every outcome is stored once, whenever it is away."""
    control = stack.real_control()
    stack.agent()
    stack.control.wait(lambda: stack.reader.state() == "ok")
    first = stack.reader.policy()
    flier = stack.flier(1024, per_s=100)
    ledger = SegmentReader(flier.path)
    stack.control.wait(lambda: ledger.scan().size > 0)
    control.kill()
    control.wait()
    stack.control.wait(lambda: NO_ANSWER in stack.log())
    assert stack.reader.state() == "ok"
    stack.real_control()
    stack.control.wait(lambda: stack.reader.policy() != first)
    tickets = flier.stop(100)
    with channel.connect(f"127.0.0.1:{stack.control.port}") as connection:
        stub = ControlStub(connection)

        def told() -> pb.Status:
            return stub.GetStatus(pb.GetStatusRequest(), timeout=PATIENCE_S)

        stack.control.wait(lambda: told().outcomes >= len(tickets))
        stack.control.wait(lambda: len(told().nodes) == 1 and told().nodes[0].spooled == 0)
        status = told()
    assert status.outcomes == len(tickets)
    (node,) = status.nodes
    assert node.policy_version == stack.reader.policy().version  # type: ignore[union-attr]
    assert (node.policy_error, node.policy_expired, node.dropped) == ("", False, 0)
    assert node.counters["policies_refused"] == 0
    assert node.energy_estimated
