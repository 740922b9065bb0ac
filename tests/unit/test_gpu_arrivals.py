# SPDX-License-Identifier: Apache-2.0
"""Recorded arrivals and the release of a GPU: hours, stretches, pairs and tables."""

import math
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "gpu"))
import _table_arrivals
import _table_release
import arrivals
import release
import table
from _arms import ARMS, L0, MIX, PROMPT
from _hours import MONTH_H, Hour, hours, in_turn, middle_hours, read_hours
from _pairs import Pair, ratio, scatter, zones
from _stretch import stretch
from _whole import part

from sprout.optimize.floor import Range
from sprout.replay.grid import Grid

DATA = Path(os.environ.get("SPROUT_DATA", Path(__file__).parents[3] / "shared" / "data"))
BUNDLE = DATA / "sprout2023"


# --- hours ---------------------------------------------------------------------------------------


def test_the_hours_that_stand_for_a_month_are_the_middles_of_equal_parts_by_rank() -> None:
    intensities = np.array([50.0, 10.0, 30.0, 20.0, 60.0, 40.0])
    assert [intensities[i] for i in middle_hours(intensities, 3)] == [20.0, 40.0, 60.0]
    assert [intensities[i] for i in middle_hours(intensities, 1)] == [40.0]
    assert sorted(middle_hours(intensities, 6)) == list(range(6))


@pytest.mark.parametrize("count", [0, 7])
def test_a_month_has_no_more_hours_than_it_has(count: int) -> None:
    with pytest.raises(ValueError, match="hours of 6"):
        middle_hours(np.arange(6.0), count)


def grid(values: np.ndarray[Any, np.dtype[np.float64]]) -> Grid:
    return Grid("X", datetime(2023, 1, 1, tzinfo=UTC), values, Range(100.0, 900.0, "whole trace"))


def test_the_floor_of_an_hour_is_the_published_one_with_the_whole_trace_s_range() -> None:
    values = np.concatenate([[100.0, 900.0], np.linspace(300.0, 500.0, MONTH_H)])
    found = hours(grid(values), 2, 1, xi=0.1)
    assert len(found) == 1
    assert found[0].g_per_kwh == pytest.approx(400.0, abs=0.2)
    assert found[0].floor == pytest.approx(1 - 0.1 * (found[0].g_per_kwh - 100) / 800)
    assert found[0].at == datetime(2023, 1, 16, 2, tzinfo=UTC).isoformat()
    assert sum(h.weight for h in hours(grid(values), 2, 3, xi=0.1)) == pytest.approx(1.0)


def test_a_trace_that_ends_within_the_month_is_refused() -> None:
    with pytest.raises(ValueError, match=f"no {MONTH_H} h from hour 1 on"):
        hours(grid(np.full(MONTH_H, 300.0)), 1, 3, xi=0.1)


def test_every_zone_has_an_hour_before_one_has_its_second() -> None:
    by_zone = [[Hour(z, "", 1.0, 1.0, rank, 1 / 3) for rank in range(3)] for z in "abcde"]
    found = in_turn(by_zone, np.random.default_rng(1))
    assert len(set(found)) == 15
    for turn in range(3):
        assert {h.zone for h in found[5 * turn : 5 * turn + 5]} == set("abcde")
    assert found != in_turn(by_zone, np.random.default_rng(2))


@pytest.mark.data
@pytest.mark.skipif(not BUNDLE.is_dir(), reason=f"no replay data at {BUNDLE} (SPROUT_DATA)")
def test_the_hours_of_the_five_zones_reach_from_clean_to_dirty() -> None:
    by_zone = read_hours(BUNDLE, arrivals.ZONES, arrivals.START_H, 3, arrivals.XI)
    assert [len(zone) for zone in by_zone] == [3] * 5
    for zone in by_zone:
        assert zone[0].g_per_kwh < zone[1].g_per_kwh < zone[2].g_per_kwh
        assert 1 >= zone[0].floor > zone[1].floor > zone[2].floor >= 1 - arrivals.XI
        assert all(hour.at.startswith(("2023-02", "2023-03-0")) for hour in zone)


# --- the trace -----------------------------------------------------------------------------------


def test_a_stretch_has_the_rate_that_is_asked_for_and_keeps_the_trace_s_bursts() -> None:
    times = np.concatenate([np.arange(0, 50, 0.5), np.arange(50, 500, 1.0)])
    found = stretch(times, 10.0, count=4, block_s=5.0, per_s=6.0)
    assert sum(found.rates) == 120  # 20 s at 6 per second
    assert found.trace_s == pytest.approx(80.0)  # 80 at two a second, 40 at one
    assert found.speed == pytest.approx(4.0)
    assert found.rates == [40, 40, 20, 20]
    for block in found.blocks:
        assert (np.diff(block) > 0).all()
        assert block[0] >= 0
        assert block[-1] < 5.0
    assert np.diff(found.blocks[0])[0] == pytest.approx(0.5 / 4)


