# SPDX-License-Identifier: Apache-2.0
"""The `tensorrt_llm` model with an engine of Sprout's behind it: Triton's objects in and out.

What it does stands in `sprout.engines.slot`.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from sprout.engines.settings import SlotSettings
from sprout.engines.slot import Slot
from sprout.errors import EngineBusy, EngineUnavailable, RequestError, SproutError

log = logging.getLogger("sprout.tensorrt_llm")

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        logging.getLogger("httpx").setLevel(logging.WARNING)  # a line per request
        self._slot = Slot(SlotSettings.from_model_config(json.loads(args["model_config"])))

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            responder = _Responder(request.get_response_sender())
            try:
                inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
                self._slot.accept(request.request_id(), inputs, responder)
            except Exception as error:  # a broken request fails alone, never its batch
                log.exception("request %r", request.request_id())
                responder.fail(SproutError(f"{type(error).__name__}: {error}"))

    def finalize(self) -> None:
        self._slot.close()


class _Responder:
    """`sprout.engines.slot.Responder` over Triton's response sender."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender

    def send(self, tensors: Mapping[str, NDArray[Any]], final: bool) -> None:
        outputs = [pb_utils.Tensor(name, value) for name, value in tensors.items()]
        response = pb_utils.InferenceResponse(output_tensors=outputs)
        self._sender.send(response, flags=_FINAL if final else 0)

    def fail(self, error: SproutError) -> None:
        self._end(str(error), _code(error))

    def abandon(self) -> None:
        self._end("the client cancelled the request", pb_utils.TritonError.CANCELLED)

    def is_cancelled(self) -> bool:
        return bool(self._sender.is_cancelled())

    def _end(self, message: str, code: Any) -> None:
        # It takes UTF-8 alone: what a server says may hold half a surrogate pair.
        message = message.encode(errors="replace").decode()
        error = pb_utils.TritonError(message, code)
        response = pb_utils.InferenceResponse(output_tensors=[], error=error)
        self._sender.send(response, flags=_FINAL)


def _code(error: SproutError) -> Any:
    if isinstance(error, RequestError):
        return pb_utils.TritonError.INVALID_ARG
    if isinstance(error, EngineUnavailable | EngineBusy):
        return pb_utils.TritonError.UNAVAILABLE
    return pb_utils.TritonError.INTERNAL
