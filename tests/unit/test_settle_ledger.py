# SPDX-License-Identifier: Apache-2.0
"""Settling and draining through real shared memory, tick by tick."""

import os
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flights import ended, opened

from sprout.agent.drain import Drain
from sprout.agent.spool import Spool
from sprout.agent.stub_files import StubFiles
from sprout.config import Config
from sprout.v1 import control_pb2 as pb
from sprout_ext.clock import ClockReader, ClockWriter
from sprout_ext.ledger import Counter, Flights, Role, Segment, SegmentReader


class GivenMeter:
    """Shows what the test says."""

    name = "given"
    estimated = False
    prior_watts = 5.0
    problem = ""
    whole = True

    def __init__(self) -> None:
        self.joules = 0.0

    def read(self) -> float:
        return self.joules

    def close(self) -> None:
        pass


class Node:
    """An agent's tick without its process, one stub, and the clock of receipts."""

    def __init__(self, tmp_path: Path, records: int = 64) -> None:
        self.cfg = Config.model_validate(
            {
                "stack": {"state_dir": tmp_path, "shm_dir": tmp_path},
                "agent": {"abandoned_after_s": 0.05, "lease_s": 30},
            }
        )
        self.tmp_path = tmp_path
        self.meter = GivenMeter()
        self.segment = Segment.create(tmp_path, Role.PREPROCESSING, 0, 1, records)
        self.flights = Flights(tmp_path)
        self.spool = Spool(tmp_path / "spool.sqlite", 10_000)
        self.clock: ClockWriter | None = None
        self.agent()

    def agent(self) -> None:
        """A new one; the one before is gone without a word."""
        if self.clock is not None:
            self.clock.close()
        self.clock = ClockWriter(self.tmp_path / "energy.clock")
        self.drain = Drain(self.cfg, 1, self.meter, self.clock, self.spool)

    def open(self) -> int:
        return opened(self.segment)

    def start(self) -> int:
        ticket = self.open()
        assert self.flights.scheduled(ticket, time.monotonic_ns())
        return ticket

    def finish(self, ticket: int, *, late_ns: int = 0) -> None:
        """The last token was `late_ns` ago."""
        assert ended(self.flights, ticket, late_ns=late_ns)
        assert self.flights.close(ticket, time.monotonic_ns(), 0.0)

    def outcomes(self) -> list[pb.Outcome]:
        return [pb.Outcome.FromString(body) for _, body in self.spool.peek(100_000)]

    def close(self) -> None:
        assert self.clock is not None
        self.clock.close()
        self.spool.close()
        self.segment.close(True)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("restarts", [False, True])
