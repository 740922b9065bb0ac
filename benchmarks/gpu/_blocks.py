# SPDX-License-Identifier: Apache-2.0
"""Traffic that goes on from block to block while the policy changes, and what a block came to.

A block's first seconds are its wash-out: requests of the block before still end in it. A request
belongs to the block that it was due in, and to its figures if that was after the wash-out; it may
end in the next block's wash-out.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from _send import DRAIN_S, Ask, Sent, send
from _work import Floats

from sprout.profile.spans import active_seconds

IDLE_POLL_S = 0.02  # of the feed, while nothing is due


class Stream:
    """An open feed that arrivals are added to while it is sent from, on `time.monotonic`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: deque[tuple[float, Ask]] = deque()
        self._closed = False
        self._zero: float | None = None  # when the sender's time began

    def add(self, times: Floats, asks: Sequence[Ask]) -> None:
        """Ascending, and not before those that were added."""
        self._waiting.extend(zip(times.tolist(), asks, strict=True))

    def close(self) -> None:
        """No more will be added."""
        self._closed = True

    def due(self, now: float, in_flight: int) -> tuple[float, Ask] | None:
        zero = self._began(now)
        if not self._waiting or self._waiting[0][0] - zero > now:
            return None
        at, ask = self._waiting.popleft()
        return at - zero, ask

    def wait(self, now: float) -> float:
        zero = self._began(now)
        if self._waiting:
            return max(0.0, self._waiting[0][0] - zero - now)
        return np.inf if self._closed else IDLE_POLL_S

    def _began(self, now: float) -> float:
        if self._zero is None:
            self._zero = self._clock() - now
        return self._zero


class Traffic:
    """`with Traffic(addresses) as traffic:` - a stream to each stack, sent from a thread.

    The end waits for what is in flight, `DRAIN_S` at most. What the sending failed with is raised
    there.
    """

    def __init__(self, addresses: Sequence[str], longest_s: float) -> None:
        self.streams = [Stream() for _ in addresses]
        self._addresses, self._longest_s = addresses, longest_s
        self._ended: list[Sent] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        for stream in self.streams:
            stream.close()
        self._thread.join(self._longest_s + DRAIN_S + 10)
        if self._error is not None:
            raise self._error

    @property
    def ended(self) -> list[Sent]:
        """So far, with or without an answer. Raises what the sending failed with."""
        if self._error is not None:
            raise self._error
        return list(self._ended)

    def _run(self) -> None:
        try:
            asyncio.run(self._send())
        except BaseException as error:
            self._error = error

    async def _send(self) -> None:
        await asyncio.gather(*(self._to(stack) for stack in range(len(self.streams))))

    async def _to(self, stack: int) -> None:
        def ended(sent: Sent) -> None:
            sent.target = stack
            self._ended.append(sent)

        await send(self._addresses[stack], self.streams[stack], self._longest_s, on_end=ended)


@dataclass
class Block:
    """`since` to `until` is measured, on `time.monotonic`; the wash-out lies before it."""

    since: float
    until: float
    expected: int  # requests due within
    policies: list[int]  # by stack: the version that its requests have, or a later one
    joules: list[float] = field(default_factory=list)  # of each GPU, once they are known

    @property
    def seconds(self) -> float:
        return self.until - self.since


def play(
    streams: Sequence[Stream],
    parts: Sequence[tuple[Floats, Sequence[Ask]]],
    washout_s: float,
    window_s: float,
    policies: Sequence[int],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Block:
    """Sends each stack its part, (n,) seconds from now and n requests, and waits for the end.

    policies: by stack, the version in force.
    """
    start = clock() + IDLE_POLL_S
    since, until = start + washout_s, start + washout_s + window_s
    expected = 0
    for stream, (times, asks) in zip(streams, parts, strict=True):
        stream.add(start + times, asks)
        expected += int(((times >= washout_s) & (times < washout_s + window_s)).sum())
    sleep(max(0.0, until - clock()))
    return Block(since, until, expected, list(policies))


def figures(
    block: Block, ended: Sequence[Sent], levels: int, won: Callable[[int, int], bool]
) -> dict[str, Any]:
    """ended: all so far, of every block. won: whether of a prompt (its key) a level's answer is the
    one that was preferred. Complete once the longest answer has ended."""
    own = [r for r in ended if block.since <= r.due < block.until]
    good = [r for r in own if not r.error]
    within = [r for r in ended if block.since <= r.ended < block.until]
    starts = np.array([r.due for r in ended if not r.error])
    ends = np.array([r.ended for r in ended if not r.error])
    errors: dict[str, int] = {}
    for r in own:
        if r.error:
            errors[r.error] = errors.get(r.error, 0) + 1
    return {
        "seconds": block.seconds,
        "joules": block.joules,
        "watts": sum(block.joules) / block.seconds,
        "arrived": block.expected,
        "answered": len(good),
        "failed": block.expected - len(good),
        "errors": errors,
        "ended_per_s": len(within) / block.seconds,
        "in_flight": active_seconds(starts, ends, block.since, block.until) / block.seconds,
        "latencies_s": [round(r.latency_s, 4) for r in good],
        "levels": [sum(r.level == level for r in good) for level in range(levels)],
        "tokens": sum(r.tokens for r in good),
        "prompt_tokens": sum(r.input_tokens for r in good),
        "receipt_joules": [round(r.joules, 3) for r in good],
        "receipt_g": float(sum(r.grams for r in good)),
        "preferred": sum(won(r.key, r.level) for r in good),
        "preferred_at_l0": sum(won(r.key, 0) for r in good),
        "under_an_older_policy": sum(r.policy < block.policies[r.target] for r in good),
    }
