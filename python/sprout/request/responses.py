# SPDX-License-Identifier: Apache-2.0
"""Responses of inner requests, kept alive for a while after their end.

The Python backend of Triton 2.51 holds a reference of its own to the responses of a decoupled inner
request and drops it from a thread without the interpreter's lock, a moment after the last response.
If that were the last reference, the interpreter's memory would be corrupted and the stub would die
sooner or later (seen within some hundred requests on many threads). So ours is dropped later.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

KEPT_S = 5.0


class Responses:
    """Shared by all threads."""

    def __init__(self, kept_s: float = KEPT_S) -> None:
        self._kept_s = kept_s
        self._ended: deque[tuple[float, object]] = deque()

    def of(self, responses: Iterable[T]) -> Iterator[T]:
        """All of them, in order. To be read to the end, even behind an error."""
        try:
            yield from responses
        finally:
            now = time.monotonic()
            self._ended.append((now, responses))
            self._forget(now - self._kept_s)

    def _forget(self, before: float) -> None:
        while True:
            try:
                oldest = self._ended.popleft()
            except IndexError:
                return
            if oldest[0] > before:
                self._ended.appendleft(oldest)
                return
