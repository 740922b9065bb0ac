# SPDX-License-Identifier: Apache-2.0
"""An evaluation's answers: what starts when, what is tried again, what is left out and counted."""

import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from sprout.config import Config, load
from sprout.control import inbox
from sprout.control.guard import tallies
from sprout.directives import pack
from sprout.errors import (
    ConfigError,
    ControlError,
    EngineError,
    EngineUnavailable,
    RequestCancelled,
    RequestError,
)
from sprout.evaluate.answering import GIVE_UP_AFTER, Answering, answering
from sprout.evaluate.answers import Question
from sprout.evaluate.asking import TritonAsker
from sprout.evaluate.traffic import Gate, LedgerTraffic, ReportedTraffic, Slots, Traffic
from sprout.request import hints
from sprout.serve import client
from sprout.serve.client import Receipt
from sprout.v1 import control_pb2 as pb
from sprout_ext.board import Flag
from sprout_ext.ledger import Flights, Phase, Role, Segment

LEVELS = ("L0", "L1", "L2")


def questions(n: int) -> list[Question]:
    return [Question(id=f"q{i}", text=f"What is {i}?", task="maths") for i in range(n)]


class Idle:
    """No client is there."""

    def clients(self, own: int) -> int | None:
        return 0


class Engine:
    """Answers at once; `fails` says which requests do not, by question and level."""

    def __init__(self, fails: Callable[[str, str, int], Exception | None] | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.most = 0  # at once
        self._fails = fails or (lambda question, level, attempt: None)
        self._now, self._lock = 0, threading.Lock()

    def ask(
        self, question: Question, level: str, max_tokens: int, on_text: Callable[[str], None]
    ) -> client.Answer:
        with self._lock:
            attempt = Counter(self.asked)[question.id, level]
            self.asked.append((question.id, level))
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            self.work(on_text)
            if error := self._fails(question.id, level, attempt):
                raise error
            return self.answer(LEVELS.index(level), max_tokens)
        finally:
            with self._lock:
                self._now -= 1

    def work(self, on_text: Callable[[str], None]) -> None:
        """While it answers."""

    def answer(self, level: int, max_tokens: int) -> client.Answer:
        tokens = max_tokens if level == 0 else 7
        receipt = Receipt(level, 1, 10.0 * (level + 1), 0.5, 300.0)
        return client.Answer(f"at L{level}", 1, 5, tokens, receipt=receipt)

    def close(self) -> None: ...


def make(engine: Engine, traffic: Traffic | None = None, bound: int = 1, **given: Any) -> Answering:
    settings = {"concurrency": 1, "max_tokens": 64, "retries": 2, "energy_estimated": False}
    gate = Gate(traffic or Idle(), bound, hold_s=given.pop("hold_s", 60), poll_s=0.001)
    return Answering(engine, gate, LEVELS, retry_s=0, **(settings | given))


def test_every_question_at_every_level_with_its_receipts() -> None:
    made = make(Engine())
    (first, second) = made.answers([*questions(1), Question("own", "?", max_tokens=3)])
    assert [a.level for a in first.answers] == [0, 1, 2]
    assert [a.text for a in first.answers] == ["at L0", "at L1", "at L2"]
    assert [a.energy_joules for a in first.answers] == [10, 20, 30]
    assert [a.truncated for a in first.answers] == [True, False, False]
    assert first.answers[0].output_tokens == 64
    assert first.answers[1].input_tokens == 5
    assert first.answers[1].carbon_g == 0.5
    assert not first.answers[0].energy_estimated
    assert second.question.id == "own"
    assert second.answers[0].output_tokens == 3
    assert (made.tally.requests, made.tally.answered, made.tally.left_out) == (6, 2, 0)
    assert made.held_too_long == ""


def test_what_was_not_metered_is_no_zero() -> None:
    class Unmetered(Engine):
        def answer(self, level: int, max_tokens: int) -> client.Answer:
            return client.Answer("?", receipt=Receipt(level, 0, math.nan, math.nan, math.nan))

    made = make(Unmetered())
    (answered,) = made.answers(questions(1))
    assert all(a.energy_estimated and a.carbon_g is None for a in answered.answers)
    assert made.tally.unmetered == 3
    assert made.tally.carbon_unknown == made.tally.estimated == 3


@pytest.mark.parametrize("concurrency", [1, 3])
def test_at_most_so_many_at_once_and_all_of_them(concurrency: int) -> None:
    together = threading.Barrier(concurrency)

    class Slow(Engine):
        def work(self, on_text: Callable[[str], None]) -> None:
            together.wait(timeout=60)  # broken unless that many are there at once

    engine = Slow()
    made = make(engine, concurrency=concurrency)
    answered = list(made.answers(questions(3 * concurrency)))
    assert len(answered) == 3 * concurrency
    assert engine.most == concurrency


class Scripted:
    """Clients as a list says, a number a look; the last one stays. Keeps what it said."""

    def __init__(self, *clients: int | None) -> None:
        self._clients = iter(clients[:-1])
        self._last = clients[-1]
        self.said: list[int | None] = []

    def clients(self, own: int) -> int | None:
        self.said.append(next(self._clients, self._last))
        return self.said[-1]


def test_a_request_starts_only_while_clients_are_under_the_bound() -> None:
    traffic = Scripted(5, 2, None, 1, 0, 7, 2, 1, 1)
    seen_at_start: list[int | None] = []

    class Watched(Engine):
        def work(self, on_text: Callable[[str], None]) -> None:
            seen_at_start.append(traffic.said[-1])

    made = make(Watched(), traffic, bound=2)
    list(made.answers(questions(1)))
    assert seen_at_start == [1, 0, 1]  # never 5, 2, 7, and not where nobody knows
    assert len(traffic.said) == 8
    assert made.tally.held == 2


def test_of_many_starts_none_is_over_the_bound() -> None:
    """Clients come and go by chance; every single start is looked at."""
    traffic = Scripted(*itertools.islice(itertools.cycle([0, 3, 1, 4, 2, 0, 9, 9, 1]), 900), 0)
    starts: list[int | None] = []

    class Watched(Engine):
        def work(self, on_text: Callable[[str], None]) -> None:
            starts.append(traffic.said[-1])

    list(make(Watched(), traffic, bound=3).answers(questions(60)))
    assert len(starts) == 180
    assert set(starts) == {0, 1, 2}


def test_held_for_too_long_ends_the_evaluation_and_says_why() -> None:
    made = make(Engine(), Scripted(0, 0, 0, 4), bound=4, hold_s=0.01)
    answered = list(made.answers(questions(5)))
    assert [a.question.id for a in answered] == ["q0"]
    assert "4 requests of clients were in flight and fewer than 4" in made.held_too_long
    made = make(Engine(), Scripted(None), hold_s=0.01)
    assert list(made.answers(questions(2))) == []
    assert "the load was not known" in made.held_too_long
    assert made.tally.requests == 0


def test_a_failure_is_tried_again_and_then_left_out() -> None:
    def fails(question: str, level: str, attempt: int) -> Exception | None:
        if question == "q0" and level == "L1" and attempt < 2:
            return EngineError("busy")
        return EngineError("too long for this engine") if question == "q1" else None

    engine = Engine(fails)
    made = make(engine)
    answered = list(made.answers(questions(3)))
    assert [a.question.id for a in answered] == ["q0", "q2"]
    assert Counter(engine.asked)["q0", "L1"] == 3
    assert Counter(engine.asked)["q1", "L0"] == 3  # and its other levels never
    assert ("q1", "L1") not in engine.asked
    tally = made.tally
    assert (tally.answered, tally.left_out, tally.repeated) == (2, 1, 4)
    assert tally.requests == len(engine.asked) == 11


def test_what_is_wrong_with_a_request_is_not_tried_again() -> None:
    engine = Engine(lambda question, level, attempt: RequestError("no") if level == "L2" else None)
    made = make(engine)
    assert list(made.answers(questions(1))) == []
    assert Counter(engine.asked)["q0", "L2"] == 1
    assert made.tally.left_out == 1
    assert made.left_out == {"q0": "RequestError"}
    # Nor is it a sign of an engine that is gone, however many there are.
    many = make(Engine(lambda question, *_: None if question == "q9" else RequestError("no")))
    assert [a.question.id for a in many.answers(questions(10))] == ["q9"]
    assert many.tally.left_out == 9
    assert many.tally.failed == 0  # refused: nothing was used


def test_what_was_paid_for_counts_whether_it_is_used_or_not() -> None:
    """Of a question that is left out at its last level, of repeats, of what comes unread."""
    engine = Engine(lambda question, level, attempt: EngineError("no") if level == "L2" else None)
    made = make(engine, retries=1)
    assert list(made.answers(questions(2))) == []
    tally = made.tally
    assert (tally.requests, tally.failed, tally.left_out) == (8, 4, 2)
    assert tally.energy_joules == 2 * (10 + 20)
    assert tally.output_tokens == 2 * (64 + 7)
    assert tally.carbon_g == 2 * 2 * 0.5
    assert (tally.estimated, tally.carbon_unknown) == (0, 0)

    ahead = make(Engine(), concurrency=2)
    answers = ahead.answers(questions(9))
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    receipts = ahead.tally.requests - ahead.tally.failed
    assert ahead.tally.carbon_g == receipts * 0.5
    assert receipts >= 3


def test_slots_are_shared_and_end_with_the_evaluation() -> None:
    slots, stop = Slots(1), threading.Event()
    assert slots.in_flight == 0
    with slots.asking():
        assert slots.in_flight == 1
    assert slots.in_flight == 0
    with slots.one(stop):
        stop.set()
        with pytest.raises(RequestCancelled), slots.one(stop):
            pass
    made = make(Engine(), slots=slots)
    assert len(list(made.answers(questions(2)))) == 2
    with slots.one(threading.Event()):  # the judge has it, and does not let go
        waiting = make(Engine(), slots=slots)
        threading.Timer(0.05, waiting.cancel).start()
        assert list(waiting.answers(questions(2))) == []
    assert waiting.tally.requests == 0


def test_an_engine_that_is_gone_ends_it() -> None:
    engine = Engine(lambda *_: EngineError("Triton is not reachable"))
    made = make(engine, retries=0)
    with pytest.raises(EngineError, match="not reachable"):
        list(made.answers(questions(50)))
    assert len(engine.asked) == GIVE_UP_AFTER


def test_another_level_than_asked_for_says_what_to_do() -> None:
    class Deaf(Engine):
        def answer(self, level: int, max_tokens: int) -> client.Answer:
            return super().answer(0, max_tokens)  # hints are switched off

    engine = Deaf()
    with pytest.raises(ConfigError, match=r"L1 was asked for and L0 served.*token_file"):
        list(make(engine).answers(questions(3)))
    assert engine.asked == [("q0", "L0"), ("q0", "L1")]


def test_an_answer_without_a_receipt_is_none() -> None:
    class Bare(Engine):
        def answer(self, level: int, max_tokens: int) -> client.Answer:
            return client.Answer("who knows at which level")

    made = make(Bare())
    assert list(made.answers(questions(1))) == []
    assert (made.tally.requests, made.tally.left_out) == (3, 1)


def test_a_reader_that_stops_costs_no_more_questions() -> None:
    taken: list[str] = []

    def source() -> Iterator[Question]:
        for question in questions(100):
            taken.append(question.id)
            yield question

    made = make(Engine(), concurrency=2)
    answers = made.answers(source())
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert len(taken) <= 3


def test_cancelling_lets_go_of_what_runs() -> None:
    answering_now = threading.Event()

    class Endless(Engine):
        def work(self, on_text: Callable[[str], None]) -> None:
            while True:
                on_text("and ")
                answering_now.set()
                time.sleep(0.001)

    made = make(Endless())
    answered: list[Any] = []
    reader = threading.Thread(target=lambda: answered.extend(made.answers(questions(9))))
    reader.start()
    assert answering_now.wait(60)
    made.cancel()
    reader.join(60)
    assert not reader.is_alive()
    assert answered == []
    assert (made.tally.requests, made.tally.left_out) == (1, 0)


def test_cancelling_ends_a_wait_for_clients() -> None:
    made = make(Engine(), Scripted(9))
    threading.Timer(0.01, made.cancel).start()
    assert list(made.answers(questions(3))) == []
    assert made.held_too_long == ""


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


def test_as_configured(tmp_path: Path) -> None:
    flags = {"stack.state_dir": str(tmp_path / "state"), "stack.name": "x"}
    cfg = load(environ={}, flags=flags)
    _, asker = answering(cfg, "127.0.0.1:1", LEVELS, energy_estimated=True)
    assert isinstance(asker, TritonAsker)
    # The stack's Triton has not started: no token, and that is said before anything is sent.
    with pytest.raises(ConfigError, match=r"evaluate\.schedule\.token_file.*evaluate\.token"):
        asker.ask(questions(1)[0], "L1", 4, lambda _: None)
    asker.close()
    elsewhere = load(environ={}, flags=flags | {"evaluate.schedule.endpoint": "other:8001"})
    with pytest.raises(ConfigError, match="endpoint"):
        answering(elsewhere, "127.0.0.1:1", LEVELS, energy_estimated=True)
    answering(elsewhere, "127.0.0.1:1", LEVELS, energy_estimated=True, traffic=Idle())


def test_what_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, Any] = {}

    class Fake:
        def __init__(self, address: str) -> None:
            sent["address"] = address

        def ask(self, text: str, **given: Any) -> client.Answer:
            sent.update(given, text=text)
            return client.Answer()

        def close(self) -> None:
            sent["closed"] = True

    monkeypatch.setattr(client, "Client", Fake)
    token = tmp_path / "token"
    token.write_text("first\n")
    asker = TritonAsker("host:1", token_file=token, timeout_s=9)
    asker.ask(questions(1)[0], "L2", 33, lambda _: None)
    assert sent["address"] == "host:1"
    assert sent["marks"] == {"sprout_evaluate": "first", "sprout_sample": False}
    assert (sent["text"], sent["level"], sent["task"]) == ("What is 0?", "L2", "maths")
    assert (sent["max_tokens"], sent["timeout_s"]) == (33, 9)
    token.write_text("of the next start")
    asker.ask(questions(1)[0], "L2", 33, lambda _: None)
    assert sent["marks"]["sprout_evaluate"] == "of the next start"
    asker.close()
    assert sent["closed"]
    TritonAsker("host:1", token_file=None, timeout_s=9).ask(questions(1)[0], "L2", 3, print)
    assert sent["marks"] == {"sprout_sample": False}  # a prompt of an evaluation is none for one


