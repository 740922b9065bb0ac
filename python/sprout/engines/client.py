# SPDX-License-Identifier: Apache-2.0
"""An engine process seen from the slot, whatever it speaks: jobs, slots, queue, one end for each.

One asyncio loop on one thread serves every open generation. As many are sent as the engine decodes
at once, so `first_scheduled` is the time at which it really began; the others wait here, in order,
up to a bound. Cancelling closes the connection, and that frees the engine's slot.

What is said to the engine, and how it answers, is a dialect's: `generate` of the subclass.
"""

import abc
import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from sprout.engines.base import Chunk, End, Generation, Reason, Sink
from sprout.errors import EngineBusy, EngineError, EngineUnavailable, SproutError

log = logging.getLogger(__name__)


class Job:
    """One generation, from `submit` to its end. Everything but `cancel` belongs to the loop."""

    def __init__(self, client: "EngineClient", generation: Generation, sink: Sink) -> None:
        self.generation = generation
        self.sink = sink
        self.ids: list[int] = []  # of the answer, so far
        self.arrival_ns = time.monotonic_ns()
        self.scheduled_ns = self.first_ns = self.last_ns = 0
        self.cancelled = False
        self.task: asyncio.Task[Reason] | None = None
        self._client = client

    def cancel(self) -> None:
        self._client.post(self._cancel)

    def _cancel(self) -> None:
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()

    def scheduled(self) -> None:
        if not self.scheduled_ns:
            self.scheduled_ns = time.monotonic_ns()
            self.sink.on_scheduled(self.scheduled_ns)

    def tokens(self, ids: list[int]) -> None:
        if ids:
            self.last_ns = time.monotonic_ns()
            self.first_ns = self.first_ns or self.last_ns
            self.ids += ids
            self.sink.on_chunk(Chunk(ids), self.last_ns)

    def end(self, reason: Reason) -> None:
        now = time.monotonic_ns()
        end = End(
            reason,
            input_tokens=len(self.generation.input_ids),
            output_tokens=len(self.ids),
            arrival_ns=self.arrival_ns,
            first_scheduled_ns=self.scheduled_ns,
            first_token_ns=self.first_ns,
            last_token_ns=self.last_ns or now,
        )
        self.sink.on_chunk(Chunk([], end), now)


class Closeable(Protocol):
    """What a dialect speaks through."""

    async def close(self) -> None: ...


class EngineClient(abc.ABC):
    """slots: requests that the engine decodes at once; queue: that may wait besides.

    A subclass says its `name` and `generate`s.
    """

    name: str

    def __init__(self, http: Closeable, *, slots: int, queue: int) -> None:
        """Starts the thread: a subclass calls it last."""
        self._slots, self._queue = slots, queue
        self._closing = http
        self._lock = threading.Lock()
        self._jobs: set[Job] = set()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._free = asyncio.Semaphore(slots)
        self._thread = threading.Thread(target=self._run, name=f"{self.name}-client", daemon=True)
        self._thread.start()

    @abc.abstractmethod
    async def generate(self, job: Job) -> Reason:
        """One generation while it has a slot: calls the job's `scheduled` and `tokens`, and
        returns why it ended. Raises SproutError. A cancelled task must let go of the engine.
        """

    def submit(self, generation: Generation, sink: Sink) -> Job:
        job = Job(self, generation, sink)
        refusal: SproutError | None = None
        with self._lock:
            if self._closed:
                refusal = EngineUnavailable("the engine client is closed")
            elif len(self._jobs) >= self._slots + self._queue:
                refusal = EngineBusy(
                    f"{self._slots} slots are decoding and the queue of {self._queue} is full: "
                    "try again later"
                )
            else:
                self._jobs.add(job)
                # Under the lock: `close` posts its stop after the last job.
                self._loop.call_soon_threadsafe(self._start, job)
        if refusal is not None:
            sink.on_error(refusal)
        return job

    def cancel(self, request_id: str) -> int:
        with self._lock:
            found = [job for job in self._jobs if job.generation.request_id == request_id]
        for job in found:
            job.cancel()
        return len(found)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def post(self, call: Callable[[], Any]) -> None:
        """Runs something on the loop, unless it is closed."""
        with self._lock:
            if not self._closed:
                self._loop.call_soon_threadsafe(call)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._shut_down())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    async def _shut_down(self) -> None:
        for job in self._jobs:
            if job.task is not None:
                job.task.cancel()
        while self._jobs:
            await asyncio.sleep(0.001)
        await self._closing.close()

    def _start(self, job: Job) -> None:
        job.task = self._loop.create_task(self._serve(job))
        # A callback and no `try` around the work: a task that is cancelled before its first step
        # never reaches its first line.
        job.task.add_done_callback(lambda task: self._ended(job, task))

    async def _serve(self, job: Job) -> Reason:
        async with self._free:
            return await self.generate(job)

    def _ended(self, job: Job, task: "asyncio.Task[Reason]") -> None:
        """The one place from which an end reaches a sink."""
        with self._lock:
            self._jobs.discard(job)  # first: who is told may ask again at once
        if task.cancelled():
            if job.cancelled:
                job.end(Reason.CANCELLED)
            else:
                job.sink.on_error(EngineUnavailable("the engine client was closed"))
            return
        error = task.exception()
        if error is None:
            job.end(task.result())
        elif isinstance(error, SproutError):
            job.sink.on_error(error)
        else:
            log.error("request %r", job.generation.request_id, exc_info=error)
            job.sink.on_error(EngineError(f"{type(error).__name__}: {error}"))
