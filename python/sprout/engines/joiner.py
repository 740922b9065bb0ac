# SPDX-License-Identifier: Apache-2.0
"""Joins tokens that come close together into one response: each response costs a hop.

The first tokens leave at once. Later ones leave as soon as `interval_ns` has passed since the
response before, so an engine that is slower than that is never held up.
"""

from sprout.engines.base import Chunk


class ChunkJoiner:
    """Of one stream. interval_ns: 0 joins nothing; None holds everything until the end."""

    __slots__ = ("_interval_ns", "_pending", "_sent_ns")

    def __init__(self, interval_ns: int | None) -> None:
        self._interval_ns = interval_ns
        self._pending: list[int] = []
        self._sent_ns: int | None = None

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
        self._sent_ns = now_ns
        return Chunk(pending)

    @property
    def deadline_ns(self) -> int | None:
        """When waiting tokens must leave; None if there are none, or only the end sends them."""
        if not self._pending or self._interval_ns is None:
            return None
        return 0 if self._sent_ns is None else self._sent_ns + self._interval_ns
