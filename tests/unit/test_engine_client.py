# SPDX-License-Identifier: Apache-2.0
"""The llama.cpp client against a scripted server: slots, queue, cancel, what goes wrong.

The same against the real server: tests/system/test_engine_llama.py.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from engine_fakes import FakeLlama, Recorder, generation

from sprout.engines.base import Reason
from sprout.engines.llama_client import LlamaClient
from sprout.errors import EngineBusy, EngineError, EngineUnavailable, PromptTooLong, RequestError


@pytest.fixture
def llama() -> Iterator[FakeLlama]:
    fake = FakeLlama()
    yield fake
    fake.close()


@pytest.fixture
def client(llama: FakeLlama) -> Iterator[LlamaClient]:
    client = make(llama.url)
    yield client
    client.close()


def make(url: str, **more: Any) -> LlamaClient:
    given = {"slots": 2, "queue": 2, "context_tokens": 512, "retry_s": 1.0}
    return LlamaClient(url, **(given | more))


def ask(client: LlamaClient, **more: Any) -> Recorder:
    recorder = Recorder()
    client.submit(generation(**more), recorder)
    return recorder


def test_answer_and_times(client: LlamaClient) -> None:
    recorder = ask(client, max_tokens=3).wait()
    end = recorder.end
    assert recorder.ids == [10, 11, 12]
    assert (end.reason, end.input_tokens, end.output_tokens) == (Reason.LENGTH, 3, 3)
    assert recorder.scheduled == [end.first_scheduled_ns]
    times = end.arrival_ns, end.first_scheduled_ns, end.first_token_ns, end.last_token_ns
    assert list(times) == sorted(times)


def test_no_more_at_once_than_slots(llama: FakeLlama, client: LlamaClient) -> None:
    llama.token_s = 0.01
    recorders = [ask(client) for _ in range(4)]
    assert [recorder.wait().end.reason for recorder in recorders] == [Reason.LENGTH] * 4
    assert llama.most_open == 2
    first, last = recorders[0].end, recorders[-1].end
    assert last.first_scheduled_ns >= first.last_token_ns


def test_busy_names_the_limit_and_passes(llama: FakeLlama, client: LlamaClient) -> None:
    llama.token_s = 0.05
    recorders = [ask(client) for _ in range(4)]
    refused = ask(client).wait()
    assert isinstance(refused.error, EngineBusy)
    assert "2 slots" in str(refused.error)
    assert "queue of 2" in str(refused.error)
    for recorder in recorders:
        recorder.wait()
    assert ask(client).wait().error is None


def test_cancel_running_and_waiting(llama: FakeLlama, client: LlamaClient) -> None:
    llama.token_s = 0.01
    running = [ask(client, request_id="a", max_tokens=400) for _ in range(2)]
    waiting = ask(client, request_id="b", max_tokens=400)
    assert all(recorder.begun.wait(5) for recorder in running)
    assert client.cancel("b") == 1
    assert waiting.wait().end.reason is Reason.CANCELLED
    assert (waiting.scheduled, waiting.end.first_scheduled_ns) == ([], 0)
    assert client.cancel("a") == 2
    for recorder in running:
        assert recorder.wait().end.reason is Reason.CANCELLED
        assert recorder.end.output_tokens == len(recorder.ids) > 0
    assert client.cancel("a") == 0
    until(lambda: llama.open == 0)
    assert llama.broken_off == 2  # the server saw both connections close


def test_cancel_in_the_same_breath(client: LlamaClient) -> None:
    for _ in range(20):
        recorder = Recorder()
        handle = client.submit(generation(max_tokens=200), recorder)
        handle.cancel()
        handle.cancel()
        assert recorder.wait().end.reason is Reason.CANCELLED


def test_engine_goes_away_during_the_answer(llama: FakeLlama, client: LlamaClient) -> None:
    def die(handler: Any) -> None:
        handler.begin()
        handler.event({"content": "a", "tokens": [10], "tokens_predicted": 1})
        handler.close_connection = True

    llama.plans.put(die)
    recorder = ask(client).wait()
    assert recorder.ids == [10]
    assert isinstance(recorder.error, EngineUnavailable)
    assert "went away during" in str(recorder.error)
    assert ask(client).wait().end.output_tokens == 4


def test_waits_for_an_engine_that_restarts() -> None:
    first = FakeLlama()
    port = first.server.server_address[1]
    client = make(first.url, retry_s=8.0)
    try:
        assert ask(client).wait().error is None
        first.close()
        recorder = ask(client)
        assert not recorder.over.wait(0.3)
        assert not recorder.scheduled  # nobody has it yet
        second = FakeLlama(port)
        assert recorder.wait().end.output_tokens == 4
        second.close()
    finally:
        client.close()


def test_gives_up_on_an_absent_engine_then_fails_fast() -> None:
    fake = FakeLlama()
    fake.close()
    client = make(fake.url, retry_s=0.3)
    try:
        recorder = ask(client).wait()
        assert isinstance(recorder.error, EngineUnavailable)
        assert fake.url in str(recorder.error)
        time.sleep(0.3)
        begun = time.monotonic()
        assert isinstance(ask(client).wait().error, EngineUnavailable)
        assert time.monotonic() - begun < 0.2
    finally:
        client.close()


def test_engine_that_loads_its_model_is_tried_again(llama: FakeLlama, client: LlamaClient) -> None:
    loading = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
    llama.plans.put(lambda handler: handler.answer(loading, 503))
    recorder = ask(client).wait()
    assert recorder.end.output_tokens == 4
    assert len(llama.bodies) == 2


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (400, "exceed_context_size_error", PromptTooLong),
        (400, "invalid_request_error", RequestError),
        (500, "server_error", EngineError),
    ],
)
def test_refusals(
    llama: FakeLlama, client: LlamaClient, status: int, kind: str, error: type
) -> None:
    answer = {"error": {"code": status, "message": "because", "type": kind}}
    llama.plans.put(lambda handler: handler.answer(answer, status))
    recorder = ask(client).wait()
    assert type(recorder.error) is error
    assert "because" in str(recorder.error)


def test_silent_engine_counts_as_hung() -> None:
    llama = FakeLlama()
    client = make(llama.url, stall_s=0.2)
    over = threading.Event()
    llama.plans.put(lambda handler: (handler.begin(), over.wait(5)))
    try:
        recorder = ask(client).wait()
        assert isinstance(recorder.error, EngineUnavailable)
        assert "hangs" in str(recorder.error)
    finally:
        over.set()
        client.close()
        llama.close()


def test_other_end_id_is_watched(llama: FakeLlama, client: LlamaClient) -> None:
    recorder = ask(client, end_id=12, max_tokens=50).wait()
    assert recorder.ids == [10, 11]
    assert recorder.end.reason is Reason.END_ID
    assert llama.bodies[0]["ignore_eos"] is True


def test_stop_words_go_as_text_and_match_as_ids(llama: FakeLlama, client: LlamaClient) -> None:
    recorder = ask(client, stop_words=((11, 12), (40,)), max_tokens=50).wait()
    assert llama.bodies[0]["stop"] == ["lm", "o"]
    assert recorder.ids == [10, 11, 12]
    assert recorder.end.reason is Reason.STOP_WORD


def test_min_tokens_takes_two_completions(llama: FakeLlama, client: LlamaClient) -> None:
    recorder = ask(client, end_id=2, min_tokens=3, max_tokens=5, seed=9, top_p=0.5).wait()
    first, second = llama.bodies
    assert (first["n_predict"], first["ignore_eos"], first["seed"]) == (3, True, 9)
    assert (second["n_predict"], second["ignore_eos"]) == (2, False)
    assert second["prompt"] == [1, 2, 3, 10, 11, 12]
    assert second["cache_prompt"] is True
    assert second["seed"] != 9
    assert recorder.end.output_tokens == 5


def test_min_tokens_that_ends_inside_a_character(llama: FakeLlama, client: LlamaClient) -> None:
    half = {"stop": True, "stop_type": "limit", "tokens_predicted": 2}
    llama.plans.put([{"content": "a", "tokens": [10], "tokens_predicted": 1}, half])
    full = {"content": "🎉", "tokens": [227], "tokens_predicted": 3}
    llama.plans.put([full, {"stop": True, "stop_type": "limit", "tokens_predicted": 4}])
    recorder = ask(client, end_id=2, min_tokens=2, max_tokens=6).wait()
    assert llama.bodies[1]["prompt"] == [1, 2, 3, 10]
    assert recorder.ids[:4] == [10, 10813, 232, 227]
    assert recorder.end.output_tokens == 6


def test_min_tokens_without_an_end_token_needs_nothing(
    llama: FakeLlama, client: LlamaClient
) -> None:
    ask(client, min_tokens=3, end_id=-1).wait()
    assert len(llama.bodies) == 1


def test_checks_need_no_completion(llama: FakeLlama, client: LlamaClient) -> None:
    assert isinstance(ask(client, max_tokens=510).wait().error, PromptTooLong)
    recorder = Recorder()
    client.submit(generation(60_000), recorder)
    assert isinstance(recorder.wait().error, RequestError)
    assert not llama.bodies


def test_close_ends_everything_soon(llama: FakeLlama) -> None:
    llama.token_s = 0.01
    client = make(llama.url)
    recorders = [ask(client, max_tokens=400) for _ in range(4)]
    assert recorders[0].begun.wait(5)
    begun = time.monotonic()
    client.close()
    assert time.monotonic() - begun < 1
    for recorder in recorders:
        assert isinstance(recorder.wait().error, EngineUnavailable)
    assert isinstance(ask(client).wait().error, EngineUnavailable)
    client.close()


def until(true: Any, timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
