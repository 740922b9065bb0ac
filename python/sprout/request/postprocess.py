# SPDX-License-Identifier: Apache-2.0
"""From the engine's chunks to text and receipt: what the `postprocessing` model does.

A stream's state stands under its flight ticket, which the engine echoes with every chunk. One that
can't echo (TensorRT-LLM's C++ backend) leaves no way to tell streams apart: request ids repeat and
may be empty. Its chunks are detokenized one by one, as the stock model does, and get no receipt.

The end of a stream is the chunk whose `FLIGHT` holds a time behind the ticket; without a ticket,
the one that carries `LAST_TOKEN_TIME_NS`.
"""

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sprout import units
from sprout.errors import RequestError, SproutError
from sprout.request import detokenize
from sprout.request.counters import open_segment
from sprout.request.detokenize import Detokenizer, Stream
from sprout.request.settings import PostprocessSettings
from sprout.request.tensors import Array, Tensors
from sprout_ext.clock import ClockReader
from sprout_ext.ledger import Counter, Flight, Flights, Role, Segment

log = logging.getLogger(__name__)

MAX_STREAMS = 65_536
# A stream that is quiet for this long has lost its engine or its client.
LEASE_NS = 600 * units.NS_PER_S

_TAG_SHIFT = 48  # of a ticket; tag 0 belongs to no segment


class EnergyClock(Protocol):
    def energy(self, start_ns: int, end_ns: int) -> tuple[float, bool]: ...


@dataclass(slots=True)
class _State:
    stream: Stream
    seen_ns: int


