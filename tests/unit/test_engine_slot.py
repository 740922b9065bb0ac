# SPDX-License-Identifier: Apache-2.0
"""The slot without Triton: one end per request whatever happens, chunks, stop, cancel, ledger."""

import errno
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_fakes import FakeResponder
from waiting import PATIENCE_S, wait_for

from sprout.engines import marks
from sprout.engines.base import Chunk, End, Generation, Reason, Sink
from sprout.engines.settings import SlotSettings
from sprout.engines.slot import Slot
from sprout.errors import EngineBusy, EngineUnavailable, RequestError, UnsupportedOption
from sprout_ext.ledger import Counter, Phase, Role, Segment, SegmentReader, segments

ECHO = SlotSettings(
    engine="echo", chunk_interval_ms=0, chunks_per_s=0, cancellation_check_period_ms=10
)
YES = np.array([True])


def settings(**more: Any) -> SlotSettings:
    return replace(ECHO, **more)


@pytest.fixture
def slot() -> Iterator[Callable[..., Slot]]:
    made: list[Slot] = []

    def make(engine: Any = None, **more: Any) -> Slot:
        made.append(Slot(settings(**more), engine))
        return made[-1]

    yield make
    for one in made:
        one.close()


def request(*ids: int, tokens: int = 4, **more: Any) -> dict[str, Any]:
    prompt = ids or (5, 6, 7)
    return {
        "input_ids": np.array([prompt], np.int32),
        "input_lengths": np.array([len(prompt)], np.int32),
        "request_output_len": np.array([tokens], np.int32),
    } | more


def ask(slot: Slot, request_id: str = "", **more: Any) -> FakeResponder:
    responder = FakeResponder()
    slot.accept(request_id, request(**more), responder)
    return responder


class ByHand:
    """An engine that does what the test says."""

    name = "echo"

    def __init__(self) -> None:
        self.sinks: list[Sink] = []
        self.cancelled: list[int] = []

    def submit(self, generation: Generation, sink: Sink) -> Any:
        number = len(self.sinks)
        self.sinks.append(sink)
        engine = self

        class Handle:
            def cancel(self) -> None:
                engine.cancelled.append(number)
                sink.on_chunk(Chunk([], end(Reason.CANCELLED)), time.monotonic_ns())

        return Handle()

    def cancel(self, request_id: str) -> int:
        return 0

    def close(self) -> None:
        pass


def end(reason: Reason = Reason.LENGTH, output_tokens: int = 0) -> End:
    return End(reason, 3, output_tokens, 1, 2, 3, 4)


def test_streaming_sends_tokens_and_one_end(slot: Callable[..., Slot]) -> None:
    responder = ask(slot(), streaming=YES).wait()
    assert responder.ids == [5, 6, 7, 5]
    assert len(responder.sent) == 4
    assert ["last_token_time_ns" in tensors for tensors in responder.sent] == [False] * 3 + [True]


def test_not_streaming_sends_one_response(slot: Callable[..., Slot]) -> None:
    for more in ({}, {"streaming": np.array([False])}):
        responder = ask(slot(), **more).wait()
        assert len(responder.sent) == 1
        assert responder.ids == [5, 6, 7, 5]


def test_tokens_join_and_leave_by_themselves(slot: Callable[..., Slot]) -> None:
    engine = ByHand()
    responder = FakeResponder()
    slot(engine, chunk_interval_ms=50).accept("", request(streaming=YES), responder)
    sink = engine.sinks[0]
    for token in (1, 2, 3):
        sink.on_chunk(Chunk([token]), time.monotonic_ns())
    wait_for(lambda: len(responder.sent) == 2)  # nothing further comes from the engine
    assert [tensors["output_ids"].tolist() for tensors in responder.sent] == [[[[1]]], [[[2, 3]]]]
    sink.on_chunk(Chunk([], end(output_tokens=3)), time.monotonic_ns())
    assert responder.wait().ids == [1, 2, 3]
    assert responder.sent[-1]["sequence_length"].tolist() == [[0]]


def test_answer_of_zero_tokens_is_one_response(slot: Callable[..., Slot]) -> None:
    engine = ByHand()
    made = slot(engine)
    for streaming in (YES, np.array([False])):
        responder = FakeResponder()
        made.accept("", request(streaming=streaming), responder)
        engine.sinks[-1].on_chunk(Chunk([], end(Reason.END_ID)), 0)
        responder.wait()
        assert [tensors["output_ids"].shape for tensors in responder.sent] == [(1, 1, 0)]
        assert responder.sent[0]["last_token_time_ns"].tolist() == [[4]]


