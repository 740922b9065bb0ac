# SPDX-License-Identifier: Apache-2.0
"""The feed: last value, age, reasons, trailing history."""

import asyncio
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest

from sprout.carbon import Chain, ConstantSource, Feed, Intensity, TraceSource
from sprout.carbon.intensity import Series
from sprout.carbon.sources import Source
from sprout.control.store import Store
from sprout.errors import ConfigError, ControlError, FeedError

T0 = datetime(2026, 5, 4, 12, tzinfo=UTC)
SERIES: Series = ("NL", "test", "direct", "average")


def at(hour: float, g: float) -> Intensity:
    return Intensity(g, *SERIES, T0 + timedelta(hours=hour))


class Scripted:
    """Answers with `value` or fails with `error`."""

    name = "test"
    remote = True
    live = True
    step_s = 0.0
    forecast_basis = ""
    series: Series = SERIES

    def __init__(self) -> None:
        self.time = T0
        self.value: Intensity | None = at(0, 200)
        self.error = "down"
        self.past: list[Intensity] | None = []
        self.asked = 0

    def clock(self) -> datetime:
        return self.time

    async def now(self) -> Intensity:
        if self.value is None:
            raise FeedError(self.error)
        return self.value

    async def history(self, hours: float) -> list[Intensity]:
        self.asked += 1
        if self.past is None:
            raise FeedError("no history")
        return self.past

    async def forecast(self, hours: float) -> list[Intensity]:
        return []


@pytest.fixture
def source() -> Scripted:
    return Scripted()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "s.sqlite")
    yield store
    store.close()


def feed_of(
    source: Source,
    store: Store,
    mode: str = "trailing",
    fallback: Literal["last", "none"] | float = "last",
    others: Sequence[Source] = (),
) -> Feed:
    """Every source is asked at each look: `test_carbon_chain` has the rest."""
    return Feed(
        Chain([source, *others], poll_s=0, max_age_s=7200),
        store,
        range_mode="trace" if mode == "trace" else "trailing",
        range_hours=168,
        range_min_hours=24,
        fallback=fallback,
    )


def poll(feed: Feed) -> None:
    asyncio.run(feed.poll())


def test_nothing_yet_is_said(source: Scripted, store: Store) -> None:
    feed = feed_of(source, store)
    assert feed.last() is None
    assert feed.age_s() is None
    assert feed.reasons() == {"intensity": "no carbon intensity yet: not asked yet"}
    source.value = None
    poll(feed)
    assert feed.reasons() == {"intensity": "no carbon intensity yet: down"}


def test_a_value_is_kept_and_ages(source: Scripted, store: Store) -> None:
    feed = feed_of(source, store)
    poll(feed)
    assert feed.last() == at(0, 200)
    assert feed.reasons() == {}
    source.time += timedelta(seconds=7200)
    assert feed.age_s() == 7200
    assert feed.reasons() == {}
    source.time += timedelta(seconds=1)
    assert feed.reasons() == {"stale": "the carbon intensity is older than 7200 s"}
    assert feed.last() == at(0, 200)


def test_failure_keeps_the_value_and_says_why(source: Scripted, store: Store) -> None:
    feed = feed_of(source, store)
    poll(feed)
    good, source.value = source.value, None
    poll(feed)
    assert feed.last() == good
    assert feed.reasons() == {"feed": "the carbon source fails: down"}
    source.error = "HTTP 500"
    poll(feed)
    assert feed.reasons()["feed"].endswith("HTTP 500")
    source.value = good
    poll(feed)
    assert feed.reasons() == {}


def test_a_problem_is_told_in_short(source: Scripted, store: Store) -> None:
    source.value, source.error = None, "x" * 1_000_000
    feed = feed_of(source, store)
    poll(feed)
    assert len(feed.reasons()["intensity"]) < 400


def test_a_new_feed_starts_with_what_was_stored(source: Scripted, store: Store) -> None:
    poll(feed_of(source, store))
    source.time += timedelta(hours=1)
    again = feed_of(source, store)
    again.restore()
    assert again.last() == at(0, 200)
    source.time += timedelta(hours=2)
    late = feed_of(source, store)
    late.restore()
    assert late.last() is None


def test_range_comes_from_the_sources_history(source: Scripted, store: Store) -> None:
    source.past = [at(-h, 100 + h) for h in range(30, 0, -1)]
    feed = feed_of(source, store)
    poll(feed)
    within = feed.range()
    assert (within.low, within.high) == (101, 200)
    assert within.basis == "trailing 168 h (31 h have a value)"


def test_history_is_asked_for_once_and_after_a_gap(source: Scripted, store: Store) -> None:
    feed = feed_of(source, store)
    poll(feed)
    source.time, source.value = T0 + timedelta(hours=1), at(1, 210)
    poll(feed)
    assert source.asked == 1
    source.time, source.value = T0 + timedelta(hours=4), at(4, 230)
    poll(feed)
    assert source.asked == 2