class Postprocessor:
    """Without `flights` answers carry no receipt; without `clock` receipts carry no energy."""

    def __init__(
        self,
        detokenizer: Detokenizer,
        *,
        flights: Flights | None = None,
        clock: EnergyClock | None = None,
        segment: Segment | None = None,
        max_streams: int = MAX_STREAMS,
    ) -> None:
        self._detokenizer = detokenizer
        self._flights = flights
        self._clock = clock
        self._segment = segment
        self._max_streams = max_streams
        self._streams: OrderedDict[int, _State] = OrderedDict()  # longest quiet first

    @classmethod
    def open(cls, settings: PostprocessSettings) -> "Postprocessor":
        """With the tokenizer, and shared memory as far as there is any."""
        loaded = detokenize.load(
            settings.tokenizer_dir, skip_special_tokens=settings.skip_special_tokens
        )
        if settings.shm_dir is None:
            return cls(loaded)
        directory = settings.shm_dir
        return cls(
            loaded,
            flights=Flights(directory),
            clock=ClockReader(directory / "energy.clock"),
            segment=open_segment(
                directory, Role.POSTPROCESSING, settings.stub_index, settings.node_id
            ),
        )

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._streams)

    def process(self, batch: Sequence[Tensors]) -> list[dict[str, Array] | SproutError]:
        """Outputs of each chunk, in order. Chunks of one stream may stand in one batch."""
        now_ns = time.monotonic_ns()
        results: list[dict[str, Array] | SproutError] = []
        for chunk in batch:
            try:
                results.append(self._chunk(chunk, now_ns))
            except SproutError as error:
                results.append(error)
        self._expire(now_ns)
        if self._segment:
            self._segment.count(Counter.CHUNKS, len(batch))
        return results

    def close(self) -> None:
        if self._segment:
            self._segment.close(unlink=True)

    def _chunk(self, chunk: Tensors, now_ns: int) -> dict[str, Array]:
        rows = _rows(chunk)
        flight = chunk.get("FLIGHT")
        marks = [] if flight is None else flight.ravel().tolist()
        ticket, last = (marks[0], len(marks) > 1) if marks else (0, "LAST_TOKEN_TIME_NS" in chunk)
        if not ticket or len(rows) != 1:
            if self._segment and last:
                self._segment.count(Counter.UNATTRIBUTED)
            return {"OUTPUT": _texts([self._detokenizer.decode(ids) for ids in rows])}
        state = self._streams.get(ticket)
        if not last:
            if state is None:
                state = self._streams[ticket] = _State(self._detokenizer.stream(), now_ns)
            else:
                state.seen_ns = now_ns
                self._streams.move_to_end(ticket)
            return {"OUTPUT": _texts([state.stream.push(rows[0])])}
        if state is None:
            text = self._detokenizer.decode(rows[0])
        else:
            del self._streams[ticket]
            text = state.stream.push(rows[0]) + state.stream.finish()
        outputs: dict[str, Array] = {"OUTPUT": _texts([text])}
        if self._flights is not None:
            outputs |= self._end(self._flights, ticket, now_ns)
        return outputs

    def _end(self, flights: Flights, ticket: int, now_ns: int) -> dict[str, Array]:
        """Closes the flight and writes the receipt; nothing if there is no such flight."""
        flight = flights.view(ticket)
        if flight is None:
            if self._segment and ticket >> _TAG_SHIFT:
                self._segment.count(Counter.UNATTRIBUTED)
            return {}
        receipt, joules = self._receipt(flight)
        flights.close(ticket, now_ns, joules)
        if self._segment:
            self._segment.count(Counter.DELIVERED)
        return receipt

    def _receipt(self, flight: Flight) -> tuple[dict[str, Array], float]:
        """(outputs, joules); what is not known is left out, and NaN."""
        receipt: dict[str, Array] = {
            "DIRECTIVE_LEVEL": np.array([[flight.level]], np.int32),
            "POLICY_VERSION": np.array([[flight.policy_version]], np.uint64),
        }
        joules = math.nan
        start_ns, end_ns = flight.scheduled_ns, flight.last_token_ns
        if self._clock is not None and start_ns > 0 and end_ns >= start_ns:
            joules, _provisional = self._clock.energy(start_ns, end_ns)
        if not math.isnan(joules):
            receipt["ENERGY_JOULES"] = np.array([[joules]], np.float32)
        intensity = flight.intensity_g_per_kwh
        if not math.isnan(intensity):
            receipt["CARBON_INTENSITY"] = np.array([[intensity]], np.float32)
            grams = units.request_g(
                joules,
                (end_ns - start_ns) / units.NS_PER_S,
                intensity_g_per_kwh=intensity,
                pue=flight.pue,
                embodied_g_per_s=flight.embodied_g_per_s,
            )
            if not math.isnan(grams):
                receipt["CARBON_GRAMS"] = np.array([[grams]], np.float32)
        return receipt, joules

    def _expire(self, now_ns: int) -> None:
        """Forgets streams that were left: their clients are gone, or their engine is."""
        while self._streams:
            ticket, state = next(iter(self._streams.items()))
            if len(self._streams) <= self._max_streams and now_ns - state.seen_ns < LEASE_NS:
                return
            del self._streams[ticket]


def _rows(chunk: Tensors) -> list[list[int]]:
    """Ids of each sequence, cut to its length. TOKENS_BATCH (batch, beams, tokens)."""
    tokens, lengths = chunk.get("TOKENS_BATCH"), chunk.get("SEQUENCE_LENGTH")
    if tokens is None or lengths is None:
        raise RequestError("TOKENS_BATCH and SEQUENCE_LENGTH must both be given")
    if tokens.ndim < 2:
        raise RequestError(f"TOKENS_BATCH has {tokens.ndim} dimensions instead of 3")
    counts = lengths.ravel().tolist()
    rows = tokens.reshape(-1, tokens.shape[-1]) if tokens.size else [tokens.ravel()] * len(counts)
    if len(rows) != len(counts):
        raise RequestError(f"SEQUENCE_LENGTH has {len(counts)} values for {len(rows)} sequences")
    return [row[:count].tolist() for row, count in zip(rows, counts, strict=True)]


def _texts(texts: list[str]) -> Array:
    """One per sequence, as the stock model gives them: shape (sequences,)."""
    return np.array([text.encode() for text in texts], object)
