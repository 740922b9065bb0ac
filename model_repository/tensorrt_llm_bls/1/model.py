# SPDX-License-Identifier: Apache-2.0
"""Triton's side of `tensorrt_llm_bls`; threads and cancels are sprout.request.bls's."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from sprout.errors import EngineError, RequestCancelled, RequestError, SproutError
from sprout.request.bls import Desk, forwarded
from sprout.request.responses import Responses
from sprout.request.settings import BlsSettings, Parameters
from sprout.request.tensors import Array

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
# The one answer is gathered anyway: fewer and larger chunks.
_NOT_FORWARDED = {"stream"}


class ChainError(SproutError):
    """What a model inside said, with the code that it said it under."""

    def __init__(self, error: Any) -> None:
        super().__init__(error.message())
        self.code = error.code()


class TritonCall:
    """One request to this model."""

    def __init__(self, request: Any, settings: BlsSettings, responses: Responses) -> None:
        self._request = request
        self._responses = responses
        self._sender = request.get_response_sender()
        self._settings = settings
        self._wanted = set(request.requested_output_names())

    def cancelled(self) -> bool:
        return bool(self._request.is_cancelled())

    def chunks(self, inner_id: str) -> Iterator[Mapping[str, Array]]:
        # Shapes as the chain wants them: this model may have been given scalars without theirs.
        inputs = [
            pb_utils.Tensor(tensor.name(), tensor.as_numpy().reshape(1, -1))
            for tensor in self._request.inputs()
            if tensor.name() not in _NOT_FORWARDED
        ]
        inner = pb_utils.InferenceRequest(
            model_name=self._settings.chain,
            request_id=inner_id,
            # Without the text there would be no telling whether an answer came.
            requested_output_names=[
                name
                for name in self._settings.outputs
                if name in self._wanted or name == "text_output"
            ],
            inputs=inputs,
            parameters=forwarded(self._request.parameters()),
        )
        error: ChainError | None = None
        # To their end, even behind an error.
        for response in self._responses.of(inner.exec(decoupled=True)):
            if response.has_error():
                error = error or ChainError(response.error())
                continue
            tensors = response.output_tensors()
            if tensors and error is None:
                yield {tensor.name(): tensor.as_numpy() for tensor in tensors}
        if error is not None:
            raise error

    def stop(self, inner_id: str) -> None:
        zero = np.zeros((1, 1), np.int32)
        inputs = [
            pb_utils.Tensor("input_ids", zero),
            pb_utils.Tensor("input_lengths", zero),
            pb_utils.Tensor("request_output_len", zero),
            pb_utils.Tensor("stop", np.ones((1, 1), bool)),
        ]
        inner = pb_utils.InferenceRequest(
            model_name=self._settings.engine,
            request_id=inner_id,
            requested_output_names=["output_ids"],
            inputs=inputs,
        )
        for _ in self._responses.of(inner.exec(decoupled=True)):
            pass

    def answer(self, outputs: Mapping[str, Array]) -> None:
        tensors = [
            pb_utils.Tensor(name, array) for name, array in outputs.items() if name in self._wanted
        ]
        self._sender.send(pb_utils.InferenceResponse(output_tensors=tensors), flags=_FINAL)

    def fail(self, error: SproutError) -> None:
        # UTF-8 alone: an error may quote text that is none.
        message = str(error).encode(errors="replace").decode()
        failed = pb_utils.TritonError(message, _code(error))
        self._sender.send(pb_utils.InferenceResponse(error=failed), flags=_FINAL)


class TritonPythonModel:
    """Hands each request to a thread and is free for the next."""

    def initialize(self, args: dict[str, str]) -> None:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        parameters = Parameters.of_model(args["model_config"])
        self._settings = BlsSettings.read(parameters, args["model_instance_name"])
        self._desk = Desk.open(self._settings)
        self._responses = Responses()

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            self._desk.take(TritonCall(request, self._settings, self._responses))

    def finalize(self) -> None:
        self._desk.close()


def _code(error: SproutError) -> Any:
    if isinstance(error, ChainError):
        return error.code
    if isinstance(error, RequestCancelled):
        return pb_utils.TritonError.CANCELLED
    if isinstance(error, RequestError):
        return pb_utils.TritonError.INVALID_ARG
    if isinstance(error, EngineError):
        return pb_utils.TritonError.UNAVAILABLE
    return pb_utils.TritonError.INTERNAL