def test_history_that_fails_is_asked_for_again(source: Scripted, store: Store) -> None:
    source.past = None
    feed = feed_of(source, store)
    poll(feed)
    assert feed.reasons() == {}
    within = feed.range()
    assert math.isnan(within.low)
    assert within.basis == "1 h of history, 24 h needed"
    poll(feed)
    assert source.asked == 2


def test_a_corrected_value_replaces_the_forecast(source: Scripted, store: Store) -> None:
    feed = feed_of(source, store)
    source.value = Intensity(180, *SERIES, T0, estimated=True)
    poll(feed)
    source.value = Intensity(175, *SERIES, T0)
    poll(feed)
    stored = store.intensities(SERIES, T0 - timedelta(hours=1), T0)
    assert stored == [Intensity(175, *SERIES, T0)]


def test_series_are_never_mixed(source: Scripted, store: Store) -> None:
    store.add_intensities(
        [
            Intensity(1, "NL", "test", "lifecycle", "average", T0 - timedelta(hours=1)),
            Intensity(2, "NL", "test", "direct", "marginal", T0 - timedelta(hours=1)),
            Intensity(3, "DE", "test", "direct", "average", T0 - timedelta(hours=1)),
            Intensity(4, "NL", "other", "direct", "average", T0 - timedelta(hours=1)),
        ]
    )
    feed = feed_of(source, store)
    poll(feed)
    assert feed.range().basis == "1 h of history, 24 h needed"


