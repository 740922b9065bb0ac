# SPDX-License-Identifier: Apache-2.0
"""Several sources in order: who is asked how often, who stands in, what a forecast carries."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from carbon_api import Api, serving
from loopback_api import Answer, answer

from sprout.carbon import Chain, ConstantSource, GbSource, Intensity
from sprout.carbon.gate import Breaker
from sprout.carbon.intensity import Series
from sprout.carbon.member import Reading
from sprout.carbon.sources import Source
from sprout.errors import (
    ConfigError,
    FeedError,
    FeedMalformed,
    FeedRateLimited,
    FeedUnauthorized,
    SproutError,
)

T0 = datetime(2026, 5, 4, 12, tzinfo=UTC)
POLL_S = 300.0


class Clock:
    """Both clocks, an hour from T0 on."""

    s = 0.0

    def __call__(self) -> float:
        return self.s

    def wall(self) -> datetime:
        return T0 + timedelta(seconds=self.s)


class Hourly:
    """A remote source of hourly values, 100 g/kWh plus the hour."""

    remote = True
    live = True
    step_s = 3600.0
    forecast_basis = "its forecast"

    def __init__(self, clock: Clock, name: str = "hourly") -> None:
        self.name, self.clock = name, clock.wall
        self.series: Series = ("DE", name, "lifecycle", "average")
        self.error: SproutError | None = None
        self.forecast_error: FeedError | None = None
        self.ahead_s = 0.0  # of this machine's clock
        self.late = timedelta(0)  # how late it publishes
        self.asked: list[str] = []

    def at(self, when: datetime, **kwargs: Any) -> Intensity:
        hour = when.replace(minute=0, second=0, microsecond=0)
        g = 100 + (hour - T0) / timedelta(hours=1)
        return Intensity(g, *self.series, hour, **kwargs)

    async def now(self) -> Intensity:
        self.asked.append("now")
        if self.error is not None:
            raise self.error
        return self.at(self.clock() - self.late + timedelta(seconds=self.ahead_s))

    async def history(self, hours: float) -> list[Intensity]:
        self.asked.append("history")
        if self.error is not None:
            raise self.error
        return [self.at(self.clock() - timedelta(hours=h)) for h in range(int(hours), -2, -1)]

    async def forecast(self, hours: float) -> list[Intensity]:
        self.asked.append("forecast")
        if self.forecast_error is not None:
            raise self.forecast_error
        soon = (self.clock() + timedelta(hours=h) for h in range(1, int(hours) + 1))
        return [self.at(when, estimated=True) for when in soon]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hourly(clock: Clock) -> Hourly:
    return Hourly(clock)


def chain_of(clock: Clock, *sources: Source, forecast_hours: float = 0.0) -> Chain:
    return Chain(
        sources,
        poll_s=POLL_S,
        max_age_s=7200,
        forecast_hours=forecast_hours,
        forecast_max_age_s=6 * 3600,
        monotonic=clock,
    )


def look(chain: Chain) -> tuple[str, Reading] | None:
    found = asyncio.run(chain.look())
    return None if found is None else (found[0].source.name, found[1])


def value(chain: Chain) -> Intensity:
    found = look(chain)
    assert found is not None
    return found[1].value


def test_a_source_is_asked_once_for_each_of_its_values(clock: Clock, hourly: Hourly) -> None:
    """A day of looks every 30 s: as many questions as there are values."""
    chain = chain_of(clock, hourly)
    for second in range(0, 24 * 3600, 30):
        clock.s = second
        assert value(chain) == hourly.at(clock.wall())
    assert hourly.asked == ["now"] * 24


def test_a_late_source_is_asked_no_more_often_than_poll_s(clock: Clock, hourly: Hourly) -> None:
    """It publishes each hour's value 20 minutes into the hour."""
    chain = chain_of(clock, hourly)
    hourly.late = timedelta(minutes=20)
    clock.s = 20 * 60
    for second in range(20 * 60, 24 * 3600 + 20 * 60, 60):
        clock.s = second
        look(chain)
    # At once, and then each hour at 0, 5, 10, 15 and 20 past.
    assert len(hourly.asked) == 1 + 5 * 24 - 1
    clock.s = 24 * 3600 + 20 * 60
    assert value(chain).time == T0 + timedelta(hours=24)


