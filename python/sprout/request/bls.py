# SPDX-License-Identifier: Apache-2.0
"""Unary calls in front of a streaming chain: what the coupled `tensorrt_llm_bls` model does.

Triton refuses a unary call of a chain that holds a decoupled model, and tells the engine behind an
ensemble nothing of a cancel. Here each call runs in a thread of its own, its answer is gathered
from the chunks, and one watcher asks all calls whether their clients are still there; where one has
gone, the engine is told to stop, under the id that the call runs by inside.
"""

import contextlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from queue import SimpleQueue
from typing import Protocol

import numpy as np

from sprout.errors import EngineUnavailable, RequestCancelled, SproutError
from sprout.request.counters import open_segment
from sprout.request.settings import BlsSettings
from sprout.request.tensors import Array
from sprout_ext.ledger import Counter, Role, Segment

log = logging.getLogger(__name__)

POLL_S = 0.1


class Call(Protocol):
    """One client's call, as far as this module has to know it."""

    def cancelled(self) -> bool:
        """The client has gone."""

    def chunks(self, inner_id: str) -> Iterable[Mapping[str, Array]]:
        """Runs the chain under `inner_id`. SproutError if it fails."""

    def stop(self, inner_id: str) -> None:
        """Tells the engine to stop what runs under `inner_id`."""

    def answer(self, outputs: Mapping[str, Array]) -> None: ...

    def fail(self, error: SproutError) -> None: ...


class Desk:
    """Takes calls and answers each exactly once. `segment` counts calls and cancels."""

    def __init__(
        self,
        *,
        max_in_flight: int = 24,
        poll_s: float = POLL_S,
        segment: Segment | None = None,
    ) -> None:
        # Daemons, started as they are needed: one that is stuck inside must not hold up the exit.
        self._waiting: SimpleQueue[tuple[str, Call] | None] = SimpleQueue()
        self._max_workers = max_in_flight
        self._workers: list[threading.Thread] = []
        self._segment = segment
        self._poll_s = poll_s
        self._lock = threading.Lock()
        self._calls: dict[str, Call] = {}  # inner id -> call that is not answered yet
        self._gone: set[str] = set()  # of these, the clients have gone
        self._unstopped: set[str] = set()  # of these, asking or stopping failed and was logged
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="bls-watch", daemon=True)
        self._watcher.start()

    @classmethod
    def open(cls, settings: BlsSettings) -> "Desk":
        """With counters, where there is shared memory."""
        if settings.shm_dir is None:
            return cls(max_in_flight=settings.max_in_flight)
        segment = open_segment(settings.shm_dir, Role.BLS, settings.stub_index, settings.node_id)
        return cls(max_in_flight=settings.max_in_flight, segment=segment)

    def take(self, call: Call) -> None:
        """Returns at once; the call is answered from another thread."""
        inner_id = str(uuid.uuid4())
        with self._lock:
            self._calls[inner_id] = call
            self._count(Counter.BLS_REQUESTS)
            if len(self._calls) > len(self._workers) < self._max_workers:
                worker = threading.Thread(target=self._work, name="bls", daemon=True)
                self._workers.append(worker)
                worker.start()
        self._waiting.put((inner_id, call))

    @property
    def in_flight(self) -> int:
        with self._lock:
            return len(self._calls)

    def close(self, timeout_s: float = 2.0) -> None:
        """Stops what still runs. Returns when every call is answered, or the time is over."""
        self._closing.set()
        with self._lock:
            self._gone.update(self._calls)
            workers = list(self._workers)
        for _ in workers:
            self._waiting.put(None)
        deadline = time.monotonic() + timeout_s
        for thread in (*workers, self._watcher):
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            segment, self._segment = self._segment, None
        if segment:
            segment.close(unlink=True)

    def _count(self, counter: Counter) -> None:
        """Under the lock: a segment has one writer."""
        if self._segment:
            self._segment.count(counter)

    def _work(self) -> None:
        while (taken := self._waiting.get()) is not None:
            self._run(*taken)

    def _run(self, inner_id: str, call: Call) -> None:
        error: SproutError | None = None
        outputs: dict[str, Array] = {}
        try:
            if not self._is_gone(inner_id):
                outputs = gather(call.chunks(inner_id))
        except SproutError as raised:
            error = raised
        except Exception as raised:
            log.exception("a call failed")
            error = EngineUnavailable(f"the call failed inside: {raised}")
        with self._lock:
            del self._calls[inner_id]
            gone = inner_id in self._gone
            self._gone.discard(inner_id)
            self._unstopped.discard(inner_id)
            if gone:
                self._count(Counter.BLS_CANCELLED)
        if gone:
            error = RequestCancelled("the request was cancelled")
        try:
            if error is None:
                call.answer(outputs)
            else:
                call.fail(error)
        except Exception:
            log.exception("an answer could not be sent")
            with contextlib.suppress(Exception):  # refused where the final one has left already
                call.fail(EngineUnavailable("the answer could not be sent"))

    def _is_gone(self, inner_id: str) -> bool:
        with self._lock:
            return inner_id in self._gone

    def _has_left(self, inner_id: str, call: Call) -> bool:
        # Under the lock, because Triton must not be asked about a call that is answered.
        with self._lock:
            if inner_id not in self._calls:
                return False
            if inner_id not in self._gone and call.cancelled():
                self._gone.add(inner_id)
            return inner_id in self._gone

    def _log_once(self, inner_id: str) -> None:
        """Of a call: it is tried again with each look, and what fails once fails so every time."""
        with self._lock:
            if inner_id in self._unstopped or inner_id not in self._calls:
                return
            self._unstopped.add(inner_id)
        log.exception("a call could not be stopped")

    def _watch(self) -> None:
        """Until the last call is answered: a stop may overtake its request, so it is repeated."""
        while not (self._closing.wait(self._poll_s) and self.in_flight == 0):
            with self._lock:
                calls = list(self._calls.items())
            for inner_id, call in calls:
                try:
                    if self._has_left(inner_id, call):
                        call.stop(inner_id)
                except Exception:
                    self._log_once(inner_id)
            if self._closing.is_set():
                threading.Event().wait(self._poll_s / 10)


def gather(chunks: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """One answer from many chunks: texts one behind the other, of all else the last word."""
    outputs: dict[str, Array] = {}
    texts: list[Array] = []
    for chunk in chunks:
        if "text_output" in chunk:
            texts.append(chunk["text_output"])
        outputs.update(chunk)
    if not texts:
        raise EngineUnavailable("the engine gave no answer")
    sequences = zip(*(text.ravel() for text in texts), strict=True)
    outputs["text_output"] = np.array([b"".join(sequence) for sequence in sequences], object)
    return outputs


def forwarded(parameters: str) -> dict[str, str | int | bool]:
    """Parameters for the inner request: Sprout's own, and never a float, which would fail it."""
    if "sprout_" not in parameters:
        return {}
    return {
        name: value
        for name, value in json.loads(parameters).items()
        if name.startswith("sprout_") and isinstance(value, str | int | bool)
    }
