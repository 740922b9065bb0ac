# SPDX-License-Identifier: Apache-2.0
"""Repositories rendered for TensorRT-LLM in a real Triton 2.51, with another engine in the slot.

TensorRT-LLM itself can't be had here. Everything around it can: each test changes the slot alone.
"""

import json
import queue
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tiny_tokenizer
from rendered import move, put_in_the_slot, rendered
from triton_process import TritonProcess
from waiting import PATIENCE_S

from sprout.directives import pack

grpcclient = pytest.importorskip("tritonclient.grpc")
utils = pytest.importorskip("tritonclient.utils")

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(find_spec("pytriton") is None, reason="needs nvidia-pytriton"),
]

PACK = pack("explicit")
SYSTEM = f"{PACK.base_system_prompt} {PACK.directives[1]}"

# Every declared output in its declared type, and on the side what it was given.
STAND_IN = """
import json
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.seen = config["parameters"]["lora_prefetch_dir"]["string_value"]
        self.outputs = []
        for output in config["output"]:
            shape = [1] + [2 if int(d) < 0 else int(d) for d in output["dims"]]
            if output["name"] == "output_ids":
                shape = [1, 1, 2]
            if output["name"] == "sequence_length":
                shape = [1, 1]
            kind = pb_utils.triton_string_to_numpy(output["data_type"])
            value = np.full(shape, 2, kind) if output["name"] == "sequence_length" else (
                np.arange(np.prod(shape)).reshape(shape) + 68).astype(kind)
            self.outputs.append(pb_utils.Tensor(output["name"], value))

    def execute(self, requests):
        for request in requests:
            given = {t.name(): [str(t.as_numpy().dtype), list(t.as_numpy().shape)]
                     for t in request.inputs()}
            with open(self.seen, "w") as file:
                json.dump(given, file)
            wanted = set(request.requested_output_names())
            request.get_response_sender().send(
                pb_utils.InferenceResponse([t for t in self.outputs if t.name() in wanted]),
                flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


def start(
    folder: Path, memory: Path, engine: str, substitutions: str, **more: Any
) -> TritonProcess:
    repository = rendered(folder, engine, **more.pop("fields", {}))
    if engine == "llmapi":
        text = (repository / "tensorrt_llm" / "config.pbtxt").read_text()
        assert text.count('string_value: "llmapi"') == 1
        text = text.replace('string_value: "llmapi"', 'string_value: "${sprout_engine}"')
        (repository / "tensorrt_llm" / "config.pbtxt").write_text(text)
    put_in_the_slot(repository, substitutions, **more)
    tokenizer = tiny_tokenizer.llama2(folder / "tokenizer")
    memory.chmod(0o700)
    move(repository, {"/models/checkpoint": tokenizer, "/run/sprout": memory})
    return TritonProcess(folder, repository)


@pytest.fixture(params=["tensorrtllm", "llmapi"])
def echo(request: pytest.FixtureRequest, tmp_path: Path, memory: Path) -> Iterator[TritonProcess]:
    server = start(tmp_path, memory, request.param, "sprout_engine:echo")
    yield server
    server.stop()


def post(server: TritonProcess, model: str, **fields: Any) -> dict[str, Any]:
    body = {"text_input": "Hi", "max_tokens": 4} | fields
    answer = httpx.post(f"{server.http}/v2/models/{model}/generate", json=body, timeout=PATIENCE_S)
    return answer.json() | {"status": answer.status_code}


def test_chain_with_echo_in_the_slot(echo: TritonProcess, request: pytest.FixtureRequest) -> None:
    prompt = f"[INST] <<SYS>>\n{SYSTEM}\n<</SYS>>\n\nHi [/INST]"
    length = len(prompt.encode()) + 1  # and <s>
    for model in ("ensemble", "tensorrt_llm_bls"):
        got = post(echo, model, max_tokens=length, sprout_level="L1", return_num_output_tokens=True)
        # Echo answers with the prompt: it is there once, so the prompt itself was left out.
        assert (got["status"], got["text_output"]) == (200, prompt)
        assert got["num_output_tokens"] == length
        # The C++ backend can't echo a flight, so its repository wires none: no receipt.
        assert ("directive_level" in got) == ("llmapi" in request.node.name)
    plain = post(echo, "ensemble", max_tokens=15, sprout_level="L0")
    assert plain["text_output"] == "[INST] Hi [/INST]"[:14]
    twice = post(echo, "ensemble", max_tokens=4, sprout_level="L0", exclude_input_in_output=False)
    assert twice["text_output"] == "[INST] Hi [/INST]" + "[IN"
    refused = post(echo, "ensemble", max_tokens=0)
    assert refused["status"] == 400
    assert "max_tokens must be at least 1" in refused["error"]
    url = f"{echo.http}/v2/models/ensemble/generate_stream"
    body = {"text_input": "Hi", "max_tokens": 18, "stream": True, "sprout_level": "L0"}
    with httpx.stream("POST", url, json=body, timeout=PATIENCE_S) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert "".join(event["text_output"] for event in events) == "[INST] Hi [/INST]"


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Where the stand-in says what it was given."""
    return tmp_path / "given.json"


