# SPDX-License-Identifier: Apache-2.0
"""A real Triton with the `tensorrt_llm` model alone, and a client for its tensors."""

import queue
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from triton_process import TritonProcess
from tritonclient.utils import np_to_triton_dtype
from waiting import PATIENCE_S

from sprout.serve.render import render, repository_source

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


class TritonSlot(TritonProcess):
    """parameters: of the model, by placeholder."""

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
        super().__init__(folder, folder / "repository")


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
        result, error = self._events.get(timeout=PATIENCE_S)
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
