# SPDX-License-Identifier: Apache-2.0
"""The feed: asks one source, keeps the last value and its age, and says what is wrong.

It never makes a value up. Without one it says so; a value that has become too old is still given,
with a reason beside it, because the floor bounds what a wrong intensity can cost in quality.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, Protocol

from sprout.carbon.intensity import Intensity, Series
from sprout.carbon.sources import ConstantSource, Source
from sprout.carbon.trace import TraceSource
from sprout.errors import ConfigError, FeedError, SproutError
from sprout.optimize import floor

LOG = logging.getLogger(__name__)

# Values are at most an hour apart; a wider gap means that some were missed.
GAP = timedelta(minutes=90)
# Characters: an error may quote the answer, and goes into every policy.
MAX_PROBLEM = 300


class History(Protocol):
    """Where intensities are kept; safe to call from several threads."""

    def add_intensities(self, values: Sequence[Intensity]) -> None:
        """Store; a later value for the same time of a series replaces the earlier one."""

    def intensities(self, series: Series, since: datetime, until: datetime) -> list[Intensity]:
        """The values with since < time <= until, oldest first."""


class Feed:
    """`poll` is called by one task; the rest may be called from any thread."""

    def __init__(
        self,
        source: Source,
        history: History,
        *,
        max_age_s: float,
        range_mode: Literal["trailing", "trace"],
        range_hours: float,
        range_min_hours: float,
    ) -> None:
        if range_mode == "trace" and not isinstance(source, TraceSource):
            raise ConfigError('control.range_mode = "trace" needs carbon.source = "trace"')
        self.source, self._history = source, history
        self._max_age_s = max_age_s
        self._range_mode = range_mode
        self._range_hours, self._range_min_hours = range_hours, range_min_hours
        self._last: Intensity | None = None
        self._error: str | None = "not asked yet"
        self._store_error: str | None = None
        self._backfilled = False
        self._polled: datetime | None = None  # on the source's clock

    def restore(self) -> None:
        """Start with the newest stored value, if it is not too old already."""
        now = self.source.clock()
        since = now - timedelta(seconds=self._max_age_s)
        stored = self._history.intensities(self.source.series, since, now)
        self._last = stored[-1] if stored else None

    async def poll(self) -> None:
        """Ask the source once. A failure is kept as a reason and not raised."""
        self._polled = self.source.clock()
        try:
            value = await self.source.now()
        except FeedError as error:
            problem = str(error)[:MAX_PROBLEM]
            if problem != self._error:
                LOG.warning("carbon source: %s", problem)
            self._error = problem
            return
        if self._error not in (None, "not asked yet"):
            LOG.info("carbon source: answers again")
        values = [value]
        if self._last is not None and value.time - self._last.time > GAP:
            self._backfilled = False
        if not self._backfilled:
            values = [*await self._past(), value]
        elif value == self._last and self._store_error is None:
            self._error = None
            return
        self._last, self._error = value, None
        try:
            await asyncio.to_thread(self._history.add_intensities, values)
            self._store_error = None
        except SproutError as error:
            self._store_error = str(error)
            self._backfilled = False  # not kept, so it is asked for again

    async def _past(self) -> list[Intensity]:
        try:
            values = await self.source.history(self._range_hours)
        except FeedError as error:
            # Not a reason of its own: the range says itself how much of it there is.
            LOG.warning("carbon source, history: %s", error)
            return []
        self._backfilled = True
        return values

    def last(self) -> Intensity | None:
        return self._last

    def age_s(self) -> float | None:
        """Age of the last value on the source's clock; None without one.

        Of a source that is at hand, as it was last asked: an accelerated trace passes hours from
        one look to the next.
        """
        last, polled = self._last, None if self.source.remote else self._polled
        return None if last is None else last.age_s(polled or self.source.clock())

    def reasons(self) -> dict[str, str]:
        """What is wrong, by kind; the texts hold no number that changes by the second."""
        found = {}
        age = self.age_s()
        if age is None:
            found["intensity"] = f"no carbon intensity yet: {self._error}"
        else:
            if self._error not in (None, "not asked yet"):
                found["feed"] = f"the carbon source fails: {self._error}"
            if age > self._max_age_s:
                found["stale"] = f"the carbon intensity is older than {self._max_age_s:g} s"
        if self._store_error is not None:
            found["history"] = f"intensities are not stored: {self._store_error}"
        return found

    def range(self) -> floor.Range:
        """The range that the present intensity is compared with."""
        if self._range_mode == "trace" and isinstance(self.source, TraceSource):
            return floor.Range(*self.source.extent(), "whole trace")
        if isinstance(self.source, ConstantSource):
            # Were it re-declared, its own history would pass for a range of the grid's.
            return floor.Range(math.nan, math.nan, "a declared constant has no range")
        now = self.source.clock()
        since = now - timedelta(hours=self._range_hours)
        try:
            stored = self._history.intensities(self.source.series, since, now)
        except SproutError as error:
            return floor.Range(math.nan, math.nan, str(error))
        samples = [(value.time.timestamp(), value.g_per_kwh) for value in stored]
        hours, least = self._range_hours, self._range_min_hours
        return floor.trailing(samples, now.timestamp(), hours, least)
