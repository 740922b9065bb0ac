# SPDX-License-Identifier: Apache-2.0
"""Joins tokens that come close together into one response: each response costs a hop.

The first tokens leave at once. Later ones leave as soon as the interval has passed since the
response before, so an engine that is slower than that is never held up.
"""

from sprout.engines.base import Chunk
from sprout.engines.pace import Pace

_LONG_AGO_NS = -(1 << 62)


class ChunkJoiner:
    """Of one stream. pace: with an interval of 0 nothing is joined; None holds everything until the
    end.
    """

    __slots__ = ("_pace", "_pending", "sent_ns")

    def __init__(self, pace: Pace | None) -> None:
        self._pace = pace
        self._pending: list[int] = []
        self.sent_ns = _LONG_AGO_NS  # when the last response left

    def add(self, chunk: Chunk, now_ns: int) -> Chunk | None:
        """What is to be sent now, if anything. A chunk with an end always is."""
        self._pending.extend(chunk.token_ids)
        if chunk.end is not None:
            pending, self._pending = self._pending, []
            return Chunk(pending, chunk.end)
        return self.due(now_ns)

    def due(self, now_ns: int) -> Chunk | None:
        """What has waited long enough."""
        deadline = self.deadline_ns
        if deadline is None or now_ns < deadline:
            return None
        pending, self._pending = self._pending, []
        self.sent_ns = now_ns
        return Chunk(pending)

    @property
    def deadline_ns(self) -> int | None:
        """When waiting tokens must leave; None if there are none, or only the end sends them."""
        if not self._pending or self._pace is None:
            return None
        return self.sent_ns + self._pace.interval_ns
