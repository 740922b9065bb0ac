# SPDX-License-Identifier: Apache-2.0
"""Load on a running stack: so many requests in flight (closed), or so many a second (open).

What is driven is a `Target`: Triton in earnest, something quick in tests.
"""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from sprout.errors import ConfigError, EngineError, SproutError
from sprout.serve.client import Client
from sprout.units import NS_PER_S

MOST_IN_FLIGHT = 256  # of an open loop; a request beyond is counted, not sent


@dataclass(frozen=True)
class Reply:
    """What a target says of an answer."""

    level: int  # that it was served at
    input_tokens: int
    output_tokens: int
    first_s: float  # from sending to the first text
    energy_joules: float  # of the receipt; nan: none
    # When the engine worked on it, CLOCK_MONOTONIC of its machine; 0: not told.
    scheduled_ns: int = 0
    last_token_ns: int = 0


@dataclass(frozen=True)
class Shot:
    """One answer, on CLOCK_MONOTONIC."""

    start_s: float
    first_s: float
    end_s: float
    reply: Reply

    @property
    def at_work_ns(self) -> tuple[int, int] | None:
        """From the first schedule to the last token, as the agent settles by; None: not known, or
        by another machine's clock."""
        begin, end = self.reply.scheduled_ns, self.reply.last_token_ns
        here = self.start_s <= begin / NS_PER_S <= end / NS_PER_S <= self.end_s
        return (begin, end) if here else None

    @property
    def work_s(self) -> tuple[float, float]:
        """The same in seconds; where it is not known, from sending to the end."""
        at = self.at_work_ns
        return (self.start_s, self.end_s) if at is None else (at[0] / NS_PER_S, at[1] / NS_PER_S)


class Target(Protocol):
    """Called from many threads at once."""

    def ask(self, prompt: str, level: str) -> Reply:
        """One prompt pinned to a level. Raises SproutError where that fails."""

    def close(self) -> None: ...


class TritonTarget:
    """The ensemble; a connection for each thread."""

    def __init__(self, address: str, *, max_tokens: int, timeout_s: float, seed: int) -> None:
        self._address, self._max_tokens = address, max_tokens
        self._timeout_s, self._seed = timeout_s, seed
        self._own = threading.local()
        self._lock = threading.Lock()
        self._clients: list[Client] = []

    def ask(self, prompt: str, level: str) -> Reply:
        answer = self._client().ask(
            prompt,
            level=level,
            max_tokens=self._max_tokens,
            options={"seed": self._seed},
            timeout_s=self._timeout_s,
        )
        if answer.receipt is None:
            raise EngineError("an answer came without a receipt: nothing can be profiled")
        return Reply(
            answer.receipt.level,
            answer.input_tokens,
            answer.output_tokens,
            answer.first_chunk_s,
            answer.receipt.energy_joules,
            answer.extra.get("first_scheduled_time_ns", 0),
            answer.extra.get("last_token_time_ns", 0),
        )

    def close(self) -> None:
        with self._lock:
            while self._clients:
                self._clients.pop().close()

    def _client(self) -> Client:
        client: Client | None = getattr(self._own, "client", None)
        if client is None:
            client = self._own.client = Client(self._address)
            with self._lock:
                self._clients.append(client)
        return client


class Load:
    """Requests of one level until told to stop; `shots` grows meanwhile.

    Prompts come in an order of their own for each load, drawn from `seed`. The first failure ends
    the load and is raised by `check` and by the end of `running`.
    """

    def __init__(
        self, target: Target, prompts: Sequence[str], level: str, index: int, *, seed: int
    ) -> None:
        self.shots: list[Shot] = []
        self.shed = 0  # requests of an open loop that were too many to send
        self._target, self._prompts = target, list(prompts)
        self._level, self._index = level, index
        self._random = random.Random(seed)  # noqa: S311
        self._next = iter(self._order())
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._error: SproutError | None = None

    def check(self) -> None:
        """Raises what a request raised."""
        if self._error is not None:
            raise self._error

    @contextmanager
    def closed(self, in_flight: int) -> Iterator[None]:
        """`in_flight` requests at any time; waits for their ends afterwards."""
        with self._pool(in_flight) as pool:
            for _ in range(in_flight):
                pool.submit(self._again)
            yield

    @contextmanager
    def open(self, per_s: float) -> Iterator[None]:
        """Poisson arrivals, whether or not the ones before are done."""
        with self._pool(MOST_IN_FLIGHT) as pool:
            arrivals = threading.Thread(target=self._arrive, args=(pool, per_s), daemon=True)
            arrivals.start()
            try:
                yield
            finally:
                self._stop.set()
                arrivals.join()

    @contextmanager
    def _pool(self, threads: int) -> Iterator[ThreadPoolExecutor]:
        with ThreadPoolExecutor(threads) as pool:
            try:
                yield pool
            finally:
                self._stop.set()
        self.check()

    def _again(self) -> None:
        while not self._stop.is_set():
            self._ask()

    def _arrive(self, pool: ThreadPoolExecutor, per_s: float) -> None:
        slots = threading.BoundedSemaphore(MOST_IN_FLIGHT)

        def one() -> None:
            try:
                self._ask()
            finally:
                slots.release()

        due = time.monotonic()
        while True:
            due += self._random.expovariate(per_s)
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            if slots.acquire(blocking=False):
                pool.submit(one)
            else:
                self.shed += 1

    def _ask(self) -> None:
        with self._lock:
            prompt = next(self._next)
        start = time.monotonic()
        try:
            reply = self._target.ask(prompt, self._level)
            if reply.level != self._index:
                raise ConfigError(
                    f"{self._level} was asked for and L{reply.level} served: profiling pins "
                    "levels, so request.hints must hold sprout_level, and the policy must not be "
                    "paused"
                )
        except SproutError as error:
            self._error = error
            self._stop.set()
            return
        shot = Shot(start, start + reply.first_s, time.monotonic(), reply)
        with self._lock:
            self.shots.append(shot)

    def _order(self) -> Iterator[str]:
        """Each prompt once, in a new order each time round."""
        while True:
            yield from self._random.sample(self._prompts, len(self._prompts))