def test_whole_trace(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = "".join(f"2023-01-01T{h:02}:00:00Z,{50 + 10 * h}\n" for h in range(5))
    path.write_text("datetime_utc,gco2_per_kwh_direct\n" + rows)
    feed = feed_of(TraceSource(path, zone="NL", factor_type="direct"), store, "trace")
    within = feed.range()
    assert (within.low, within.high, within.basis) == (50, 90, "whole trace")


def test_trailing_range_of_a_trace_does_not_foresee(store: Store, tmp_path: Path) -> None:
    """Rows of an earlier run of the same trace lie in this run's future."""
    path = tmp_path / "t.csv"
    start = datetime(2023, 1, 1, tzinfo=UTC)
    rows = "".join(f"{(start + timedelta(hours=h)).isoformat()},{h}\n" for h in range(100))
    path.write_text("datetime_utc,gco2_per_kwh_direct\n" + rows)

    def run(begin: str) -> Feed:
        source = TraceSource(path, zone="NL", factor_type="direct", start=begin)
        feed = feed_of(source, store)
        poll(feed)
        return feed

    assert run("2023-01-04T00:00:00Z").range().high == 72
    assert run("2023-01-03T00:00:00Z").range().high == 48


def test_a_constant_has_no_range_even_if_it_was_declared_anew(store: Store) -> None:
    clock = T0
    for hour in range(48):
        clock = T0 + timedelta(hours=hour)
        g = 300.0 if hour < 30 else 400.0
        feed = feed_of(ConstantSource(g, "NL", "direct", clock=lambda now=clock: now), store)
        poll(feed)
    within = feed.range()
    assert math.isnan(within.low)
    assert within.basis == "a declared constant has no range"


def test_whole_trace_needs_a_trace(source: Scripted, store: Store) -> None:
    with pytest.raises(ConfigError, match=r"range_mode = .trace. needs carbon\.sources"):
        feed_of(source, store, "trace")


def test_an_accelerated_trace_is_not_stale_between_two_looks(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    start = datetime(2023, 1, 1, tzinfo=UTC)
    rows = "".join(f"{(start + timedelta(hours=h)).isoformat()},{h}\n" for h in range(100))
    path.write_text("datetime_utc,gco2_per_kwh_direct\n" + rows)
    seconds = [0.0]
    source = TraceSource(
        path, zone="NL", factor_type="direct", speed=3600, monotonic=lambda: seconds[0]
    )
    feed = feed_of(source, store)
    for second in (0, 5, 10):
        seconds[0] = second
        poll(feed)
        seconds[0] += 4.9
        assert feed.reasons() == {}


def test_a_history_that_was_not_kept_is_asked_for_again(
    source: Scripted, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise ControlError("disk full")

    source.past = [at(-h, 100 + h) for h in range(48, 0, -1)]
    feed = feed_of(source, store)
    with monkeypatch.context() as patch:
        patch.setattr(store, "add_intensities", fail)
        poll(feed)
    poll(feed)
    assert feed.range().high == 200
    assert feed.range().low == 101


def test_a_store_that_fails_is_a_reason(
    source: Scripted, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise ControlError("disk full")

    feed = feed_of(source, store)
    with monkeypatch.context() as patch:
        patch.setattr(store, "add_intensities", fail)
        poll(feed)
    assert feed.last() == at(0, 200)
    assert feed.reasons() == {"history": "intensities are not stored: disk full"}
    poll(feed)
    assert feed.reasons() == {}


def test_without_a_young_value_the_operator_may_want_none(source: Scripted, store: Store) -> None:
    feed = feed_of(source, store, fallback="none")
    poll(feed)
    source.value = None
    poll(feed)
    assert feed.last() == at(0, 200)  # it fails, but what it said is still young
    source.time += timedelta(seconds=7201)
    assert feed.last() is None
    assert feed.forecast(24) == []
    assert feed.forecast_basis() == ""
    assert math.isnan(feed.range().low)
    assert feed.reasons() == {
        "feed": "the carbon source fails: down",
        "stale": "the carbon intensity is older than 7200 s",
        "fallback": "no intensity stands in (carbon.fallback)",
    }


def test_without_a_young_value_the_operator_may_declare_one(source: Scripted, store: Store) -> None:
    feed = feed_of(source, store, fallback=420.0)
    assert feed.last() is None  # not asked yet
    source.value = None
    poll(feed)
    fallen = feed.last()
    assert fallen is not None
    assert (fallen.g_per_kwh, fallen.estimated) == (420, True)
    assert fallen.series == ("NL", "fallback", "direct", "average")
    assert feed.age_s() is None
    assert feed.range().basis == "carbon.fallback has no range"
    assert feed.reasons() == {
        "intensity": "no carbon intensity yet: down",
        "fallback": "420 g/kWh, declared, stands in (carbon.fallback)",
    }
    source.value = at(0, 200)
    poll(feed)
    assert feed.last() == at(0, 200)
    assert feed.reasons() == {}


class Other(Scripted):
    """Of another signal."""

    name = "other"
    series: Series = ("NL-1", "other", "direct", "marginal")

    def __init__(self) -> None:
        super().__init__()
        self.value = Intensity(500, *self.series, T0)


def test_a_source_that_stands_in_brings_its_own_range(source: Scripted, store: Store) -> None:
    """Signals are never mixed: one series' past is no range for another's present."""
    other = Other()
    other.past = [
        Intensity(500 + h, *Other.series, T0 - timedelta(hours=h)) for h in range(30, 0, -1)
    ]
    source.past = [at(-h, 100 + h) for h in range(30, 0, -1)]
    feed = feed_of(source, store, others=[other])
    poll(feed)
    assert (feed.range().low, feed.range().high) == (101, 200)
    assert other.asked == 0
    source.value = None
    poll(feed)
    assert feed.series == Other.series
    assert (feed.range().low, feed.range().high) == (500, 530)
    assert feed.reasons() == {
        "feed": "the carbon source fails: down; other stands in (NL-1, direct, marginal)"
    }
    source.value = at(0, 200)
    poll(feed)
    assert feed.series == SERIES
    assert (feed.range().low, feed.range().high) == (101, 200)
    assert feed.reasons() == {}


def test_a_source_whose_values_are_old_gives_way(source: Scripted, store: Store) -> None:
    other = Other()
    feed = feed_of(source, store, others=[other])
    source.time = other.time = T0 + timedelta(hours=3)
    poll(feed)
    assert feed.last() == at(0, 200)  # none is young: the first one's
    other.value = Intensity(510, *Other.series, other.time)
    poll(feed)
    assert feed.last() == other.value
    assert feed.reasons()["feed"].startswith(
        "the carbon source fails: test: its newest value is older than 7200 s; other stands in"
    )


def test_a_yearly_average_is_no_range_and_never_stale(source: Scripted, store: Store) -> None:
    class Yearly(Other):
        name = "country"
        remote = False
        live = False

    yearly = Yearly()
    yearly.value = Intensity(344, *Other.series, datetime(2024, 1, 1, tzinfo=UTC), estimated=True)
    feed = feed_of(yearly, store, fallback="none")
    poll(feed)
    assert feed.last() == yearly.value
    age_s = feed.age_s()
    assert age_s is not None
    assert age_s > 2 * 365 * 86_400
    assert feed.reasons() == {}
    assert feed.range().basis == "a yearly average has no range"


def test_a_clairvoyant_trace_is_a_forecast(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    start = datetime(2023, 1, 1, tzinfo=UTC)
    rows = "".join(f"{(start + timedelta(hours=h)).isoformat()},{h}\n" for h in range(10))
    path.write_text("datetime_utc,gco2_per_kwh_direct\n" + rows)
    source = TraceSource(path, zone="NL", factor_type="direct", foresee=True)
    chain = Chain([source], poll_s=0, max_age_s=7200, forecast_hours=48, forecast_max_age_s=43_200)
    feed = Feed(chain, store, range_mode="trace", range_hours=168, range_min_hours=24)
    poll(feed)
    assert [value.g_per_kwh for value in feed.forecast(3)] == [1, 2, 3]
    said = "the trace's own future: clairvoyant, made 2023-01-01 00:00 UTC"
    assert feed.forecast_basis() == said
