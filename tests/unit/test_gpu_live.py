# SPDX-License-Identifier: Apache-2.0
"""The live GPU benchmarks: what is sent, what comes back, and the arithmetic on it."""

import argparse
import asyncio
import importlib.util
import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_tokenizer
from completions_server import CompletionsServer
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "gpu"))
import _lengths
import _live
import _send
import live
import overhead
import prefix
import receipts
import table
from _alone import alone
from _drive import Closed, Open
from _send import Ask, Sent, asks, drive

from sprout.config import Config
from sprout.errors import EngineError
from sprout.request.preprocess import Prepared
from sprout.request.tokenizer import load


class Result:
    def __init__(self, **outputs: Any) -> None:
        self.outputs = outputs

    def get_response(self) -> Any:
        return SimpleNamespace(outputs=[SimpleNamespace(name=name) for name in self.outputs])

    def as_numpy(self, name: str) -> Any:
        return np.array([[self.outputs[name]]])


class Triton:
    """Stands for tritonclient's: every answer takes `answer_s` and ends with a receipt."""

    flying = most = 0
    asked: list[tuple[str, dict[str, Any]]]
    answer_s = 0.01
    error: Exception | None = None
    stuck = False

    def __init__(self, address: str) -> None:
        self.address = address

    async def close(self) -> None:
        pass

    def stream_infer(self, requests: Any, headers: Any) -> Any:
        return _Answer(self, requests)


class _Answer:
    def __init__(self, triton: Triton, requests: Any) -> None:
        self._triton, self._requests = triton, requests

    def cancel(self) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[tuple[Any, Any]]:
        kind = type(self._triton)
        async for request in self._requests:
            kind.asked.append((self._triton.address, request))
        kind.flying += 1
        kind.most = max(kind.most, kind.flying)
        try:
            if kind.stuck:
                await asyncio.Event().wait()
            await asyncio.sleep(kind.answer_s)
            if kind.error is not None:
                raise kind.error
            now = time.monotonic_ns()
            yield Result(text_output=b"a"), None
            yield (
                Result(
                    text_output=b"b", directive_level=1, policy_version=7, energy_joules=2.5,
                    carbon_grams=0.1, carbon_intensity=300.0, num_output_tokens=48,
                    num_input_tokens=20, first_scheduled_time_ns=now - 10**7,
                    first_token_time_ns=now - 10**6, last_token_time_ns=now,
                ),
                None,
            )  # fmt: skip
            yield Result(), None  # the empty final one
        finally:
            kind.flying -= 1


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> type[Triton]:
    kind = type("Triton", (Triton,), {"asked": []})
    monkeypatch.setattr(_send.aio, "InferenceServerClient", kind)
    monkeypatch.setattr(_send, "FAILED_S", 0.0)
    return kind


ASK = Ask("why?", max_tokens=205, lengths=(205, 48, 32), key=3)


# --- sending -------------------------------------------------------------------------------------


def test_a_closed_feed_keeps_so_many_in_flight(triton: type[Triton]) -> None:
    log = drive("here:1", Closed(5, itertools.repeat(ASK)), 0.2)
    assert triton.most == 5
    assert triton.flying == 0
    assert len(log.requests) >= 10
    assert len(log.done()) == len(log.requests)  # those in flight at the end were waited for
    assert log.until <= log.ended


def test_an_open_feed_is_sent_when_due_and_ends_by_itself(triton: type[Triton]) -> None:
    triton.answer_s = 0.0
    log = drive("here:1", Open(np.array([0.0, 0.05, 0.1]), [ASK] * 3), 1000.0)
    assert [r.due - log.started for r in log.requests] == pytest.approx([0.0, 0.05, 0.1])
    assert all(r.due <= r.sent <= r.ended for r in log.requests)


def test_what_comes_back_is_written_down(triton: type[Triton]) -> None:
    [sent] = drive("here:1", Open(np.array([0.0]), [ASK]), 1000.0).requests
    assert (sent.key, sent.level, sent.policy, sent.tokens) == (3, 1, 7, 48)
    assert (sent.joules, sent.grams, sent.intensity) == (2.5, 0.1, 300.0)
    assert sent.chunks == 2
    assert sent.scheduled < sent.first < sent.last <= sent.ended
    assert sent.first_chunk <= sent.ended
    assert sent.latency_s == sent.ended - sent.due


