# SPDX-License-Identifier: Apache-2.0
"""A stack in front of a deployment that runs already: real Triton, agent and control plane.

The deployment is the tests' own server of the completions API. A real vLLM: test_engine_vllm.py.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from completions_server import CompletionsServer
from triton_slot import Stream, prompt
from waiting import PATIENCE_S, wait_for

from sprout.config import Config
from sprout.errors import EngineError, SproutError
from sprout.request import detokenize
from sprout.serve.background import BackgroundStack
from sprout.serve.client import Answer, Client

pytestmark = [pytest.mark.system, pytest.mark.timeout(480)]

PROMPT = "Tell me about the sea."


class Deployment:
    """May go and come back under its address."""

    def __init__(self) -> None:
        self.server = CompletionsServer()

    def goes_away(self) -> None:
        self.server.close()

    def comes_back(self) -> None:
        self.server = CompletionsServer(self.server.port)


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    made = Deployment()
    yield made
    made.server.close()


@pytest.fixture(scope="module")
def stack(
    deployment: Deployment, stack_config: Callable[..., Config], tokenizer_dir: Path
) -> Iterator[BackgroundStack]:
    cfg = stack_config(
        "openai",
        engine__kind="openai",
        engine__url=deployment.server.url,
        engine__tokenizer_dir=tokenizer_dir,
        engine__context_tokens=1024,
        engine__chunk_interval_ms=0,
        engine__chunks_per_s=0,
    )
    with BackgroundStack(cfg) as running:
        yield running


def ask(stack: BackgroundStack, **options: object) -> Answer:
    with Client(stack.endpoint("grpc")) as client:
        return client.ask(PROMPT, **options)  # type: ignore[arg-type]


def asked(deployment: Deployment, max_tokens: int) -> dict[str, object]:
    """What came of a request to the deployment: the stack's own probes ask for one token."""
    [body] = [body for body in deployment.server.bodies if body["max_tokens"] == max_tokens]
    return body


def test_an_answer_with_its_receipt(
    stack: BackgroundStack, deployment: Deployment, tokenizer_dir: Path
) -> None:
    answer = ask(stack, max_tokens=31, level="L1")
    text = detokenize.load(tokenizer_dir).decode([*range(10, 41)])
    assert answer.text == text
    assert (answer.output_tokens, answer.chunks > 3) == (31, True)
    assert answer.receipt is not None
    assert answer.receipt.level == 1
    assert answer.receipt.energy_joules >= 0
    body = asked(deployment, 31)
    assert answer.input_tokens == len(body["prompt"])  # type: ignore[arg-type]
    rendered = detokenize.load(tokenizer_dir).decode(body["prompt"])  # type: ignore[arg-type]
    assert PROMPT in rendered
    assert len(rendered) > len(PROMPT) + 20  # the directive came along


def test_options_arrive_or_are_refused_by_name(
    stack: BackgroundStack, deployment: Deployment
) -> None:
    options = {"temperature": 0.5, "top_k": 7, "top_p": 0.75, "seed": 5, "min_tokens": 3}
    ask(stack, max_tokens=32, options=options | {"repetition_penalty": 1.25})
    body = asked(deployment, 32)
    assert {name: body[name] for name in options} == options
    assert (body["repetition_penalty"], body["ignore_eos"]) == (1.25, False)
    with pytest.raises(SproutError, match="beam_width = 4: not supported by the openai engine"):
        ask(stack, max_tokens=4, options={"beam_width": 4})
    with pytest.raises(SproutError, match="together at most 1024 tokens"):
        ask(stack, max_tokens=1024)


def test_a_full_deployment_is_said_to_be_full(
    stack: BackgroundStack, deployment: Deployment
) -> None:
    deployment.server.busy = True
    try:
        with pytest.raises(EngineError, match=r"the engine is full \(HTTP 429\): too many"):
            ask(stack, max_tokens=4)
    finally:
        deployment.server.busy = False
    assert ask(stack, max_tokens=4).output_tokens == 4


def test_a_client_that_goes_away_ends_its_request_there(
    stack: BackgroundStack, deployment: Deployment
) -> None:
    server = deployment.server
    server.token_s, before = 0.02, server.broken_off
    try:
        slot = SimpleNamespace(grpc=stack.endpoint("grpc"))
        stream = Stream(slot, prompt([5, 6, 7], 900))  # type: ignore[arg-type]
        stream.next()
        stream.cancel()
        wait_for(lambda: server.broken_off == before + 1)
    finally:
        server.token_s = 0.0


def test_a_deployment_that_goes_and_comes_back(
    stack: BackgroundStack, deployment: Deployment
) -> None:
    """Open streams fail by name, those that come meanwhile wait for it; Triton lives on."""
    triton = stack.state()["processes"]["triton"]["pid"]
    deployment.server.token_s = 0.02
    begun, errors, answers = threading.Event(), [], []

    def stream() -> None:
        try:
            with Client(stack.endpoint("grpc")) as client:
                client.ask(PROMPT, max_tokens=900, on_text=lambda _: begun.set())
        except EngineError as error:
            errors.append(str(error))

    def later() -> None:
        answers.append(ask(stack, max_tokens=33))

    threads = [threading.Thread(target=stream), threading.Thread(target=later)]
    threads[0].start()
    assert begun.wait(PATIENCE_S)
    deployment.goes_away()
    threads[0].join(PATIENCE_S)
    assert len(errors) == 1
    assert "went away during the" in errors[0]
    threads[1].start()
    deployment.comes_back()
    threads[1].join(PATIENCE_S)
    assert [answer.output_tokens for answer in answers] == [33]
    assert stack.state()["processes"]["triton"]["pid"] == triton
    assert stack.state()["ready"]
