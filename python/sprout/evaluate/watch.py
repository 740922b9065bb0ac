# SPDX-License-Identifier: Apache-2.0
"""The evaluator as a process: asks the control plane whether an evaluation is due, and runs it.

It decides nothing: the rule and the grid's history are the control plane's. It never ends by
itself; what goes wrong is logged, and tried again after a while that grows.
"""

import hashlib
import logging
import threading
from collections.abc import Callable

from sprout.errors import SproutError
from sprout.v1 import control_pb2 as pb

log = logging.getLogger(__name__)

LOOK_S = 10.0  # between two looks
FIRST_RETRY_S, MOST_RETRY_S = 60.0, 3600.0


class Watch:
    """status: asks the control plane; evaluate: runs the one that is due by it, None = it was
    cancelled."""

    def __init__(
        self,
        status: Callable[[], pb.Status],
        evaluate: Callable[[pb.EvaluationStatus], pb.Evaluation | None],
        *,
        look_s: float = LOOK_S,
        first_retry_s: float = FIRST_RETRY_S,
    ) -> None:
        self._status, self._evaluate = status, evaluate
        self._look_s, self._first_retry_s = look_s, first_retry_s
        self._stop = threading.Event()
        self._failures = 0

    def stop(self) -> None:
        """From any thread, or a signal handler."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def run(self) -> None:
        while not self._stop.is_set():
            self._stop.wait(self.step())

    def step(self) -> float:
        """One look; seconds until the next."""
        try:
            standing = self._status().evaluation
            if not standing.due:
                self._failures = 0
                return self._look_s
            if self.stopped:
                return 0.0
            log.info("evaluating: %s", standing.why)
            found = self._evaluate(standing)
        except SproutError as error:
            wait_s = min(MOST_RETRY_S, self._first_retry_s * 2.0**self._failures)
            self._failures = min(self._failures + 1, 30)
            log.warning("no evaluation (next try in %.0f s): %s", wait_s, error)
            return wait_s
        self._failures = 0
        if found is not None:
            log.info("evaluated %d prompts: %s", found.classes[0].judged, found.stopped)
        return self._look_s


def seed(latest: str) -> int:
    """Of the evaluation after the one of that id ("": there was none): another draw of prompts than
    its, and the same one whenever the attempt goes on."""
    return int.from_bytes(hashlib.sha256(latest.encode()).digest()[:4])
