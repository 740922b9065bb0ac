# SPDX-License-Identifier: Apache-2.0
"""An ensemble as the judge, through a gRPC server that speaks Triton's protocol."""

import math
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from judge_api import Asked, given, question
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from sprout.config import load
from sprout.errors import ConfigError, JudgeError, RequestCancelled
from sprout.evaluate.judges import build
from sprout.evaluate.judges.instructions import Instructions
from sprout.evaluate.judges.model import ModelJudge
from sprout.evaluate.judges.pace import Pace
from sprout.evaluate.judges.triton import MAX_REPLY_CHARS, TritonLine
from sprout.evaluate.judges.verdict import Reason, Verdict


@dataclass
class Told:
    """One answer of the ensemble."""

    chunks: tuple[str, ...] = ('{"better": ', '"B"}')
    tokens: tuple[int, int] = (300, 8)
    level: int | None = 0  # None: no receipt
    joules: float = 40.0
    error: str = ""
    refused: str = ""
    silent: bool = False  # no end


@dataclass(frozen=True)
class Request:
    text: str
    tensors: dict[str, Any]
    parameters: dict[str, Any]


class Ensemble(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    def __init__(self) -> None:
        self.told = Told()
        self.asked: list[Request] = []
        self.arrived, self.done = threading.Semaphore(0), threading.Event()

    def ModelStreamInfer(  # noqa: N802 - the protocol's name
        self, requests: Any, context: grpc.ServicerContext
    ) -> Iterator[Any]:
        for request in requests:
            self.asked.append(_read(request))
            self.arrived.release()
            told = self.told
            if told.refused:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, told.refused)
            if told.error:
                yield service_pb2.ModelStreamInferResponse(error_message=told.error)
                return
            for number, chunk in enumerate(told.chunks, start=1):
                last = number == len(told.chunks) and not told.silent
                yield _response(chunk, told if last else None)
            if told.silent:
                while context.is_active() and not self.done.wait(0.02):
                    yield _response(".", None)


def _read(request: Any) -> Request:
    tensors = {}
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        kind = {"INT32": np.int32, "FP32": np.float32, "BOOL": np.bool_}.get(tensor.datatype)
        values = deserialize_bytes_tensor(raw) if kind is None else np.frombuffer(raw, kind)
        tensors[tensor.name] = values[0]
    parameters = {
        name: getattr(value, value.WhichOneof("parameter_choice"))
        for name, value in request.parameters.items()
    }
    return Request(tensors.pop("text_input").decode(), tensors, parameters)


def _response(text: str, told: Told | None) -> Any:
    response = service_pb2.ModelInferResponse(model_name="ensemble")
    outputs: dict[str, tuple[str, bytes]] = {
        "text_output": (
            "BYTES",
            serialize_byte_tensor(np.array([text.encode()], dtype=object)).item(),
        )
    }
    if told is not None:
        outputs |= {
            "num_input_tokens": ("INT32", np.int32(told.tokens[0]).tobytes()),
            "num_output_tokens": ("INT32", np.int32(told.tokens[1]).tobytes()),
        }
        if told.level is not None:
            outputs |= {
                "directive_level": ("INT32", np.int32(told.level).tobytes()),
                "energy_joules": ("FP32", np.float32(told.joules).tobytes()),
            }
    for name, (datatype, raw) in outputs.items():
        response.outputs.add(name=name, datatype=datatype, shape=[1])
        response.raw_output_contents.append(raw)
    response.parameters["triton_final_response"].bool_param = told is not None
    return service_pb2.ModelStreamInferResponse(infer_response=response)