def test_lengths_and_levels_travel_as_parameters(triton: type[Triton]) -> None:
    pinned = Ask("why?", 9, level="L2", parameters=(("sprout_sample", False),))
    drive("here:1", Open(np.zeros(2), [ASK, pinned]), 1000.0)
    first, second = (request for _, request in triton.asked)
    assert first["model_name"] == "lengths_ensemble"
    assert first["parameters"] == {"lengths": "205,48,32"}
    assert second["parameters"] == {"sprout_level": "L2", "sprout_sample": False}
    end = next(tensor for tensor in first["inputs"] if tensor.name() == "end_id")
    assert np.frombuffer(end._get_content(), np.int32).tolist() == [-1]


def test_a_request_that_fails_is_one_request_s(triton: type[Triton]) -> None:
    triton.error = InferenceServerException("the engine is full", "UNAVAILABLE")
    log = drive("here:1", Open(np.zeros(3), [ASK] * 3), 1000.0)
    assert log.errors() == {"UNAVAILABLE: the engine is full": 3}
    assert log.done() == []
    assert log.rows()[0]["ended"] is None
    json.dumps(log.rows(), allow_nan=False)


def test_what_does_not_end_is_let_go_of(triton: type[Triton]) -> None:
    triton.stuck = True
    log = drive("here:1", Closed(2, itertools.repeat(ASK)), 0.05, drain_s=0.05)
    assert log.errors() == {"not ended in time": 2}
    assert triton.flying == 0


def test_two_stacks_share_what_is_sent(triton: type[Triton]) -> None:
    drive(["one:1", "two:1"], Closed(4, itertools.repeat(ASK)), 0.1)
    by = [address for address, _ in triton.asked]
    assert abs(by.count("one:1") - by.count("two:1")) <= 4
    assert by[:4] == ["one:1", "two:1", "one:1", "two:1"]


def test_an_answer_without_a_receipt_is_an_error(triton: type[Triton], monkeypatch: Any) -> None:
    monkeypatch.setattr(_send, "_VALUES", {})
    assert drive("here:1", Open(np.zeros(1), [ASK]), 1000.0).errors() == {
        "an answer without a receipt": 1
    }


def test_asks_are_numbered() -> None:
    made = asks(["a", "b"], [(3, 2, 1), (9, 4, 4)], stream=True)
    assert [(a.key, a.max_tokens, a.lengths, a.stream) for a in made] == [
        (0, 3, (3, 2, 1), True),
        (1, 9, (9, 4, 4), True),
    ]


# --- lengths -------------------------------------------------------------------------------------