def test_a_failing_source_is_asked_less_and_less(clock: Clock, hourly: Hourly) -> None:
    chain = chain_of(clock, hourly)
    hourly.error = FeedError("down")
    for second in range(0, 6 * 3600, 5):
        clock.s = second
        assert look(chain) is None
    # Five within the first minutes open the breaker, then a probe every 450 to 1,350 s.
    assert 5 + 6 * 3600 / 1355 - 1 <= len(hourly.asked) <= 5 + 6 * 3600 / 450
    assert chain.members[0].breaker in {Breaker.OPEN, Breaker.HALF_OPEN}
    assert chain.problems() == "down"
    hourly.error = None
    clock.s += 1350
    assert value(chain) == hourly.at(clock.wall())
    assert chain.members[0].breaker is Breaker.CLOSED


def test_a_refused_key_is_tried_again_only_after_a_while(clock: Clock, hourly: Hourly) -> None:
    chain = chain_of(clock, hourly)
    hourly.error = FeedUnauthorized("hourly: HTTP 401")
    for second in range(0, 440):
        clock.s = second
        look(chain)
    assert hourly.asked == ["now"]


def test_a_key_file_that_goes_is_a_refused_key(clock: Clock, hourly: Hourly) -> None:
    chain = chain_of(clock, hourly)
    look(chain)
    clock.s = 3600
    hourly.error = ConfigError("carbon.key: can't read /key: No such file or directory")
    assert look(chain) is None
    assert "can't read /key" in chain.problems()
    assert chain.members[0].breaker is Breaker.OPEN


def test_retry_after_holds_every_question(clock: Clock, hourly: Hourly) -> None:
    """It is said of one question, and meant of all."""
    chain = chain_of(clock, hourly, forecast_hours=24)
    hourly.forecast_error = FeedRateLimited("slow down", retry_after_s=5000)
    look(chain)
    assert hourly.asked == ["now", "forecast"]
    for second in range(0, 5000, 5):
        clock.s = second
        look(chain)
        asyncio.run(chain.members[0].past(24))
    assert hourly.asked == ["now", "forecast"]
    clock.s = 5000
    look(chain)
    assert hourly.asked[2] == "now"


def test_a_forecast_carries_an_outage(clock: Clock, hourly: Hourly) -> None:
    chain = chain_of(clock, hourly, forecast_hours=24)
    look(chain)
    assert hourly.asked == ["now", "forecast"]
    hourly.error = FeedError("hourly: down")
    clock.s = 1800.0
    assert value(chain) == hourly.at(clock.wall())  # of this hour: still true, not asked again
    for hour in (1, 3, 6):
        clock.s = 3600.0 * hour
        found = look(chain)
        assert found is not None
        assert found[1] == Reading(hourly.at(clock.wall(), estimated=True), T0)
        assert chain.problems() == "hourly: down"
    clock.s = 6 * 3600 + 1
    assert look(chain) is None  # a forecast older than 6 h is none
    hourly.error = None
    clock.s += 1350
    assert value(chain) == hourly.at(clock.wall())


def test_a_forecast_that_has_ended_carries_nothing(clock: Clock, hourly: Hourly) -> None:
    chain = chain_of(clock, hourly, forecast_hours=2)
    look(chain)
    hourly.error = FeedError("down")
    clock.s = 2.5 * 3600
    found = look(chain)
    assert found is not None
    assert found[1].value.time == T0 + timedelta(hours=2)
    clock.s = 3 * 3600
    assert look(chain) is None


def test_the_forecast_comes_before_the_next_source(clock: Clock, hourly: Hourly) -> None:
    """It keeps the series, so the range stays; only without it another series may stand in."""
    other = Hourly(clock, "other")
    chain = chain_of(clock, hourly, other, forecast_hours=24)
    look(chain)
    hourly.error = FeedError("down")
    clock.s = 3600
    found = look(chain)
    assert found is not None
    assert (found[0], found[1].issued) == ("hourly", T0)
    assert other.asked == []
    clock.s = 7 * 3600
    assert look(chain) == ("other", Reading(other.at(clock.wall())))
    assert chain.problems(until=chain.members[1]) == "down"


def test_forecasts_are_fetched_hourly_and_kept_where_that_fails(
    clock: Clock, hourly: Hourly
) -> None:
    chain = chain_of(clock, hourly, forecast_hours=24)
    for second in range(0, 5 * 3600, 60):
        clock.s = second
        look(chain)
    assert hourly.asked.count("forecast") == 5
    hourly.forecast_error = FeedError("no forecast today")
    clock.s = 5 * 3600
    look(chain)
    member = chain.members[0]
    assert member.forecast_error == "no forecast today"
    assert [v.g_per_kwh for v in member.ahead(2)] == [106, 107]
    assert chain.problems(until=member) == ""  # the value itself is there
    hourly.forecast_error = None
    clock.s += 60
    look(chain)
    assert member.forecast_error is None


