# SPDX-License-Identifier: Apache-2.0
"""A stack with a real vLLM, which it starts, and the client against that vLLM.

Runs where VLLM_PYTHON names the interpreter of an environment with vLLM, on a GPU or of the build
for CPUs. The model has a Llama's shape, random weights and the default weights' tokenizer, so
nothing is downloaded; what it says means nothing, but greedy answers repeat.
"""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from engine_dialects import ask
from engine_fakes import generation
from vllm_model import ABSENT, PYTHON, START_S, make
from waiting import PATIENCE_S, wait_for

from sprout.config import Config
from sprout.engines.base import Reason
from sprout.engines.events import EventParser
from sprout.engines.openai_body import body, served_model
from sprout.engines.openai_client import OpenAIClient
from sprout.engines.openai_stream import Tokens
from sprout.errors import EngineUnavailable, PromptTooLong, RequestError
from sprout.serve.background import BackgroundStack
from sprout.serve.client import Client
from sprout.serve.process import start_time
from sprout.serve.vllm import segments_of

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(ABSENT), reason=ABSENT),
]


@pytest.fixture(scope="module")
def model(tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("model") / "llama-shaped-random", tokenizer_dir)


@pytest.fixture(scope="module")
def stack(stack_config: Callable[..., Config], model: Path) -> Iterator[BackgroundStack]:
    cfg = stack_config(
        "vllm",
        engine__kind="vllm",
        engine__model=model,
        engine__vllm_python=PYTHON,
        engine__vllm_args=("--load-format", "dummy", "--enforce-eager"),
        engine__slots=4,
        engine__context_tokens=1024,
    )
    with BackgroundStack(cfg, start_timeout_s=START_S) as running:
        yield running


@pytest.fixture
def client(stack: BackgroundStack) -> Iterator[OpenAIClient]:
    url = f"http://{stack.endpoint('engine')}/v1"
    client = OpenAIClient(url, slots=4, queue=64, context_tokens=4096, retry_s=60.0)
    yield client
    client.close()


def running(stack: BackgroundStack) -> float:
    """Requests that vLLM decodes now."""
    text = httpx.get(f"http://{stack.endpoint('engine')}/metrics", trust_env=False).text
    [line] = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running")]
    return float(line.rpartition(" ")[2])


def test_answers_with_receipts(stack: BackgroundStack) -> None:
    with Client(stack.endpoint("grpc")) as client:
        answers = [client.ask("Tell me about the sea.", max_tokens=24, level="L1") for _ in "ab"]
    assert answers[0].text == answers[1].text != ""
    for answer in answers:
        assert answer.receipt is not None
        assert (answer.receipt.level, answer.output_tokens) == (1, 24)
        assert answer.receipt.energy_joules >= 0


def test_greedy_repeats_and_streams(client: OpenAIClient) -> None:
    alone = ask(client, 5, 6, 7, max_tokens=24).wait()
    assert (alone.end.reason, len(alone.ids)) == (Reason.LENGTH, 24)
    assert len(alone.chunks) > 12
    end = alone.end
    times = end.arrival_ns, end.first_scheduled_ns, end.first_token_ns, end.last_token_ns
    assert list(times) == sorted(set(times))
    for more in ({"top_k": 1, "temperature": 2.0, "seed": 3}, {"top_p": 1e-6}):
        assert ask(client, 5, 6, 7, max_tokens=24, **more).wait().ids == alone.ids


def test_seeds(client: OpenAIClient) -> None:
    def sample(seed: int) -> list[int]:
        return ask(client, 5, 6, 7, max_tokens=12, temperature=1.0, seed=seed).wait().ids

    assert sample(7) == sample(7)
    assert sample(7) != sample(8)
    assert sample(2**63 + 5) == sample(2**63 + 5)


def test_ends(client: OpenAIClient) -> None:
    full = ask(client, 5, 6, 7, max_tokens=12).wait().ids
    end_id = full[5]
    answer = ask(client, 5, 6, 7, max_tokens=12, end_id=end_id).wait()
    assert answer.ids == full[: full.index(end_id)]
    assert answer.end.reason is Reason.END_ID
    held = ask(client, 5, 6, 7, max_tokens=12, end_id=end_id, min_tokens=9).wait()
    assert len(held.ids) >= 9
    assert end_id not in held.ids


