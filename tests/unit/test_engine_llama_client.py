# SPDX-License-Identifier: Apache-2.0
"""The llama.cpp client's own ways: what its server can't do is done here.

What holds of every dialect: test_engine_client.py. The same against the real server:
tests/system/test_engine_llama.py.
"""

from collections.abc import Iterator

import pytest
from engine_dialects import LLAMA, ask
from engine_fakes import FakeLlama

from sprout.engines.base import Reason
from sprout.engines.client import EngineClient
from sprout.errors import EngineError, PromptTooLong, RequestError


@pytest.fixture
def llama() -> Iterator[FakeLlama]:
    fake = FakeLlama()
    yield fake
    fake.close()


@pytest.fixture
def client(llama: FakeLlama) -> Iterator[EngineClient]:
    client = LLAMA.connect(llama)
    yield client
    client.close()


def test_engine_that_loads_its_model_is_tried_again(llama: FakeLlama, client: EngineClient) -> None:
    loading = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
    llama.refuses(503, loading)
    recorder = ask(client).wait()
    assert recorder.end.output_tokens == 4
    assert len(llama.bodies) == 2


def test_other_end_id_is_watched(llama: FakeLlama, client: EngineClient) -> None:
    recorder = ask(client, end_id=12, max_tokens=50).wait()
    assert recorder.ids == [10, 11]
    assert recorder.end.reason is Reason.END_ID
    assert llama.bodies[0]["ignore_eos"] is True


def test_stop_words_go_as_text_and_match_as_ids(llama: FakeLlama, client: EngineClient) -> None:
    recorder = ask(client, stop_words=((11, 12), (40,)), max_tokens=50).wait()
    assert llama.bodies[0]["stop"] == ["lm", "o"]
    assert recorder.ids == [10, 11, 12]
    assert recorder.end.reason is Reason.STOP_WORD


def test_min_tokens_takes_two_completions(llama: FakeLlama, client: EngineClient) -> None:
    recorder = ask(client, end_id=2, min_tokens=3, max_tokens=5, seed=9, top_p=0.5).wait()
    first, second = llama.bodies
    assert (first["n_predict"], first["ignore_eos"], first["seed"]) == (3, True, 9)
    assert (second["n_predict"], second["ignore_eos"]) == (2, False)
    assert second["prompt"] == [1, 2, 3, 10, 11, 12]
    assert second["cache_prompt"] is True
    assert second["seed"] != 9
    assert recorder.end.output_tokens == 5


def test_min_tokens_that_ends_inside_a_character(llama: FakeLlama, client: EngineClient) -> None:
    half = {"stop": True, "stop_type": "limit", "tokens_predicted": 2}
    llama.plans.put([{"content": "a", "tokens": [10], "tokens_predicted": 1}, half])
    full = {"content": "🎉", "tokens": [227], "tokens_predicted": 3}
    llama.plans.put([full, {"stop": True, "stop_type": "limit", "tokens_predicted": 4}])
    recorder = ask(client, end_id=2, min_tokens=2, max_tokens=6).wait()
    assert llama.bodies[1]["prompt"] == [1, 2, 3, 10]
    assert recorder.ids[:4] == [10, 10813, 232, 227]
    assert recorder.end.output_tokens == 6


def test_min_tokens_without_an_end_token_needs_nothing(
    llama: FakeLlama, client: EngineClient
) -> None:
    ask(client, min_tokens=3, end_id=-1).wait()
    assert len(llama.bodies) == 1


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (400, "exceed_context_size_error", PromptTooLong),
        (400, "invalid_request_error", RequestError),
        (500, "server_error", EngineError),
    ],
)
def test_refusals(
    llama: FakeLlama, client: EngineClient, status: int, kind: str, error: type
) -> None:
    llama.refuses(status, {"error": {"code": status, "message": "because", "type": kind}})
    recorder = ask(client).wait()
    assert type(recorder.error) is error
    assert "because" in str(recorder.error)


def test_ids_outside_the_vocabulary_need_no_completion(
    llama: FakeLlama, client: EngineClient
) -> None:
    assert isinstance(ask(client, 60_000).wait().error, RequestError)
    assert not llama.bodies
