# SPDX-License-Identifier: Apache-2.0
"""The seam between the `tensorrt_llm` slot and an engine: token ids in, token ids out.

An engine is asked through `submit` and answers through a `Sink`. Times are CLOCK_MONOTONIC in ns
(`time.monotonic_ns()`), the clock of TensorRT-LLM's own perf metrics and of the flight ledger.
"""

import enum
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sprout.errors import SproutError


@dataclass(frozen=True, slots=True)
class Generation:
    """What one request asks of an engine. None: the client gave no value.

    Values are checked (`sprout.engines.options`) before they come here.
    """

    request_id: str  # the client's, may be empty, may repeat
    input_ids: NDArray[np.int32]  # (tokens,), at least one
    max_tokens: int  # at least 1
    end_id: int | None = None  # None: the model's own; -1: no token ends the answer
    stop_words: tuple[tuple[int, ...], ...] = ()
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None  # 64 bits
    min_tokens: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class Reason(enum.StrEnum):
    """Why an answer ended."""

    END_ID = "end_id"
    STOP_WORD = "stop_word"
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class End:
    """How an answer ended, with its times. A time of 0: it never came so far."""

    reason: Reason
    input_tokens: int
    output_tokens: int
    arrival_ns: int
    first_scheduled_ns: int
    first_token_ns: int
    last_token_ns: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens in the order of the answer. `end` is there on the last one, which may be empty."""

    token_ids: list[int] = field(default_factory=list)
    end: End | None = None


class Sink(Protocol):
    """Where an engine's answer goes. Called from one thread at a time; must not block.

    Order: at most one `on_scheduled`, then chunks, and exactly one end: a chunk with `end`, or
    `on_error`. Nothing is called after the end.
    """

    def on_scheduled(self, now_ns: int) -> None: ...
    def on_chunk(self, chunk: Chunk, now_ns: int) -> None: ...
    def on_error(self, error: SproutError) -> None: ...


class Handle(Protocol):
    """One submitted generation."""

    def cancel(self) -> None:
        """Stops it soon: a last chunk with Reason.CANCELLED. Any thread; late: nothing."""


class Engine(Protocol):
    """Something that generates tokens."""

    name: str

    def submit(self, generation: Generation, sink: Sink) -> Handle:
        """Never blocks and never raises: what goes wrong reaches the sink, even before it returns.

        RequestError: the client's fault. EngineBusy: slots and queue are full. EngineUnavailable:
        the engine is not there, or went away. Any thread.
        """
        ...

    def cancel(self, request_id: str) -> int:
        """Stops every open generation of that id, as its handle would; how many. Any thread."""
        ...

    def close(self) -> None:
        """Ends every open generation with EngineUnavailable and gives up threads, within 1 s."""
        ...