def test_the_model_s_own_end_token_is_left_out(stack: BackgroundStack) -> None:
    """Random weights would hardly ever draw it, so it is forced; the slot forces none."""
    url = f"http://{stack.endpoint('engine')}/v1"
    listed = httpx.get(f"{url}/models", trust_env=False).json()
    asked = body(
        generation(5, 6, 7, max_tokens=8),
        served_model(listed, ""),
        stop=[],
        repetition_penalty=1.0,
    )
    parser, tokens, ids, sent = EventParser(), Tokens(), [], []
    asked |= {"logit_bias": {"2": 100.0}, "min_tokens": 3}
    with httpx.stream("POST", f"{url}/completions", json=asked, trust_env=False) as response:
        for piece in response.iter_raw():
            for event in parser.feed(piece):
                sent += [token for choice in event["choices"] for token in choice["token_ids"]]
                ids += tokens.take(event)
    assert sent[-1] == 2
    assert ids == sent[:-1]
    assert len(ids) == 3
    assert tokens.reason is Reason.END_ID


def test_stop_words(client: OpenAIClient, stack: BackgroundStack) -> None:
    full = ask(client, 5, 6, 7, max_tokens=12).wait().ids
    as_ids = ask(client, 5, 6, 7, max_tokens=12, stop_words=((full[0], 49_000), (full[3],)))
    assert as_ids.wait().ids == full[: full.index(full[3]) + 1]
    assert as_ids.end.reason is Reason.STOP_WORD
    # The same text in other ids: what a tokenizer makes of letters that stand alone.
    with httpx.Client(base_url=f"http://{stack.endpoint('engine')}", trust_env=False) as http:
        [listed] = http.get("/v1/models").json()["data"]
        word = {"model": listed["id"], "tokens": full[:2]}
        text = http.post("/detokenize", json=word).json()["prompt"]
        letters = []
        for letter in text[2:5]:
            asked = {"model": listed["id"], "prompt": letter, "add_special_tokens": False}
            letters += http.post("/tokenize", json=asked).json()["tokens"]
    as_text = ask(client, 5, 6, 7, max_tokens=12, stop_words=(tuple(letters),)).wait()
    assert as_text.end.reason is Reason.STOP_WORD
    assert as_text.ids == full[: len(as_text.ids)]
    assert len(as_text.ids) < 3


def test_penalties_change_a_loop(client: OpenAIClient) -> None:
    plain = ask(client, 5, 6, 7, max_tokens=24).wait().ids
    assert len(set(plain)) < 24  # random weights repeat themselves
    for more in ({"repetition_penalty": 9.0}, {"presence_penalty": 2.0}):
        answer = ask(client, 5, 6, 7, max_tokens=24, **more).wait().ids
        assert len(set(answer)) > len(set(plain))


def test_what_does_not_fit_or_exist(client: OpenAIClient) -> None:
    too_long = ask(client, 5, 6, 7, max_tokens=1022).wait()
    assert isinstance(too_long.error, PromptTooLong)
    assert "at most 1024 tokens" in str(too_long.error)
    unknown = ask(client, 60_000).wait()
    assert isinstance(unknown.error, RequestError)
    assert "60000" in str(unknown.error)
    refused = ask(client, frequency_penalty=50.0).wait()
    assert isinstance(refused.error, RequestError)
    assert "frequency_penalty must be in [-2, 2]" in str(refused.error)


def test_cancelling_ends_the_requests_there(client: OpenAIClient, stack: BackgroundStack) -> None:
    recorders = [ask(client, 5, 6, 7, max_tokens=900, request_id="x") for _ in range(6)]
    assert all(recorder.begun.wait(PATIENCE_S) for recorder in recorders[:4])
    assert client.cancel("x") == 6
    for recorder in recorders:
        assert recorder.wait().end.reason is Reason.CANCELLED
    wait_for(lambda: running(stack) == 0)
    assert ask(client, max_tokens=2).wait().end.output_tokens == 2


def test_killed_under_load_and_started_again(client: OpenAIClient, stack: BackgroundStack) -> None:
    """Last: the start of another takes its time."""
    streams = [ask(client, 5, 6, 7, max_tokens=900) for _ in range(2)]
    assert all(stream.begun.wait(PATIENCE_S) for stream in streams)
    before = stack.state()["processes"]
    segments = segments_of(before["engine"]["pid"])
    os.kill(before["engine"]["pid"], signal.SIGKILL)
    for stream in streams:
        assert isinstance(stream.wait().error, EngineUnavailable)
    wait_for(lambda: stack.state()["processes"]["engine"]["restarts"] > 0)
    wait_for(lambda: bool(stack.state().get("ready")), START_S)
    # A vLLM that is killed leaves 100 MB and more in shared memory, and it restarts for ever.
    assert not [segment for segment in segments if segment.exists()]
    after = stack.state()["processes"]
    assert start_time(before["engine"]["pid"]) is None
    assert after["triton"]["pid"] == before["triton"]["pid"]
    assert ask(client, max_tokens=2).wait().end.output_tokens == 2
    with Client(stack.endpoint("grpc")) as again:
        assert again.ask("Tell me about the sea.", max_tokens=4).output_tokens == 4