def test_a_stretch_beyond_the_trace_s_end_is_refused() -> None:
    with pytest.raises(ValueError, match="100 arrivals are wanted, 90 follow second 10"):
        stretch(np.arange(100.0), 10.0, count=1, block_s=10.0, per_s=10.0)


# --- pairs ---------------------------------------------------------------------------------------


def pair(zone: str, g: float, given_up: float, watts: float, weight: float = 0.5) -> Pair:
    return Pair(zone, g, weight, given_up, base_watts=600.0, watts=watts)


def test_grams_of_a_zone_are_its_watts_at_its_intensities() -> None:
    found = zones([pair("a", 100.0, 0.0, 600.0), pair("a", 500.0, 0.1, 300.0)])["a"]
    assert found.base_g_per_h == pytest.approx(0.6 * 300)
    assert found.g_per_h == pytest.approx((0.6 * 100 + 0.3 * 500) / 2)
    assert found.saved == pytest.approx(1 - 105 / 180)
    assert found.half_width is None  # two pairs tell no scatter


def test_what_the_floor_explains_is_no_error() -> None:
    line = [pair(z, 300.0, x, 600.0 - 2000.0 * x) for z in "ab" for x in (0.0, 0.05, 0.1)]
    assert zones(line)["a"].half_width == pytest.approx(0.0, abs=1e-9)


def test_the_interval_of_a_zone_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    floors, hits, runs = (0.02, 0.05, 0.08), 0, 400
    truth = 1 - np.mean([500.0 - 1000.0 * x for x in floors]) / 600.0
    for _ in range(runs):
        noisy = [
            pair(z, 300.0, x, 500.0 - 1000.0 * x + rng.normal(0, 10), 1 / 3)
            for z in "abcde"
            for x in floors
        ]
        found = zones(noisy)["c"]
        assert found.half_width is not None
        hits += abs(found.saved - truth) <= found.half_width
    assert 0.92 <= hits / runs <= 0.98  # 95 % +- 2.7 standard deviations


def test_scatter_of_equal_floors_is_that_around_the_mean() -> None:
    values = np.array([1.0, 2.0, 3.0, 6.0])
    assert scatter(np.full(4, 0.05), values) == (pytest.approx(np.std(values, ddof=1)), 3)
    assert scatter(np.arange(3.0), values[:3]) is None


def test_a_ratio_is_of_sums_and_certain_where_every_part_has_it() -> None:
    assert ratio([1, 2, 3], [2, 4, 6]) == (0.5, pytest.approx(0.0))
    assert ratio([1], [2]) == (0.5, None)
    value, half = ratio([1, 1], [2, 1])
    assert value == pytest.approx(2 / 3)
    assert half == pytest.approx(12.706 * 0.25, rel=1e-3)  # leaving out: 1 and 1/2
    assert ratio([1, 1], [0, 2]) == (1.0, None)
    assert math.isnan(ratio([1, 1], [0, 0])[0])


def test_a_part_is_named_from_one_on() -> None:
    assert part("2/3") == (1, 3)
    for wrong in ("0/2", "3/2", "x", "1"):
        with pytest.raises(Exception, match="is no part"):
            part(wrong)


# --- tables --------------------------------------------------------------------------------------


def block(
    watts: float, *, joules: list[float] | None = None, seconds: float = 8.0
) -> dict[str, Any]:
    own = joules or [watts * seconds]
    return {
        "seconds": seconds,
        "joules": own,
        "watts": sum(own) / seconds,
        "arrived": 100,
        "answered": 100,
        "failed": 0,
        "errors": {},
        "ended_per_s": 12.5,
        "in_flight": 20.0,
        "latencies_s": [1.0] * 99 + [4.0],
        "levels": [50, 40, 10],
        "tokens": 5000,
        "prompt_tokens": 2000,
        "receipt_joules": [watts / 20] * 100,
        "receipt_g": 1.0,
        "preferred": 36,
        "preferred_at_l0": 40,
        "under_an_older_policy": 0,
    }


def hour(zone: str, rank: int, floor: float) -> dict[str, Any]:
    decided = {
        "shares": {"L0": 0.5, "L1": 0.5, "L2": 0.0},
        "mix_preference": floor,
        "blended_preference": floor,
    }
    watts = {L0: 600.0, MIX: 540.0, PROMPT: 480.0}
    own = Hour(zone, "2023-02-05T03:00:00+00:00", 200.0 + 100 * rank, floor, rank, 0.5)
    arms = {arm: block(watts[arm]) for arm in ARMS}
    return {**own.plain(), "per_s": 13.0, "decision": decided, "arms": arms} | {
        "preference": {L0: 1.0, MIX: floor, PROMPT: floor + 0.01}
    }


