# SPDX-License-Identifier: Apache-2.0
"""Each scheme against what it should come to by hand, by brute force, or by what it may know."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from replay_synthetic import make_bundle

from sprout.errors import ConfigError
from sprout.evaluate.schedule import when
from sprout.replay.bundle import Bundle, read
from sprout.replay.grid import read_grid
from sprout.replay.measure import measure
from sprout.replay.receding import bank, expected
from sprout.replay.schemes import (
    base,
    co2_opt,
    model_opt,
    newest_evaluation,
    oracle,
    sprout,
    sprout_sta,
)
from sprout.replay.static import static_eq
from sprout.replay.window import Plan, Window
from sprout.replay.workload import draw

XI = 0.1


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read(make_bundle(tmp_path_factory.mktemp("replay") / "b"))


def window(bundle: Bundle, requests: int = 500, seed: int = 0, start: int = 0) -> Window:
    grid = read_grid(bundle.folder / "carbon" / "AA.csv", "direct")
    return Window(bundle, grid, start, draw(bundle, bundle.meta.window_h, requests, seed))


def test_grams_are_those_of_the_formula(bundle: Bundle) -> None:
    w = window(bundle)
    by_hand = w.k0[:, None] * w.work.energy_kwh + 1.6715e-4 * w.work.seconds
    assert w.costs_g == pytest.approx(by_hand)
    rows = w.work.requests
    assert rows is not None
    assert w.work.energy_kwh[3, 1] == pytest.approx(bundle.energy_kwh[rows[3], 1].mean())


def test_base_and_co2_opt(bundle: Bundle) -> None:
    w = window(bundle)
    assert (base(w, XI).shares == [1, 0, 0]).all()
    assert (co2_opt(w, XI).shares == [0, 0, 1]).all()
    saved = measure(w, co2_opt(w, XI), "CO2_OPT")
    assert saved.grams == pytest.approx(w.costs_g[:, 2])
    assert saved.expected == pytest.approx(w.work.truth[:, 2] / w.work.truth[:, 0])


def test_sprout_is_the_program_with_the_newest_evaluation(bundle: Bundle) -> None:
    w = window(bundle)
    plan = sprout(w, XI)
    assert list(plan.evaluations) == when(bundle.meta.rule, w.k0)
    assert plan.mismatches == 0
    low, high = w.grid.g_per_kwh.min(), w.grid.g_per_kwh.max()
    for hour in range(w.hours):
        q = w.work.assessed[max(e for e in plan.evaluations if e <= hour)]
        floor = (1 - XI * (w.k0[hour] - low) / (high - low)) * q[0]
        assert plan.shares[hour] @ q >= floor - 1e-9
        # No mix on a fine grid is cheaper and meets the floor.
        steps = np.linspace(0, 1, 41)
        tried = np.array([(a, b, 1 - a - b) for a, b in product(steps, steps) if a + b <= 1])
        costs = (tried @ w.costs_g[hour, :3])[tried @ q >= floor]
        assert plan.shares[hour] @ w.costs_g[hour, :3] <= costs.min() + 1e-12


def test_the_newest_evaluation() -> None:
    assert newest_evaluation([0, 2, 5], 7).tolist() == [0, 0, 2, 2, 2, 5, 5]


def test_sta_is_one_mix_that_meets_the_floor_of_the_hours_before(bundle: Bundle) -> None:
    for start, known in ((30, slice(0, 30)), (0, slice(0, 36))):
        w = window(bundle, start=start)
        shares = sprout_sta(w, XI).shares
        assert (shares == shares[0]).all()
        q = w.work.assessed.mean(axis=0)
        floor = w.floor(float(w.grid.g_per_kwh[known].mean()), XI)
        assert shares[0] @ q == pytest.approx(floor * q[0])


def test_model_opt_mixes_models_in_tenths(bundle: Bundle) -> None:
    w = window(bundle)
    plan = model_opt(w, XI)
    assert plan.columns == (0, 3)
    assert plan.shares * 10 == pytest.approx(np.round(plan.shares * 10))
    exact = np.array([XI * (1 - w.floor(k, 1)) / (1 - 0.4 / 0.6) for k in w.k0])
    assert np.abs(plan.shares[:, 1] - exact).max() <= 0.05 + 1e-9
    outcome = measure(w, plan, "MODEL_OPT")
    assert outcome.preference == pytest.approx(1 - plan.shares[:, 1] / 3)


def test_the_oracle_gives_the_short_answers_to_those_that_save_most(bundle: Bundle) -> None:
    w = window(bundle, requests=9)
    plan = Plan(np.tile([2 / 3, 0, 1 / 3], (w.hours, 1)), (0, 1, 2), by_request=True)
    rows = w.work.requests
    assert rows is not None
    found = measure(w, plan, "ORACLE").grams
    for hour in range(w.hours):
        row, k0 = rows[hour], w.k0[hour]
        saved = k0 * (bundle.energy_kwh[row, 0] - bundle.energy_kwh[row, 2])
        saved += 1.6715e-4 * (bundle.seconds[row, 0] - bundle.seconds[row, 2])
        by_hand = w.costs_g[hour, 0] - np.sort(saved)[-3:].sum() / 9
        assert found[hour] == pytest.approx(by_hand)


def test_the_oracle_knows_each_hour_and_beats_the_draw(bundle: Bundle) -> None:
    w = window(bundle)
    plan = oracle(w, XI)
    ratio = (plan.shares * w.work.assessed).sum(axis=1) / w.work.assessed[:, 0]
    assert (ratio >= [w.floor(k, XI) - 1e-9 for k in w.k0]).all()
    drawn = measure(w, replace(plan, by_request=False), "drawn")
    assert measure(w, plan, "ORACLE").grams.sum() < drawn.grams.sum()


def test_the_oracle_needs_requests(bundle: Bundle) -> None:
    w = window(bundle, requests=0)
    with pytest.raises(ConfigError, match="--requests"):
        measure(w, oracle(w, XI), "ORACLE")


def test_drawn_levels_come_to_the_expectation(bundle: Bundle) -> None:
    """With 20,000 requests an hour the mean over 36 h is within 1 % (some 5 standard errors)."""
    w = window(bundle, requests=20_000)
    plan = Plan(np.tile([0.3, 0.5, 0.2], (w.hours, 1)), (0, 1, 2))
    drawn = measure(w, plan, "x").grams.mean()
    assert drawn == pytest.approx((w.costs_g[:, :3] @ [0.3, 0.5, 0.2]).mean(), rel=0.01)
    assert (measure(w, plan, "x").grams == measure(w, plan, "x").grams).all()
    assert (measure(w, plan, "x").grams != measure(w, plan, "another").grams).any()


def test_a_seed_decides_everything_and_zones_share_it(bundle: Bundle) -> None:
    a, b = (draw(bundle, 36, 50, 3) for _ in range(2))
    assert a.requests is not None
    assert b.requests is not None
    assert (a.requests == b.requests).all()
    assert (a.assessed == b.assessed).all()
    assert (draw(bundle, 36, 50, 4).assessed != a.assessed).any()
    # How many requests are drawn does not change what judges say.
    assert (draw(bundle, 36, 0, 3).assessed == a.assessed).all()


def test_assessments_are_as_noisy_as_their_number_of_prompts(bundle: Bundle) -> None:
    off = np.concatenate(
        [w.assessed - w.truth for w in (draw(bundle, 36, 0, s) for s in range(60))]
    )
    sigma = np.sqrt(0.25 / bundle.meta.evaluation_prompts)
    assert np.abs(off.mean(axis=0)).max() < 4 * sigma / np.sqrt(len(off))
    assert (off.std(axis=0) > 0.75 * sigma).all()
    assert (off.std(axis=0) < 1.05 * sigma).all()


def test_static_eq_is_the_cheapest_mix_of_that_preference(bundle: Bundle) -> None:
    w = window(bundle)
    saving = static_eq(w, 0.9)
    assert saving is not None
    costs = w.costs_g[:, :3].mean(axis=0)
    steps = np.linspace(0, 1, 81)
    tried = np.array([(a, b, 1 - a - b) for a, b in product(steps, steps) if a + b <= 1])
    best = 1 - (tried @ costs)[tried @ w.ratios >= 0.9].min() / costs[0]
    assert best - 1e-9 <= saving <= best + 0.03
    assert static_eq(w, 1.5) is None


def test_nothing_static_beats_it_at_its_own_preference(bundle: Bundle) -> None:
    w = window(bundle)
    outcome = measure(w, sprout_sta(w, XI), "SPROUT_STA")
    saving = 1 - outcome.grams.sum() / outcome.base_grams.sum()
    same = static_eq(w, float(outcome.preference.mean()))
    assert same is not None
    assert same == pytest.approx(saving, abs=0.01)


def test_the_bank_keeps_to_its_target_and_sees_no_future(bundle: Bundle) -> None:
    w = window(bundle, requests=0, start=30)
    plan = bank(w, 0.95, horizon_h=48)
    assert plan.shares.sum(axis=1) == pytest.approx(1)
    # By what the evaluator knew: the horizon recedes, so not to the digit.
    mean = np.array(
        [w.work.assessed[[e for e in plan.evaluations if e <= h]].mean(axis=0) for h in range(36)]
    )
    reached = (plan.shares * mean).sum(axis=1) / mean[:, 0]
    assert reached.mean() == pytest.approx(0.95, abs=0.03)
    later = w.grid.g_per_kwh.copy()
    later[31:] = later[31:][::-1]
    assert later[40] != w.grid.g_per_kwh[40]
    other = Window(bundle, replace(w.grid, g_per_kwh=later), 30, w.work)
    assert (bank(other, 0.95, horizon_h=48).shares[0] == plan.shares[0]).all()


@pytest.mark.parametrize("now", [0, 5, 24, 60, 700])
def test_what_the_bank_expects_is_of_the_past(now: int) -> None:
    grid = np.arange(2000.0)
    ahead = expected(grid, now, 672)
    assert ahead[0] == now
    assert ahead.max() <= now
    assert ahead.min() >= 0
    if now >= 24:
        assert ahead[1] % 24 == (now + 1) % 24


def test_a_window_must_fit_into_the_trace(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="36 h from hour 37 on does not fit into the 72 h of AA"):
        window(bundle, start=37)