def test_an_empty_token_is_none(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("\n")
    asker = TritonAsker("127.0.0.1:1", token_file=token, timeout_s=9)
    with pytest.raises(ConfigError, match="is empty"):
        asker.ask(questions(1)[0], "L1", 4, print)
    asker.close()


def test_a_token_that_the_server_refuses_ends_it_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own words, as its client gets them."""
    with pytest.raises(RequestError) as refused:
        hints.read('{"sprout_evaluate": "old"}', pack("explicit"), frozenset(), None, "new")
    asked: list[str] = []

    class Fake(client.Client):
        def __init__(self, address: str) -> None: ...

        def ask(self, text: str, **_: Any) -> client.Answer:
            asked.append(text)
            message = f"in ensemble 'ensemble', {refused.value}"
            status = "StatusCode.INVALID_ARGUMENT"
            raise client._translated(InferenceServerException(message, status=status), "host:1")

        def close(self) -> None: ...

    monkeypatch.setattr(client, "Client", Fake)
    (tmp_path / "token").write_text("old")
    asker = TritonAsker("host:1", token_file=tmp_path / "token", timeout_s=9)
    settings = {"concurrency": 1, "max_tokens": 9, "retries": 2, "energy_estimated": False}
    made = Answering(asker, Gate(Idle(), 1, hold_s=9), LEVELS, **settings)
    with pytest.raises(ConfigError, match=r"host:1 does not know the token.*start Triton again"):
        list(made.answers(questions(3)))
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        ("INVALID_ARGUMENT", "in ensemble 'ensemble', at most 2048 tokens", RequestError),
        ("UNAVAILABLE", "in ensemble 'ensemble', the engine is full", EngineError),
        ("UNAVAILABLE", "Socket closed", EngineUnavailable),
        ("INTERNAL", "in ensemble 'ensemble', the engine is gone", EngineError),
        (None, "the engine is gone", EngineError),
    ],
)
def test_whose_fault_an_error_of_triton_is(
    status: str | None, message: str, kind: type[Exception]
) -> None:
    given = None if status is None else f"StatusCode.{status}"
    assert type(client._translated(InferenceServerException(message, given), "host:1")) is kind


def test_errors_of_a_stream_come_with_their_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the header Triton gives text alone, and whose fault it is can't be told."""
    seen: list[Any] = []

    class Triton:
        def __init__(self, address: str) -> None: ...

        def start_stream(self, callback: Any, headers: Any = None) -> None:
            seen.append(headers)
            callback(
                result=None, error=InferenceServerException("no", "StatusCode.INVALID_ARGUMENT")
            )

        def async_stream_infer(self, *_: Any, **__: Any) -> None: ...
        def stop_stream(self, *, cancel_requests: bool) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr(client.triton, "InferenceServerClient", Triton)
    with client.Client("host:1") as asking, pytest.raises(RequestError, match="no"):
        asking.ask("hello")
    assert seen == [{"triton_grpc_error": "true"}]


def test_a_home_in_a_setting_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    cfg = load(environ={}, flags={"evaluate.schedule.token_file": "~/token"})
    assert cfg.evaluate.schedule.token_file == tmp_path / "token"
    (tmp_path / "token").write_text("x")
    cfg = load(
        environ={},
        flags={
            "evaluate.schedule.token_file": "~/token",
            "evaluate.schedule.endpoint": "127.0.0.1:1",
            "evaluate.schedule.nodes": "gpu-1,gpu-2",
        },
    )
    assert cfg.evaluate.schedule.nodes == ("gpu-1", "gpu-2")
    _, asker = answering(cfg, "", LEVELS, energy_estimated=True, traffic=Idle())
    with pytest.raises(EngineUnavailable):  # the token was read
        asker.ask(questions(1)[0], "L1", 4, lambda _: None)
    asker.close()


def test_a_rule_that_could_never_give_a_q_is_refused() -> None:
    with pytest.raises(ConfigError, match="prompts 20 is under least_prompts 50"):
        load(
            environ={},
            flags={"evaluate.schedule.rule": "fixed", "evaluate.schedule.prompts": 20},
        )


def test_defaults() -> None:
    schedule = Config().evaluate.schedule
    assert (schedule.rule, schedule.max_client_requests, schedule.concurrency) == ("off", 1, 1)


@pytest.mark.parametrize("beside", [{}, {"pinned": True}, {"control": True}, {"paused": True}])
def test_the_outcome_of_an_evaluation_counts_for_no_client(beside: dict[str, bool]) -> None:
    outcome = pb.Outcome(segment_uid=1, ticket=1, level=1, ending=pb.ENDING_DELIVERED)
    assert inbox.row("n", outcome).eligible
    evaluation = pb.Outcome(evaluation=True, **beside)
    evaluation.MergeFrom(outcome)
    row = inbox.row("n", evaluation)
    assert (row.arm, row.eligible) == ("evaluation", False)


def test_the_guard_does_not_look_at_evaluations() -> None:
    known: Any = {7: SimpleNamespace(standing="policy", prompt_share=0.0)}
    requests = Counter({(7, "control", 0): 50, (7, "L1", 1): 50})
    cut = Counter({(7, "L1", 1): 2})
    before = tallies(requests, cut, Counter(), known)
    requests[7, "evaluation", 1] = requests[7, "evaluation", 0] = 1000
    cut[7, "evaluation", 1] = 1000
    said = Counter({(7, "evaluation", 1, "thumbs_down"): 9})
    assert tallies(requests, cut, said, known) == before
