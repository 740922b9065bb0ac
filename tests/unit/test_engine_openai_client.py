# SPDX-License-Identifier: Apache-2.0
"""The client of OpenAI's completions API: ends, stop words, refusals, the key, what server it is.

What holds of every dialect: test_engine_client.py. The same against a real vLLM:
tests/system/test_engine_vllm.py.
"""

import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from completions_server import END, CompletionsServer
from control_plane import make_authority
from engine_dialects import OPENAI, ask
from waiting import wait_for

from sprout.engines.base import Reason
from sprout.engines.client import EngineClient
from sprout.engines.openai_client import OpenAIClient
from sprout.errors import (
    ConfigError,
    EngineBusy,
    EngineError,
    EngineUnavailable,
    PromptTooLong,
    RequestError,
)

Connect = Callable[..., EngineClient]


@pytest.fixture
def server() -> Iterator[CompletionsServer]:
    fake = CompletionsServer()
    yield fake
    fake.close()


@pytest.fixture
def connect(server: CompletionsServer) -> Iterator[Connect]:
    made: list[EngineClient] = []

    def one(**more: Any) -> EngineClient:
        made.append(OPENAI.connect(server, **more))
        return made[-1]

    yield one
    for client in made:
        client.close()


def test_the_model_s_own_end_token_is_left_out(server: CompletionsServer, connect: Connect) -> None:
    server.tokens = [11, 12, END, 13]
    recorder = ask(connect(), max_tokens=50).wait()
    assert recorder.ids == [11, 12]
    assert (recorder.end.reason, recorder.end.output_tokens) == (Reason.END_ID, 2)


def test_an_answer_of_the_end_token_alone_is_empty(
    server: CompletionsServer, connect: Connect
) -> None:
    server.tokens = [END]
    recorder = ask(connect()).wait()
    assert (recorder.ids, recorder.end.reason) == ([], Reason.END_ID)
    assert recorder.end.first_token_ns == 0


def test_another_end_id_takes_the_place_of_the_model_s_own(
    server: CompletionsServer, connect: Connect
) -> None:
    server.tokens = [11, END, 12, 13]
    recorder = ask(connect(), end_id=12, max_tokens=50).wait()
    assert (recorder.ids, recorder.end.reason) == ([11, END], Reason.END_ID)


def test_no_end_id_at_all(server: CompletionsServer, connect: Connect) -> None:
    server.tokens = [11, END, 12]
    recorder = ask(connect(), end_id=-1, max_tokens=3).wait()
    assert (recorder.ids, recorder.end.reason) == ([11, END, 12], Reason.LENGTH)


def test_min_tokens_hold_an_end_back(server: CompletionsServer, connect: Connect) -> None:
    server.tokens = [11, END, 12, END]
    assert ask(connect(), min_tokens=3, max_tokens=50).wait().ids == [11, END, 12]


def test_stop_words_match_as_ids(server: CompletionsServer, connect: Connect) -> None:
    recorder = ask(connect(), stop_words=((11, 12), (40,)), max_tokens=50).wait()
    assert server.bodies[0]["stop"] == ["lm", "o"]
    assert recorder.ids == [10, 11, 12]
    assert recorder.end.reason is Reason.STOP_WORD


def test_stop_words_match_as_text_of_other_ids(server: CompletionsServer, connect: Connect) -> None:
    """37, 38 are the same letters as 11, 12: a word that was tokenized by itself."""
    recorder = ask(connect(), stop_words=((37, 38),), max_tokens=50).wait()
    assert recorder.ids == [10, 11, 12]
    assert recorder.end.reason is Reason.STOP_WORD


def test_a_server_without_detokenize_matches_stop_words_as_ids_alone(connect: Connect) -> None:
    server = CompletionsServer(detokenizes=False)
    client = OPENAI.connect(server)
    try:
        for _ in range(2):
            recorder = ask(client, stop_words=((11, 12), (37,)), max_tokens=50).wait()
            assert recorder.ids == [10, 11, 12]
            assert "stop" not in server.bodies[-1]
        # The connection is let go of at the stop word: the server need not go on.
        wait_for(lambda: server.open == 0)
    finally:
        client.close()
        server.close()


def test_a_server_that_sends_more_than_it_was_asked_for(
    server: CompletionsServer, connect: Connect
) -> None:
    server.plans.put([server.token(10, 11, 12), server.token(13, 14), server.token(15)])
    recorder = ask(connect(), max_tokens=4).wait()
    assert recorder.ids == [10, 11, 12, 13]
    assert (recorder.end.reason, recorder.end.output_tokens) == (Reason.LENGTH, 4)


def test_an_end_behind_the_last_token_that_was_asked_for_is_still_heard(
    server: CompletionsServer, connect: Connect
) -> None:
    server.plans.put([server.token(10, 11), server.token(finish="stop", stop_reason="l")])
    assert ask(connect(), max_tokens=2).wait().end.reason is Reason.STOP_WORD
    server.plans.put([server.token(10, 11, END, finish="stop")])
    assert ask(connect(), max_tokens=2).wait().end.reason is Reason.END_ID


