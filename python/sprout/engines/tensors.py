# SPDX-License-Identifier: Apache-2.0
"""Tensors of the `tensorrt_llm` contract to a Generation, and a Chunk back to tensors.

Shapes carry the batch dimension, which is 1: a client sends sequences as requests of their own.
Scalars come as (1,), because the contract reshapes [1] to [].
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprout.engines.base import Chunk, Generation
from sprout.engines.options import parse_word_list, refuse_unsupported
from sprout.errors import RequestError

Tensors = Mapping[str, NDArray[Any]]

_ZERO = np.zeros((1, 1), np.int32)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the slot: what to generate, and what the responses hold."""

    generation: Generation
    ticket: int  # of the flight ledger, 0 = no flight
    streaming: bool
    echo_input: bool  # the prompt's ids lead the answer (not when streaming, as stock)
    indices: bool  # which sequence it is; of interest to who asks for several
    perf_metrics: bool
    num_input_tokens: bool
    num_output_tokens: bool


def is_stop(inputs: Tensors) -> bool:
    """The stock `stop` request."""
    return bool(_scalar(inputs, "stop") or False)


def ticket_of(inputs: Tensors) -> int:
    """The flight's ticket, 0 without one. Never raises: a broken request has a flight too."""
    value = inputs.get("flight")
    return int(value.flat[0]) if value is not None and value.size == 1 else 0


def parse(engine: str, request_id: str, inputs: Tensors, exclude_input: bool) -> Asked:
    """Checks everything that needs no engine.

    engine: its name, which decides what options are refused (UnsupportedOption).
    exclude_input: the model's parameter, for requests that do not say.
    Raises RequestError with the tensor's name.
    """
    refuse_unsupported(engine, inputs)
    streaming = bool(_scalar(inputs, "streaming") or False)
    excluded = _scalar(inputs, "exclude_input_in_output")
    generation = Generation(
        request_id=request_id,
        input_ids=_input_ids(inputs),
        max_tokens=_max_tokens(inputs),
        end_id=_at_least(inputs, "end_id", -1),
        stop_words=_stop_words(inputs),
        temperature=_at_least(inputs, "temperature", 0),
        # Zero and less mean "not set" for these two, as in the stock slot.
        top_k=_positive(inputs, "runtime_top_k"),
        top_p=_positive(inputs, "runtime_top_p"),
        seed=_scalar(inputs, "seed"),
        min_tokens=_positive(inputs, "min_tokens"),
        repetition_penalty=_repetition_penalty(inputs),
        presence_penalty=_finite(inputs, "presence_penalty"),
        frequency_penalty=_finite(inputs, "frequency_penalty"),
    )
    if generation.top_p is not None and generation.top_p > 1:
        raise RequestError(f"runtime_top_p: {generation.top_p:g}, must be at most 1")
    return Asked(
        generation,
        ticket_of(inputs),
        streaming,
        echo_input=not streaming and not (exclude_input if excluded is None else excluded),
        indices="num_return_sequences" in inputs,
        perf_metrics=bool(_scalar(inputs, "return_perf_metrics")),
        num_input_tokens=bool(_scalar(inputs, "return_num_input_tokens")),
        num_output_tokens=bool(_scalar(inputs, "return_num_output_tokens")),
    )


def response(asked: Asked, chunk: Chunk) -> dict[str, NDArray[Any]]:
    """The output tensors of one data response, with the batch dimension.

    The last one is known by `flight`, which then holds [ticket, time of the last token], or, where
    there is no flight, by `last_token_time_ns`. What nobody asked for is left out: in an ensemble
    each tensor costs as much as several microseconds of work.
    """
    ids = chunk.token_ids
    if asked.echo_input:
        ids = asked.generation.input_ids.tolist() + ids
    tensors: dict[str, NDArray[Any]] = {
        "output_ids": np.array(ids, np.int32).reshape(1, 1, -1),
        "sequence_length": np.array([[len(ids)]], np.int32),
    }
    end = chunk.end
    if asked.ticket:
        flight = [asked.ticket] if end is None else [asked.ticket, end.last_token_ns]
        tensors["flight"] = np.array([flight], np.uint64)
    if asked.indices:
        tensors["batch_index"] = tensors["sequence_index"] = _ZERO
    if asked.num_input_tokens:
        count = len(asked.generation.input_ids)
        tensors["num_input_tokens"] = np.array([[count]], np.int32)
    if end is None:
        return tensors
    if asked.num_output_tokens:
        tensors["num_output_tokens"] = np.array([[end.output_tokens]], np.int32)
    if asked.perf_metrics or not asked.ticket:
        tensors["last_token_time_ns"] = np.array([[end.last_token_ns]], np.int64)
    if asked.perf_metrics:
        tensors["arrival_time_ns"] = np.array([[end.arrival_ns]], np.int64)
        tensors["first_scheduled_time_ns"] = np.array([[end.first_scheduled_ns]], np.int64)
        tensors["first_token_time_ns"] = np.array([[end.first_token_ns]], np.int64)
    return tensors


def _scalar(inputs: Tensors, name: str) -> Any:
    """A Python number or bool; None if the tensor is absent or empty."""
    value = inputs.get(name)
    if value is None or value.size == 0:
        return None
    if value.size != 1:
        raise RequestError(f"{name}: {value.size} values, expected one")
    return value.item()


def _finite(inputs: Tensors, name: str) -> Any:
    value = _scalar(inputs, name)
    if value is not None and not math.isfinite(value):
        raise RequestError(f"{name}: {value}, must be a finite number")
    return value


def _at_least(inputs: Tensors, name: str, least: int) -> Any:
    value = _finite(inputs, name)
    if value is not None and value < least:
        raise RequestError(f"{name}: {value:g}, must be at least {least}")
    return value


def _positive(inputs: Tensors, name: str) -> Any:
    value = _finite(inputs, name)
    return value if value is not None and value > 0 else None


def _repetition_penalty(inputs: Tensors) -> float | None:
    value: float | None = _finite(inputs, "repetition_penalty")
    if value is not None and value <= 0:
        raise RequestError(f"repetition_penalty: {value:g}, must be above 0")
    return value


def _input_ids(inputs: Tensors) -> NDArray[np.int32]:
    ids = inputs.get("input_ids")
    if ids is None or ids.size == 0:
        raise RequestError("input_ids: empty, the prompt needs at least one token")
    if ids.ndim != 2 or ids.shape[0] != 1:
        raise RequestError(
            f"input_ids: shape {list(ids.shape)}, expected [1, length]: "
            "send each sequence as a request of its own (batch size 1)"
        )
    length = _scalar(inputs, "input_lengths")
    if length is None:
        length = ids.shape[1]
    if not 1 <= length <= ids.shape[1]:
        raise RequestError(f"input_lengths: {length}, but input_ids holds {ids.shape[1]} tokens")
    row: NDArray[np.int32] = ids[0, :length].copy()  # Triton takes the memory back
    if int(row.min()) < 0:
        raise RequestError(f"input_ids: {int(row.min())} is no token id")
    return row


def _max_tokens(inputs: Tensors) -> int:
    value = _scalar(inputs, "request_output_len")
    if value is None:
        raise RequestError("request_output_len: missing")
    if value < 1:
        raise RequestError(f"request_output_len: {value}, must be at least 1")
    return int(value)


def _stop_words(inputs: Tensors) -> tuple[tuple[int, ...], ...]:
    value = inputs.get("stop_words_list")
    return () if value is None else parse_word_list("stop_words_list", value)
