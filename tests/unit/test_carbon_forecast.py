# SPDX-License-Identifier: Apache-2.0
"""The forecast from a series' own past: what it learns, what it refuses, what it says of itself."""

import csv
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprout.carbon import forecast
from sprout.carbon.intensity import Intensity, Series
from sprout.errors import FeedError

DATA = Path(os.environ.get("SPROUT_DATA", Path(__file__).parents[3] / "shared" / "data"))
TRACES = DATA / "sprout2023" / "carbon"

T0 = datetime(2024, 4, 1, tzinfo=UTC)
FIRST = int(T0.timestamp()) // 3600
SERIES: Series = ("NL", "test", "direct", "average")


def at(hour: float, g: float, series: Series = SERIES) -> Intensity:
    return Intensity(g, *series, T0 + timedelta(hours=hour))


def shape(hour: float) -> float:
    """A sunny grid, the same each day: a dip at noon."""
    return 300 - 150 * float(np.exp(-((((hour % 24) - 12) / 3) ** 2)))


def test_a_pure_pattern_is_forecast_as_it_is() -> None:
    history = [at(h, shape(h)) for h in range(8 * 168)]
    made = forecast.predict(history, 72)
    assert made.issued == T0 + timedelta(hours=8 * 168 - 1)
    assert made.times[0] == T0 + timedelta(hours=8 * 168)
    assert made.basis == "hour of week, 8.0 weeks"
    assert made.g_per_kwh == pytest.approx([shape(h) for h in range(72)], abs=0.01)


def test_the_more_weeks_the_more_a_weekend_is_one() -> None:
    """The last hour is a Friday's; ahead is a Saturday that is 60 g cleaner, as each was."""

    def grid(hour: float) -> float:
        return 300 - (60 if (T0 + timedelta(hours=hour)).weekday() >= 5 else 0)

    means = []
    for weeks in (1, 2, 8):
        ends = weeks * 168 - 48
        made = forecast.predict([at(h, grid(h)) for h in range(ends)], 24)
        means.append(made.g_per_kwh[6:].mean())
    assert means[0] == pytest.approx(300, abs=0.01)  # no Saturday was seen yet
    assert means[0] > means[1] + 1 > means[2] + 5


def test_a_level_that_has_moved_is_followed_and_forgotten_over_the_horizon() -> None:
    """Weather of some hours: the error now tells of the next hours, not of the day after."""
    random = np.random.default_rng(3)
    level, history = 0.0, []
    for h in range(8 * 168):
        level = 0.9 * level + random.normal(0, 10)
        history.append(at(h, shape(h) + level))
    calm = [*history[:-1], at(8 * 168 - 1, shape(8 * 168 - 1))]
    raised = [*history[:-1], at(8 * 168 - 1, shape(8 * 168 - 1) + 60)]
    gain = forecast.predict(raised, 72).g_per_kwh - forecast.predict(calm, 72).g_per_kwh
    assert 40 < gain[0] < 65
    assert gain[0] > gain[5] > gain[23] - 3
    assert abs(gain[47:]).max() < 15


def test_intervals_hold_as_often_as_they_say_and_widen() -> None:
    random = np.random.default_rng(4)
    level, values = 0.0, []
    for h in range(30 * 168):
        level = 0.9 * level + random.normal(0, 10)
        values.append(shape(h) + level)
    series = np.array(values)
    inside, width = [], []
    for end in range(8 * 168, len(series) - 72, 41):
        made = forecast.guess(series[end - 8 * 168 : end], FIRST + end - 8 * 168, 72)
        inside.append((made.low <= series[end : end + 72]) & (series[end : end + 72] <= made.high))
        width.append(made.high - made.low)
    assert 0.72 < np.mean(inside) < 0.86  # 80 % wanted; 92 forecasts
    assert np.mean(width, axis=0)[0] < 0.7 * np.mean(width, axis=0)[23]


@pytest.mark.parametrize(
    ("known", "basis"),
    [
        (1, "persistence, 1 h"),
        (23, "persistence, 23 h"),
        (24, "hour of day, 1.0 days"),
        (100, "hour of day, 4.2 days"),
        (336, "hour of week, 2.0 weeks"),
    ],
)
def test_the_basis_says_what_it_rests_on(known: int, basis: str) -> None:
    made = forecast.predict([at(h, shape(h)) for h in range(known)], 72)
    assert made.basis == basis
    assert np.isfinite(made.g_per_kwh).all()
    if known < 24:
        assert set(made.g_per_kwh) == {shape(known - 1)}
        assert np.isnan(made.low[3:]).all()  # too few past errors to tell
        assert np.isnan(made.high[3:]).all()


