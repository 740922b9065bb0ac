# SPDX-License-Identifier: Apache-2.0
"""One source in the chain: its gates, its last value, and the forecast that carries an outage."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sprout.carbon.gate import Breaker, Gate, Pace
from sprout.carbon.intensity import Intensity, ahead
from sprout.carbon.sources import Source
from sprout.errors import ConfigError, FeedError, FeedMalformed, FeedUnauthorized

LOG = logging.getLogger(__name__)

SKEW_S = 300.0  # a value may be this far ahead of the clock here
# A forecast is issued anew about once an hour by every API that has one.
FORECAST_S = 3600.0
DAY_S = 86_400.0
# Characters: a vendor's error goes into every policy.
MAX_PROBLEM = 300


@dataclass(frozen=True)
class Reading:
    value: Intensity
    issued: datetime | None = None  # of a forecast that stands in for the source: when it was made


async def ask(source: Source) -> Intensity:
    """The source's present value. FeedError, ConfigError where its key file went."""
    value = await source.now()
    if value.time > source.clock() + timedelta(seconds=SKEW_S):  # it would never grow old
        raise FeedMalformed(
            f"{source.name}: its value is for a time to come: is this machine's clock right?"
        )
    return value


class Member:
    """`look` and `past` are called by one task."""

    def __init__(
        self,
        source: Source,
        *,
        pace: Pace,
        forecast_hours: float,
        forecast_max_age_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        self.source = source
        self.error: str | None = "not asked yet"
        self._gate = Gate(pace, monotonic=monotonic)
        # What a plan does not cover today it may tomorrow.
        paid = replace(pace, poll_s=0.0, final_s=DAY_S if pace.open_s else 0.0)
        self._forecast_gate = Gate(paid, monotonic=monotonic)
        self._past_gate = Gate(paid, monotonic=monotonic)
        self._forecast_hours = forecast_hours
        self._forecast_max_age = timedelta(seconds=forecast_max_age_s)
        self._last: Intensity | None = None
        self._forecast: tuple[datetime, Sequence[Intensity]] | None = None  # when it was made
        self.forecast_error: str | None = None

    @property
    def breaker(self) -> Breaker:
        return self._gate.state

    async def look(self) -> Reading | None:
        """Its present value, asking only where that is due; None if it has none now.

        The last value counts while its own interval lasts; after that the forecast, if it is
        young enough. `error` says why it could not be asked, None if nothing is wrong.
        """
        if self._gate.ready():
            await self._ask()
        if self.error is None:
            await self._refresh_forecast()
            return None if self._last is None else Reading(self._last)
        now, last = self.source.clock(), self._last
        if last is not None and now < last.time + timedelta(seconds=self.source.step_s):
            return Reading(last)
        return self._forecast_of(now)

    async def past(self, hours: float) -> list[Intensity] | None:
        """Its history; None where it can't be had now."""
        if not self._past_gate.ready():
            return None
        try:
            values = await self.source.history(hours)
        except (FeedError, ConfigError) as error:
            LOG.warning("carbon source, history: %s", error)
            self._failed(self._past_gate, error)
            return None
        self._past_gate.succeeded()
        now = self.source.clock()
        return [value for value in values if value.time <= now]

    def ahead(self, hours: float) -> list[Intensity]:
        """What the latest forecast says of the next `hours`; [] without one young enough."""
        now = self.source.clock()
        _, values = self.forecast(now) or (None, ())
        return ahead(values, now, hours)

    def forecast(self, now: datetime) -> tuple[datetime, Sequence[Intensity]] | None:
        """When the latest one was made, and its values; None without one young enough."""
        made = self._forecast
        return None if made is None or now - made[0] > self._forecast_max_age else made

    async def _ask(self) -> None:
        try:
            value = await ask(self.source)
        except (FeedError, ConfigError) as error:  # a key file may go while we run
            problem = str(error)[:MAX_PROBLEM]
            if problem != self.error:
                LOG.warning("carbon source: %s", problem)
            self.error = problem
            self._failed(self._gate, error)
            return
        if self.error not in (None, "not asked yet"):
            LOG.info("carbon source: %s answers again", self.source.name)
        self.error, self._last = None, value
        over = value.time + timedelta(seconds=self.source.step_s) - self.source.clock()
        self._gate.succeeded(min(over.total_seconds(), self.source.step_s))

    async def _refresh_forecast(self) -> None:
        wanted = self._forecast_hours > 0 and self.source.forecast_basis
        if not wanted or not self._forecast_gate.ready():
            return
        try:
            values = await self.source.forecast(self._forecast_hours)
        except (FeedError, ConfigError) as error:
            problem = str(error)[:MAX_PROBLEM]
            if problem != self.forecast_error:
                LOG.warning("carbon source, forecast: %s", problem)
            self.forecast_error = problem
            self._failed(self._forecast_gate, error)
            return
        self.forecast_error = None
        self._forecast = self.source.clock(), values
        self._forecast_gate.succeeded(FORECAST_S if self.source.remote else 0.0)

    def _forecast_of(self, now: datetime) -> Reading | None:
        """The newest forecast value that has begun and is not over."""
        issued, values = self.forecast(now) or (now, ())
        begun = [value for value in values if value.time <= now]
        if not begun or now >= begun[-1].time + timedelta(seconds=self.source.step_s):
            return None
        return Reading(replace(begun[-1], estimated=True), issued)

    def _failed(self, gate: Gate, error: FeedError | ConfigError) -> None:
        if not isinstance(error, FeedError):
            error = FeedUnauthorized(str(error))
        gate.failed(error)
        if error.retry_after_s is not None:  # said of one question, meant of the source
            for each in (self._gate, self._forecast_gate, self._past_gate):
                each.hold(error.retry_after_s)
