# SPDX-License-Identifier: Apache-2.0
"""What stands in the place of TensorRT-LLM's `tensorrt_llm` model, without anything of Triton's.

Three threads besides Triton's own. The engine's produces tokens and only queues them here. The
sender joins them into chunks, at a pace that leaves the hop room, marks the ledger and sends:
sending waits for Triton, which must not hold up the engine's loop, and one sender keeps a stream's
order. The watcher asks Triton whether clients are still there.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from sprout.engines.base import Chunk, Engine, Generation, Handle, Reason
from sprout.engines.joiner import ChunkJoiner
from sprout.engines.marks import FlightMarks
from sprout.engines.pace import Pace
from sprout.engines.settings import SlotSettings
from sprout.engines.tensors import Asked, is_stop, parse, response, ticket_of
from sprout.engines.waiting import Waiting
from sprout.errors import EngineBusy, EngineError, RequestError, SproutError
from sprout.units import NS_PER_S
from sprout_ext.ledger import Counter

log = logging.getLogger(__name__)

_HEARTBEAT_S = 10.0
_NO_ID = "Trying to stop a request but request ID is not provided"  # as stock says it
_NOT_DECOUPLED = "Streaming is only supported if model is deployed using decoupled mode."


class Responder(Protocol):
    """One request's way back to Triton. Exactly one call has `final`."""

    def send(self, tensors: Mapping[str, NDArray[Any]], final: bool) -> None: ...
    def fail(self, error: SproutError) -> None:
        """An error, final."""

    def abandon(self) -> None:
        """Final, to a client that is gone."""

    def is_cancelled(self) -> bool:
        """The client gave up. Must not be called after the final one."""
        ...


class _Flight:
    """A request under way. A sink of the engine: its three methods only queue."""

    def __init__(self, slot: "Slot", asked: Asked, responder: Responder) -> None:
        self.asked = asked
        self.responder = responder
        self.handle: Handle | None = None
        self.tokens = 0
        self.scheduled = self.gone = self.over = False
        self.paced = False  # it counts among the streams that share the slot's chunks
        self.watched = True
        self.lock = threading.Lock()  # the watcher's question and the final response exclude
        self.joiner = ChunkJoiner(slot.pace if asked.streaming else None)
        self._queue = slot.queue

    def on_scheduled(self, now_ns: int) -> None:
        self._queue.put((self, now_ns, None))

    def on_chunk(self, chunk: Chunk, now_ns: int) -> None:
        self._queue.put((self, now_ns, chunk))

    def on_error(self, error: SproutError) -> None:
        self._queue.put((self, 0, error))


_Event = tuple[_Flight | None, int, Chunk | SproutError | None]  # a flight of None: see Slot._run