def test_a_plan_without_forecasts_is_asked_once_a_day(clock: Clock, hourly: Hourly) -> None:
    chain = chain_of(clock, hourly, forecast_hours=24)
    hourly.forecast_error = FeedUnauthorized("not in this plan")
    for second in range(0, 12 * 3600, 60):
        clock.s = second
        look(chain)
    assert hourly.asked.count("forecast") == 1
    assert chain.members[0].ahead(24) == []


def test_zero_forecast_hours_is_never(clock: Clock, hourly: Hourly) -> None:
    look(chain_of(clock, hourly))
    assert hourly.asked == ["now"]


def test_the_first_that_works_again_takes_over(clock: Clock, hourly: Hourly) -> None:
    other = Hourly(clock, "other")
    chain = chain_of(clock, hourly, other)
    hourly.error = FeedError("down")
    assert look(chain) == ("other", Reading(other.at(T0)))
    hourly.error = None
    clock.s = 60
    assert look(chain) == ("hourly", Reading(hourly.at(T0)))
    clock.s = 3700
    look(chain)
    assert other.asked == ["now"]


def test_a_constant_ends_the_chain(clock: Clock, hourly: Hourly) -> None:
    constant = ConstantSource(420, "DE", "lifecycle", clock=clock.wall)
    chain = chain_of(clock, hourly, constant)
    hourly.error = FeedError("down")
    for second in range(0, 3 * 86_400, 600):
        clock.s = second
        found = look(chain)
        assert found is not None
        assert (found[0], found[1].value.g_per_kwh) == ("constant", 420)


def test_a_value_from_a_time_to_come_is_an_error(clock: Clock, hourly: Hourly) -> None:
    """It would never grow old."""
    chain = chain_of(clock, hourly)
    hourly.ahead_s = 3600
    assert look(chain) is None
    assert "is this machine's clock right?" in chain.problems()


def test_a_clock_that_is_a_little_late_is_no_matter(clock: Clock, hourly: Hourly) -> None:
    chain = chain_of(clock, hourly)
    clock.s = 3600 - 200
    hourly.ahead_s = 250  # its hour has begun, ours has not
    assert value(chain).time == T0 + timedelta(hours=1)


def test_history_holds_nothing_from_a_time_to_come(clock: Clock, hourly: Hourly) -> None:
    member = chain_of(clock, hourly).members[0]
    past = asyncio.run(member.past(3))
    assert past is not None
    assert [v.time.hour for v in past] == [9, 10, 11, 12]
    hourly.error = FeedError("down")
    assert asyncio.run(member.past(3)) is None


def test_an_error_is_told_in_short(clock: Clock, hourly: Hourly) -> None:
    hourly.error = FeedMalformed("x" * 1_000_000)
    chain = chain_of(clock, hourly)
    look(chain)
    assert len(chain.problems()) == 300


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as server:
        yield server


def test_a_real_exchange_that_is_limited_recovers_and_carries(clock: Clock, api: Api) -> None:
    """429 with Retry-After from a socket; then a forecast through an outage; then a new chain."""

    def slot(hour: float, forecast: float, actual: float | None) -> dict[str, Any]:
        start = T0 + timedelta(hours=hour)
        return {
            "from": start.strftime("%Y-%m-%dT%H:%MZ"),
            "to": (start + timedelta(minutes=30)).strftime("%Y-%m-%dT%H:%MZ"),
            "intensity": {"forecast": forecast, "actual": actual, "index": "low"},
        }

    def made() -> Chain:
        gb = GbSource(api.url, timeout_s=10, clock=clock.wall)
        return chain_of(clock, gb, forecast_hours=24)

    chain = made()
    api.any = Answer(status=429, headers={"Retry-After": "100"})
    assert look(chain) is None
    clock.s = 99
    look(chain)
    assert api.paths == ["/intensity"]
    clock.s = 100
    ahead = [slot(h / 2, 150 + h, None) for h in range(1, 48)]
    api.answers = {
        "/intensity": answer({"data": [slot(0, 150, None)]}),
        "/intensity/2026-05-04T12:01Z/fw48h": answer({"data": ahead}),
    }
    assert value(chain).g_per_kwh == 150
    api.answers = {}
    api.any = Answer(status=503)
    clock.s = 5000
    found = look(chain)
    assert found is not None
    assert (found[1].value.g_per_kwh, found[1].value.estimated) == (152, True)
    assert found[1].issued == T0 + timedelta(seconds=100)
    assert chain.problems() == "gb: HTTP 503: an error of its own"
    again = made()  # a restart knows nothing of it, and says so
    assert look(again) is None
    assert again.problems() == "gb: HTTP 503: an error of its own"