@contextmanager
def serving() -> Iterator[tuple[Ensemble, str]]:
    servicer = Ensemble()
    server = grpc.server(futures.ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield servicer, f"127.0.0.1:{port}"
    finally:
        servicer.done.set()
        server.stop(0).wait()


@pytest.fixture
def triton() -> Iterator[tuple[Ensemble, str]]:
    with serving() as made:
        yield made


def judge(address: str, *, retries: int = 0, **line: Any) -> ModelJudge:
    return ModelJudge(
        TritonLine(address, **line), Instructions("pairwise"), retries=retries, pace=Pace(retry_s=0)
    )


def ask(found: ModelJudge, stop: threading.Event | None = None) -> Verdict:
    return found.prefer(question(), given("four", "4"), stop or threading.Event())


def test_the_same_prompt_and_the_same_reading(triton: tuple[Ensemble, str]) -> None:
    ensemble, address = triton
    with closing(judge(address, model="llama")) as found:
        assert found.name == "triton llama"
        verdict = ask(found)
        assert (verdict.place, verdict.unusable) == (1, None)
        spent = verdict.spent
        assert (spent.calls, spent.input_tokens, spent.output_tokens) == (1, 300, 8)
        assert (spent.receipt_joules, spent.receipt_tokens) == (40.0, 308)
        ensemble.told = Told(chunks=('Answer A: {"better": "A"}',))
        assert ask(found).unusable is Reason.MALFORMED
    asked = ensemble.asked[0]
    system, _, user = asked.text.partition("\n\n[")
    blocks = Asked("", {"messages": [{"content": system}, {"content": f"[{user}"}]}, {}).blocks
    assert blocks == {"QUESTION": "What is 0 + 0?", "ANSWER A": "four", "ANSWER B": "4"}
    assert (asked.tensors["max_tokens"], asked.tensors["top_k"]) == (512, 1)
    assert asked.tensors["repetition_penalty"] == 1.0
    # No directive for the judge, and no sampling of what it is asked.
    assert asked.parameters["sprout_off"] is True
    assert asked.parameters["sprout_sample"] is False
    assert "sprout_level" not in asked.parameters


def test_with_the_evaluation_s_token_the_level_is_pinned(triton: tuple[Ensemble, str]) -> None:
    ensemble, address = triton
    tokens = iter(["one", "two"])
    with closing(judge(address, token=lambda: next(tokens))) as found:
        ask(found)
        ask(found)
    assert [asked.parameters["sprout_evaluate"] for asked in ensemble.asked] == ["one", "two"]
    assert ensemble.asked[0].parameters["sprout_level"] == "L0"
    assert "sprout_off" not in ensemble.asked[0].parameters


def test_a_judge_that_gets_directives_is_none(triton: tuple[Ensemble, str]) -> None:
    ensemble, address = triton
    ensemble.told = Told(level=2)
    with closing(judge(address)) as found, pytest.raises(JudgeError, match="sprout_off"):
        ask(found)


def test_a_stock_ensemble_has_no_receipt_and_an_unmetered_one_no_joules(
    triton: tuple[Ensemble, str],
) -> None:
    ensemble, address = triton
    with closing(judge(address)) as found:
        for told in (Told(level=None), Told(joules=math.nan)):
            ensemble.told = told
            spent = ask(found).spent
            assert (spent.input_tokens, spent.receipt_tokens) == (300, 0)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (Told(tokens=(300, 512)), Reason.TRUNCATED),
        (Told(chunks=("x" * (MAX_REPLY_CHARS + 1),), silent=True), Reason.OVERSIZED),
        (Told(error="the prompt does not fit"), Reason.UNAVAILABLE),
    ],
)
def test_what_fails_is_unusable(triton: tuple[Ensemble, str], told: Told, reason: Reason) -> None:
    ensemble, address = triton
    ensemble.told = told
    with closing(judge(address, retries=1)) as found:
        verdict = ask(found)
        assert (verdict.unusable, verdict.spent.calls) == (reason, 2)
        ensemble.told = Told()
        assert ask(found).place == 1


def test_what_is_refused_is_not_asked_again(triton: tuple[Ensemble, str]) -> None:
    ensemble, address = triton
    ensemble.told = Told(refused="in ensemble 'ensemble', at most 2048 tokens")
    with closing(judge(address, retries=3)) as found:
        verdict = ask(found)
        assert (verdict.unusable, verdict.spent.calls) == (Reason.REJECTED, 1)
        ensemble.told = Told()
        assert ask(found).place == 1


