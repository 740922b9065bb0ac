# SPDX-License-Identifier: Apache-2.0
"""PROMPT in the replay: its price, what it comes to, and who was predicted by whom."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from predict_synthetic import fitted, make_told

from sprout.cli import run
from sprout.errors import ConfigError
from sprout.predict.document import Predictor, save
from sprout.replay.bundle import UNKNOWN, Bundle, read
from sprout.replay.grid import read_grid
from sprout.replay.prompted import UNSEEN, Prompted, monotone
from sprout.replay.prompted_bank import ascending, prices, prompt_bank
from sprout.replay.window import Window
from sprout.replay.workload import draw

pytest.importorskip("scipy.sparse")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_told(tmp_path_factory.mktemp("told") / "b")


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return fitted(folder)[1]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of the same kind, with prompts that the predictor has never seen."""
    return read(make_told(tmp_path_factory.mktemp("other") / "b", seed=2))


def window(bundle: Bundle, start: int = 0) -> Window:
    grid = read_grid(bundle.folder / "carbon" / "AA.csv", "direct")
    return Window(bundle, grid, start, draw(bundle, bundle.meta.window_h, 0, 0))


def test_it_earns_what_the_words_tell(predictor: Predictor, other: Bundle) -> None:
    """Against the best mix that is blind to the text, at no less preference, both in hindsight."""
    here, prompted = window(other), Prompted(other, predictor)
    assert prompted.seen == 0
    _, outcome = prompted.plan(here, 1.0)
    saving = 1 - outcome.grams.sum() / outcome.base_grams.sum()
    reached = float(outcome.preference.mean())
    assert reached == pytest.approx(1.0, abs=0.15)
    q = other.preferences()  # (C, L)
    energy = other.task_means(other.energy_kwh)
    mix = other.mix_of(here.hours).mean(axis=0)
    blind = [
        1 - float(mix @ energy @ shares) / float(mix @ energy[:, 0])
        for shares in np.random.default_rng(0).dirichlet(np.ones(3), 3000)
        if float(mix @ q @ shares) / float(mix @ q[:, 0]) >= reached
    ]
    assert saving > max(blind, default=0.0) + 0.02


def test_a_higher_target_has_a_higher_price_and_preference(
    predictor: Predictor, other: Bundle
) -> None:
    here, prompted = window(other), Prompted(other, predictor)
    prices = [prompted.price(here, target) for target in (0.7, 0.9, 1.1)]
    assert prices == sorted(prices)
    assert prices[0] < prices[-1]
    outcomes = [prompted.plan(here, target)[1] for target in (0.7, 0.9, 1.1)]
    grams = [float(each.grams.sum()) for each in outcomes]
    assert grams == sorted(grams)


def test_the_price_has_its_target_on_the_fitting_prompts(
    folder: Path, predictor: Predictor
) -> None:
    """Computed anew, prompt by prompt and hour by hour, from the rule in words."""
    bundle = read(folder)
    here, prompted = window(bundle), Prompted(bundle, predictor)
    fitted_on, meta = prompted.fitted, bundle.meta
    price = prompted.price(here, 0.95)
    mix = bundle.mix_of(here.hours)
    ratios = []
    for hour, k0 in enumerate(here.k0):
        w = mix[hour] @ fitted_on.weights
        q0 = float(w @ (fitted_on.preferred == 0))
        seconds = fitted_on.predicted_kwh * prompted._seconds_per_kwh
        costs = meta.pue * k0 * fitted_on.predicted_kwh + meta.embodied_g_per_s * seconds
        chosen = np.argmin(costs - price / q0 * fitted_on.q, axis=1)
        ratios.append(float(w @ (fitted_on.preferred == chosen)) / q0)
    assert np.mean(ratios) == pytest.approx(0.95, abs=0.03)


def test_who_was_fitted_on_is_predicted_by_a_model_without_it(
    folder: Path, predictor: Predictor
) -> None:
    bundle = read(folder)
    prompted = Prompted(bundle, predictor)
    assert prompted.seen == int((bundle.preferred != UNKNOWN).sum())
    assert (prompted.own.q == predictor.judged.predicted_preference).all()
    texts = [bundle.prompts[i].encode() for i in np.flatnonzero(bundle.preferred != UNKNOWN)]
    direct = predictor.scorer().score_many(texts)[:, :3]
    assert not np.allclose(prompted.own.q, direct)
    # Each fold's own judgments have no say in its price.
    here = window(bundle)
    own = {fold: prompted.price(here, 0.95, fold) for fold in range(5)}
    assert len(set(own.values())) == 5
    preferred = predictor.judged.preferred.copy()
    preferred[predictor.judged.fold == 2] = 0
    changed = Predictor(**(vars(predictor) | {"judged": _with(predictor, preferred=preferred)}))
    again = Prompted(bundle, changed)
    assert again.price(here, 0.95, 2) == pytest.approx(own[2], rel=1e-9)
    assert again.price(here, 0.95, 3) != pytest.approx(own[3], rel=1e-3)


def _with(predictor: Predictor, **changes: object) -> object:
    return type(predictor.judged)(**(vars(predictor.judged) | changes))