class Slot:
    """accept() takes requests; everything else happens on its threads until close()."""

    def __init__(
        self,
        settings: SlotSettings,
        engine: Engine | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """clock: of what waits; times of tokens are the engine's."""
        self.pace = Pace(settings.chunk_interval_ms, settings.chunks_per_s)
        self.queue: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._settings = settings
        self._engine = engine or settings.make_engine()
        self._marks = FlightMarks(settings.shm_dir, settings.node_id)
        self._flights: dict[_Flight, None] = {}  # insertion-ordered; under the lock
        self._lock = threading.Lock()
        self._clock = clock
        self._waiting: Waiting[_Flight] = Waiting()  # the sender's own, as the pace is
        self._stopping = threading.Event()
        self._sender = threading.Thread(target=self._run, name="slot-sender", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="slot-watcher", daemon=True)
        self._sender.start()
        self._watcher.start()

    def accept(
        self, request_id: str, inputs: Mapping[str, NDArray[Any]], responder: Responder
    ) -> None:
        """One Triton request. Never raises; returns before the answer is there."""
        try:
            if is_stop(inputs):
                self._stop(request_id, responder)
                return
            asked = parse(
                self._engine.name, request_id, inputs, self._settings.exclude_input_in_output
            )
            if asked.streaming and not self._settings.decoupled:
                raise RequestError(_NOT_DECOUPLED)
        except SproutError as error:
            self._marks.failed(ticket_of(inputs), 0, 0)
            responder.fail(error)
            return
        self._marks.count(Counter.ENGINE_REQUESTS)
        self._marks.arrived(asked.ticket)
        flight = _Flight(self, asked, responder)
        with self._lock:
            self._flights[flight] = None
        flight.handle = self._engine.submit(asked.generation, flight)
        if flight.over:  # the sender gave it up before there was a handle to cancel
            flight.handle.cancel()

    def close(self) -> None:
        """Open streams end with EngineUnavailable."""
        self._engine.close()
        self._stopping.set()
        self.queue.put((None, -1, None))
        self._sender.join()
        self._watcher.join()
        self._marks.close()

    def _stop(self, request_id: str, responder: Responder) -> None:
        if not request_id:
            raise RequestError(_NO_ID)
        self._engine.cancel(request_id)
        responder.send({}, final=True)

    # The sender's thread.

    def _run(self) -> None:
        while True:
            try:
                flight, now_ns, what = self.queue.get(timeout=self._patience_s())
            except queue.Empty:
                self._flush()
                continue
            if flight is None:
                if now_ns < 0:
                    return
                self._heartbeat(now_ns)
                continue
            self._guarded(self._handle, flight, now_ns, what)
            self._flush()

    def _guarded(self, step: Callable[..., None], flight: _Flight, *more: Any) -> None:
        """What is wrong with one stream ends that stream, never the sender of them all."""
        try:
            step(flight, *more)
        except Exception:
            log.exception("request %r", flight.asked.generation.request_id)
            error = EngineError("the response could not be sent")
            try:
                if flight.over:  # it was the final one
                    flight.responder.fail(error)
                else:
                    self._fail(flight, error)
            except Exception:
                log.exception("request %r has no end", flight.asked.generation.request_id)

    def _patience_s(self) -> float | None:
        first = self._waiting.first()
        if first is None:
            return None
        return max(0.0, (first[0] + self.pace.interval_ns - self._clock()) / NS_PER_S)

    def _handle(self, flight: _Flight, now_ns: int, what: Chunk | SproutError | None) -> None:
        if flight.over:
            return
        if isinstance(what, SproutError):
            self._fail(flight, what)
            return
        ticket = flight.asked.ticket
        if what is None:
            flight.scheduled = True
            self._marks.scheduled(ticket, now_ns)
            return
        if what.token_ids and not flight.tokens and what.end is None:  # an end tells it as well
            self._marks.first_token(ticket, now_ns)
            if flight.asked.streaming:
                flight.paced = True
                self.pace.begin()
        flight.tokens += len(what.token_ids)
        # By the time that it is now, not that of the token: if sending lags, more is joined.
        chunk = flight.joiner.add(what, self._clock())
        if chunk is not None:
            self._send(flight, chunk, now_ns)
        elif flight.joiner.deadline_ns is not None:
            self._waiting.add(flight, flight.joiner.sent_ns)

    def _flush(self) -> None:
        """One stream that is due. The queue comes next: a first token must not wait for the tokens
        of a hundred streams that are due at once.
        """
        first = self._waiting.first()
        if first is None:
            return
        flight, now_ns = first[1], self._clock()
        chunk = flight.joiner.due(now_ns)
        if chunk is not None:
            self._guarded(self._send, flight, chunk, now_ns)

    def _send(self, flight: _Flight, chunk: Chunk, now_ns: int) -> None:
        self._waiting.discard(flight)
        tensors = response(flight.asked, chunk)
        if chunk.end is None:
            self._marks.progress(flight.asked.ticket, flight.tokens, now_ns)
            self._marks.count(Counter.CHUNKS)
            flight.responder.send(tensors, final=False)
            return
        # Before it is sent: postprocessing looks up the engine's times as it closes the flight.
        self._marks.finished(flight.asked.ticket, chunk.end)
        # An end without a token, of an answer that a client gave up, is not the engine's doing.
        if chunk.token_ids or chunk.end.reason is not Reason.CANCELLED:
            self._marks.count(Counter.CHUNKS)
        self._leave(flight)
        if flight.gone and chunk.end.reason is Reason.CANCELLED:
            flight.responder.abandon()
        else:
            flight.responder.send(tensors, final=True)

    def _fail(self, flight: _Flight, error: SproutError) -> None:
        if flight.over:
            return
        if isinstance(error, EngineBusy):
            self._marks.count(Counter.ENGINE_BUSY)
        generation: Generation = flight.asked.generation
        self._marks.failed(flight.asked.ticket, len(generation.input_ids), flight.tokens)
        self._leave(flight)
        if flight.handle is not None:  # where the engine did not fail itself, it would decode on
            flight.handle.cancel()
        flight.responder.fail(error)

    def _leave(self, flight: _Flight) -> None:
        """Directly before the final response."""
        self._waiting.discard(flight)
        if flight.paced:
            self.pace.end()
        with self._lock:
            self._flights.pop(flight, None)
        with flight.lock:
            flight.over = True

    def _heartbeat(self, now_ns: int) -> None:
        """A long prompt, or a slow engine, is no dead one."""
        for flight in self._open():
            if flight.scheduled:  # one that waits is given `agent.queue_lease_s` instead
                self._marks.progress(flight.asked.ticket, flight.tokens, now_ns)

    # The watcher's thread.

    def _watch(self) -> None:
        beat = time.monotonic()
        while not self._stopping.wait(self._settings.cancellation_check_period_ms / 1e3):
            for flight in self._open():
                self._look(flight)
            if time.monotonic() - beat > _HEARTBEAT_S:
                beat = time.monotonic()
                self.queue.put((None, time.monotonic_ns(), None))

    def _look(self, flight: _Flight) -> None:
        """Where nobody can say whether the client is there, it is: an answer to nobody ends by
        itself, and one that somebody waits for must not be given up.
        """
        with flight.lock:
            if flight.over or flight.gone or not flight.watched or flight.handle is None:
                return
            try:
                flight.gone = flight.responder.is_cancelled()
            except Exception:
                flight.watched = False  # once is enough, in the log too
                log.exception("request %r is not watched", flight.asked.generation.request_id)
        if flight.gone:
            flight.handle.cancel()

    def _open(self) -> list[_Flight]:
        with self._lock:
            return [*self._flights]
