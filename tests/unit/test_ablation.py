# SPDX-License-Identifier: Apache-2.0
"""The ablation's own arithmetic: frontiers, mixes, wrong inputs, the bank's gain."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from predict_synthetic import fitted, make_told

from sprout.replay.bundle import UNKNOWN, Bundle, read
from sprout.replay.grid import read_grid
from sprout.replay.prompted import Prompted
from sprout.replay.window import Window
from sprout.replay.workload import draw

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from _ablation import (
    NOBODY,
    Counted,
    Frontier,
    Here,
    Mixes,
    Point,
    biased,
    class_means,
    flat,
    means,
    scaled,
    thinned,
)
from _ablation_bank import day_blocks, gains, run_of

pytest.importorskip("scipy.sparse")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read(make_told(tmp_path_factory.mktemp("ablation") / "b"))


@pytest.fixture(scope="module")
def base(bundle: Bundle) -> Prompted:
    return Prompted(bundle, fitted(bundle.folder)[1])


@pytest.fixture(scope="module")
def window(bundle: Bundle) -> Window:
    grid = read_grid(bundle.folder / "carbon" / "AA.csv", "direct")
    return Window(bundle, grid, 30, draw(bundle, bundle.meta.window_h, 0, 0))


@pytest.fixture(scope="module")
def here(base: Prompted, window: Window) -> Here:
    return Here(Counted(base, 3), window)


def test_between_two_targets_requests_are_split() -> None:
    def point(saving: float, preference: float) -> Point:
        return Point(np.array([saving]), np.array([preference]))

    frontier = Frontier.of(point(0.9, 0.7), [point(0.8, 0.9), point(0.6, 0.94)])
    found = [float(frontier.at(wanted)[0]) for wanted in (0.6, 0.7, 0.9, 0.92, 0.97, 1.0)]
    assert found == pytest.approx([0.9, 0.9, 0.8, 0.7, 0.3, 0.0])
    assert np.isnan(frontier.at(1.01)).all()


def test_a_split_is_worth_what_the_frontier_says(here: Here, window: Window) -> None:
    """Half of the requests at L0 and half at L1, measured and interpolated."""
    mixes = [
        np.tile(mix, (1, window.hours, 2, 1)) for mix in ([1.0, 0, 0], [0, 1, 0], [0.5, 0.5, 0])
    ]
    l0, l1, half = (here.mixes(mix) for mix in mixes)
    assert half.preference == pytest.approx((l0.preference + l1.preference) / 2)
    assert Frontier.of(l1, []).at(half.preference) == pytest.approx(half.saving)
    assert l0.saving == pytest.approx(np.zeros(4))
    assert l0.preference == pytest.approx(np.ones(4))


def test_levels_count_as_in_the_replay(here: Here, base: Prompted, window: Window) -> None:
    levels = base.levels(window, 0.95)
    _, outcome = base.measure(window, levels)
    point = here.point(levels)
    assert point.saving[0] == pytest.approx(1 - outcome.grams.sum() / outcome.base_grams.sum())
    assert point.preference[0] == pytest.approx(outcome.preference.mean(), rel=1e-6)
    assert np.ptp(point.preference) > 0


def test_levels_and_mixes_count_alike(here: Here, base: Prompted, window: Window) -> None:
    """Levels by task, written out for every prompt."""
    by_task = np.array([1, 2])
    levels = np.tile(by_task[base.own.weights.argmax(axis=0)], (window.hours, 1)).astype(np.int8)
    shares = np.tile(np.eye(3)[by_task], (1, window.hours, 1, 1))
    one, other = here.point(levels), here.point(shares)
    assert one.saving == pytest.approx(other.saving)
    assert one.preference == pytest.approx(other.preference, rel=1e-6)


@pytest.mark.parametrize("classes", [False, True])
def test_mixes_reach_their_target_where_they_were_made(
    classes: bool, here: Here, base: Prompted, window: Window
) -> None:
    known = means(base.own, np.array([NOBODY]))
    find = Mixes().find
    aware = here.mixes(find(window, known, 0.9, classes=classes, aware=True))
    blind = here.mixes(find(window, known, 0.9, classes=classes, aware=False))
    assert blind.preference[0] == pytest.approx(0.9, abs=0.02)
    if classes:  # else q0 is taken for the same in all hours
        assert aware.preference[0] == pytest.approx(0.9, abs=1e-6)
    wanted = min(float(aware.preference[0]), float(blind.preference[0]))
    mixes = [find(window, known, t, classes=classes, aware=True) for t in (0.85, 0.9, 0.95)]
    assert here.frontier(mixes).at(wanted)[0] > blind.saving[0] + 0.005


def test_what_a_fold_is_told_does_not_come_from_it(base: Prompted) -> None:
    own = base.own
    folds = np.unique(own.fold)
    turned = own.preferred.copy()
    turned[own.fold == folds[1]] = 0
    before, after = (means(replace(own, preferred=p), folds) for p in (own.preferred, turned))
    assert (before.q[1] == after.q[1]).all()
    assert (before.q[0] != after.q[0]).any()
    told = class_means(base)
    assert len(np.unique(told.own.q, axis=0)) == 2 * len(folds)


def test_a_common_error_of_energies_changes_nothing_if_prices_are_set_with_it(
    base: Prompted, window: Window
) -> None:
    levels = base.levels(window, 0.95)
    # The table's grid of prices is finite, so it is not the same to the bit.
    assert (scaled(base, np.full(3, 1.3)).levels(window, 0.95) != levels).mean() < 0.01
    one = scaled(base, np.array([0.5, 1.0, 1.0])).levels(window, 0.95)
    assert (one != levels).mean() > 0.01


def test_a_biased_judge_moves_as_many_points_as_told(bundle: Bundle) -> None:
    judged = bundle.preferred != UNKNOWN
    for points in (-10, 5):
        preferred = biased(bundle, points).preferred
        assert ((preferred != UNKNOWN) == judged).all()
        for task in (0, 1):
            own = judged & (bundle.task == task)
            moved = (bundle.preferred[own] == 0).mean() - (preferred[own] == 0).mean()
            assert moved == pytest.approx(points / 100, abs=1 / own.sum())


def test_windows_without_their_grid_and_with_fewer_hours(window: Window) -> None:
    assert flat(window).k0 == pytest.approx(np.full(window.hours, window.k0.mean()))
    few = thinned(window, 5)
    assert (few.k0 == window.k0[::5]).all()
    assert few.hours == len(window.k0[::5])
    assert (few.bundle.mix_of(few.hours) == window.bundle.mix_of(window.hours)[::5]).all()


def test_the_best_static_mix_gains_nothing_on_itself(window: Window) -> None:
    shares = np.tile([0.4, 0.6, 0.0], (window.hours, 1))
    run = run_of(window, shares, assessed=False)
    q = window.work.truth / window.work.truth[:, :1]
    assert run.preference == pytest.approx(q @ np.array([0.4, 0.6, 0.0]))
    assert run.gain() <= 1e-9
    better = replace(run, grams=run.grams - 0.1 * run.costs_g[:, 0].mean())
    assert better.gain() == pytest.approx(run.gain() + 0.1)
    above = replace(run, preference=run.preference + 1.0)  # more than any static mix has
    assert above.gain() == pytest.approx(run.saving)  # all L0 saves nothing
    found = gains([[run, better], [run, better]])
    centre, low, high = found["mean_blocks_of_1_days"]
    assert centre == pytest.approx(100 * (run.gain() + 0.05))
    assert low < high


def test_blocks_are_whole_days_in_order() -> None:
    rng = np.random.default_rng(0)
    for days in (1, 5):
        at = day_blocks(725, days, rng).reshape(-1, 24)
        assert len(at) == 30
        assert (at % 24 == np.arange(24)).all()
        starts = at[:, 0].reshape(-1, days)
        assert ((np.diff(starts, axis=1) - 24) % 720 == 0).all()