def test_errors_are_final_and_typed(slot: Callable[..., Slot]) -> None:
    made = slot()
    too_few = ask(made, request_output_len=np.array([0], np.int32)).wait()
    assert isinstance(too_few.error, RequestError)
    beams = ask(made, beam_width=np.array([2], np.int32)).wait()
    assert isinstance(beams.error, UnsupportedOption)
    assert ask(made).wait().error is None
    coupled = ask(slot(decoupled=False), streaming=YES).wait()
    assert "decoupled" in str(coupled.error)
    assert ask(slot(decoupled=False)).wait().error is None


def test_stop_request(slot: Callable[..., Slot]) -> None:
    made = slot(echo_tokens_per_s=20)
    running = [ask(made, "a", streaming=YES, tokens=500) for _ in range(2)]
    other = ask(made, "b", streaming=YES, tokens=3)
    wait_for(lambda: all(responder.sent for responder in running))
    stop = ask(made, "a", stop=YES).wait()
    assert (stop.error, stop.sent) == (None, [{}])
    for responder in running:
        assert "last_token_time_ns" in responder.wait().sent[-1]
    assert other.wait().ids == [5, 6, 7]


def test_stop_request_without_or_of_an_unknown_id(slot: Callable[..., Slot]) -> None:
    made = slot()
    assert str(ask(made, "", stop=YES).wait().error) == (
        "Trying to stop a request but request ID is not provided"
    )
    assert ask(made, "nobody", stop=YES).wait().error is None


def test_client_that_went_away(slot: Callable[..., Slot]) -> None:
    engine = ByHand()
    responder = FakeResponder()
    slot(engine).accept("", request(streaming=YES), responder)
    engine.sinks[0].on_chunk(Chunk([1]), 0)
    responder.cancelled = True
    assert responder.wait().abandoned
    assert engine.cancelled == [0]


def test_a_client_of_whom_nothing_can_be_told_gets_its_answer(
    slot: Callable[..., Slot], caplog: pytest.LogCaptureFixture
) -> None:
    class Unknown(FakeResponder):
        def is_cancelled(self) -> bool:
            raise RuntimeError("no such sender")

    engine = ByHand()
    made = slot(engine)
    unknown, other = Unknown(), FakeResponder()
    made.accept("mute", request(streaming=YES), unknown)
    wait_for(lambda: "mute" in caplog.text)
    made.accept("", request(streaming=YES), other)
    other.cancelled = True
    assert other.wait().abandoned  # whoever comes later is still watched
    engine.sinks[0].on_chunk(Chunk([1], end(output_tokens=1)), time.monotonic_ns())
    assert unknown.wait().ids == [1]
    assert engine.cancelled == [1]
    assert len(caplog.records) == 1


def test_engine_errors_reach_the_client(slot: Callable[..., Slot]) -> None:
    engine = ByHand()
    made = slot(engine)
    for error in (EngineUnavailable("gone"), EngineBusy("full")):
        responder = FakeResponder()
        made.accept("", request(), responder)
        engine.sinks[-1].on_chunk(Chunk([1]), 0)
        engine.sinks[-1].on_error(error)
        engine.sinks[-1].on_chunk(Chunk([], end()), 0)  # too late, and no second end
        assert responder.wait().error is error


def test_response_that_can_not_be_sent(slot: Callable[..., Slot]) -> None:
    class Broken(FakeResponder):
        def send(self, tensors: Any, final: bool) -> None:
            raise RuntimeError("shared memory is full")

    made = slot()
    responder = Broken()
    made.accept("", request(streaming=YES), responder)
    assert "could not be sent" in str(responder.wait().error)
    assert ask(made).wait().error is None


class Breaking(FakeResponder):
    """Says no to the `number`th response, and to errors if told so."""

    def __init__(self, number: int = 0, *, refused_errors: int = 0) -> None:
        super().__init__()
        self.number, self.refused_errors = number, refused_errors
        self.tried = 0

    def send(self, tensors: Any, final: bool) -> None:
        self.tried += 1
        if self.tried == self.number:
            raise RuntimeError("shared memory is full")
        super().send(tensors, final)

    def fail(self, error: Any) -> None:
        if self.refused_errors:
            self.refused_errors -= 1
            raise TypeError("that is no UTF-8")
        super().fail(error)


