# SPDX-License-Identifier: Apache-2.0
"""From the engine's chunks to text and receipt: what the `postprocessing` model does.

A stream's state stands under its flight ticket, which the engine echoes with every chunk. One that
can't echo (TensorRT-LLM's C++ backend) leaves no way to tell streams apart: request ids repeat and
may be empty. Its chunks are detokenized one by one, as the stock model does, and get no receipt;
but a space at the beginning of a piece stays, which SentencePiece would take for the text's first.

The end of a stream is the chunk whose `FLIGHT` holds a time behind the ticket; without a ticket,
the one that carries `LAST_TOKEN_TIME_NS`.
"""

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sprout import units
from sprout.errors import RequestError, SproutError
from sprout.request import detokenize
from sprout.request.counters import open_segment
from sprout.request.detokenize import Detokenizer, Stream
from sprout.request.settings import PostprocessSettings
from sprout.request.tensors import Array, Tensors
from sprout_ext.clock import ClockReader
from sprout_ext.ledger import Counter, Flights, Role, Segment

log = logging.getLogger(__name__)

MAX_STREAMS = 65_536
# A stream that is quiet for this long has lost its engine or its client.
LEASE_NS = 600 * units.NS_PER_S

_TAG_SHIFT = 48  # of a ticket; tag 0 belongs to no segment
_AMOUNTS = ("ENERGY_JOULES", "CARBON_GRAMS", "CARBON_INTENSITY")  # as a receipt has them
# As plain numbers: enumerations cost a microsecond.
_CHUNKS, _DELIVERED = int(Counter.CHUNKS), int(Counter.DELIVERED)
_UNATTRIBUTED = int(Counter.UNATTRIBUTED)


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
        clock: ClockReader | None = None,
        segment: Segment | None = None,
        max_streams: int = MAX_STREAMS,
        pieces: bool = False,
    ) -> None:
        self._detokenizer = detokenizer
        self._flights = flights
        self._clock = clock
        self._segment = segment
        self._max_streams = max_streams
        self.pieces = pieces  # without a ticket, a chunk may be a piece of an answer
        self._begun: OrderedDict[str, None] = OrderedDict()  # request ids of such answers
        self._streams: OrderedDict[int, _State] = OrderedDict()  # longest quiet first

    @classmethod
    def open(cls, settings: PostprocessSettings) -> "Postprocessor":
        """With the tokenizer, and shared memory as far as there is any."""
        loaded = detokenize.load(
            settings.tokenizer_dir, skip_special_tokens=settings.skip_special_tokens
        )
        if settings.shm_dir is None:
            return cls(loaded, pieces=settings.pieces)
        directory = settings.shm_dir
        return cls(
            loaded,
            flights=Flights(directory),
            clock=ClockReader(directory / "energy.clock"),
            segment=open_segment(
                directory, Role.POSTPROCESSING, settings.stub_index, settings.node_id
            ),
            pieces=settings.pieces,
        )

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._streams)

    def process(
        self, batch: Sequence[Tensors], request_ids: Sequence[str] = ()
    ) -> list[dict[str, Array] | SproutError]:
        """Outputs of each chunk, in order. Chunks of one stream may stand in one batch.

        request_ids: of each chunk, needed with `pieces` alone.
        """
        now_ns = time.monotonic_ns()
        results: list[dict[str, Array] | SproutError] = []
        for chunk, request_id in zip(batch, request_ids or [""] * len(batch), strict=True):
            try:
                results.append(self._chunk(chunk, request_id, now_ns))
            except SproutError as error:
                results.append(error)
        self._expire(now_ns)
        if self._segment:
            self._segment.count(_CHUNKS, len(batch))
        return results

    def close(self) -> None:
        if self._segment:
            self._segment.close(unlink=True)

    def _chunk(self, chunk: Tensors, request_id: str, now_ns: int) -> dict[str, Array]:
        rows = _rows(chunk)
        flight = chunk.get("FLIGHT")
        marks = [] if flight is None else flight.ravel().tolist()
        ticket, last = (marks[0], len(marks) > 1) if marks else (0, "LAST_TOKEN_TIME_NS" in chunk)
        if not ticket or len(rows) != 1:
            if self._segment and last:
                self._segment.count(_UNATTRIBUTED)
            first = not self.pieces or self._begins(request_id)
            return {"OUTPUT": _texts([self._detokenizer.decode(ids, first=first) for ids in rows])}
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
            self._land(self._flights, ticket, now_ns, outputs)
        return outputs

    def _land(self, flights: Flights, ticket: int, now_ns: int, outputs: dict[str, Array]) -> None:
        """Closes the flight and adds its receipt; what is not known is left out."""
        receipt = flights.land(ticket, now_ns, self._clock)
        if self._segment is not None:
            if receipt is not None:
                self._segment.count(_DELIVERED)
            elif ticket >> _TAG_SHIFT:
                self._segment.count(_UNATTRIBUTED)
        if receipt is None:
            return
        level, version, *amounts = receipt
        outputs["DIRECTIVE_LEVEL"] = np.array([[level]], np.int32)
        outputs["POLICY_VERSION"] = np.array([[version]], np.uint64)
        for name, amount in zip(_AMOUNTS, amounts, strict=True):
            if not math.isnan(amount):
                outputs[name] = np.array([[amount]], np.float32)

    def _begins(self, request_id: str) -> bool:
        """Whether this is the first piece under an id. Of none, or of one that was used before, it
        can't be told: then a space too many is better than words without any between them."""
        if not request_id or request_id in self._begun:
            return False
        self._begun[request_id] = None
        if len(self._begun) > self._max_streams:
            self._begun.popitem(last=False)
        return True

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
    if tokens.size == tokens.shape[-1] and lengths.size == 1:  # one sequence, as ours always are
        return [tokens.ravel()[: lengths.item()].tolist()]
    counts = lengths.ravel().tolist()
    rows = tokens.reshape(-1, tokens.shape[-1]) if tokens.size else [tokens.ravel()] * len(counts)
    if len(rows) != len(counts):
        raise RequestError(f"SEQUENCE_LENGTH has {len(counts)} values for {len(rows)} sequences")
    return [row[:count].tolist() for row, count in zip(rows, counts, strict=True)]


def _texts(texts: list[str]) -> Array:
    """One per sequence, as the stock model gives them: shape (sequences,)."""
    return np.array([text.encode() for text in texts], object)