def result(name: str, **more: Any) -> dict[str, Any]:
    return {
        "measurement": name,
        "model": "a model",
        "gpu": "a GPU",
        "driver": "1",
        "engine": "vllm, 2",
        "commit": "abc",
        "seed": 1,
        "load": 0.65,
        "washout_s": 8.0,
        "carried_per_s": 30.0,
        "carried_is": "measured",
        "trace": {"name": "t.csv.gz", "start_s": 60.0, "seconds": 900.0, "speed": 3.5},
        **more,
    }


def test_the_parts_of_a_run_are_one_table() -> None:
    parts = [
        result(
            "arrivals",
            idle_watts=[[120.0], [125.0]],
            hours=[hour(zone, 0, 0.97), hour(zone, 1, 0.93)],
        )
        for zone in ("NL", "GB")
    ]
    text = table.render(parts)
    assert text.count("### Recorded arrivals") == 1
    assert "| the paper's policy | 540.0 | 10.0% ± 0.0% |" in text
    assert "| levels by prompt | 480.0 | 20.0% ± 0.0% |" in text
    assert "| GB | 2 | 95.0% | 150.0 | 135.0 | 120.0 | 10.0% ± 0.0% | 20.0% ± 0.0% | 11.1%" in text
    assert "50% / 40% / 10%" in text
    assert "90.0% ± 0.0%" in text  # 36 of 40


def test_an_hour_without_all_of_its_blocks_is_in_no_figure() -> None:
    whole, half = hour("NL", 0, 0.97), hour("GB", 0, 0.97)
    del half["arms"][PROMPT]
    text = _table_arrivals.arrivals([result("arrivals", idle_watts=[[120.0]], hours=[whole, half])])
    assert "GB" not in text
    assert "No hour" in _table_arrivals.arrivals([result("arrivals", idle_watts=[], hours=[half])])


def released(
    pair: int, serving: list[int], joules: list[float], p99: float = 4.0
) -> dict[str, Any]:
    own = block(0.0, joules=joules, seconds=10.0)
    own["latencies_s"] = [1.0] * 98 + [p99] * 2
    return {"pair": pair, "serving": serving, **own}


def blocks() -> list[dict[str, Any]]:
    return [
        released(0, [0, 1], [6000.0, 6000.0]),
        released(0, [0], [6000.0, 1200.0], 3.0),
        released(1, [1], [1300.0, 6100.0], 3.0),
        released(1, [0, 1], [6000.0, 6200.0]),
        {"pair": 2, "serving": [0, 1]},  # not measured yet
    ]


def test_what_is_measured_of_a_release_and_what_is_derived() -> None:
    both, one = _table_release.halves(blocks())
    assert [len(both), len(one)] == [2, 2]
    found = {label: watts for label, _, watts in _table_release.variants(both, one, [70.0, 80.0])}
    assert found == {
        "both serve L0": [1200.0, 1220.0],
        "idles with its model loaded": [720.0, 740.0],
        "idles without a model": [680.0, 680.0],
        "is off, or serves somebody else": [600.0, 610.0],
    }
    assert len(_table_release.variants(both, one, None)) == 3


def test_the_release_s_table_says_whether_the_objective_was_kept() -> None:
    decided = {
        "shares": {"L0": 0.5, "L1": 0.5},
        "blended_preference": 0.95,
        "prompt_share": 0.9,
        "prompt_shares": [0.2, 0.3, 0.5],
    }
    found = result(
        "release",
        bare_watts=[70.0, 80.0],
        idle_watts=[[120.0, 121.0]],
        decision=decided,
        preference={L0: 1.0, MIX: 0.95, PROMPT: 0.961},
        floor=0.95,
        per_s=40.0,
        blocks=blocks(),
    )
    text = table.render([found])
    assert "percentile: kept" in text
    assert "| idles with its model loaded | measured | 730.0 | 39.7%" in text
    failing = [block | {"failed": 100 * (len(block["serving"]) == 1)} for block in found["blocks"]]
    assert "**missed**" in table.render([found | {"blocks": failing}])
    for one in found["blocks"][:4]:
        one["latencies_s"] = [5.0 if len(one["serving"]) == 1 else 4.0] * 100
    assert "**missed**" in table.render([found])


def test_blocks_of_a_release_are_in_an_order_that_a_drift_meets_alike() -> None:
    assert release.order(3) == [release.A, release.B, release.B, release.A, release.A, release.B]
