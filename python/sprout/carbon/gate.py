# SPDX-License-Identifier: Apache-2.0
"""When a source may be asked: quota, back-off and circuit breaker, on a clock that is given.

    closed ──failures──► back-off: retry_s · 2^n, jittered, at most retry_max_s
       ▲                     │ open_after in a row, or one that waiting does not cure
       │                     ▼
       └──a success──── open for open_s, then one probe (half-open); a failure opens it again

A Retry-After stands above all of it. After a success the gate is held for as long as the answer
can't have changed.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from sprout.errors import FeedError, FeedUnauthorized, FeedZoneError

# Waiting does not cure a refused key; the breaker opens at once.
FINAL = (FeedUnauthorized, FeedZoneError)


@dataclass(frozen=True)
class Pace:
    """Seconds. All zero: asked at every look, which is for what is at hand."""

    poll_s: float = 0.0  # between two questions, at least
    retry_s: float = 0.0  # after the first failure; doubles
    retry_max_s: float = 0.0
    open_after: int = 5  # failures in a row
    open_s: float = 0.0
    final_s: float = 0.0  # the same after a refusal that waiting does not cure; 0: open_s


class Breaker(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"  # the next question is a probe


class Gate:
    """Of one kind of question to one source; for one task."""

    def __init__(
        self,
        pace: Pace,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._pace, self._monotonic, self._uniform = pace, monotonic, uniform
        self._ready_at = -float("inf")
        self._open = False
        self.failures = 0  # in a row

    def ready(self) -> bool:
        return self._monotonic() >= self._ready_at

    @property
    def state(self) -> Breaker:
        if not self._open:
            return Breaker.CLOSED
        return Breaker.HALF_OPEN if self.ready() else Breaker.OPEN

    def succeeded(self, hold_s: float = 0.0) -> None:
        """`hold_s`: for how long the answer can't change."""
        self.failures, self._open = 0, False
        self._wait(max(self._pace.poll_s, hold_s))

    def failed(self, error: FeedError) -> None:
        pace = self._pace
        self.failures += 1
        self._open = self._open or self.failures >= pace.open_after or isinstance(error, FINAL)
        if isinstance(error, FINAL) and pace.final_s:
            wait_s = pace.final_s
        elif self._open:
            wait_s = pace.open_s
        else:
            wait_s = min(pace.retry_max_s, pace.retry_s * 2.0 ** (self.failures - 1))
        # Control planes that failed together shall not come back together. Never sooner than asked.
        wait_s *= self._uniform(0.5, 1.5)
        self._wait(max(wait_s, error.retry_after_s or 0.0))

    def hold(self, seconds: float) -> None:
        """Not before `seconds` have passed, whatever else was said."""
        self._ready_at = max(self._ready_at, self._monotonic() + seconds)

    def _wait(self, seconds: float) -> None:
        self._ready_at = self._monotonic() + seconds