def test_outcomes_sum_to_the_settled_energy(node: Node, seed: int, restarts: bool) -> None:
    draw = random.Random(seed)
    running: list[int] = []
    opened = 0
    node.drain.tick()  # the starting point
    for n in range(60):
        for _ in range(draw.randrange(4)):
            running.append(node.start())
            opened += 1
            time.sleep(draw.uniform(0, 0.002))
        for ticket in draw.sample(running, draw.randrange(len(running) + 1) // 2):
            running.remove(ticket)
            node.finish(ticket, late_ns=draw.randrange(2_000_000))
        time.sleep(draw.uniform(0, 0.005))
        node.meter.joules += draw.uniform(0, 10)
        if restarts and n % 20 == 19:
            node.agent()
        node.drain.tick()
    for ticket in running:
        node.finish(ticket)
    for _ in range(3):
        node.drain.tick()
    outcomes = node.outcomes()
    assert len({outcome.ticket for outcome in outcomes}) == len(outcomes) == opened
    assert node.clock is not None
    given = sum(outcome.energy_joules for outcome in outcomes)
    # A restart forgets which records came late, within a tick.
    assert given == pytest.approx(node.clock.settled_joules, rel=0.02 if restarts else 1e-3)
    assert node.clock.settled_joules + node.clock.idle_joules == pytest.approx(node.meter.joules)
    assert SegmentReader(node.segment.path).scan().size == 0


def test_a_receipt_is_about_what_the_outcome_says(node: Node) -> None:
    node.drain.tick()
    reader = ClockReader(node.cfg.stack.shm / "energy.clock")
    start = time.monotonic_ns()
    ticket = node.start()
    for _ in range(10):
        time.sleep(0.05)
        node.meter.joules += 0.1
        node.drain.tick()
    end = time.monotonic_ns()
    node.finish(ticket)
    receipt, provisional = reader.energy(start, end)
    assert provisional
    node.meter.joules += 0.01
    node.drain.tick()
    (outcome,) = node.outcomes()
    assert outcome.energy_joules == pytest.approx(1.0, abs=0.1)
    assert receipt == pytest.approx(outcome.energy_joules, rel=0.1)
    assert not outcome.energy_estimated


def test_a_full_disk_leaves_flights_in_the_ledger(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sprout.agent.drain.SPOOL_RETRY_NS", 10**15)
    node.spool.append([b""])
    db = node.spool._db
    assert db is not None
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    tickets = {node.start() for _ in range(40)}
    for ticket in tickets:
        node.finish(ticket)
    db.execute(f"PRAGMA max_page_count = {pages}")
    for _ in range(2):  # all or none, and not tried again at once
        node.drain.tick()
        assert node.drain.sample.spool_failed == 1
        assert SegmentReader(node.segment.path).scan().size == 40
    node.drain._spool_retry_ns = 1  # the time has come
    node.drain.tick()  # the spool opens its file anew: there is room
    assert SegmentReader(node.segment.path).scan().size == 0
    assert {outcome.ticket for outcome in node.outcomes()} == {0} | tickets


def test_a_killed_agent_makes_copies_not_losses(node: Node) -> None:
    """Between the spool's commit and the ledger's release."""

    class Killed(BaseException):
        pass

    class Dying(Spool):
        def append(self, outcomes: object) -> None:
            super().append(outcomes)  # type: ignore[arg-type]
            if outcomes:
                raise Killed

    node.drain.tick()
    ticket = node.start()
    node.drain.tick()
    node.finish(ticket)
    whole, node.spool = node.spool, Dying(node.tmp_path / "spool.sqlite", 100)
    whole.close()
    node.agent()
    node.meter.joules = 3.0
    with pytest.raises(Killed):
        node.drain.tick()
    dying, node.spool = node.spool, Spool(node.tmp_path / "spool.sqlite", 100)
    dying.close()
    node.agent()
    node.drain.tick()
    assert [outcome.ticket for outcome in node.outcomes()] == [ticket, ticket]
    first, second = node.outcomes()
    assert first.energy_joules == pytest.approx(3.0)
    assert second.energy_joules == pytest.approx(3.0)


def test_a_segment_that_vanished_is_still_drained(node: Node) -> None:
    ticket = node.start()
    node.drain.tick()
    node.finish(ticket)
    node.segment.path.unlink()
    node.drain.tick()
    node.drain.tick()
    assert [outcome.ticket for outcome in node.outcomes()] == [ticket]


def test_foreign_files_are_left_alone(node: Node) -> None:
    (node.tmp_path / "segment-zzzz").write_bytes(b"something else")
    (node.tmp_path / "segment-ffff").write_bytes(b"of that name, but no segment")
    (node.tmp_path / "segment-0000").mkdir()
    # How a segment is made where files can't be without a name: two names of one for a moment.
    made = node.segment.path
    made.with_name(f"{made.name}.123.new").hardlink_to(made)
    node.segment.count(Counter.REQUESTS, 3)
    node.drain.tick()
    node.drain.tick()
    assert node.drain.sample.counters["requests"] == 3
    assert (node.tmp_path / "segment-zzzz").exists()


@pytest.mark.parametrize("free", [0, 1])  # for the folder, or for the folder and no file
def test_a_segment_is_not_foreign_because_descriptors_ran_out(node: Node, free: int) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    short = True

    def map_with_none_left(path: Path) -> SegmentReader:
        if short:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        return SegmentReader(path)

    files = StubFiles(node.tmp_path, "segment", "segment", map_with_none_left)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, limits[1]))
        assert files.refresh() == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    short = False
    assert [reader.uid for reader in files.refresh()] == [node.segment.uid]


def test_the_prior_serves_until_something_was_metered(node: Node) -> None:
    reader = ClockReader(node.cfg.stack.shm / "energy.clock")
    now = time.monotonic_ns()
    assert reader.energy(now, now + 1_000_000_000) == (pytest.approx(5.0), True)
