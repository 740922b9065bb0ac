# SPDX-License-Identifier: Apache-2.0
"""Triton's side of `preprocessing`; the work is done in sprout.request.preprocess."""

import gc
import logging
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from sprout.errors import RequestError, SproutError
from sprout.request.preprocess import Prepared, Preprocessor, Prompt
from sprout.request.settings import Parameters, PreprocessSettings

log = logging.getLogger(__name__)


class TritonPythonModel:
    """One response per request, in order; a request that fails fails alone."""

    def initialize(self, args: dict[str, str]) -> None:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        parameters = Parameters.of_model(args["model_config"])
        settings = PreprocessSettings.read(parameters, args["model_instance_name"])
        self._preprocessor = Preprocessor.open(settings)
        gc.freeze()  # the tokenizer and all that was imported stay: no collection need look again

    def execute(self, requests: list[Any]) -> list[Any]:
        try:
            results = self._preprocessor.prepare([_prompt(request) for request in requests])
        except Exception as error:
            log.exception("a batch failed")
            return [_failed(error) for _ in requests]
        return [
            self._response(result) if isinstance(result, Prepared) else _failed(result)
            for result in results
        ]

    def finalize(self) -> None:
        self._preprocessor.close()

    def _response(self, prepared: Prepared) -> Any:
        tensors = [pb_utils.Tensor(name, array) for name, array in prepared.outputs.items()]
        # Last: a flight that is opened is a flight that the engine gets.
        ticket = np.array([[self._preprocessor.open_flight(prepared)]], np.uint64)
        tensors.append(pb_utils.Tensor("FLIGHT", ticket))
        return pb_utils.InferenceResponse(output_tensors=tensors)


def _prompt(request: Any) -> Prompt:
    tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
    return Prompt(tensors, request.parameters())


def _failed(error: Exception) -> Any:
    code = pb_utils.TritonError.INTERNAL
    if isinstance(error, RequestError):
        code = pb_utils.TritonError.INVALID_ARG
    message = str(error) if isinstance(error, SproutError) else f"preprocessing failed: {error}"
    message = message.encode(errors="replace").decode()  # UTF-8 alone, whatever it quotes
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
