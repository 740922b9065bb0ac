# SPDX-License-Identifier: Apache-2.0
"""A real Triton with the `tensorrt_llm` model alone, and a client for its tensors."""

import os
import queue
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import np_to_triton_dtype

from sprout.config import Config, TritonConfig
from sprout.serve import bundle, ports
from sprout.serve.render import render, repository_source
from sprout.serve.triton import find_stubs, remove_leftovers, server_command

START_S = 60.0
WAIT_S = 60.0
_SCALARS = {
    "input_lengths": np.int32,
    "request_output_len": np.int32,
    "end_id": np.int32,
    "beam_width": np.int32,
    "min_tokens": np.int32,
    "runtime_top_k": np.int32,
    "runtime_top_p": np.float32,
    "temperature": np.float32,
    "repetition_penalty": np.float32,
    "seed": np.uint64,
    "flight": np.uint64,
}


class TritonSlot:
    """parameters: of the model, by placeholder. Everything it makes is gone after `stop`."""

    def __init__(self, folder: Path, parameters: Mapping[str, str]) -> None:
        source = folder / "source"
        shutil.copytree(repository_source() / "tensorrt_llm", source / "tensorrt_llm")
        values = {
            "triton_backend": "python",
            "triton_max_batch_size": "8",
            "decoupled_mode": "True",
            "logits_datatype": "TYPE_FP32",
            "encoder_input_features_data_type": "TYPE_FP16",
            "prompt_embedding_table_data_type": "TYPE_FP16",
        }
        render(source, folder / "repository", values | dict(parameters))
        cfg = Config(triton=TritonConfig(http_port=0, grpc_port=0, metrics_port=0))
        cfg = ports.resolve(cfg, {"triton"})
        parts = bundle.find()
        bundle.install_backend(parts, folder / "backends")
        self._prefix = f"sprout-test-{os.getpid()}-{secrets.token_hex(4)}."
        self.grpc = f"127.0.0.1:{cfg.triton.grpc_port}"
        self._http = f"http://127.0.0.1:{cfg.triton.http_port}"
        self._log = folder / "triton.log"
        command = server_command(
            parts,
            cfg,
            repository=folder / "repository",
            backends=folder / "backends",
            region_prefix=self._prefix,
            exit_timeout_s=3,
        )
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=bundle.environment(parts, os.environ),
                start_new_session=True,
            )
        try:
            self._wait_ready()
        except BaseException:
            self.stop()
            raise

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            assert self.process.poll() is None, self._log.read_text()[-4000:]
            assert time.monotonic() < deadline, "Triton did not become ready"
            try:
                if httpx.get(f"{self._http}/v2/health/ready", trust_env=False).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)

    def stubs(self) -> dict[int, int]:
        return find_stubs(self.process.pid)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> float:
        """Seconds that it took."""
        begun = time.monotonic()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        remove_leftovers(self._prefix)
        return time.monotonic() - begun


@dataclass
class Answer:
    """What came back on one stream."""

    results: list[triton.InferResult] = field(default_factory=list)
    error: Exception | None = None

    @property
    def ids(self) -> list[int]:
        return [
            int(token) for result in self.results for token in result.as_numpy("output_ids").flat
        ]

    def last(self, name: str) -> Any:
        return self.results[-1].as_numpy(name)


class Stream:
    """One gRPC stream with one request on it."""

    def __init__(self, slot: TritonSlot, inputs: Mapping[str, Any], request_id: str = "") -> None:
        self._events: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self._client = triton.InferenceServerClient(slot.grpc)
        self._client.start_stream(callback=lambda result, error: self._events.put((result, error)))
        tensors = []
        for name, value in inputs.items():
            array = value
            if not isinstance(value, np.ndarray):
                array = np.array([[value]], bool if isinstance(value, bool) else _SCALARS[name])
            tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        self._client.async_stream_infer(
            "tensorrt_llm", tensors, request_id=request_id, enable_empty_final_response=True
        )
        self.answer = Answer()
        self.over = False

    def next(self) -> None:
        """Takes one response."""
        result, error = self._events.get(timeout=WAIT_S)
        if error is not None:
            self.answer.error, self.over = error, True
            return
        response = result.get_response()
        if response.outputs:
            self.answer.results.append(result)
        self.over = response.parameters["triton_final_response"].bool_param

    def finish(self) -> Answer:
        while not self.over:
            self.next()
        self._client.stop_stream()
        self._client.close()
        return self.answer

    def cancel(self) -> None:
        """Goes away without waiting for the end."""
        self._client.stop_stream(cancel_requests=True)
        self._client.close()


def prompt(ids: list[int], tokens: int, **more: Any) -> dict[str, Any]:
    """The inputs of a generation; scalars as plain numbers."""
    inputs = {"input_ids": np.array([ids], np.int32), "input_lengths": len(ids)}
    return inputs | {"request_output_len": tokens, "streaming": True} | more
