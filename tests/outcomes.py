# SPDX-License-Identifier: Apache-2.0
"""What a running stack has counted, read where it keeps it: from ledger and database."""

import contextlib
import sqlite3
import time

from waiting import wait_for

from sprout.serve.background import BackgroundStack
from sprout_ext.ledger import segments

QUIET_S = 3.0  # agents report once a second


def open_flights(stack: BackgroundStack) -> int:
    return sum(len(segment.scan()) for segment in segments(stack.paths.shm))


def outcomes(stack: BackgroundStack) -> int:
    """Stored by the control plane, without Sprout's own probes."""
    with contextlib.closing(sqlite3.connect(stack.paths.state / "control.sqlite")) as db:
        return int(db.execute("select count(*) from outcomes where not flags & 64").fetchone()[0])


def settled(stack: BackgroundStack) -> int:
    """Outcomes, once those of the tests before have all arrived."""
    wait_for(lambda: open_flights(stack) == 0, 30, "a quiet ledger")
    count, since = outcomes(stack), time.monotonic()
    while time.monotonic() - since < QUIET_S:
        time.sleep(0.1)
        if (now := outcomes(stack)) != count:
            count, since = now, time.monotonic()
    return count