def test_half_hours_and_five_minutes_are_averaged_to_hours() -> None:
    hours = 30
    wanted = forecast.predict([at(h, 100 + h) for h in range(hours)], 24)
    for step in (2, 12):
        fine = [
            at(h + i / step, 100 + h + (i - (step - 1) / 2))
            for h in range(hours)
            for i in range(step)
        ]
        made = forecast.predict(fine, 24)
        assert made.times == wanted.times
        assert made.g_per_kwh == pytest.approx(wanted.g_per_kwh)


def test_gaps_hardly_matter() -> None:
    random = np.random.default_rng(5)
    full = [at(h, shape(h)) for h in range(6 * 168)]
    holes = [v for v in full[:-1] if random.random() > 0.2]
    holes = [v for v in holes if not 300 <= (v.time - T0).total_seconds() / 3600 < 330]
    made = forecast.predict([*holes, full[-1]], 48)
    assert made.g_per_kwh == pytest.approx(forecast.predict(full, 48).g_per_kwh, abs=25)


def test_an_order_and_a_second_value_for_a_time() -> None:
    history = [at(h, shape(h)) for h in range(60)]
    shuffled = [at(59, 999.0), *history[::-1]]  # the later of two for one time counts
    assert (forecast.predict(shuffled, 5).g_per_kwh == forecast.predict(history, 5).g_per_kwh).all()


def test_hours_since_the_last_value_are_skipped() -> None:
    history = [at(h, shape(h)) for h in range(500)]
    made = forecast.predict(history, 10, now=T0 + timedelta(hours=505, minutes=20))
    assert made.times[0] == T0 + timedelta(hours=506)
    whole = forecast.predict(history, 20)
    assert made.g_per_kwh == pytest.approx(whole.g_per_kwh[6:16])
    with pytest.raises(FeedError, match="ended 25 h ago"):
        forecast.predict(history, 10, now=T0 + timedelta(hours=524))


def test_the_future_is_not_looked_at() -> None:
    history = [at(h, shape(h)) for h in range(500)]
    later = [*history, *(at(h, 5.0) for h in range(500, 520))]
    now = T0 + timedelta(hours=499, minutes=30)
    assert (
        forecast.predict(later, 24, now=now).g_per_kwh
        == forecast.predict(history, 24, now=now).g_per_kwh
    ).all()


def test_series_are_never_mixed() -> None:
    for other in (
        ("NL", "test", "lifecycle", "average"),
        ("NL", "test", "direct", "marginal"),
        ("GB", "test", "direct", "average"),
        ("NL", "other", "direct", "average"),
    ):
        mixed = [*(at(h, 200) for h in range(48)), at(48, 210, other)]
        with pytest.raises(FeedError, match="one series"):
            forecast.predict(mixed, 24)
    with pytest.raises(FeedError, match="no history"):
        forecast.predict([], 24)


@pytest.mark.parametrize("hours", [0, 73, -1])
def test_horizons_out_of_range(hours: int) -> None:
    with pytest.raises(ValueError, match="1 to 72"):
        forecast.predict([at(0, 200)], hours)


def test_what_comes_out_is_of_the_same_series_and_estimated() -> None:
    history = [at(h, shape(h)) for h in range(200)]
    made = forecast.predict(history, 12)
    values = made.intensities()
    assert [v.time for v in values] == list(made.times)
    assert {v.series for v in values} == {SERIES}
    assert all(v.estimated for v in values)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.one_of(st.none(), st.floats(0, 5000, allow_subnormal=False)), min_size=1, max_size=400
    ),
    hours=st.integers(1, 72),
)
def test_whatever_the_history_the_answer_is_an_intensity(
    values: list[float | None], hours: int
) -> None:
    history = [at(h, g) for h, g in enumerate(values) if g is not None]
    if not history:
        return
    made = forecast.predict(history, hours)
    assert len(made.times) == len(made.g_per_kwh) == len(made.intensities()) == hours
    assert np.isfinite(made.g_per_kwh).all()
    known = np.isfinite(made.low)
    assert (made.low[known] <= made.high[known]).all()


@pytest.mark.data
@pytest.mark.skipif(not TRACES.is_dir(), reason=f"no traces at {TRACES} (SPROUT_DATA)")
@pytest.mark.parametrize("zone", ["AU-SA", "GB", "NL", "US-CAL-CISO", "US-TEX-ERCO"])
def test_it_beats_persistence_on_real_grids(zone: str) -> None:
    with (TRACES / f"{zone}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    series = np.array([float(row["gco2_per_kwh_direct"]) for row in rows])
    own, persistence = [], []
    for end in range(len(series) // 2, len(series) - 24, 101):
        true = series[end : end + 24]
        made = forecast.guess(series[end - 8 * 168 : end], FIRST + end, 24).g_per_kwh
        own.append(np.abs(made - true)[5:].mean())
        persistence.append(np.abs(series[end - 1] - true)[5:].mean())
    assert np.mean(own) < 0.9 * np.mean(persistence)