def test_tokens_that_waited_and_can_not_be_sent_end_one_stream(slot: Callable[..., Slot]) -> None:
    """They leave by themselves: nothing of the engine's is handled as they fail."""
    engine = ByHand()
    made = slot(engine, chunk_interval_ms=20)
    broken, other = Breaking(2), FakeResponder()
    for responder in (broken, other):
        made.accept("", request(streaming=YES), responder)
    for token in (1, 2):
        for sink in engine.sinks:
            sink.on_chunk(Chunk([token]), time.monotonic_ns())
    assert "could not be sent" in str(broken.wait().error)
    assert engine.cancelled == [0]  # it would decode on for nobody
    wait_for(lambda: other.ids == [1, 2])
    assert made._sender.is_alive()
    assert ask(slot()).wait().error is None


def test_tokens_that_are_no_int32_end_one_stream(slot: Callable[..., Slot]) -> None:
    engine = ByHand()
    made = slot(engine, chunk_interval_ms=20)
    broken = FakeResponder()
    made.accept("", request(streaming=YES), broken)
    for token in (1, 2**63):
        engine.sinks[0].on_chunk(Chunk([token]), time.monotonic_ns())
    assert "could not be sent" in str(broken.wait().error)
    other = FakeResponder()
    made.accept("", request(), other)
    engine.sinks[1].on_chunk(Chunk([1], end(output_tokens=1)), time.monotonic_ns())
    assert other.wait().ids == [1]


def test_a_final_response_that_can_not_be_sent_ends_with_an_error(
    slot: Callable[..., Slot],
) -> None:
    made = slot()
    broken = Breaking(1)
    made.accept("", request(), broken)
    assert "could not be sent" in str(broken.wait().error)
    assert ask(made).wait().error is None


@pytest.mark.parametrize("refused", [1, 2])
def test_an_error_that_can_not_be_sent(slot: Callable[..., Slot], refused: int) -> None:
    """A plain one takes its place; if that goes wrong as well, others are still served."""
    engine = ByHand()
    made = slot(engine)
    broken, other = Breaking(refused_errors=refused), FakeResponder()
    for responder in (broken, other):
        made.accept("", request(), responder)
    engine.sinks[0].on_error(EngineUnavailable("half a pair: \ud83d"))
    engine.sinks[1].on_error(EngineUnavailable("gone"))
    other.wait()
    if refused == 1:
        assert "could not be sent" in str(broken.wait().error)


def test_an_answer_that_fails_before_submit_returns_is_cancelled(
    slot: Callable[..., Slot],
) -> None:
    class Quick(ByHand):
        def submit(self, generation: Generation, sink: Sink) -> Any:
            handle = super().submit(generation, sink)
            sink.on_chunk(Chunk([1]), time.monotonic_ns())
            responder.wait()
            return handle

    engine = Quick()
    responder = Breaking(1)
    slot(engine).accept("", request(streaming=YES), responder)
    assert engine.cancelled == [0]


def test_close_ends_open_streams(slot: Callable[..., Slot]) -> None:
    made = slot(echo_tokens_per_s=5)
    responders = [ask(made, streaming=YES, tokens=1500) for _ in range(8)]  # 5 minutes of them
    made.close()
    for responder in responders:
        assert isinstance(responder.wait().error, EngineUnavailable)


def test_many_at_once_leave_nothing(slot: Callable[..., Slot]) -> None:
    made = slot(echo_tokens_per_s=500)
    responders: list[FakeResponder] = []

    def client() -> None:
        for number in range(25):
            responder = ask(made, streaming=YES, tokens=20)
            responders.append(responder)
            responder.cancelled = number % 3 == 0

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for responder in responders:
        responder.wait()
        assert responder.abandoned or len(responder.ids) == 20
    assert sum(responder.abandoned for responder in responders) > 0
    assert not made._flights
    assert not made._waiting


# How often streams send, with a clock of the test's own.

MS = 1_000_000