@pytest.fixture(params=[True, False], ids=["decoupled", "coupled"])
def stand_in(
    request: pytest.FixtureRequest, tmp_path: Path, memory: Path, given: Path
) -> Iterator[TritonProcess]:
    server = start(
        tmp_path,
        memory,
        "tensorrtllm",
        f"lora_prefetch_dir:{given}",
        model=STAND_IN,
        fields={"decoupled": request.param},
    )
    yield server
    server.stop()


ASKED = {
    "text_input": np.array([[b"Hi"]], object),
    "max_tokens": np.array([[4]], np.int32),
    "stop_words": np.array([[b"ab", b"", b"c"]], object),
    "return_log_probs": np.array([[True]]),
    "return_context_logits": np.array([[True]]),
    "return_generation_logits": np.array([[True]]),
    "return_perf_metrics": np.array([[True]]),
    "top_k": np.array([[1]], np.int32),
    "lora_task_id": np.array([[2**40]], np.uint64),
    "lora_weights": np.ones((1, 2, 3), np.float16),
    "lora_config": np.ones((1, 2, 3), np.int32),
    "guided_decoding_guide_type": np.array([[b"json"]], object),
    "guided_decoding_guide": np.array([[b"{}"]], object),
}
PASSED = {
    "cum_log_probs": [[68, 69]],
    "output_log_probs": [[[68, 69], [70, 71]]],
    "context_logits": [[[68, 69], [70, 71]]],
    "generation_logits": [[[[68, 69], [70, 71]], [[72, 73], [74, 75]]]],
    "kv_cache_alloc_new_blocks": [[68]],
    "kv_cache_reused_blocks": [[68]],
    "kv_cache_alloc_total_blocks": [[68]],
    "acceptance_rate": [[68]],
    "total_accepted_draft_tokens": [[68]],
    "total_draft_tokens": [[68]],
    "batch_index": [[68]],
    "sequence_index": [[68]],
    "arrival_time_ns": [[68]],
    "first_scheduled_time_ns": [[68]],
    "first_token_time_ns": [[68]],
    "last_token_time_ns": [[68]],
    "num_input_tokens": [[68]],
    "num_output_tokens": [[68]],
}


def inputs(**tensors: np.ndarray) -> list[Any]:
    made = []
    for name, array in tensors.items():
        tensor = grpcclient.InferInput(name, array.shape, utils.np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def test_every_stock_tensor_passes_through(
    stand_in: TritonProcess, given: Path, request: pytest.FixtureRequest
) -> None:
    with grpcclient.InferenceServerClient(stand_in.grpc) as client:
        if "decoupled" in request.node.name:
            answers: queue.Queue[Any] = queue.Queue()
            client.start_stream(callback=lambda result, error: answers.put((result, error)))
            client.async_stream_infer("ensemble", inputs(**ASKED))
            result, error = answers.get(timeout=PATIENCE_S)
            assert error is None, error
            client.stop_stream()
        else:
            result = client.infer("ensemble", inputs(**ASKED))
        check(result)
        engine = json.loads(given.read_text())
        # Two words of one and two bytes, the empty one skipped: ids, then where each ends.
        assert engine["stop_words_list"] == ["int32", [1, 2, 3]]
        assert engine["end_id"] == engine["pad_id"] == ["int32", [1]]
        assert engine["input_lengths"] == ["int32", [1]]
        assert engine["lora_weights"] == ["float16", [1, 2, 3]]
        assert engine["lora_config"] == ["int32", [1, 2, 3]]
        assert engine["lora_task_id"] == ["uint64", [1]]
        assert engine["guided_decoding_guide"] == ["object", [1, 1]]
        for name in ("return_log_probs", "return_context_logits", "return_generation_logits"):
            assert engine[name] == ["bool", [1]], name
        assert "flight" not in engine
        # The unary model has no adapters: a row is all that it passes on.
        unary = {k: v for k, v in ASKED.items() if k not in ("lora_weights", "lora_config")}
        # Scalars come without their batch dimension to it, as stock has it.
        check(client.infer("tensorrt_llm_bls", inputs(**unary)))


def check(result: Any) -> None:
    assert result.as_numpy("text_output").item() == b"AB"  # ids 68 and 69
    for name, want in PASSED.items():
        got = result.as_numpy(name)
        assert got is not None, name
        assert got.tolist() == want, name
