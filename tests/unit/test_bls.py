# SPDX-License-Identifier: Apache-2.0
"""Unary calls in threads: each answered once, cancels carried to the engine."""

import threading
import weakref
from collections import Counter as Tally

import numpy as np
import pytest
from waiting import PATIENCE_S, wait_for

from sprout.errors import EngineUnavailable, RequestCancelled, RequestError
from sprout.request import responses
from sprout.request.bls import Desk, forwarded, gather
from sprout_ext.ledger import Counter, Role, Segment, SegmentReader


def texts(*given):
    return {"text_output": np.array([text.encode() for text in given], object)}


class FakeCall:
    """A call whose chain runs until `finish`, or until it is stopped."""

    def __init__(self, chunks=(), error=None, blocked=False, deaf=0):
        self.given, self.error = list(chunks), error
        self.finish = threading.Event()
        if not blocked:
            self.finish.set()
        self.gone = False
        self.deaf = deaf  # stops that come too early to reach the engine
        self.stops = 0
        self.inner_id = None
        self.ends = []
        self.done = threading.Event()

    def cancelled(self):
        return self.gone

    def chunks(self, inner_id):
        self.inner_id = inner_id
        yield from self.given
        assert self.finish.wait(PATIENCE_S)
        if self.error:
            raise self.error

    def stop(self, inner_id):
        assert self.inner_id in (None, inner_id)
        self.stops += 1
        if self.stops > self.deaf:
            self.finish.set()

    def answer(self, outputs):
        self.ends.append(outputs)
        self.done.set()

    def fail(self, error):
        self.ends.append(error)
        self.done.set()

    @property
    def end(self):
        assert self.done.wait(2 * PATIENCE_S)
        assert len(self.ends) == 1, "answered more than once"
        return self.ends[0]


@pytest.fixture
def desk():
    made = Desk(max_in_flight=8, poll_s=0.01)
    yield made
    made.close()


def test_answer_is_gathered(desk):
    count = {"num_output_tokens": np.array([[3]])}
    call = FakeCall([texts("Hel"), texts("lo"), texts("") | count])
    desk.take(call)
    assert call.end["text_output"].tolist() == [b"Hello"]
    assert call.end["num_output_tokens"].item() == 3


def test_gather_keeps_sequences_apart_and_the_last_word():
    got = gather(
        [
            texts("a", "x") | {"directive_level": np.array([[1]])},
            texts("b", "y") | {"directive_level": np.array([[2]])},
        ]
    )
    assert got["text_output"].tolist() == [b"ab", b"xy"]
    assert got["directive_level"].item() == 2


def test_chain_without_an_answer_is_an_error(desk):
    call = FakeCall([])
    desk.take(call)
    assert isinstance(call.end, EngineUnavailable)


@pytest.mark.parametrize("error", [RequestError("too long"), EngineUnavailable("gone")])
def test_errors_come_through(desk, error):
    call = FakeCall([texts("a")], error)
    desk.take(call)
    assert call.end is error


def test_what_nobody_expected_is_an_error_of_this_call_alone(desk):
    broken, fine = FakeCall([texts("a")], ZeroDivisionError("oops")), FakeCall([texts("b")])
    desk.take(broken)
    desk.take(fine)
    assert isinstance(broken.end, EngineUnavailable)
    assert "oops" in str(broken.end)
    assert fine.end["text_output"].tolist() == [b"b"]


def test_calls_run_side_by_side_under_their_own_ids(desk):
    calls = [FakeCall([texts(str(n))], blocked=True) for n in range(8)]
    for call in calls:
        desk.take(call)
    wait_for(lambda: all(call.inner_id is not None for call in calls))  # all eight run at once
    assert len({call.inner_id for call in calls}) == 8
    for call in reversed(calls):
        call.finish.set()
    assert [call.end["text_output"].item() for call in calls] == [b"%d" % n for n in range(8)]


def test_client_that_leaves_stops_the_engine(desk):
    call, other = FakeCall([texts("a")], blocked=True), FakeCall([texts("b")], blocked=True)
    desk.take(call)
    desk.take(other)
    call.gone = True
    assert isinstance(call.end, RequestCancelled)
    assert other.stops == 0
    other.finish.set()
    assert other.end["text_output"].item() == b"b"


def test_stop_that_overtakes_its_request_is_repeated(desk):
    call = FakeCall([texts("a")], blocked=True, deaf=3)
    desk.take(call)
    call.gone = True
    assert isinstance(call.end, RequestCancelled)
    assert call.stops >= 4


