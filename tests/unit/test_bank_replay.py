# SPDX-License-Identifier: Apache-2.0
"""The bank on a year of five grids: what theory promises holds there, and a naive forecast pays."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import bench_bank as replay

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        not replay.BUNDLE.is_dir(), reason=f"no replay data at {replay.BUNDLE} (SPROUT_DATA)"
    ),
]


@pytest.mark.parametrize("zone", replay.ZONES)
@pytest.mark.parametrize("start", replay.STARTS)
def test_foreseen_the_bank_is_the_best_at_equal_preference(zone: str, start: int) -> None:
    window = replay.load(zone, start)
    paper = replay.hourly(window, 0.1)
    wanted = window.preference(paper)
    fixed = replay.static(window, wanted)
    bank = replay.foreseen(window, wanted, 0.0)
    for mixes in (fixed, bank):
        assert window.preference(mixes) == pytest.approx(wanted, abs=1e-7)
    assert window.saving(bank) >= max(window.saving(paper), window.saving(fixed)) - 1e-9
    # a carbon-aware policy earns its place: by more than rounding
    assert window.saving(bank) > window.saving(fixed) + 0.01
    worst = (paper @ window.preferences).min() / window.preferences[0]
    guarded = replay.foreseen(window, wanted, float(worst))
    assert (guarded @ window.preferences).min() >= worst * window.preferences[0] - 1e-9
    assert window.saving(paper) - 1e-9 <= window.saving(guarded) <= window.saving(bank) + 1e-9


@pytest.mark.parametrize("zone", ["GB", "NL"])
def test_with_the_last_weeks_for_a_forecast_it_beats_the_static_mix(zone: str) -> None:
    window = replace(replay.load(zone, 800), hours=240)
    mixes = replay.Receding(replay.LONG_H, "weeks").mixes(window, 0.95)
    assert mixes.sum(1) == pytest.approx(1)
    fixed = replay.static(window, window.preference(mixes))
    assert window.saving(mixes) > window.saving(fixed)


def test_a_shrinking_horizon_ends_on_its_budget() -> None:
    window = replace(replay.load("GB", 800), hours=120)
    mixes = replay.Receding(replay.SHORT_H, "day", even=True).mixes(window, 0.95)
    assert window.preference(mixes) == pytest.approx(0.95, abs=1e-6)


@pytest.mark.parametrize("kind", ["day", "last", "weeks"])
def test_forecasts_see_no_future(kind: str) -> None:
    window = replay.load("GB", 3900)
    known = replay.forecast(window, 3950, 72, kind)
    changed = window.intensity.copy()
    changed[3951:] = -1
    assert (replay.forecast(replace(window, intensity=changed), 3950, 72, kind) == known).all()
    assert known[0] == window.intensity[3950]
    assert np.isfinite(known).all()
