# SPDX-License-Identifier: Apache-2.0
"""A client of `ensemble` over gRPC streaming: text as it comes, the receipt at the end."""

import contextlib
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import nan
from typing import Any, Self

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from sprout.errors import EngineError, EngineUnavailable, RequestError, SproutError

MODEL = "ensemble"
# Errors of a stream with their status, which otherwise is text alone. Triton ends the stream then.
_HEADERS = {"triton_grpc_error": "true"}


@dataclass(frozen=True)
class Receipt:
    """What the client gets back with the last chunk."""

    level: int
    policy_version: int
    energy_joules: float  # nan: not known (no agent, or a meter stood still meanwhile)
    carbon_g: float  # nan: no joules, or no intensity was known
    intensity_g_per_kwh: float  # nan: unknown


@dataclass
class Answer:
    """One answer, as far as it has come."""

    text: str = ""
    chunks: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0  # from sending to the end
    first_chunk_s: float = float("nan")
    receipt: Receipt | None = None
    extra: dict[str, Any] = field(default_factory=dict)  # other outputs, as they came


class Client:
    """One connection to Triton. Not for use by several threads at once."""

    def __init__(self, address: str) -> None:
        """address: "host:port" of Triton's gRPC service."""
        self._address = address
        self._client = triton.InferenceServerClient(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def ask(
        self,
        text: str,
        *,
        max_tokens: int = 256,
        level: str | None = None,
        off: bool = False,
        task: str | None = None,
        tenant: str | None = None,
        request_id: str = "",
        options: Mapping[str, Any] | None = None,
        marks: Mapping[str, str | bool] | None = None,
        timeout_s: float = 120.0,
        on_text: Callable[[str], None] = lambda _: None,
    ) -> Answer:
        """One prompt. `level` pins a level by name, `off` asks for L0, `tenant` and `task` say of
        whom it is and of which class.

        options: further ensemble inputs by name (`temperature`, `seed`, …).
        marks: further request parameters by name.
        Raises EngineUnavailable where Triton can't be reached or goes away under the request,
        RequestError where the request is refused for what it is, EngineError where Triton answers
        with another error, or not within `timeout_s`.
        """
        hints: dict[str, Any] = {
            "sprout_level": level,
            "sprout_off": off or None,
            "sprout_task": task,
            "sprout_tenant": tenant,
            **(marks or {}),
        }
        parameters = {key: value for key, value in hints.items() if value is not None}
        tensors: dict[str, Any] = {
            "text_input": text,
            "max_tokens": max_tokens,
            "stream": True,
            "return_num_input_tokens": True,
            "return_num_output_tokens": True,
            "return_perf_metrics": True,
            **(options or {}),
        }
        results: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        answer, started = Answer(), time.monotonic()
        try:
            self._client.start_stream(
                lambda result, error: results.put((result, error)), headers=_HEADERS
            )
            try:
                self._client.async_stream_infer(
                    MODEL,
                    [_tensor(name, value) for name, value in tensors.items()],
                    request_id=request_id,
                    enable_empty_final_response=True,
                    parameters=parameters,
                )
                self._collect(results, answer, started, timeout_s, on_text)
            finally:
                # Else it waits for the answer's end; its own "cancelled" is no news.
                with contextlib.suppress(InferenceServerException):
                    self._client.stop_stream(cancel_requests=answer.receipt is None)
        except InferenceServerException as error:
            if "no longer in valid state" in str(error):
                # A connection that failed under `async_stream_infer` told the callback why.
                error = next((e for _, e in _drained(results) if e is not None), error)
            raise _translated(error, self._address) from None
        return answer

    @staticmethod
    def _collect(
        results: "queue.SimpleQueue[tuple[Any, Any]]",
        answer: Answer,
        started: float,
        timeout_s: float,
        on_text: Callable[[str], None],
    ) -> None:
        while True:
            try:
                left = timeout_s - (time.monotonic() - started)
                result, error = results.get(timeout=max(0.0, left))
            except queue.Empty:
                raise EngineError(f"no end of the answer within {timeout_s:g} s") from None
            answer.seconds = time.monotonic() - started
            if error is not None:
                raise error
            _take(result, answer, on_text)
            if result.get_response().parameters["triton_final_response"].bool_param:
                return


def _drained(results: "queue.SimpleQueue[tuple[Any, Any]]") -> Iterator[tuple[Any, Any]]:
    with contextlib.suppress(queue.Empty):
        while True:
            yield results.get_nowait()


def _take(result: Any, answer: Answer, on_text: Callable[[str], None]) -> None:
    """Adds one response to the answer."""
    values = {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}
    if not values:
        return  # the empty final one
    text = b"".join(np.ravel(values.pop("text_output", np.empty(0, object)))).decode()
    if answer.chunks == 0:
        answer.first_chunk_s = answer.seconds
    answer.chunks += 1
    answer.text += text
    on_text(text)
    last = {name: np.ravel(value)[0].item() for name, value in values.items() if value.size}
    answer.input_tokens = last.pop("num_input_tokens", answer.input_tokens)
    answer.output_tokens = last.pop("num_output_tokens", answer.output_tokens)
    if "directive_level" in last:
        answer.receipt = Receipt(
            level=last.pop("directive_level"),
            policy_version=last.pop("policy_version", 0),
            energy_joules=last.pop("energy_joules", nan),
            carbon_g=last.pop("carbon_grams", nan),
            intensity_g_per_kwh=last.pop("carbon_intensity", nan),
        )
    answer.extra.update(last)


_DTYPES: dict[str, tuple[str, Any]] = {
    "seed": ("UINT64", np.uint64),
    **dict.fromkeys(
        (
            "temperature",
            "top_p",
            "length_penalty",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
        ),
        ("FP32", np.float32),
    ),
}


def _tensor(name: str, value: Any) -> triton.InferInput:
    """(1, n) tensor of an ensemble input; its dtype follows the name, then the value."""
    values = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    if name in _DTYPES:
        dtype, kind = _DTYPES[name]
        array = np.array([values], dtype=kind)
    elif isinstance(values[0], bool):
        dtype, array = "BOOL", np.array([values], dtype=bool)
    elif isinstance(values[0], int):
        dtype, array = "INT32", np.array([values], dtype=np.int32)
    elif isinstance(values[0], float):
        dtype, array = "FP32", np.array([values], dtype=np.float32)
    else:
        dtype, array = "BYTES", np.array([[str(v).encode() for v in values]], dtype=object)
    tensor = triton.InferInput(name, array.shape, dtype)
    tensor.set_data_from_numpy(array)
    return tensor


def _translated(error: Any, address: str) -> SproutError:
    message, status = error.message() or str(error), str(error.status() or "")
    if "INVALID_ARGUMENT" in status:
        return RequestError(message)
    # A model that answers UNAVAILABLE, for its engine is full or gone, has Triton say whose it is.
    answered = message.startswith(f"in ensemble '{MODEL}'")
    away = "UNAVAILABLE" in status or "failed to connect" in message.lower()
    if away and not answered:
        return EngineUnavailable(f"Triton at {address} is not reachable, or went away: {message}")
    return EngineError(message)