@pytest.mark.parametrize("method", ["cancelled", "stop"])
def test_what_can_not_be_asked_or_stopped_is_logged_once(desk, caplog, monkeypatch, method):
    looks, asked = [], threading.Event()

    def fails(*_):
        looks.append(1)
        if len(looks) >= 6:
            asked.set()
        raise OSError("Triton says nothing")

    first, second = FakeCall([texts("a")], blocked=True), FakeCall([texts("b")], blocked=True)
    for number, call in enumerate((first, second), 1):
        monkeypatch.setattr(call, method, fails)
        call.gone = method == "stop"
        desk.take(call)
        assert asked.wait(PATIENCE_S)
        looks.clear()
        asked.clear()
        call.finish.set()
        assert call.done.wait(PATIENCE_S)
        assert [r.message for r in caplog.records] == ["a call could not be stopped"] * number
        assert "Triton says nothing" in caplog.text


def test_call_that_waits_for_a_thread_is_cancelled_without_running():
    desk = Desk(max_in_flight=1, poll_s=0.01)
    running, waiting = FakeCall([texts("a")], blocked=True), FakeCall([texts("b")])
    desk.take(running)
    desk.take(waiting)
    waiting.gone = True
    wait_for(lambda: waiting.stops > 0)
    running.finish.set()
    assert isinstance(waiting.end, RequestCancelled)
    assert waiting.inner_id is None
    desk.close()


def test_close_stops_what_runs():
    desk = Desk(max_in_flight=4, poll_s=0.01)
    calls = [FakeCall([texts("a")], blocked=True) for _ in range(6)]
    for call in calls:
        desk.take(call)
    desk.close()
    assert Tally(type(call.end) for call in calls) == {RequestCancelled: 6}
    assert desk.in_flight == 0


def test_close_does_not_wait_for_what_can_not_be_stopped():
    desk = Desk(max_in_flight=4, poll_s=0.01)
    stuck = FakeCall([texts("a")], blocked=True, deaf=10**9)
    desk.take(stuck)
    desk.close(timeout_s=0.2)
    assert isinstance(stuck.end, RequestCancelled)  # who waits for its end gets an error of it
    stuck.finish.set()


def test_calls_and_cancels_are_counted(tmp_path):
    tmp_path.chmod(0o700)
    segment = Segment.create(tmp_path, Role.BLS, 0, 1)
    reader = SegmentReader(segment.path)
    desk = Desk(max_in_flight=2, poll_s=0.01, segment=segment)
    left, stayed = FakeCall([texts("a")], blocked=True), FakeCall([texts("b")])
    desk.take(left)
    desk.take(stayed)
    left.gone = True
    assert isinstance(left.end, RequestCancelled)
    assert stayed.end is not None
    found = reader.counters()
    assert (found[Counter.BLS_REQUESTS], found[Counter.BLS_CANCELLED]) == (2, 1)
    desk.close()
    assert not segment.path.exists()


class Handle(list):
    """Stands for Triton's iterator; can be watched."""


def test_responses_are_kept_for_a_while_after_their_end(monkeypatch):
    now = 100.0
    monkeypatch.setattr(responses.time, "monotonic", lambda: now)
    kept = responses.Responses(kept_s=5)
    handle = Handle([1, 2, 3])
    alive = weakref.ref(handle)
    assert list(kept.of(handle)) == [1, 2, 3]
    del handle
    now += 4.9
    list(kept.of(Handle()))
    assert alive() is not None
    now += 0.1
    list(kept.of(Handle()))
    assert alive() is None


def test_only_hints_are_forwarded_and_no_floats():
    assert forwarded('{"colour":"green"}') == {}
    assert forwarded('{"sprout_level":"L1","sprout_off":true,"colour":1,"sprout_x":0.5}') == {
        "sprout_level": "L1",
        "sprout_off": True,
    }
    given = '{"sprout_tenant":"acme","sprout_task":"chat","tenant":"x"}'
    assert forwarded(given) == {"sprout_tenant": "acme", "sprout_task": "chat"}


@pytest.mark.parametrize("error", [None, EngineUnavailable("half a pair: \ud83d")])
def test_an_end_that_can_not_be_sent_is_an_error_then(desk, error):
    class Broken(FakeCall):
        tries = 0

        def answer(self, outputs):
            self._refuse(outputs)

        def fail(self, error):
            self._refuse(error)

        def _refuse(self, end):
            self.tries += 1
            if self.tries == 1:
                raise TypeError("that is no UTF-8")
            super().fail(end)

    call = Broken([texts("a")], error=error)
    desk.take(call)
    assert isinstance(call.end, EngineUnavailable)
    assert "could not be sent" in str(call.end)