def test_shares_and_grams_agree(predictor: Predictor, other: Bundle) -> None:
    here, prompted = window(other), Prompted(other, predictor)
    plan, _ = prompted.plan(here, 0.95)
    assert plan.shares.sum(axis=1) == pytest.approx(np.ones(here.hours))
    assert len(np.unique(plan.shares[:, 0].round(6))) > 1  # the hours differ
    everyone = np.zeros((here.hours, len(prompted.own.fold)), dtype=np.int8)
    _, base = prompted.measure(here, everyone)
    assert base.grams == pytest.approx(base.base_grams)
    assert base.preference == pytest.approx(np.ones(here.hours))
    assert (prompted.own.fold == UNSEEN).all()


@pytest.mark.parametrize("seen", [True, False])
def test_levels_are_numpys_to_the_bit(
    folder: Path, predictor: Predictor, other: Bundle, seen: bool
) -> None:
    """Those that cost the least in each hour, at the price of the prompt's own fold."""
    bundle = read(folder) if seen else other
    here, prompted = window(bundle), Prompted(bundle, predictor)
    own, meta = prompted.own, bundle.meta
    folds = np.unique(own.fold).tolist()
    assert folds == ([0, 1, 2, 3, 4] if seen else [UNSEEN])
    found = prompted.levels(here, 0.97)
    seconds = own.predicted_kwh * prompted._seconds_per_kwh
    for hour, k0 in enumerate(here.k0):
        for fold in folds:
            at = own.fold == fold
            price = prompted.price(here, 0.97, fold) / prompted.q0(here, fold)[hour]
            costs = meta.pue * k0 * own.predicted_kwh[at] + meta.embodied_g_per_s * seconds[at]
            assert (found[hour, at] == np.argmin(costs - price * own.q[at], axis=1)).all()
    assert len(np.unique(found)) > 1


def test_pooling_is_the_nearest_ascending_sequence() -> None:
    assert monotone(np.array([1.0, 3.0, 2.0, 4.0])).tolist() == [1, 2.5, 2.5, 4]
    assert monotone(np.array([3.0, 2.0, 1.0])).tolist() == [2, 2, 2]
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = np.cumsum(rng.normal(0.1, 1, 30))
        theirs = optimize.isotonic_regression(values).x
        np.testing.assert_allclose(monotone(values), theirs, atol=1e-12)


def test_what_does_not_fit_is_refused(
    predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from replay_synthetic import make_bundle

    two = read(make_bundle(tmp_path / "two", levels=2))
    with pytest.raises(ConfigError, match="knows 3 levels"):
        Prompted(two, predictor)
    renamed = make_bundle(tmp_path / "renamed", mix=False)
    text = (renamed / "requests.csv").read_text()
    (renamed / "requests.csv").write_text(text.replace(",trivia,", ",poems,"))
    with pytest.raises(ConfigError, match="not fitted on poems"):
        Prompted(read(renamed), predictor)
    arguments = ["replay", "--bundle", str(renamed), "--out", str(tmp_path / "out")]
    assert run([*arguments, "--scheme", "PROMPT"]) == 2
    assert "needs --predictor" in capsys.readouterr().err


def test_a_row_for_each_target(
    folder: Path, predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(predictor, tmp_path / "p")
    arguments = ["replay", "--bundle", str(folder), "--out", str(tmp_path / "out")]
    arguments += ["--zone", "AA", "--start-hour", "0", "--requests", "0", "--json"]
    arguments += ["--scheme", "BASE,PROMPT,PROMPT_BANK", "--predictor", str(tmp_path / "p")]
    assert run([*arguments, "--target", "0.9,1"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = [row for row in found["results"] if row["scheme"] == "PROMPT"]
    assert [row["target_pct"] for row in rows] == pytest.approx([90, 100])
    assert rows[0]["carbon_saving_pct"] > rows[1]["carbon_saving_pct"] > 0
    assert sum(row["scheme"] == "PROMPT_BANK" for row in found["results"]) == 2
    assert any("cross-fitted" in note for note in found["notes"])


def test_the_bank_comes_to_its_target_and_keeps_its_minimum(
    predictor: Predictor, other: Bundle
) -> None:
    here, prompted = window(other, 30), Prompted(other, predictor)
    _, free = prompt_bank(prompted, here, 0.95)
    assert float(free.preference.mean()) == pytest.approx(0.95, abs=0.15)
    _, held = prompt_bank(prompted, here, 0.95, hourly_minimum=1.1)
    assert held.preference.min() > free.preference.min()
    assert held.grams.sum() > free.grams.sum()
    saving = 1 - free.grams.sum() / free.base_grams.sum()
    assert saving > 0.3


def test_the_bank_does_not_see_the_future(predictor: Predictor, other: Bundle) -> None:
    """What the grid does later, within the range that it had, changes no price before."""
    here, prompted = window(other), Prompted(other, predictor)
    before = prices(prompted, here, 0.95, 0.0, UNSEEN)
    trace = here.grid.g_per_kwh.copy()
    half = here.hours // 2
    trace[half + 1 :] = np.clip(trace[half + 1 :][::-1], trace.min(), trace.max())
    turned = Window(other, replace(here.grid, g_per_kwh=trace), here.start, here.work)
    after = prices(prompted, turned, 0.95, 0.0, UNSEEN)
    assert after[: half + 1] == pytest.approx(before[: half + 1])
    assert np.abs(after[half + 1 :] - before[half + 1 :]).max() > 0


def test_ascending_leaves_what_ascends() -> None:
    assert ascending(np.array([1.0, 2.0, 2.0, 5.0])).tolist() == [1, 2, 2, 5]
    assert ascending(np.array([1.0, 3.0, 2.0, 4.0])).tolist() == [1, 2.5, 2.5, 4]