def test_an_answer_ends_with_its_reason_not_with_its_stream(
    server: CompletionsServer, connect: Connect
) -> None:
    over = threading.Event()

    def lingers(handler: Any) -> None:
        handler.begin()
        handler.event(server.token(10, finish="length"))
        over.wait()

    server.plans.put(lingers)
    try:
        recorder = ask(connect(), max_tokens=1).wait()
        assert (recorder.ids, recorder.end.reason) == ([10], Reason.LENGTH)
    finally:
        over.set()


def test_tokens_that_are_none_are_the_server_s_failure(
    server: CompletionsServer, connect: Connect
) -> None:
    client = connect()
    server.plans.put([server.token(10), server.token(2**31)])
    recorder = ask(client).wait()
    assert (recorder.ids, type(recorder.error)) == ([10], EngineError)
    assert ask(client).wait().error is None


# Refusals.


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (
            400,
            {"error": {"message": "because", "type": "BadRequestError", "code": 400}},
            RequestError,
        ),
        (422, {"error": {"message": "because"}}, RequestError),
        (400, {"object": "error", "message": "because", "code": 400}, RequestError),
        (429, {"error": {"message": "because"}}, EngineBusy),
        (503, {"error": "because"}, EngineBusy),
        (599, {"error": "because"}, EngineError),
        (500, {"error": {"message": "because"}}, EngineError),
        (400, {"error": {"message": "maximum context length is 8: because"}}, PromptTooLong),
        (400, {"error": {"message": "because of max_seq_len (8)"}}, PromptTooLong),
    ],
)
def test_refusals_by_name(
    server: CompletionsServer, connect: Connect, status: int, answer: Any, error: type
) -> None:
    server.refuses(status, answer)
    client = connect()
    recorder = ask(client).wait()
    assert type(recorder.error) is error
    assert "because" in str(recorder.error)
    assert ask(client).wait().error is None  # the next one is served


def test_a_refusal_that_comes_inside_the_stream(connect: Connect) -> None:
    recorder = ask(connect(), 60_000).wait()
    assert type(recorder.error) is RequestError
    assert "60000 is out of vocabulary" in str(recorder.error)


def test_a_failure_that_comes_inside_the_stream(
    server: CompletionsServer, connect: Connect
) -> None:
    failure = {"error": {"message": "EngineCore died", "code": 500}}
    server.plans.put([server.token(10), failure])
    recorder = ask(connect()).wait()
    assert recorder.ids == [10]
    assert type(recorder.error) is EngineUnavailable
    assert "EngineCore died" in str(recorder.error)
    # vLLM's EngineGenerateError has no words of its own.
    failure = {"error": {"message": "", "type": "InternalServerError", "code": 500}}
    server.plans.put([server.token(10), failure])
    assert "InternalServerError" in str(ask(connect()).wait().error)


DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
ENGINE_DEAD = {"error": {"message": DEAD, "type": "InternalServerError", "code": 500}}


def test_a_server_whose_engine_is_dead_is_waited_for_as_one_that_is_away(
    server: CompletionsServer, connect: Connect
) -> None:
    client = connect(retry_s=60.0)
    server.refuses(500, ENGINE_DEAD)
    server.refuses(500, ENGINE_DEAD)
    assert ask(client).wait().end.output_tokens == 4
    assert len(server.bodies) == 3


def test_a_server_whose_engine_stays_dead_is_unavailable(
    server: CompletionsServer, connect: Connect
) -> None:
    client = connect(retry_s=0.3)
    for _ in range(50):
        server.refuses(500, ENGINE_DEAD)
    error = ask(client).wait().error
    assert type(error) is EngineUnavailable
    assert DEAD in str(error)


def test_an_engine_that_dies_ends_its_open_streams_with_its_words(
    server: CompletionsServer, connect: Connect
) -> None:
    client = connect()
    server.plans.put([server.token(10), ENGINE_DEAD])
    recorder = ask(client).wait()
    assert recorder.ids == [10]
    assert type(recorder.error) is EngineUnavailable
    assert DEAD in str(recorder.error)


def test_a_gateway_without_its_server_is_tried_again(
    server: CompletionsServer, connect: Connect
) -> None:
    client = connect(retry_s=60.0)
    for status in (502, 504):
        server.refuses(status, "no upstream")
        assert ask(client).wait().end.output_tokens == 4
    assert len(server.bodies) == 4


def test_the_server_s_own_limit_where_it_does_not_say_it(connect: Connect) -> None:
    server = CompletionsServer(max_model_len=None)
    client = OPENAI.connect(server, context_tokens=100)
    try:
        assert "at most 100 tokens" in str(ask(client, max_tokens=98).wait().error)
        assert ask(client, max_tokens=97).wait().error is None
    finally:
        client.close()
        server.close()


# What server it is.


