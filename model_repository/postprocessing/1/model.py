# SPDX-License-Identifier: Apache-2.0
"""Triton's side of `postprocessing`; the work is done in sprout.request.postprocess."""

import logging
from typing import Any

import triton_python_backend_utils as pb_utils

from sprout.errors import RequestError, SproutError
from sprout.request.postprocess import Postprocessor
from sprout.request.settings import Parameters, PostprocessSettings

log = logging.getLogger(__name__)


class TritonPythonModel:
    """One response per chunk, in order; a chunk that fails fails alone."""

    def initialize(self, args: dict[str, str]) -> None:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        parameters = Parameters.of_model(args["model_config"])
        settings = PostprocessSettings.read(parameters, args["model_instance_name"])
        self._postprocessor = Postprocessor.open(settings)

    def execute(self, requests: list[Any]) -> list[Any]:
        try:
            results = self._postprocessor.process(
                [{t.name(): t.as_numpy() for t in request.inputs()} for request in requests]
            )
        except Exception as error:
            log.exception("a batch failed")
            return [_failed(error) for _ in requests]
        return [
            _failed(result)
            if isinstance(result, SproutError)
            else pb_utils.InferenceResponse(
                output_tensors=[pb_utils.Tensor(name, array) for name, array in result.items()]
            )
            for result in results
        ]

    def finalize(self) -> None:
        self._postprocessor.close()


def _failed(error: Exception) -> Any:
    code = pb_utils.TritonError.INTERNAL
    if isinstance(error, RequestError):
        code = pb_utils.TritonError.INVALID_ARG
    message = str(error) if isinstance(error, SproutError) else f"postprocessing failed: {error}"
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