class Paced:
    """A slot with streams that get tokens by hand."""

    def __init__(self, streams: int = 0, **more: Any) -> None:
        self.now_ns = 0
        self.engine = ByHand()
        given = {"chunk_interval_ms": 20, "chunks_per_s": 1000} | more
        self.slot = Slot(settings(**given), self.engine, clock=lambda: self.now_ns)
        self.streams = [self.stream() for _ in range(streams)]

    def stream(self, responder: FakeResponder | None = None) -> tuple[FakeResponder, Sink]:
        responder = responder or FakeResponder()
        self.slot.accept("", request(streaming=YES), responder)
        return responder, self.engine.sinks[-1]

    def token(self, token: int, at_ms: float) -> None:
        """One for each stream; all of it is handled as this returns."""
        self.now_ns = round(at_ms * MS)
        for _, sink in self.streams:
            sink.on_chunk(Chunk([token]), self.now_ns)
        self.settle()

    def settle(self) -> None:
        """The sender takes one thing after the other: what was there before this is behind it."""
        whole = FakeResponder()
        self.slot.accept("", request(), whole)
        self.engine.sinks[-1].on_chunk(Chunk([9], end(output_tokens=1)), self.now_ns)
        whole.wait()

    def end(self, streams: int) -> None:
        """Of the first so many."""
        for _, sink in self.streams[:streams]:
            sink.on_chunk(Chunk([], end()), self.now_ns)
        self.streams = self.streams[streams:]
        self.settle()

    @property
    def chunks(self) -> set[tuple[tuple[int, ...], ...]]:
        """Ids by chunk; one member where it went alike for all streams."""
        return {
            tuple(tuple(tensors["output_ids"].ravel().tolist()) for tensors in responder.sent)
            for responder, _ in self.streams
        }


@pytest.fixture
def paced() -> Iterator[Callable[..., Paced]]:
    made: list[Paced] = []

    def make(streams: int = 0, **more: Any) -> Paced:
        made.append(Paced(streams, **more))
        return made[-1]

    yield make
    for one in made:
        one.slot.close()


@pytest.mark.parametrize(
    ("streams", "chunks_per_s", "interval_ms"),
    [(1, 1000, 20), (8, 1000, 20), (32, 1000, 32), (128, 1000, 128), (128, 0, 20), (8, 100, 80)],
)
def test_the_interval_follows_the_load(
    paced: Callable[..., Paced], streams: int, chunks_per_s: float, interval_ms: float
) -> None:
    made = paced(streams, chunks_per_s=chunks_per_s)
    made.token(1, at_ms=0)
    assert made.chunks == {((1,),)}  # the first leaves at once, whatever the load
    made.token(2, at_ms=1)
    made.token(3, at_ms=interval_ms - 0.001)
    assert made.chunks == {((1,),)}
    made.now_ns = interval_ms * MS
    wait_for(lambda: made.chunks == {((1,), (2, 3))})  # nothing further comes from the engine
    made.token(4, at_ms=interval_ms + 1)
    answers = [responder for responder, _ in made.streams]
    made.end(streams)
    for answer in answers:  # the last leaves with its end
        assert [t["output_ids"].ravel().tolist() for t in answer.sent] == [[1], [2, 3], [4]]


def test_tokens_slower_than_the_interval_never_wait(paced: Callable[..., Paced]) -> None:
    made = paced(64)
    for number in range(4):
        made.token(number, at_ms=number * 64)
    assert made.chunks == {((0,), (1,), (2,), (3,))}


def test_the_interval_shrinks_as_streams_end(paced: Callable[..., Paced]) -> None:
    made = paced(128)
    made.token(1, at_ms=0)
    made.token(2, at_ms=1)
    made.token(3, at_ms=50)
    assert made.chunks == {((1,),)}
    made.end(88)
    wait_for(lambda: made.chunks == {((1,), (2, 3))})  # 40 are left, so 40 ms


def test_only_streams_at_work_count(paced: Callable[..., Paced]) -> None:
    made = paced(2)
    for _ in range(100):  # these wait for the engine
        made.stream()
    for sink in made.engine.sinks[2:]:
        sink.on_scheduled(0)
    for _ in range(100):  # whole answers
        made.slot.accept("", request(), FakeResponder())
        made.engine.sinks[-1].on_chunk(Chunk([1]), 0)
    made.token(1, at_ms=0)
    assert made.slot.pace.interval_ns == 20 * MS


