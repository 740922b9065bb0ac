# SPDX-License-Identifier: Apache-2.0
"""Triton's side of `postprocessing`; the work is done in sprout.request.postprocess."""

import gc
import logging
from functools import lru_cache
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from sprout.errors import RequestError, SproutError
from sprout.request.postprocess import Postprocessor
from sprout.request.settings import Parameters, PostprocessSettings

log = logging.getLogger(__name__)

# Parts of a receipt that few values are taken of: their tensors, and the shared memory that these
# lie in, are made once.
_CONSTANTS = {"DIRECTIVE_LEVEL", "POLICY_VERSION", "CARBON_INTENSITY"}


class TritonPythonModel:
    """One response per chunk, in order; a chunk that fails fails alone."""

    def initialize(self, args: dict[str, str]) -> None:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        parameters = Parameters.of_model(args["model_config"])
        settings = PostprocessSettings.read(parameters, args["model_instance_name"])
        self._postprocessor = Postprocessor.open(settings)
        gc.freeze()  # the vocabulary and all that was imported stay: no collection need look again

    def execute(self, requests: list[Any]) -> list[Any]:
        try:
            results = self._postprocessor.process(
                [{t.name(): t.as_numpy() for t in request.inputs()} for request in requests],
                [r.request_id() for r in requests] if self._postprocessor.pieces else (),
            )
        except Exception as error:
            log.exception("a batch failed")
            return [_failed(error) for _ in requests]
        return [
            _failed(result)
            if isinstance(result, SproutError)
            else pb_utils.InferenceResponse(
                output_tensors=[
                    _constant(name, array.item(), array.dtype)
                    if name in _CONSTANTS
                    else pb_utils.Tensor(name, array)
                    for name, array in result.items()
                ]
            )
            for result in results
        ]

    def finalize(self) -> None:
        self._postprocessor.close()


@lru_cache(maxsize=64)
def _constant(name: str, value: float, dtype: Any) -> Any:
    return pb_utils.Tensor(name, np.array([[value]], dtype))


def _failed(error: Exception) -> Any:
    code = pb_utils.TritonError.INTERNAL
    if isinstance(error, RequestError):
        code = pb_utils.TritonError.INVALID_ARG
    message = str(error) if isinstance(error, SproutError) else f"postprocessing failed: {error}"
    message = message.encode(errors="replace").decode()  # UTF-8 alone, whatever it quotes
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
