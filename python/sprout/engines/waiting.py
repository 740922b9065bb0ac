# SPDX-License-Identifier: Apache-2.0
"""Streams whose tokens wait, in the order in which they leave."""

import heapq
import itertools
from typing import Generic, TypeVar

Stream = TypeVar("Stream")


class Waiting(Generic[Stream]):
    """The stream that sent longest ago is the first: the interval is the same for all, whatever it
    is by then. So finding out whether anything is due costs as much with a hundred streams as with
    one, and that is asked with every token.

    For one thread.
    """

    def __init__(self) -> None:
        self._sent_ns: dict[Stream, int] = {}
        self._heap: list[tuple[int, int, Stream]] = []  # when it sent, a tie-breaker, who
        self._number = itertools.count()

    def __len__(self) -> int:
        return len(self._sent_ns)

    def add(self, stream: Stream, sent_ns: int) -> None:
        """sent_ns: when it sent last. One that waits already keeps its place."""
        if stream not in self._sent_ns:
            self._sent_ns[stream] = sent_ns
            heapq.heappush(self._heap, (sent_ns, next(self._number), stream))

    def discard(self, stream: Stream) -> None:
        """It has sent, or ended. Its entry leaves the heap as it comes to the front."""
        self._sent_ns.pop(stream, None)

    def first(self) -> tuple[int, Stream] | None:
        """When it sent last, and who."""
        heap = self._heap
        while heap:
            sent_ns, _, stream = heap[0]
            if self._sent_ns.get(stream) == sent_ns:
                return sent_ns, stream
            heapq.heappop(heap)
        return None
