# SPDX-License-Identifier: Apache-2.0
"""When an evaluation is due: the published rule line by line, the forecast rule, and the clock."""

import csv
import math
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprout.carbon.intensity import Intensity
from sprout.config import Config, ScheduleConfig
from sprout.errors import FeedError
from sprout.evaluate.outlook import configured, consider
from sprout.evaluate.schedule import Rule, decide, when

DATA = Path(os.environ.get("SPROUT_DATA", Path(__file__).parents[3] / "shared" / "data"))
TRACES = DATA / "sprout2023" / "carbon"
T0 = datetime(2024, 4, 1, tzinfo=UTC)


def series(*g: float, before: float = 300, hours: int = 20) -> np.ndarray:
    """`hours` of `before`, then `g`."""
    return np.array([before] * hours + list(g), float)


def test_the_first_that_fits_decides() -> None:
    rule = Rule()
    falling = series(280, 200, 100, 101)  # now: just behind a minimum, below the mean
    now = len(falling) - 1

    def said(last: float | None, g: np.ndarray = falling) -> tuple[bool, str]:
        verdict = decide(rule, g, now, last)
        return verdict.due, verdict.why

    assert said(None) == (True, "never evaluated")
    assert said(now - 72) == (True, "72 h since the last evaluation, 72 h is the most")
    # The idle time stands above the grid, at whatever intensity.
    assert said(now - 72, series(100, 100, 100, 900))[0]
    due, why = said(now - 6)
    assert (due, why[:6]) == (False, "6 h si")
    assert said(now - 6.01)[0]
    due, why = said(now - 10, series(280, 200, 400, 401))
    assert (due, why[:7]) == (False, "401 g/k")
    due, why = said(now - 10)
    assert due
    assert "at a minimum an hour ago" in why
    # Still falling: not yet behind one.
    assert not said(now - 10, series(280, 200, 100, 90))[0]


def test_the_factor_grows_so_a_slow_fall_is_a_minimum_already() -> None:
    """k0' turns where k0 falls by less than beta an hour; a decaying one would wait for more."""
    slow = series(200, 150, 149)  # -25 %, then -0.7 %: less than exp(-0.029)
    now = len(slow) - 1
    assert decide(Rule(), slow, now, now - 10).due
    assert not decide(Rule(beta_per_hour=0), slow, now, now - 10).due
    rising = series(200, 150, 152)  # +1.3 %
    assert decide(Rule(), rising, now, now - 10).due
    assert decide(Rule(beta_per_hour=0), rising, now, now - 10).due
    assert not decide(Rule(beta_per_hour=-0.029), rising, now, now - 10).due


def test_the_adjusted_intensity_is_as_published() -> None:
    verdict = decide(Rule(), series(200), 20, 20 - 24)
    assert verdict.adjusted_g_per_kwh == pytest.approx(200 * math.exp(0.029 * 24))
    assert verdict.adjusted_g_per_kwh == pytest.approx(400, rel=0.01)  # doubles in a day
    assert math.isnan(decide(Rule(), series(200), 20, None).adjusted_g_per_kwh)


def test_equal_steps_count_as_turned() -> None:
    """From ≤ 0 to ≥ 0: a plateau of k0' is a minimum."""
    flat = np.full(30, 300.0)
    assert decide(Rule(beta_per_hour=0), flat, 29, 10).due
    assert not decide(Rule(), flat, 29, 10).due  # k0' only grows


def test_means() -> None:
    """Trailing: of the last hours alone. Window: the published artifact's, future included."""
    g = np.concatenate([np.full(100, 900.0), np.full(160, 100.0), [200, 150, 160], np.full(99, 9)])
    now = 262
    assert decide(Rule(mean_hours=200), g, now, now - 10).due  # a mean of 249, with the old 900s
    assert not decide(Rule(mean_hours=100), g, now, now - 10).due
    # The window's knows how many clean hours are to come: 297 here, 145 with 400 more.
    for more, due in ((0, True), (400, False)):
        future = np.concatenate([g, np.full(more, 9.0)])
        assert decide(Rule(mean="window", mean_hours=100), future, now, now - 10).due == due