def test_a_token_that_the_server_refuses_ends_it(triton: tuple[Ensemble, str]) -> None:
    ensemble, address = triton
    ensemble.told = Told(refused="sprout_evaluate: this token is not the server's")
    with (
        closing(judge(address, token=lambda: "old")) as found,
        pytest.raises(JudgeError, match="does not know this evaluation's token"),
    ):
        ask(found)


def test_an_answer_without_end_is_a_time_out(triton: tuple[Ensemble, str]) -> None:
    ensemble, address = triton
    ensemble.told = Told(chunks=("x",), silent=True)
    with closing(judge(address, timeout_s=0.5)) as found:
        assert ask(found).unusable is Reason.TIMEOUT


def test_nobody_there() -> None:
    with serving() as (_, address):
        pass
    with closing(judge(address)) as found:
        assert ask(found).unusable is Reason.UNAVAILABLE


def test_a_call_in_flight_ends_when_it_is_told_to(triton: tuple[Ensemble, str]) -> None:
    ensemble, address = triton
    ensemble.told = Told(chunks=("x",), silent=True)
    stop, ended = threading.Event(), list[BaseException]()
    with closing(judge(address)) as found:

        def run() -> None:
            try:
                ask(found, stop)
            except RequestCancelled as error:
                ended.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        assert ensemble.arrived.acquire(timeout=60)
        stop.set()
        thread.join(60)
    assert len(ended) == 1


def test_threads_have_connections_of_their_own_and_wait_their_turn(
    triton: tuple[Ensemble, str],
) -> None:
    ensemble, address = triton
    inside, lock, peak = 0, threading.Lock(), 0
    turns = threading.Semaphore(2)

    @contextmanager
    def turn(_: threading.Event) -> Iterator[None]:
        nonlocal inside, peak
        with turns:
            with lock:
                inside += 1
                peak = max(peak, inside)
            yield
            with lock:
                inside -= 1

    with closing(judge(address, turn=turn)) as found, futures.ThreadPoolExecutor(6) as pool:
        verdicts = list(pool.map(lambda _: ask(found).place, range(18)))
    assert verdicts == [1] * 18
    assert (len(ensemble.asked), inside) == (18, 0)
    assert peak <= 2


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., ModelJudge]:
    def make(address: str = "", **settings: object) -> ModelJudge:
        flags = {key.replace("__", "."): value for key, value in settings.items()}
        cfg = load(environ={}, flags={"evaluate.judge.kind": "triton"} | flags)
        found = build.judge(cfg, address=address)
        assert isinstance(found, ModelJudge)
        return found

    return make


def test_the_stack_s_own_triton_is_asked_with_the_evaluation_s_token(
    triton: tuple[Ensemble, str], tmp_path: Path, configured: Callable[..., ModelJudge]
) -> None:
    ensemble, address = triton
    token = tmp_path / "token"
    token.write_text("secret\n")
    with closing(configured(address, evaluate__schedule__token_file=token)) as found:
        assert ask(found).place == 1
    assert ensemble.asked[0].parameters["sprout_evaluate"] == "secret"
    # Another Triton is not told that token, unless it is the one that answers.
    with closing(
        configured(evaluate__judge__url=address, evaluate__schedule__token_file=token)
    ) as found:
        ask(found)
    assert "sprout_evaluate" not in ensemble.asked[1].parameters
    with closing(
        configured(
            evaluate__judge__url=address,
            evaluate__schedule__endpoint=address,
            evaluate__schedule__token_file=token,
        )
    ) as found:
        ask(found)
    assert ensemble.asked[2].parameters["sprout_evaluate"] == "secret"


def test_an_address_must_be_known(configured: Callable[..., ModelJudge]) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.judge\.url"):
        configured(triton__grpc_port=0)
    configured(triton__grpc_port=8001).close()
