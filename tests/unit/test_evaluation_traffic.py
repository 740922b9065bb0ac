# SPDX-License-Identifier: Apache-2.0
"""How an evaluation tells clients' load from its own: from the ledger, and from agents' reports."""

import time
from collections.abc import Callable
from pathlib import Path

from answering_engine import Engine, make, questions

from sprout.errors import (
    ControlError,
)
from sprout.evaluate.traffic import LedgerTraffic, ReportedTraffic
from sprout.v1 import control_pb2 as pb
from sprout_ext.board import Flag
from sprout_ext.ledger import Flights, Phase, Role, Segment


def open_flight(segment: Segment, flags: int = 0) -> int:
    return segment.open_flight(
        level=0,
        flags=flags,
        policy_version=0,
        policy_seed=0,
        sequence=0,
        task=b"",
        input_tokens=1,
        max_tokens=1,
        opened_ns=time.monotonic_ns(),
        intensity_g_per_kwh=1.0,
        pue=1.0,
        embodied_g_per_s=0.0,
    )


def finish(flights: Flights, ticket: int) -> None:
    assert flights.finished(
        ticket,
        Phase.FINISHED,
        input_tokens=1,
        output_tokens=1,
        first_scheduled_ns=1,
        first_token_ns=1,
        last_token_ns=time.monotonic_ns(),
    )


def test_the_ledger_tells_clients_from_our_own(tmp_path: Path) -> None:
    traffic = LedgerTraffic(tmp_path)
    assert traffic.clients(0) is None  # no stub: not "nobody is there"
    engine = Segment.create(tmp_path, Role.ENGINE, 0, 1)
    assert traffic.clients(0) is None
    stubs = [Segment.create(tmp_path, Role.PREPROCESSING, i, 1, 64) for i in range(2)]
    assert traffic.clients(0) == 0
    tickets = [open_flight(stub) for stub in stubs]
    for flags in (Flag.PROBE, Flag.EVALUATION):
        open_flight(stubs[0], flags)
    assert traffic.clients(1) == 2  # pinned by a client or drawn, it is a client's
    open_flight(stubs[1], Flag.PINNED)
    assert traffic.clients(1) == 3
    flights = Flights(tmp_path)
    assert flights.scheduled(tickets[0], time.monotonic_ns())
    assert traffic.clients(1) == 3
    finish(flights, tickets[0])
    assert flights.close(tickets[1], time.monotonic_ns(), 1.0)
    assert traffic.clients(1) == 1
    for segment in (engine, *stubs):
        segment.close(unlink=True)


def test_nothing_starts_while_the_ledger_shows_clients(tmp_path: Path) -> None:
    """With real flights: every request of the evaluation ends with clients' flights opened, and
    the next one starts only after they are finished."""
    segment, flights = Segment.create(tmp_path, Role.PREPROCESSING, 0, 1, 64), Flights(tmp_path)
    held: list[int] = []
    at_start: list[int] = []
    looks = 0
    real = LedgerTraffic(tmp_path)

    class Watched:
        def clients(self, own: int) -> int | None:
            nonlocal looks
            looks += 1
            seen = real.clients(own)
            if looks % 3 == 0 and held:  # a client's request ends now and then
                finish(flights, held.pop())
            return seen

    class Busy(Engine):
        def work(self, on_text: Callable[[str], None]) -> None:
            own = open_flight(segment, Flag.EVALUATION)
            at_start.append(real.clients(1) or 0)
            held.extend(open_flight(segment) for _ in range(3))
            finish(flights, own)

    made = make(Busy(), Watched(), bound=2)
    assert len(list(made.answers(questions(4)))) == 4
    assert len(at_start) == 12
    assert max(at_start) < 2
    assert made.tally.held == 11
    segment.close(unlink=True)


def test_reports_of_agents() -> None:
    def node(active: int, age_s: float = 1) -> pb.NodeStatus:
        made = pb.NodeStatus(active=active)
        made.time.seconds = int(1000 - age_s)
        return made

    def clients(*nodes: pb.NodeStatus, own: int = 0) -> int | None:
        return ReportedTraffic(lambda: nodes, clock=lambda: 1000.0).clients(own)

    assert clients(node(3), node(2)) == 5
    assert clients(node(3), own=2) == 1
    assert clients(node(0), own=2) == 0
    assert clients() is None
    assert clients(node(3), node(2, age_s=86400)) == 3  # that one was taken down
    assert clients(node(2, age_s=60)) is None

    def away() -> list[pb.NodeStatus]:
        raise ControlError("not there")

    assert ReportedTraffic(away).clients(0) is None


def test_an_endpoint_s_load_is_that_of_its_nodes() -> None:
    nodes = [pb.NodeStatus(node=name, active=active) for name, active in (("a", 1), ("b", 40))]
    for one in nodes:
        one.time.seconds = 1000

    def clients(*names: str) -> int | None:
        return ReportedTraffic(lambda: nodes, names, clock=lambda: 1000.0).clients(0)

    assert (clients(), clients("a"), clients("a", "b"), clients("c")) == (41, 1, 41, None)


def test_the_control_plane_is_asked_once_a_second_however_many_look() -> None:
    now, asked = [0.0], 0

    def nodes() -> list[pb.NodeStatus]:
        nonlocal asked
        asked += 1
        made = pb.NodeStatus(active=asked)
        made.time.seconds = 1000
        return [made]

    traffic = ReportedTraffic(nodes, clock=lambda: 1000.0, monotonic=lambda: now[0])
    looks = [traffic.clients(0) for _ in range(50)]
    now[0] += 0.99
    assert [*looks, traffic.clients(0)] == [1] * 51
    now[0] += 0.02
    assert traffic.clients(0) == 2
    assert asked == 2
