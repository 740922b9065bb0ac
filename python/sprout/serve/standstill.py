# SPDX-License-Identifier: Apache-2.0
"""Whether an engine has requests at work and gives none of them a token, told by the ledger.

A server may well answer its health check while what computes behind it hangs: on a GPU that is
lost, in a collective whose other end is gone.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from sprout.engines.http import STALL_S

HEARTBEAT_S = 30.0  # the slot's, of each of its requests, is every 10 s
_K = TypeVar("_K")


class Standstill:
    """limit_s: from when work is seen, how long nothing may move. By default longer than the slot
    waits for the first token of a prompt, and than word of an answer that is not streamed takes.

    One thread calls `look`, every few seconds. That work goes ends nothing: the slot and clients
    give up before a standstill is found, and what comes then waits in the slot.
    """

    def __init__(
        self,
        shm: Path,
        limit_s: float = STALL_S + HEARTBEAT_S,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shm, self._limit_s, self._clock = shm, limit_s, clock
        self.reset()

    def reset(self) -> None:
        """It counts from the next look on."""
        self._chunks: dict[int, int] = {}
        self._tokens: dict[tuple[int, int], int] = {}
        self._since: float | None = None
        self._most = 0  # requests at work since then

    def look(self) -> str | None:
        """What is wrong; None: nothing was at work, or something has moved lately."""
        chunks, tokens, now = _chunks(self._shm), at_work(self._shm), self._clock()
        if _grown(self._chunks, chunks) or _grown(self._tokens, tokens):
            self._since, self._most = None, 0
        self._chunks, self._tokens = chunks, tokens
        if tokens and self._since is None:
            self._since = now
        self._most = max(self._most, len(tokens))
        if self._since is None or now - self._since < self._limit_s:
            return None
        return f"no token for {now - self._since:.0f} s, with {self._most} requests at work"


def at_work(shm: Path) -> dict[tuple[int, int], int]:
    """Output tokens of each request that the engine has begun, by (segment uid, ticket).

    Only those whose slot is alive: what a dead one left in the ledger says nothing of the engine.
    """
    # Compiled; the CLI starts without it.
    from sprout_ext.ledger import Phase, segments  # noqa: PLC0415

    tokens = {}
    lately_ns = time.monotonic_ns() - int(HEARTBEAT_S * 1e9)
    for segment in segments(shm):
        if segment.alive:
            records = segment.scan()
            begun = (records["scheduled_ns"] > 0) & (records["phase"] < Phase.FINISHED)
            for flight in records[begun & (records["heartbeat_ns"] > lately_ns)]:
                tokens[segment.uid, int(flight["ticket"])] = int(flight["output_tokens"])
    return tokens


def _chunks(shm: Path) -> dict[int, int]:
    """What each slot has ever sent, by segment uid: postprocessing counts all that passes it."""
    from sprout_ext.ledger import Counter, Role, segments  # noqa: PLC0415

    return {
        segment.uid: int(segment.counters()[Counter.CHUNKS])
        for segment in segments(shm)
        if segment.role == Role.ENGINE
    }


def _grown(before: Mapping[_K, int], now: Mapping[_K, int]) -> bool:
    return any(n > before.get(key, 0) for key, n in now.items())