def test_the_lengths_ensemble_is_sprout_s_own_but_for_its_first_step(tmp_path: Path) -> None:
    cfg = Config.model_validate({"stack": {"shm_dir": tmp_path / "shm"}})
    out = _lengths.lengths_repository(tmp_path / "out", cfg, tmp_path / "tokenizer")
    configs = {
        name: text_format.Parse(
            (out / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig()
        )
        for name in ("lengths_ensemble", "lengths_preprocessing")
    }
    steps = [s.model_name for s in configs["lengths_ensemble"].ensemble_scheduling.step]
    assert steps == ["lengths_preprocessing", "tensorrt_llm", "postprocessing"]
    parameters = configs["lengths_preprocessing"].parameters
    assert parameters["sprout_shm_dir"].string_value == str(tmp_path / "shm")
    files = sorted(path.name for path in (out / "lengths_preprocessing" / "1").iterdir())
    assert files == ["model.py", "preprocessing.py"]
    assert sorted(path.name for path in out.iterdir()) == sorted(configs)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_level_drawn_sets_the_length(tmp_path: Path) -> None:
    (tmp_path / "preprocessing.py").write_text(
        "class TritonPythonModel:\n    def initialize(self, args): self._preprocessor = args\n"
    )
    shutil.copy(_lengths.MODEL, tmp_path / "model.py")
    spec = importlib.util.spec_from_file_location("lengths_model", tmp_path / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def prepared(level: int) -> Prepared:
        outputs: dict[str, Any] = {"REQUEST_OUTPUT_LEN": np.array([[9]], np.int32)}
        return Prepared(outputs, level, 0, None, 0, b"", b"", 9, 0)

    refused = ValueError("refused")
    own = SimpleNamespace(
        prepare=lambda batch: [prepared(2), prepared(0), refused, prepared(1)],
        open_flight=lambda prepared: prepared.max_tokens,
    )
    model = module.TritonPythonModel()
    model.initialize(own)
    said = '{"lengths": "205,48,32"}'
    batch = [SimpleNamespace(parameters=text) for text in (said, said, said, "")]
    results = model._preprocessor.prepare(batch)
    lengths = [r.outputs["REQUEST_OUTPUT_LEN"] for r in results if isinstance(r, Prepared)]
    assert [array.tolist() for array in lengths] == [[[32]], [[205]], [[9]]]
    assert {array.dtype for array in lengths} == {np.dtype(np.int32)}
    assert results[2] is refused
    assert model._preprocessor.open_flight(results[0]) == 32  # the flight's own limit too


# --- the stack -----------------------------------------------------------------------------------


def test_a_gpu_is_named_to_cuda_by_its_number_and_only_while_a_stack_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    gpu = _live.Gpu(1, "GPU-abc", "H100")
    with _live._environment(gpu.environment):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
        assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert "CUDA_DEVICE_ORDER" not in os.environ


def nvml(*uuids: str) -> Any:
    return SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(uuids),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda handle: uuids[handle],
        nvmlDeviceGetName=lambda handle: b"NVIDIA H100",
    )


def test_a_gpu_is_found_by_number_or_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml("GPU-a", "GPU-b"))
    assert _live.Gpu.named("1").uuid == "GPU-b"
    assert _live.Gpu.named("GPU-a").index == 0
    with pytest.raises(SystemExit, match="several GPUs"):
        _live.Gpu.named(None)
    with pytest.raises(SystemExit, match="there is no GPU 2"):
        _live.Gpu.named("2")
    monkeypatch.setitem(sys.modules, "pynvml", nvml("GPU-a"))
    assert _live.Gpu.named(None).name == "NVIDIA H100"


