# SPDX-License-Identifier: Apache-2.0
"""The engines' clients against scripted servers: slots, queue, cancel, what goes wrong.

Of every dialect. The same against real servers: tests/system/test_engine_llama.py and
tests/system/test_engine_vllm.py.
"""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from engine_dialects import LLAMA, OPENAI, Dialect, ask
from engine_fakes import Recorder, generation
from waiting import PATIENCE_S, wait_for

from sprout.engines.base import Reason
from sprout.engines.client import EngineClient
from sprout.errors import EngineBusy, EngineUnavailable, PromptTooLong


@pytest.fixture(params=[LLAMA, OPENAI], ids=lambda dialect: dialect.name)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    chosen: Dialect = request.param
    return chosen


@pytest.fixture
def server(dialect: Dialect) -> Iterator[Any]:
    fake = dialect.server()
    yield fake
    fake.close()


@pytest.fixture
def client(dialect: Dialect, server: Any) -> Iterator[EngineClient]:
    client = dialect.connect(server)
    yield client
    client.close()


def test_answer_and_times(client: EngineClient) -> None:
    recorder = ask(client, max_tokens=3).wait()
    end = recorder.end
    assert recorder.ids == [10, 11, 12]
    assert (end.reason, end.input_tokens, end.output_tokens) == (Reason.LENGTH, 3, 3)
    assert recorder.scheduled == [end.first_scheduled_ns]
    times = end.arrival_ns, end.first_scheduled_ns, end.first_token_ns, end.last_token_ns
    assert list(times) == sorted(times)


def test_tokens_leave_as_they_come(server: Any, client: EngineClient) -> None:
    held = threading.Event()

    def halting(handler: Any) -> None:
        handler.begin()
        handler.event(server.token(10))
        held.wait(PATIENCE_S)
        handler.close_connection = True

    server.plans.put(halting)
    recorder = ask(client)
    try:
        assert recorder.begun.wait(PATIENCE_S)
        assert recorder.ids == [10]
        assert not recorder.over.is_set()
    finally:
        held.set()
    recorder.wait()


def test_no_more_at_once_than_slots(server: Any, client: EngineClient) -> None:
    server.token_s = 0.01
    recorders = [ask(client) for _ in range(4)]
    assert [recorder.wait().end.reason for recorder in recorders] == [Reason.LENGTH] * 4
    assert server.most_open == 2
    first, last = recorders[0].end, recorders[-1].end
    assert last.first_scheduled_ns >= first.last_token_ns


def test_busy_names_the_limit_and_passes(server: Any, client: EngineClient) -> None:
    server.token_s = 0.05
    recorders = [ask(client) for _ in range(4)]
    refused = ask(client).wait()
    assert isinstance(refused.error, EngineBusy)
    assert "2 slots" in str(refused.error)
    assert "queue of 2" in str(refused.error)
    for recorder in recorders:
        recorder.wait()
    assert ask(client).wait().error is None


def test_cancel_running_and_waiting(server: Any, client: EngineClient) -> None:
    server.token_s = 0.01
    running = [ask(client, request_id="a", max_tokens=400) for _ in range(2)]
    waiting = ask(client, request_id="b", max_tokens=400)
    assert all(recorder.begun.wait(PATIENCE_S) for recorder in running)
    assert client.cancel("b") == 1
    assert waiting.wait().end.reason is Reason.CANCELLED
    assert (waiting.scheduled, waiting.end.first_scheduled_ns) == ([], 0)
    assert client.cancel("a") == 2
    for recorder in running:
        assert recorder.wait().end.reason is Reason.CANCELLED
        assert recorder.end.output_tokens == len(recorder.ids) > 0
    assert client.cancel("a") == 0
    wait_for(lambda: server.open == 0)
    assert server.broken_off == 2  # the server saw both connections close


def test_cancel_in_the_same_breath(client: EngineClient) -> None:
    for _ in range(20):
        recorder = Recorder()
        handle = client.submit(generation(max_tokens=200), recorder)
        handle.cancel()
        handle.cancel()
        assert recorder.wait().end.reason is Reason.CANCELLED


def test_engine_goes_away_during_the_answer(server: Any, client: EngineClient) -> None:
    server.dies_after(server.token(10))
    recorder = ask(client).wait()
    assert recorder.ids == [10]
    assert isinstance(recorder.error, EngineUnavailable)
    assert "went away during" in str(recorder.error)
    assert ask(client).wait().end.output_tokens == 4


def test_an_answer_without_an_end_is_none(server: Any, client: EngineClient) -> None:
    """The body is whole as HTTP has it: a proxy between may close it so."""
    server.plans.put([server.token(10)])
    recorder = ask(client).wait()
    assert isinstance(recorder.error, EngineUnavailable)


def test_waits_for_an_engine_that_restarts(dialect: Dialect) -> None:
    first = dialect.server()
    client = dialect.connect(first, retry_s=60.0)
    try:
        assert ask(client).wait().error is None
        first.close()
        recorder = ask(client)
        assert not recorder.over.wait(0.3)
        assert not recorder.scheduled  # nobody has it yet
        second = dialect.server(first.port)
        assert recorder.wait().end.output_tokens == 4
        second.close()
    finally:
        client.close()


def test_gives_up_on_an_absent_engine(dialect: Dialect) -> None:
    fake = dialect.server()
    fake.close()
    client = dialect.connect(fake, retry_s=0.3)
    try:
        for _ in range(2):
            recorder = ask(client).wait()
            assert isinstance(recorder.error, EngineUnavailable)
            assert f"127.0.0.1:{fake.port}" in str(recorder.error)
    finally:
        client.close()


def test_silent_engine_counts_as_hung(dialect: Dialect) -> None:
    server = dialect.server()
    client = dialect.connect(server, stall_s=0.5)
    over = threading.Event()
    server.plans.put(lambda handler: (handler.begin(), over.wait(PATIENCE_S)))
    try:
        recorder = ask(client).wait()
        assert isinstance(recorder.error, EngineUnavailable)
        assert "hangs" in str(recorder.error)
    finally:
        over.set()
        client.close()
        server.close()


def test_what_does_not_fit_needs_no_completion(server: Any, client: EngineClient) -> None:
    recorder = ask(client, max_tokens=510).wait()
    assert isinstance(recorder.error, PromptTooLong)
    assert "at most 512 tokens" in str(recorder.error)
    assert not server.bodies


def test_the_engine_s_own_limit_applies_too(dialect: Dialect, server: Any) -> None:
    client = dialect.connect(server, context_tokens=4096)
    try:
        assert "at most 1024 tokens" in str(ask(client, max_tokens=1022).wait().error)
    finally:
        client.close()


def test_close_ends_everything(dialect: Dialect, server: Any) -> None:
    server.token_s = 0.01
    client = dialect.connect(server)
    recorders = [ask(client, max_tokens=400) for _ in range(4)]
    assert recorders[0].begun.wait(PATIENCE_S)
    client.close()
    for recorder in recorders:
        assert isinstance(recorder.wait().error, EngineUnavailable)
    assert isinstance(ask(client).wait().error, EngineUnavailable)
    client.close()
