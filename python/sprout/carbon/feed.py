# SPDX-License-Identifier: Apache-2.0
"""The feed: asks the chain, keeps the last value and its age, and says what is wrong.

It never makes a value up. Without one it says so. What is done without one that is young enough is
the operator's choice (`carbon.fallback`), with a reason beside it: by default the last one is still
given, because the floor bounds what a wrong intensity can cost in quality.

Values are compared within a series alone: the range is of the series in force, and changes with it.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, Protocol

from sprout.carbon.chain import Chain
from sprout.carbon.intensity import Intensity, Series
from sprout.carbon.member import Member, Reading
from sprout.carbon.trace import TraceSource
from sprout.errors import ConfigError, SproutError
from sprout.optimize import floor

LOG = logging.getLogger(__name__)

# Values are at most an hour apart; a wider gap means that some were missed.
GAP = timedelta(minutes=90)
CORRECTED_EVERY = timedelta(hours=12)


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
        chain: Chain,
        history: History,
        *,
        range_mode: Literal["trailing", "trace"],
        range_hours: float,
        range_min_hours: float,
        fallback: Literal["last", "none"] | float = "last",
        history_hours: float = 0.0,
    ) -> None:
        """history_hours: asked of a source beyond what the range needs, for budgets."""
        if range_mode == "trace" and not isinstance(chain.first, TraceSource):
            raise ConfigError('control.range_mode = "trace" needs carbon.sources = ["trace"]')
        self._chain, self._history = chain, history
        self._range_mode = range_mode
        self._range_hours, self._range_min_hours = range_hours, range_min_hours
        self._fallback = fallback
        self._history_hours = max(range_hours, history_hours)
        self._held: tuple[Member, Reading] | None = None
        self._asked = False
        self._problem: str | None = None
        self._store_error: str | None = None
        self._stored: dict[Series, Intensity] = {}  # the newest of each
        self._backfilled: dict[Series, datetime] = {}  # up to which value
        self._polled: datetime | None = None  # on the clock of the source in force

    @property
    def remote(self) -> bool:
        """Whether a poll costs somebody something."""
        return any(member.source.remote for member in self._chain.members)

    @property
    def series(self) -> Series:
        """The one in force; before any value, the first source's."""
        return self._chain.first.series if self._held is None else self._held[1].value.series

    def restore(self) -> None:
        """Start with the newest stored value of the first source, if it is not too old already."""
        source = self._chain.first
        now = source.clock()
        since = now - timedelta(seconds=self._chain.max_age_s)
        stored = self._history.intensities(source.series, since, now)
        if stored:
            self._held = self._chain.members[0], Reading(stored[-1])
            self._stored[source.series] = stored[-1]

    async def poll(self) -> None:
        """Ask what is due. A failure is kept as a reason and not raised."""
        found = await self._chain.look()
        self._asked = True
        if found is None:
            self._problem = self._chain.problems()
        else:
            self._held, self._problem = found, self._beside(*found)
        if self._held is not None:
            self._polled = self._held[0].source.clock()
        if found is not None and found[1].issued is None:
            await self._keep(found[0], found[1].value)

    def _beside(self, member: Member, reading: Reading) -> str | None:
        """What is wrong though there is a value, and what stands in for what."""
        before = self._chain.problems(until=member)
        if member.error is None:
            if not before:
                return None
            zone, _, factor_type, signal = reading.value.series
            return f"{before}; {member.source.name} stands in ({zone}, {factor_type}, {signal})"
        problem = "; ".join(filter(None, (before, member.error)))
        if reading.issued is None:
            return problem
        issued = reading.issued.strftime("%Y-%m-%d %H:%M UTC")
        return f"{problem}; {member.source.forecast_basis} of {issued} stands in"

    async def _keep(self, member: Member, value: Intensity) -> None:
        """Into the history, with the past of its series where that is not there yet."""
        series, values = value.series, [value]
        newest = self._stored.get(series)
        if newest is not None and value.time - newest.time > GAP:
            self._backfilled.pop(series, None)
        # What was estimated when it was new may be known by now: the last days are asked for again.
        again = self._backfilled.get(series)
        if value.estimated and again is not None and value.time - again > CORRECTED_EVERY:
            del self._backfilled[series]
        if series not in self._backfilled:
            past = await member.past(self._history_hours)
            if past is not None:  # else the range says itself how much of it there is
                self._backfilled[series] = value.time
                values = [*past, value]
        elif value == newest and self._store_error is None:
            return
        try:
            await asyncio.to_thread(self._history.add_intensities, values)
            self._stored[series], self._store_error = value, None
        except SproutError as error:
            self._store_error = str(error)
            self._backfilled.pop(series, None)  # not kept, so it is asked for again

    def now(self) -> datetime | None:
        """The hour that `last` is used for, on its source's clock; None without a value."""
        value, held = self.last(), self._held
        if value is None:
            return None
        if held is None or value is not held[1].value:  # the fallback's
            return self._chain.first.clock()
        return value.time + timedelta(seconds=self.age_s() or 0.0)

    def last(self) -> Intensity | None:
        """What to decide on; None without a value, or where the operator wants none that is old."""
        held = self._held
        if held is not None and (self._fallback == "last" or self._young()):
            return held[1].value
        if isinstance(self._fallback, str) or not self._asked:
            return None
        zone, _, factor_type, signal = self._chain.first.series
        hour = self._chain.first.clock().replace(minute=0, second=0, microsecond=0)
        return Intensity(self._fallback, zone, "fallback", factor_type, signal, hour, True)

    def age_s(self) -> float | None:
        """Age of the last value of a source, on the source's clock; None without one.

        Of a source that is at hand, as it was last asked: an accelerated trace passes hours from
        one look to the next.
        """
        if self._held is None:
            return None
        member, reading = self._held
        polled = None if member.source.remote else self._polled
        return reading.value.age_s(polled or member.source.clock())

    def _young(self) -> bool:
        held, age_s = self._held, self.age_s()
        if held is None or age_s is None:
            return False
        return not held[0].source.live or age_s <= self._chain.max_age_s

    def reasons(self) -> dict[str, str]:
        """What is wrong, by kind; the texts hold no number that changes by the second."""
        found = {}
        if self._held is None:
            why = self._problem or "not asked yet"
            found["intensity"] = f"no carbon intensity yet: {why}"
        elif self._problem is not None:
            found["feed"] = f"the carbon source fails: {self._problem}"
        if self._held is not None and not self._young():
            found["stale"] = f"the carbon intensity is older than {self._chain.max_age_s:g} s"
        if self._asked and not self._young() and self._fallback != "last":
            chosen = self._fallback
            what = "no intensity" if chosen == "none" else f"{chosen:g} g/kWh, declared,"
            found["fallback"] = f"{what} stands in (carbon.fallback)"
        if self._store_error is not None:
            found["history"] = f"intensities are not stored: {self._store_error}"
        return found

    def forecast(self, hours: float) -> list[Intensity]:
        """What the source in force said last of the next `hours`, soonest first; [] if nothing."""
        return [] if self._held is None or not self._young() else self._held[0].ahead(hours)

    def forecast_basis(self) -> str:
        """Whose forecast that is, and when it was made; "" where there is none."""
        if self._held is None or not self._young():
            return ""
        source = self._held[0].source
        made = self._held[0].forecast(source.clock())
        return "" if made is None else f"{source.forecast_basis}, made {made[0]:%Y-%m-%d %H:%M} UTC"

    def range(self) -> floor.Range:
        """The range that the present intensity is compared with."""
        source = self._chain.first if self._held is None else self._held[0].source
        if self._asked and not self._young() and self._fallback != "last":
            return floor.Range(math.nan, math.nan, "carbon.fallback has no range")
        if self._range_mode == "trace" and isinstance(source, TraceSource):
            return floor.Range(*source.extent(), "whole trace")
        if not source.live:
            # Were it re-declared, its own history would pass for a range of the grid's.
            what = "a declared constant" if source.name == "constant" else "a yearly average"
            return floor.Range(math.nan, math.nan, f"{what} has no range")
        now = source.clock()
        since = now - timedelta(hours=self._range_hours)
        try:
            stored = self._history.intensities(source.series, since, now)
        except SproutError as error:
            return floor.Range(math.nan, math.nan, str(error))
        samples = [(value.time.timestamp(), value.g_per_kwh) for value in stored]
        hours, least = self._range_hours, self._range_min_hours
        return floor.trailing(samples, now.timestamp(), hours, least)