def test_one_request_for_the_model_s_name(server: CompletionsServer, connect: Connect) -> None:
    client = connect()
    for recorder in [ask(client) for _ in range(4)]:
        recorder.wait()
    assert server.questions == ["/v1/models"]
    assert {body["model"] for body in server.bodies} == {"the-model"}


def test_the_model_that_is_asked_for_by_name(server: CompletionsServer, connect: Connect) -> None:
    server.models = ["base", "adapter"]
    ask(connect(model="adapter")).wait()
    assert server.bodies[0]["model"] == "adapter"
    absent = ask(connect(model="other")).wait()
    assert isinstance(absent.error, EngineUnavailable)
    assert "it serves adapter, base, not 'other'" in str(absent.error)


def test_trtllm_serve_is_asked_in_its_own_way(connect: Connect) -> None:
    server = CompletionsServer(owned_by="tensorrt_llm", max_model_len=None)
    client = OPENAI.connect(server)
    try:
        assert ask(client).wait().ids == [10, 11, 12, 13]
        assert server.bodies[0]["detokenize"] is False
    finally:
        client.close()
        server.close()


def test_a_server_that_answers_in_text_alone_is_refused(
    server: CompletionsServer, connect: Connect
) -> None:
    server.text_only = True
    recorder = ask(connect()).wait()
    assert isinstance(recorder.error, EngineError)
    assert "text without token ids" in str(recorder.error)
    assert not server.bodies  # found out before the first request was sent


@pytest.mark.parametrize("models", [{"data": []}, {"data": [{}]}, {}, [], "x", {"data": 7}])
def test_a_server_of_something_else(
    server: CompletionsServer, connect: Connect, monkeypatch: pytest.MonkeyPatch, models: Any
) -> None:
    monkeypatch.setattr(server, "get", lambda handler: handler.answer(models))
    recorder = ask(connect()).wait()
    assert isinstance(recorder.error, EngineUnavailable)
    assert f"127.0.0.1:{server.port}" in str(recorder.error)


def test_another_model_after_a_restart_is_noticed(server: CompletionsServer) -> None:
    client = OPENAI.connect(server, retry_s=60.0)
    second = None
    try:
        assert ask(client).wait().error is None
        server.close()
        second = CompletionsServer(server.port, max_model_len=8)
        second.models = ["another"]
        assert ask(client).wait().error is None
        assert second.bodies[-1]["model"] == "another"
        assert "at most 8 tokens" in str(ask(client, max_tokens=8).wait().error)
    finally:
        client.close()
        if second is not None:
            second.close()


# TLS.


def test_the_certificate_is_checked_and_connections_are_kept(tmp_path: Path) -> None:
    folder = make_authority(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.pem", folder / "server.key")
    server = CompletionsServer(tls=tls)
    client = OPENAI.connect(server, slots=1, ca_file=folder / "ca.pem")
    stranger = OPENAI.connect(server, retry_s=0)
    try:
        assert server.url.startswith("https:")
        for _ in range(3):
            assert ask(client).wait().ids == [10, 11, 12, 13]
        assert len(server.sockets) == 1  # a handshake costs more than a stale connection
        refused = ask(stranger).wait()
        assert isinstance(refused.error, EngineUnavailable)
        assert "certificate" in str(refused.error).lower()
    finally:
        client.close()
        stranger.close()
        server.close()


def test_without_a_file_the_certificates_of_this_machine_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))  # OpenSSL's own
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.pem", folder / "server.key")
    server = CompletionsServer(tls=tls)
    client = OPENAI.connect(server)
    try:
        assert ask(client).wait().ids == [10, 11, 12, 13]
    finally:
        client.close()
        server.close()


# The key.


def test_the_key_is_sent_and_may_change(tmp_path: Path) -> None:
    server = CompletionsServer(key="first")
    file = tmp_path / "key"
    file.write_text("first\n")
    client = OPENAI.connect(server, key_file=file)
    try:
        assert ask(client).wait().error is None
        server.key = "second"
        refused = ask(client).wait()
        assert isinstance(refused.error, EngineError)
        assert "refuses the key in engine.key_file (HTTP 401)" in str(refused.error)
        file.write_text("second\n")
        assert ask(client).wait().error is None
    finally:
        client.close()
        server.close()


def test_a_server_that_wants_a_key(connect: Connect) -> None:
    server = CompletionsServer(key="some")
    client = OPENAI.connect(server)
    try:
        assert "refuses requests without a key" in str(ask(client).wait().error)
    finally:
        client.close()
        server.close()


@pytest.mark.parametrize("content", [None, b"", b"two\nlines", b"\xff\xfe", "schlüssel".encode()])
def test_a_key_that_is_none_is_refused_at_the_start(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="key") as refused:
        OpenAIClient("http://127.0.0.1:1/v1", slots=1, queue=0, context_tokens=64, key_file=file)
    assert "lines" not in str(refused.value).replace(str(file), "")


def test_a_file_of_no_certificates_is_refused_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("none")
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        OpenAIClient("https://127.0.0.1:1/v1", slots=1, queue=0, context_tokens=64, ca_file=file)
