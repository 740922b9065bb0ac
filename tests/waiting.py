# SPDX-License-Identifier: Apache-2.0
"""Waiting for what other threads and processes do."""

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Seconds that it took.

    Raises:
        AssertionError: `what` was not true within `timeout_s`.
    """
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout_s, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.02)
    return time.monotonic() - start