def test_a_stack_of_a_shape_serves_every_token_of_its_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml("GPU-a", "GPU-b"))
    tokenizer = tiny_tokenizer.chatml(tmp_path / "tokenizer")
    made = _live.Live(
        tmp_path / "work",
        gpu="1",
        tokenizer=tokenizer,
        vllm_args=["--dtype", "auto"],
        engine__chunk_interval_ms=5.0,
    )
    engine = made.cfg.engine
    assert (engine.kind, engine.slots, engine.chunk_interval_ms) == ("vllm", 128, 5.0)
    assert engine.vllm_args[:2] == ("--load-format", "dummy")
    assert engine.vllm_args[-2:] == ("--dtype", "auto")
    assert (made.cfg.energy.meters, made.cfg.energy.gpus) == (("nvml",), ("GPU-b",))
    assert engine.model is not None
    shape = json.loads((engine.model / "config.json").read_text())
    assert (shape["hidden_size"], shape["vocab_size"]) == (5120, 32_000)
    assert (engine.model / "tokenizer.json").exists()
    settings = json.loads((engine.model / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert made.cfg.triton.model_repositories == (tmp_path / "work" / "lengths",)
    assert live.vocabulary(made) == 32_000


def test_a_part_is_broken_off() -> None:
    with pytest.raises(TimeoutError, match=r"broken off after 0\.05 s"), live.time_limit(0.05):
        time.sleep(30)
    with live.time_limit(30):
        pass


class Part:
    """Finds something and then fails, as it is told."""

    __name__ = "part"

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def measure(self, live: Any, joules: Any, given: Any, found: dict[str, Any]) -> None:
        found["cells"] = [1]
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("error", "failed"),
    [(None, 0), (ValueError("why"), 1), (SystemExit("why"), 1), (KeyboardInterrupt("why"), 1)],
)
def test_what_a_part_found_is_written_however_it_ends(
    tmp_path: Path, error: BaseException | None, failed: int
) -> None:
    logs: list[int] = []
    stack: Any = SimpleNamespace(print_logs=lambda: logs.append(1))
    given = argparse.Namespace(out=tmp_path, seed=4, part_limit=30.0)
    part: Any = Part(error)

    def measured() -> int:
        return live.one(part, stack, lambda since, until: 0.0, given, {"name": "13b"})

    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            measured()
    else:
        assert measured() == failed
    found = json.loads((tmp_path / "part-13b-4.json").read_text())
    assert found["cells"] == [1]
    assert ("failed" in found) == bool(failed)
    assert len(logs) == failed


# --- receipts ------------------------------------------------------------------------------------


def test_receipts_are_added_up_and_those_without_joules_told() -> None:
    done = [
        Sent(0, 0.0, level=0, tokens=200, joules=20.0, grams=1.0),
        Sent(1, 0.0, level=1, tokens=50, joules=5.0, grams=0.25),
        Sent(2, 0.0, level=1, tokens=40, joules=float("nan")),
    ]
    assert receipts.receipts(done) == {
        "requests": 3, "joules": 25.0, "without_joules": 1, "grams": 1.25
    }  # fmt: skip
    found = receipts.by_level(done)
    assert found["L1"] == {"requests": 2, "mean_tokens": 45.0, "mean_joules": 5.0}


def test_outcomes_are_those_opened_within(tmp_path: Path) -> None:
    store = tmp_path / "control.sqlite"
    with closing(sqlite3.connect(store)) as db:
        db.execute("CREATE TABLE outcomes (opened_at, energy_joules, receipt_joules)")
        rows = [(9.9, 100.0, 100.0), (10.0, 3.0, 2.0), (11.0, 4.0, None), (20.0, 100.0, 100.0)]
        db.executemany("INSERT INTO outcomes VALUES (?, ?, ?)", rows)
        db.commit()
    found = receipts.outcomes(store, 10.0, 20.0)
    assert found == {"requests": 2, "joules": 7.0, "receipt_joules": 2.0}


def test_the_agent_s_totals_stand_beside_the_counter() -> None:
    before = SimpleNamespace(t_ns=10**9, metered=100.0, settled=60.0, idle=40.0)
    after = SimpleNamespace(t_ns=3 * 10**9, metered=300.0, settled=250.0, idle=50.0)
    found = receipts.agent(before, after, lambda since, until: 100 * (until - since))
    assert found == {
        "seconds": 2.0, "metered_joules": 200.0, "settled_joules": 190.0, "idle_joules": 10.0,
        "counter_joules": 200.0,
    }  # fmt: skip


# --- overhead ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [tiny_tokenizer.chatml, tiny_tokenizer.raw])
@pytest.mark.parametrize("model", overhead.MODELS)
def test_prompts_have_the_same_length_at_the_engine(tmp_path: Path, make: Any, model: str) -> None:
    """Baseline and ensemble: what the template adds is taken off the text."""
    from sprout import directives
    from sprout.request.prompts import Prompter

    tokenizer = load(make(tmp_path / "tokenizer"))
    texts = overhead.prompts(model, tokenizer, Config(), 1, 4)
    assert len(set(texts)) == 4
    prompter = Prompter(tokenizer, directives.PACKS["explicit"])
    for text in texts:
        pieces = [text] if model == "baseline" else prompter.pieces(text, 0)
        assert len(tokenizer.encode([pieces])[0]) == 128


def given(seconds: float) -> argparse.Namespace:
    return argparse.Namespace(
        overhead_seconds=seconds, overhead_requests=1.0, perf_analyzer="perf_analyzer"
    )


class Perf:
    """Takes no time. `slower`: the ensemble's, as a ratio."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slower: float = 1.25) -> None:
        self.ran: list[tuple[str, int]] = []
        self.data: list[list[dict[str, Any]]] = []
        self.slower = slower
        self.fails: set[str] = set()
        self.now = 0.0
        monkeypatch.setattr(overhead, "profile", self.profile)
        monkeypatch.setattr(overhead.time, "monotonic", lambda: self.now)

    def profile(self, _: str, model: str, url: str, inputs: Any, **options: Any) -> Any:
        self.ran.append((model, options["concurrency"]))
        self.data.append(json.loads(inputs.read_text())["data"])
        self.now += 4.0
        if model in self.fails:
            raise subprocess.TimeoutExpired(model, 45)
        slow = self.slower if model == "ensemble" else 1.0
        return SimpleNamespace(
            requests_per_s=100 / slow,
            chunks_per_s=1000 / slow,
            latencies_ms=[10.0 * slow] * options["requests"],
        )


def compared(seconds: float) -> tuple[list[dict[str, Any]], list[str]]:
    failures: list[str] = []
    texts = {model: [f"{model} {i}" for i in range(500)] for model in overhead.MODELS}
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        runner = overhead.Runner(given(seconds), Path(folder) / "inputs.json", texts, failures)
        overhead.compare("here", runner, runs)
    return runs, failures


def test_models_take_turns_while_the_time_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    perf = Perf(monkeypatch)
    runs, failures = compared(80.0)  # 6 cases of 8 s, then four more
    assert not failures
    names = [model for model, _ in perf.ran]
    assert names == ["baseline", "ensemble"] * 6 + ["ensemble", "baseline"] * 4
    assert [n for _, n in perf.ran[12:]] == [128, 128, 32, 32, 8, 8, 1, 1]
    asked = [row for data, (model, _) in zip(perf.data, perf.ran, strict=True) for row in data
             if model == "baseline"]  # fmt: skip
    assert [row["text_input"][0] for row in asked[:501]] == [
        f"baseline {i % 500}" for i in range(501)
    ]
    assert asked[0] == {
        "text_input": ["baseline 0"], "max_tokens": [64], "min_tokens": [64], "stream": [True]
    }  # fmt: skip
    found = {(r["concurrency"], r["stream"]): r for r in overhead.ratios(runs)}
    full = found[128, True]
    assert (full["rounds"], full["requests"]) == (2, 512)
    assert full["throughput_ratio"] == pytest.approx(0.8)
    assert (full["p50_ratio"], full["p99_ratio"]) == pytest.approx((1.25, 1.25))
    assert found[1, True]["p99_ratio"] is None  # five requests have no tail
    perf = Perf(monkeypatch)
    compared(0.0)
    assert len(perf.ran) == 12  # the first round is always whole


def test_a_run_that_fails_is_left_out_with_its_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    perf = Perf(monkeypatch)
    perf.fails = {"ensemble"}
    runs, failures = compared(0.0)
    assert runs == []
    assert len(failures) == 6
    assert "128 in flight" in failures[0]
    assert overhead.ratios(runs) == []


def test_the_engine_alone_is_asked_for_exact_lengths() -> None:
    class Engine(CompletionsServer):
        said = 64

        def post(self, handler: Any, body: dict[str, Any]) -> None:
            self.bodies.append(body)
            handler.answer({"choices": [{}], "usage": {"completion_tokens": self.said}})

    server = Engine()
    root = server.url.removesuffix("/v1")
    wanted = {"in_flight": 3, "requests": 5, "prompt": 20, "output": 64, "seed": 1}
    try:
        assert alone(root, **wanted) > 0
        assert len(server.bodies) == 8  # the first three are not counted
        assert {len(body["prompt"]) for body in server.bodies} == {20}
        assert {(b["max_tokens"], b["min_tokens"]) for b in server.bodies} == {(64, 64)}
        server.said = 63
        with pytest.raises(EngineError, match="asked for 64 tokens"):
            alone(root, **wanted)
    finally:
        server.close()


# --- prefixes ------------------------------------------------------------------------------------

METRICS = """# TYPE vllm:prefix_cache_queries counter
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 1000.0
vllm:prefix_cache_queries_created{engine="0",model_name="m"} 1.7e+09
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 250.0
vllm:prefix_cache_hits_total{engine="1",model_name="m"} 50.0
"""


def test_the_cache_s_own_count_is_read() -> None:
    before = prefix.counts(METRICS)
    assert before == {"queries": 1000.0, "hits": 300.0}
    after = {"queries": 1400.0, "hits": 400.0}
    assert prefix.share(before, after) == 0.25
    assert prefix.share(before, before) is None
    assert prefix.share(prefix.counts("{}"), prefix.counts("{}")) is None


def test_prompts_of_a_level_begin_alike_and_the_others_never(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer.chatml(tmp_path / "tokenizer")
    start = prefix.beginning(Config(), tokenizer, 1)
    text = bytes(i - 2 for i in start if i > 1).decode()
    assert "Answer briefly, in at most two short sentences." in text
    assert text.endswith("user\n")
    rng = np.random.default_rng(1)
    alike, none = (prefix.made(start, 64, shared, rng)() for shared in (True, False))
    assert {len(prompt) for prompt in [*alike, *none]} == {len(start) + 64}
    assert all(prompt[: len(start)] == start for prompt in alike)
    assert len({tuple(prompt[:16]) for prompt in none}) == prefix.BATCH
    assert len({tuple(prompt[len(start) :][:16]) for prompt in alike}) == prefix.BATCH


# --- tables --------------------------------------------------------------------------------------

HEAD = {
    "model": "Llama-2-13b-shaped, random weights", "vocabulary": 49_152, "gpu": "H100",
    "driver": "1", "engine": "vllm, 2", "slots": 128, "machine": "a machine", "commit": "abc",
    "seed": 1,
}  # fmt: skip


def test_receipts_are_shown_against_the_counter() -> None:
    cell = {
        "concurrency": 32, "seconds": 20.0, "requests": 2, "errors": {"gone": 2},
        "counter_joules": 10_000.0, "receipts": {"requests": 400, "joules": 9_900.0},
        "outcomes": {"joules": 10_050.0}, "latency_s": [1.0, None],
        "agent": {
            "seconds": 30.0, "counter_joules": 11_000.0, "metered_joules": 11_011.0,
            "settled_joules": 10_050.0, "idle_joules": 961.0,
        },
    }  # fmt: skip
    text = table.render([{"measurement": "receipts", **HEAD, "cells": [cell]}])
    assert "| 32 | 400 | 20.0 | 10000 | 9900 | -1.00% | 10050 | +0.50% | 2 | 1.00 | - |" in text
    assert "| 32 | 30.0 | 11000 | +0.10% | 10050 | 961 | +0.00% |" in text
    assert "vocabulary of 49,152" in text


def test_overhead_is_shown_with_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    Perf(monkeypatch)
    runs, _ = compared(0.0)
    found = {
        "ratios": overhead.ratios(runs), "failures": ["ensemble, 8 in flight: it hangs"],
        "intervals": [
            {"interval_ms": None, **overhead.tokens(None)},
            {"interval_ms": 20.0, "tokens_per_s": 5000.0, "chunks_per_s": 2500.0, "p50_ms": 9.0},
            {
                "interval_ms": 20.0, "budget_chunks_per_s": 1000.0,
                "tokens_per_s": 5500.0, "chunks_per_s": 900.0, "p50_ms": 8.0,
            },
        ],
        "ceiling_chunks_per_s": [9000.0, 9100.0], "alone_tokens_per_s": 6000.0,
    }  # fmt: skip
    text = table.render([{"measurement": "overhead", **HEAD, **found}])
    assert "| 128 | parts | 1 | 256 | 100.00 | 80.00 | 0.800 (0.800 to 0.800) |" in text
    assert "| 20 ms | 5000 | 2500 | 9 |" in text
    assert "| 20 ms, 1000 chunks/s at most | 5500 | 900 | 8 |" in text
    assert "| whole | - | - | - |" in text
    assert "| none: the engine's own API, whole | 6000 |" in text
    assert "9000, 9100 chunks/s" in text
    assert "- failed: ensemble, 8 in flight: it hangs" in text


def test_prefixes_are_paired_by_round() -> None:
    cells = [
        {
            "round": turn, "level": 1, "system_tokens": 0, "tail_tokens": 64, "shared": shared,
            "prefix_tokens": 24, "joules_per_request": joules, "from_cache": cached,
        }
        for turn, shared, joules, cached in (
            (0, True, 1.5, 0.25), (0, False, 2.0, 0.0), (1, False, 4.0, 0.0), (1, True, 3.0, 0.25)
        )
    ]  # fmt: skip
    text = table.render([{"measurement": "prefix", **HEAD, "cells": cells, "failed": "X: gone"}])
    assert "| L1 |  | 24 | 64 | 3.00 ± 12.71 | 2.25 ± 9.53 | 25.0% ± 0.0% | 25.0% | 0.0% |" in text
    assert "Broken off: X: gone" in text