def test_an_hour_without_a_value_is_none_to_start_in() -> None:
    g = series(280, 200, 100, math.nan)
    now = len(g) - 1
    verdict = decide(Rule(), g, now, now - 10)
    assert (verdict.due, verdict.why) == (False, "no intensity is known for this hour")
    assert decide(Rule(), g, now, now - 80).due
    assert not decide(Rule(), series(280, math.nan, 100, 101), now, now - 10).due


def test_a_forecast_is_waited_for() -> None:
    rule = Rule("forecast")
    g, ahead = series(200), np.array([190, 180, 100, 150] + [200] * 68, float)
    verdict = decide(rule, g, 20, 10, ahead)
    assert not verdict.due
    assert verdict.why.startswith("better in 3 h: 100 g/kWh by the forecast")
    assert (verdict.expected, verdict.basis) == (23, "forecast")
    later = decide(rule, series(200, 190, 180, 100), 23, 10, ahead[3:])
    assert later.due
    assert (later.expected, later.basis) == (23, "now")


def test_a_forecast_start_covers_the_whole_evaluation() -> None:
    """The valley is one hour long: good for one hour, not for four."""
    ahead = np.array([190, 20, 290, 290, 290, 120, 120, 120, 120, 250] + [290] * 60, float)
    assert decide(Rule("forecast"), series(200), 20, 10, ahead).expected == 22
    assert decide(Rule("forecast", duration_hours=4), series(200), 20, 10, ahead).expected == 26
    # 1.5 h: the second hour counts half.
    short = np.array([100, 100, 50, 300, 300] + [300] * 60, float)
    assert decide(Rule("forecast", duration_hours=1.5), series(300), 20, 10, short).expected == 22


def test_urgency_bounds_the_wait() -> None:
    """Within a day of the last one the cleanest start is taken; a later one must be cleaner by as
    much as the urgency has grown by."""
    rule = Rule("forecast")

    def expected(valley: float) -> float:
        ahead = np.full(71, 300.0)
        ahead[9] = 200  # in 10 h, 20 h after the last one
        ahead[33] = valley  # in 34 h, 44 h after: exp(0.029 · 44) / 2 = 1.79
        return decide(rule, series(250), 20, 10, ahead).expected

    assert expected(190) == 30
    assert expected(200 / 1.75) == 30
    assert expected(200 / 1.85) == 54
    assert (
        decide(replace(rule, beta_per_hour=0), series(250), 20, 10, np.full(71, 9.0)).due is False
    )


def test_never_beyond_the_idle_time() -> None:
    rule = Rule("forecast", beta_per_hour=0)
    ahead = np.full(72, 300.0)
    ahead[60] = 1
    last = 20 - 20  # 52 h are left: the clean hours come too late
    assert decide(rule, series(299), 20, last, ahead).due
    assert decide(rule, series(299), 20, 10, ahead).expected == 81  # 62 h are left


def test_a_constant_grid_gives_no_reason_to_hurry() -> None:
    flat = np.full(200, 300.0)
    found = when(Rule("forecast"), flat, forecasts=np.full((200, 72), 300.0))
    assert set(np.diff(found)) == {23}  # the last hour before the factor has doubled


def test_without_a_forecast_it_looks_back_and_says_so() -> None:
    g = series(280, 200, 100, 101)
    verdict = decide(Rule("forecast"), g, 23, 10)
    assert verdict.due
    assert verdict.why.startswith("there is no forecast; ")


def test_expected_without_a_forecast_is_the_latest_time() -> None:
    verdict = decide(Rule(), series(500), 20, 11)
    assert (verdict.expected, verdict.basis) == (11 + 72, "latest")
    # With one it is what the rule would do, were it true.
    ahead = np.array([400, 300, 200, 210, 220], float)
    verdict = decide(Rule(), series(500), 20, 11, ahead)
    assert (verdict.expected, verdict.basis) == (24, "forecast")
    fixed = decide(Rule("fixed", every_hours=30), series(500), 20, 11)
    assert (fixed.due, fixed.expected, fixed.basis) == (False, 41, "schedule")


RULES = (
    Rule(),
    Rule(mean="window"),
    Rule(beta_per_hour=-0.029, mean_hours=24),
    Rule(grace_hours=0, max_idle_hours=10.5, mean_hours=5),
    Rule(grace_hours=3.5),
    Rule("fixed", every_hours=5.5),
    Rule("forecast", duration_hours=2.5),
)