def test_streams_that_fail_or_are_given_up_count_no_more(paced: Callable[..., Paced]) -> None:
    made = paced(96)
    made.token(1, at_ms=0)
    assert made.slot.pace.interval_ns == 96 * MS
    for number, (responder, sink) in enumerate(made.streams):
        if number % 3 == 0:
            sink.on_error(EngineUnavailable("gone"))
        elif number % 3 == 1:
            responder.cancelled = True
        else:
            sink.on_chunk(Chunk([2], end()), 0)
    for responder, _ in made.streams:
        responder.wait()
    assert made.slot.pace.interval_ns == 20 * MS
    assert not made.slot._waiting


class Slow(FakeResponder):
    """Holds the sender up from its first response until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.let_go = threading.Event(), threading.Event()

    def send(self, tensors: Any, final: bool) -> None:
        self.begun.set()
        assert self.let_go.wait(PATIENCE_S)
        super().send(tensors, final)


def test_a_first_token_does_not_wait_for_a_hundred_that_are_due(
    paced: Callable[..., Paced],
) -> None:
    order: list[str] = []

    class Named(FakeResponder):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def send(self, tensors: Any, final: bool) -> None:
            order.append(self.name)
            super().send(tensors, final)

    made, slow = paced(), Slow()
    made.streams = [made.stream(Named("due")) for _ in range(100)]
    made.token(1, at_ms=0)
    made.token(2, at_ms=1)
    order.clear()
    made.stream(slow)[1].on_chunk(Chunk([1]), made.now_ns)
    assert slow.begun.wait(PATIENCE_S)
    made.now_ns = 500 * MS  # all are due as it goes on
    made.stream(Named("new"))[1].on_chunk(Chunk([1]), made.now_ns)
    slow.let_go.set()
    wait_for(lambda: len(order) == 101)
    assert order[:2] == ["due", "new"]


def test_what_came_while_sending_lagged_is_joined(paced: Callable[..., Paced]) -> None:
    made, slow = paced(1), Slow()
    made.token(1, at_ms=0)
    made.stream(slow)[1].on_chunk(Chunk([1]), made.now_ns)
    assert slow.begun.wait(PATIENCE_S)
    made.now_ns = 100 * MS
    for token, at_ms in ((2, 25), (3, 50), (4, 75)):  # each would have been due by its own time
        made.streams[0][1].on_chunk(Chunk([token]), at_ms * MS)
    slow.let_go.set()
    made.settle()
    assert made.chunks == {((1,), (2,))}
    made.now_ns = 120 * MS
    wait_for(lambda: made.chunks == {((1,), (2,), (3, 4))})


def test_order_and_every_token_under_a_tight_budget(slot: Callable[..., Slot]) -> None:
    made = slot(echo_tokens_per_s=1000, chunks_per_s=200)
    responders = [ask(made, streaming=YES, tokens=60) for _ in range(24)]
    for responder in responders:
        assert responder.wait().ids == [5, 6, 7] * 20
        assert len(responder.sent[0]["output_ids"].ravel()) == 1
        assert len(responder.sent) < 60
    assert made.pace.interval_ns == 0


# The ledger, with a real one.


@pytest.fixture
def opener(tmp_path: Path) -> Iterator[Segment]:
    segment = Segment.create(tmp_path, Role.PREPROCESSING, 0, 1, 8)
    yield segment
    segment.close(unlink=True)


def open_flight(segment: Segment) -> np.ndarray:
    ticket = segment.open_flight(
        level=1,
        flags=0,
        policy_version=1,
        policy_seed=2,
        sequence=0,
        task=b"",
        input_tokens=3,
        max_tokens=4,
        opened_ns=time.monotonic_ns(),
        intensity_g_per_kwh=100.0,
        pue=1.0,
        embodied_g_per_s=0.0,
    )
    return np.array([ticket], np.uint64)


def flight_of(segment: Segment, ticket: np.ndarray) -> Any:
    [row] = [row for row in SegmentReader(segment.path).scan() if row["ticket"] == ticket[0]]
    return row


def test_ledger_marks(slot: Callable[..., Slot], opener: Segment, tmp_path: Path) -> None:
    made = slot(shm_dir=tmp_path)
    ticket = open_flight(opener)
    responder = ask(made, flight=ticket, streaming=YES, return_perf_metrics=YES).wait()
    assert all(tensors["flight"][0, 0] == ticket[0] for tensors in responder.sent)
    row = flight_of(opener, ticket)
    assert Phase(row["phase"]) is Phase.FINISHED
    assert (row["input_tokens"], row["output_tokens"]) == (3, 4)
    last = responder.sent[-1]
    for name in ("first_token", "last_token"):
        assert row[f"{name}_ns"] == last[f"{name}_time_ns"][0, 0]
    assert row["scheduled_ns"] == last["first_scheduled_time_ns"][0, 0]


def test_ledger_of_refused_failed_and_cancelled(
    slot: Callable[..., Slot], opener: Segment, tmp_path: Path
) -> None:
    engine = ByHand()
    made = slot(engine, shm_dir=tmp_path)
    tickets = [open_flight(opener) for _ in range(4)]
    ask(made, flight=tickets[0], request_output_len=np.array([0], np.int32)).wait()
    responders = [ask(made, flight=ticket, streaming=YES) for ticket in tickets[1:]]
    failed, busy, cancelled = engine.sinks
    failed.on_scheduled(time.monotonic_ns())
    failed.on_chunk(Chunk([1, 2]), time.monotonic_ns())
    failed.on_error(EngineUnavailable("gone"))
    busy.on_error(EngineBusy("full"))
    cancelled.on_scheduled(time.monotonic_ns())
    responders[2].cancelled = True
    for responder in responders:
        responder.wait()
    phases = [Phase(flight_of(opener, ticket)["phase"]) for ticket in tickets]
    assert phases == [Phase.FAILED, Phase.FAILED, Phase.FAILED, Phase.CANCELLED]
    row = flight_of(opener, tickets[1])
    assert row["output_tokens"] == 2
    assert 0 < row["scheduled_ns"] <= row["first_token_ns"] <= row["last_token_ns"]
    [reader] = [reader for reader in segments(tmp_path) if reader.role == Role.ENGINE]
    counters = reader.counters()
    assert counters[Counter.ENGINE_REQUESTS] == 3
    assert counters[Counter.ENGINE_FAILED] == 3
    assert counters[Counter.ENGINE_BUSY] == 1
    assert counters[Counter.ENGINE_CANCELLED] == 1
    assert counters[Counter.CHUNKS] == 1  # the failed one's; nothing was sent of the cancelled one


def test_ticket_of_nobody_is_counted_and_served(slot: Callable[..., Slot], tmp_path: Path) -> None:
    made = slot(shm_dir=tmp_path)
    responder = ask(made, flight=np.array([1 << 48 | 1], np.uint64)).wait()
    assert responder.ids == [5, 6, 7, 5]
    [reader] = segments(tmp_path)
    assert reader.counters()[Counter.UNATTRIBUTED] == 1
    assert reader.counters()[Counter.CHUNKS] == 1


def test_an_answer_that_ends_at_once_is_a_chunk(slot: Callable[..., Slot], tmp_path: Path) -> None:
    """Its end was the engine's work, unlike that of one that a client gave up."""
    engine = ByHand()
    made = slot(engine, shm_dir=tmp_path)
    responder = ask(made, streaming=YES)
    engine.sinks[0].on_chunk(Chunk([], end(Reason.END_ID)), time.monotonic_ns())
    assert responder.wait().ids == []
    [reader] = segments(tmp_path)
    assert reader.counters()[Counter.CHUNKS] == 1


def test_flights_are_marked_where_there_is_no_room_for_counters(
    slot: Callable[..., Slot], opener: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the agent takes a flight under way for one that never arrived."""

    def full(*_: Any) -> Segment:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(marks.Segment, "create", full)
    engine = ByHand()
    made = slot(engine, shm_dir=tmp_path)
    ticket = open_flight(opener)
    assert flight_of(opener, ticket)["heartbeat_ns"] == 0
    responder = ask(made, flight=ticket)
    assert flight_of(opener, ticket)["heartbeat_ns"] > 0  # it has arrived
    engine.sinks[0].on_scheduled(2_000)
    wait_for(lambda: flight_of(opener, ticket)["scheduled_ns"] == 2_000)
    engine.sinks[0].on_chunk(Chunk([1], end(output_tokens=1)), time.monotonic_ns())
    responder.wait()
    assert Phase(flight_of(opener, ticket)["phase"]) is Phase.FINISHED


def test_without_a_ledger_directory(slot: Callable[..., Slot], tmp_path: Path) -> None:
    made = slot(shm_dir=tmp_path / "nowhere")
    assert ask(made, flight=np.array([7], np.uint64)).wait().ids == [5, 6, 7, 5]
