# SPDX-License-Identifier: Apache-2.0
"""What shorter answers free, kept at hand for metrics: looked at now and then, not at each scrape.

The figure is that of `sprout report`, over the last day.
"""

import time
from collections.abc import Callable
from pathlib import Path

from sprout.control.archive import Archive, Span
from sprout.control.report import capacity
from sprout.proof.capacity import Freed
from sprout.proof.interval import Absent

SPAN_S = 86_400.0
EVERY_S = 300.0


class Capacity:
    def __init__(self, store: Path, wall: Callable[[], float] = time.time) -> None:
        self._store, self._wall = store, wall
        self.found: Freed | Absent = Absent("not looked at yet")

    def look(self) -> None:
        """Read the store; takes seconds over a million outcomes. ControlError where it can't."""
        now = self._wall()
        archive = Archive(self._store)
        try:
            self.found = capacity(archive, Span(now - SPAN_S, now))
        finally:
            archive.close()