@pytest.mark.parametrize("rule", RULES, ids=str)
@given(
    st.lists(st.sampled_from([0.0, 100.0, 103.0, 200.0, 206.0, 300.0, math.nan]), max_size=120),
    st.integers(0, 30),
)
def test_the_whole_window_is_as_hour_by_hour(rule: Rule, g: list[float], start: int) -> None:
    values, start = np.array(g, float), min(start, len(g))
    ahead = np.stack([np.roll(values, -t - 1)[:20] for t in range(start, len(g))] or [np.empty(0)])
    found: list[int] = []
    for hour in range(start, len(g)):
        last = found[-1] if found else None
        if decide(rule, values, hour, last, ahead[hour - start]).due:
            found.append(hour)
    forecasts = ahead if start < len(g) else np.empty((0, 20))
    assert when(rule, values, start=start, forecasts=forecasts) == found


def test_what_makes_no_rule() -> None:
    for wrong in (
        {"grace_hours": 72},
        {"grace_hours": -1},
        {"beta_per_hour": math.nan},
        {"mean_hours": 0},
        {"every_hours": 0},
        {"duration_hours": 0},
    ):
        with pytest.raises(ValueError, match="must be"):
            Rule(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a forecast"):
        when(Rule("forecast"), np.ones(3))


def test_as_configured() -> None:
    assert configured(Config().evaluate.schedule) is None
    assert configured(ScheduleConfig(rule="opportunistic")) == Rule()  # the defaults agree
    made = configured(ScheduleConfig(rule="fixed", fixed_hours=12, mean_hours=24, grace_hours=2))
    assert made == Rule("fixed", every_hours=12, mean_hours=24, grace_hours=2)
    with pytest.raises(ValueError, match="grace_hours"):
        ScheduleConfig(grace_hours=80)


def at(hour: float, g: float) -> Intensity:
    return Intensity(g, "NL", "test", "direct", "average", T0 + timedelta(hours=hour))


def test_on_the_clock() -> None:
    """The same on times; the source's forecast where it has one, else the seasonal one."""
    grid = [at(h, 300 - 150 * (h % 24 in (12, 13))) for h in range(200)]  # now: 7 o'clock
    now, last = T0 + timedelta(hours=199.5), T0 + timedelta(hours=190)
    outlook = consider(Rule("forecast"), grid, now, last)
    assert not outlook.due
    assert outlook.expected_at == T0 + timedelta(hours=205)  # 13 o'clock
    assert outlook.basis == "forecast"
    told = [at(h, 10 if h == 202 else 300) for h in range(195, 230)]
    assert consider(Rule("forecast"), grid, now, last, told).expected_at == T0 + timedelta(
        hours=202
    )
    assert consider(Rule(), grid, now, None).due
    assert consider(Rule(), grid, now, now - timedelta(hours=72)).due
    adjusted = consider(Rule(), grid, now, last).adjusted_g_per_kwh
    assert adjusted == pytest.approx(300 * math.exp(0.029 * 9.5))


def test_a_history_that_has_ended() -> None:
    grid = [at(h, 300) for h in range(48)]
    late = T0 + timedelta(hours=100)
    outlook = consider(Rule("forecast"), grid, late, late - timedelta(hours=20))
    assert (outlook.due, outlook.basis) == (False, "latest")
    assert outlook.why == "no intensity is known for this hour"
    assert outlook.expected_at == late + timedelta(hours=52)
    with pytest.raises(FeedError, match="history"):
        consider(Rule(), [], late, None)


@pytest.mark.data
@pytest.mark.skipif(not TRACES.is_dir(), reason=f"no traces at {TRACES} (SPROUT_DATA)")
def test_the_published_rule_runs_about_as_often_as_published() -> None:
    """29 to 51 evaluations in 30 days; and always in hours that are cleaner than the mean."""
    counts = []
    for path in sorted(TRACES.glob("*.csv")):
        with path.open(newline="") as file:
            g = np.array([float(row["gco2_per_kwh_direct"]) for row in csv.DictReader(file)])
        for start in (800, 3900, 7000):
            window = g[start : start + 720]
            hours = when(Rule(mean="window"), window)
            counts.append(len(hours))
            assert window[hours].mean() < 0.92 * window.mean()
    assert len(counts) == 15
    assert 29 <= min(counts) <= max(counts) <= 52
