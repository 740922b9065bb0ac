# SPDX-License-Identifier: Apache-2.0
"""Whether an engine has requests at work and gives none of them a token, told by the ledger.

A server may well answer its health check while what computes behind it hangs: on a GPU that is
lost, in a collective whose other end is gone.
"""

import time
from collections.abc import Callable
from pathlib import Path

HEARTBEAT_S = 30.0  # the slot's, of each of its requests, is every 10 s


class Standstill:
    """limit_s: how long nothing may move. One thread calls `look`, every few seconds."""

    def __init__(
        self, shm: Path, limit_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shm, self._limit_s, self._clock = shm, limit_s, clock
        self._chunks = 0
        self._tokens: dict[tuple[int, int], int] = {}  # by (segment uid, ticket)
        self._since = clock()

    def reset(self) -> None:
        """It counts from now on."""
        self._since = self._clock()

    def look(self) -> str | None:
        """What is wrong; None: nothing is at work, or something has moved lately."""
        chunks, tokens = _now(self._shm)
        before, self._tokens = self._tokens, tokens
        moved = chunks != self._chunks or any(n > before.get(key, 0) for key, n in tokens.items())
        self._chunks = chunks
        if moved or not tokens or not before:
            self.reset()
            return None
        still_s = self._clock() - self._since
        if still_s < self._limit_s:
            return None
        return f"no token for {still_s:.0f} s, with {len(tokens)} requests at work"


def _now(shm: Path) -> tuple[int, dict[tuple[int, int], int]]:
    """(chunks sent since ever, output tokens of each request at work)

    Only those whose slot is alive: what a dead one left in the ledger says nothing of the engine.
    """
    # Compiled; the CLI starts without it.
    from sprout_ext.ledger import Counter, Phase, segments  # noqa: PLC0415

    chunks, tokens = 0, {}
    lately_ns = time.monotonic_ns() - int(HEARTBEAT_S * 1e9)
    for segment in segments(shm):
        chunks += int(segment.counters()[Counter.CHUNKS])
        if not segment.alive:
            continue
        records = segment.scan()
        at_work = (records["scheduled_ns"] > 0) & (records["phase"] < Phase.FINISHED)
        for flight in records[at_work & (records["heartbeat_ns"] > lately_ns)]:
            tokens[segment.uid, int(flight["ticket"])] = int(flight["output_tokens"])
    return chunks, tokens
