# SPDX-License-Identifier: Apache-2.0
"""Waiting for what other threads and processes do."""

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 60.0  # long for a slow, busy machine too: who waits in vain has failed anyway
LOOK_S = 0.01


def wait_for(
    condition: Callable[[], bool], timeout_s: float = PATIENCE_S, what: str = "the condition"
) -> float:
    """Seconds that it took.

    Raises:
        AssertionError: `what` was not true within `timeout_s`.
    """
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout_s, f"{what}: not within {timeout_s:g} s"
        time.sleep(LOOK_S)
    return time.monotonic() - start


async def wait_beside(condition: Callable[[], bool], what: str = "the condition") -> None:
    """As `wait_for`, while the event loop goes on.

    Raises:
        TimeoutError: `what` was not true within PATIENCE_S.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise TimeoutError(f"{what}: not within {PATIENCE_S:g} s") from None
