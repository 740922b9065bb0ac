# SPDX-License-Identifier: Apache-2.0
"""When a judge may be asked again: jittered back-off; a Retry-After holds for every thread."""

import random
import threading
import time
from collections.abc import Callable

from sprout.errors import JudgeError, RequestCancelled

MAX_HOLD_S = 600.0  # a judge that asks for more is not there for this evaluation


class Pace:
    """retry_s: after the first failed try of a comparison; doubles, up to retry_max_s."""

    def __init__(
        self,
        *,
        retry_s: float = 1.0,
        retry_max_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._retry_s, self._retry_max_s = retry_s, retry_max_s
        self._monotonic, self._uniform = monotonic, uniform
        self._lock = threading.Lock()
        self._held_until = -float("inf")

    def hold(self, seconds: float) -> None:
        """Nobody asks within `seconds`. JudgeError if that is longer than an evaluation waits."""
        if seconds > MAX_HOLD_S:
            raise JudgeError(
                f"the judge asks to be left alone for {seconds:.0f} s; what is judged so far is "
                "kept, so run the evaluation again after that"
            )
        with self._lock:
            self._held_until = max(self._held_until, self._monotonic() + seconds)

    def wait(self, failures: int, stop: threading.Event) -> None:
        """Before the next try; `failures`: tries of this comparison that were not heard.

        RequestCancelled once `stop` is set.
        """
        own = self._monotonic()
        if failures:
            wait_s = min(self._retry_max_s, self._retry_s * 2.0 ** (failures - 1))
            # Threads that failed together shall not come back together.
            own += wait_s * self._uniform(0.5, 1.5)
        while True:  # others may be told to hold meanwhile, and that holds for this one too
            with self._lock:
                left = max(own, self._held_until) - self._monotonic()
            if left <= 0:
                break
            if stop.wait(left):
                break
        if stop.is_set():
            raise RequestCancelled("the evaluation was stopped")
