# SPDX-License-Identifier: Apache-2.0
"""An engine without a model, inside the slot: it answers with the prompt's own ids, in a circle.

Exactly `max_tokens` tokens, at a given rate or as fast as it can. For benchmarks, where the engine
must cost nothing, and for tests, which need known answers.
"""

import heapq
import itertools
import threading
import time

from sprout.engines.base import Chunk, End, Generation, Reason, Sink
from sprout.errors import EngineUnavailable
from sprout.units import NS_PER_S


class _Stream:
    """One generation under way."""

    def __init__(self, engine: "EchoEngine", generation: Generation, sink: Sink) -> None:
        self.generation = generation
        self.sink = sink
        self.sent = 0
        self.arrival_ns = self.first_ns = self.last_ns = time.monotonic_ns()
        self.cancelled = False
        self._engine = engine
        self._ids = itertools.cycle(generation.input_ids.tolist())

    def cancel(self) -> None:
        self.cancelled = True
        self._engine._wake()

    def step(self) -> bool:
        """The next token, or the end after a cancel. True: that was the last chunk."""
        now = time.monotonic_ns()
        if self.cancelled:
            self.sink.on_chunk(Chunk([], self._end(Reason.CANCELLED)), now)
            return True
        self.last_ns = now
        if self.sent == 0:
            self.first_ns = now
        self.sent += 1
        last = self.sent == self.generation.max_tokens
        self.sink.on_chunk(
            Chunk([next(self._ids)], self._end(Reason.LENGTH) if last else None), now
        )
        return last

    def _end(self, reason: Reason) -> End:
        return End(
            reason,
            input_tokens=len(self.generation.input_ids),
            output_tokens=self.sent,
            arrival_ns=self.arrival_ns,
            first_scheduled_ns=self.arrival_ns,
            first_token_ns=self.first_ns if self.sent else 0,
            last_token_ns=self.last_ns,
        )


class EchoEngine:
    """tokens_per_s: of each stream; 0 = as fast as it can, on the caller's own thread."""

    name = "echo"

    def __init__(self, tokens_per_s: float = 0) -> None:
        self._step_ns = round(NS_PER_S / tokens_per_s) if tokens_per_s > 0 else 0
        self._due: list[tuple[int, int, _Stream]] = []  # a heap: when, a tie-breaker, which
        self._number = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        if self._step_ns:
            self._thread = threading.Thread(target=self._run, name="echo", daemon=True)
            self._thread.start()

    def submit(self, generation: Generation, sink: Sink) -> _Stream:
        stream = _Stream(self, generation, sink)
        if not self._step_ns:
            sink.on_scheduled(stream.arrival_ns)
            while not stream.step():
                pass
            return stream
        with self._changed:
            if not self._closed:
                sink.on_scheduled(stream.arrival_ns)
                self._push(stream, stream.arrival_ns + self._step_ns)
                self._changed.notify()
                return stream
        sink.on_error(EngineUnavailable("the echo engine is closed"))
        return stream

    def cancel(self, request_id: str) -> int:
        with self._changed:
            found = [s for _, _, s in self._due if s.generation.request_id == request_id]
        for stream in found:
            stream.cancel()
        return len(found)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _wake(self) -> None:
        with self._changed:
            # A cancelled stream has nothing to wait for.
            self._due = [(0 if s.cancelled else at, n, s) for at, n, s in self._due]
            heapq.heapify(self._due)
            self._changed.notify()

    def _push(self, stream: _Stream, at_ns: int) -> None:
        heapq.heappush(self._due, (at_ns, next(self._number), stream))

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and self._wait_ns() > 0:
                    self._changed.wait(self._wait_ns() / NS_PER_S if self._due else None)
                if self._closed:
                    break
                at_ns, _, stream = self._due[0]
                # Steps from the time that was due, so that the rate holds over many tokens.
                if stream.step():
                    heapq.heappop(self._due)
                else:
                    entry = (at_ns + self._step_ns, next(self._number), stream)
                    heapq.heapreplace(self._due, entry)
        for _, _, stream in self._due:
            stream.sink.on_error(EngineUnavailable("the echo engine was closed"))

    def _wait_ns(self) -> int:
        return self._due[0][0] - time.monotonic_ns() if self._due else NS_PER_S
