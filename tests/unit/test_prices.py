# SPDX-License-Identifier: Apache-2.0
"""The prices that are published: against HiGHS on the whole program, by the rule of the .proto."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from predicted_synthetic import CLASSES, ENERGY, PREFERENCE, SECONDS, follow, inputs, predicted

from sprout.control import prices
from sprout.control.decide import plan
from sprout.control.inputs import Horizon, Inputs
from sprout.control.part import choose
from sprout.control.part import weights as weights_of
from sprout.control.plan import PromptPlan, PromptPoint
from sprout.control.predicted import Predicted
from sprout.control.prompted import KEPT, Prompted, Shelf
from sprout.optimize.caps import Caps
from sprout.optimize.contrast import multinomial

optimize = pytest.importorskip("scipy.optimize")


def priced(given: Inputs, known: Predicted) -> PromptPlan:
    made, why = prices.price(given, plan(given), known)
    assert made is not None, why
    return made


def corrected(given: Inputs, known: Predicted) -> tuple[Any, Any, Any]:
    """(weights, grams (m, L), preference of L0's (m, L)), written anew from the page."""
    assert given.prompts is not None
    w = weights_of(known, given.prompts.traffic)
    e, p, q = map(np.array, (ENERGY, SECONDS, PREFERENCE))
    per_joule = given.intensity_g_per_kwh * given.pue / 3.6e6
    grams = per_joule * known.joules * e / (w @ known.joules) + given.embodied_g_per_s * p
    means = w @ known.preferences
    worth = known.preferences / means[0] + q / q[0] - means / means[0]
    return w, grams, worth


def whole(w: Any, grams: Any, rows: list[tuple[Any, float]]) -> Any:
    n, levels = grams.shape
    found = optimize.linprog(
        (w[:, None] * grams).ravel(),
        A_ub=np.array([-(w[:, None] * gains).ravel() for gains, _ in rows]),
        b_ub=[-least for _, least in rows],
        A_eq=np.kron(np.eye(n), np.ones(levels)),
        b_eq=np.ones(n),
    )
    assert found.status == 0
    return found.fun


@pytest.mark.parametrize("traffic", [(), (("", 0.2), ("sums", 0.7), ("trivia", 0.1))])
@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_published_is_what_highs_makes_of_the_whole_program(
    seed: int, coarse: bool, traffic: Any
) -> None:
    given, known = inputs(traffic=traffic), predicted(seed, 150, coarse=coarse)
    made = priced(given, known)
    w, grams, worth = corrected(given, known)
    often = follow(made, known)
    assert w @ (often * grams).sum(1) == pytest.approx(whole(w, grams, [(worth, 0.95)]), rel=1e-6)
    assert w @ (often * worth).sum(1) >= 0.95 - 1e-6
    assert made.expected_g == pytest.approx(w @ (often * grams).sum(1))
    assert made.expected_preference == pytest.approx(w @ (often * worth).sum(1))
    assert made.shares == pytest.approx(tuple(w @ often))
    assert made.least == pytest.approx(0.95)
    assert len(made.points) <= 4
    assert sum(p.fraction for p in made.points) == pytest.approx(1)
    mix = plan(given)
    assert made.mix_g == pytest.approx(mix.expected_g)
    assert made.expected_g < mix.expected_g


def test_means_are_those_that_the_mix_is_decided_on() -> None:
    w, grams, worth = corrected(inputs(), predicted())
    mix = plan(inputs())
    assert w @ grams[:, 0] == pytest.approx(mix.expected_l0_g)
    assert w @ worth == pytest.approx(np.array(PREFERENCE) / PREFERENCE[0])


def as_judged(often: Any, known: Predicted, w: Any) -> float:
    """Preference of L0's: the shares at q, and what the choice gained by judgments."""
    q, won = np.array(PREFERENCE), np.eye(3)[known.preferred]
    gained = w @ (often * won).sum(1) - (w @ often) @ (w @ won)
    return float((w @ often) @ q / q[0] + gained / (w @ won)[0])


@pytest.mark.parametrize("judged", ["drawn", "blind"])
@pytest.mark.parametrize("seed", range(3))
def test_the_floor_is_kept_as_judged_where_that_is_less(seed: int, judged: str) -> None:
    given, known = inputs(), predicted(seed, judged=judged)
    made, why = prices.price(given, plan(given), known)
    if made is None:  # a predictor that is no use
        assert judged == "blind"
        assert why == "no prices surely keep 95.00 % of L0's preference"
        return
    w, grams, worth = corrected(given, known)
    often = follow(made, known)
    told, was = w @ (often * worth).sum(1), as_judged(often, known, w)
    assert min(told, was) >= 0.95 - 1e-6
    assert made.expected_preference == pytest.approx(min(told, was))
    assert told >= made.least - 1e-6
    # For what it aims at no rule is cheaper, and a thousandth less is not enough.
    cost = w @ (often * grams).sum(1)
    assert cost == pytest.approx(whole(w, grams, [(worth, made.least)]), rel=1e-6)
    if judged == "blind":
        assert made.least > 0.97


def test_a_predictor_that_tells_nothing_apart_is_the_mix_and_left_out() -> None:
    known = predicted()
    m = len(known.label)
    same = replace(
        known,
        preferences=np.tile(known.preferences.mean(0), (m, 1)),
        joules=np.tile(known.joules.mean(0), (m, 1)),
    )
    made, why = prices.price(inputs(), plan(inputs()), same)
    assert made is None
    assert why.startswith("no lower: ")


def test_caps_are_the_mix_s() -> None:
    given = inputs(caps=Caps(most=(1.0, 1.0, 0.25)))
    known = predicted(2, 150)
    made = priced(given, known)
    w, grams, worth = corrected(given, known)
    cap = np.zeros_like(grams)
    cap[:, 2] = -1.0
    often = follow(made, known)
    assert (w @ often)[2] <= 0.25 + 1e-6
    best = whole(w, grams, [(worth, 0.95), (cap, -0.25)])
    assert w @ (often * grams).sum(1) == pytest.approx(best, rel=1e-6)
    assert best > priced(inputs(), known).expected_g  # the cap costs something


def test_a_step_holds_l0_up() -> None:
    given = inputs(caps=Caps(step=0.1), previous=(0.9, 0.1, 0.0))
    made = priced(given, predicted())
    assert made.shares[0] >= 0.8 - 1e-6
    assert made.shares[1] <= 0.2 + 1e-6


@pytest.mark.parametrize("judged", [100, 400, 4000])
def test_confidence_is_of_the_shares_that_the_prices_make(judged: int) -> None:
    s = multinomial(np.array(PREFERENCE), judged)
    given = inputs(
        covariance=tuple(map(tuple, s.tolist())), judged=judged, confidence=0.9, evaluation="e"
    )
    known = predicted()
    mix = plan(given)
    assert mix.confidence is not None
    made, why = prices.price(given, mix, known)
    if made is None:  # a hundred judgments can't be that sure
        assert judged == 100
        assert why == "no prices surely keep 95.00 % of L0's preference"
        return
    w, _, worth = corrected(given, known)
    often = follow(made, known)
    shares, has = w @ often, float(w @ (often * worth).sum(1))
    # The contrast's own gradient in q, by differences of what the rule is worth.
    q = np.array(PREFERENCE)

    def contrast(of: Any) -> float:
        told = has - shares @ q / q[0]
        return float(shares @ of + (told - mix.floor) * of[0])

    gradient = np.array([(contrast(q + d) - contrast(q - d)) / 2e-6 for d in 1e-6 * np.eye(3)])
    of_q = gradient @ s @ gradient / q[0] ** 2

    # What telling apart gains, by judgments: its variance by an infinitesimal jackknife.
    won = np.eye(3)[known.preferred]

    def told_by(weights: Any) -> float:
        v = weights / weights.sum()
        return float((v @ (often * won).sum(1) - shares @ (v @ won)) / (v @ won)[0])

    base = told_by(w)
    step = 1e-6
    slopes = [(told_by(w + step * row) - base) / step for row in np.eye(len(w))]
    of_told = float(np.square(w * np.array(slopes)).sum())
    surely = has - mix.confidence.z * np.sqrt(of_q + of_told)
    assert mix.floor - 1e-6 <= surely <= mix.floor + 2e-4
    assert made.least > mix.floor


def test_a_budget_s_hour_keeps_what_it_has() -> None:
    horizon = Horizon((200.0, *([100.0, 300.0] * 12)), (10.0,) * 25, 0.95, 0.0, "given")
    given = inputs(mode="bank", horizon=horizon)
    mix = plan(given)
    assert mix.budget is not None
    made = priced(given, predicted())
    has = sum(x * q for x, q in zip(mix.shares, PREFERENCE, strict=True)) / PREFERENCE[0]
    assert made.expected_preference >= has - 1e-6
    assert made.least == pytest.approx(has)


def test_prompts_weigh_as_the_traffic() -> None:
    known = predicted()
    even = weights_of(known, ())
    assert even == pytest.approx(np.full(400, 1 / 400))
    w = weights_of(known, (("sums", 0.75), ("trivia", 0.25)))
    assert w[known.label == 0].sum() == pytest.approx(0.75)
    # Unknown classes are spread over all, by their number in the sample.
    w = weights_of(known, (("", 0.5), ("sums", 0.5)))
    share = float((known.label == 0).mean())
    assert w[known.label == 0].sum() == pytest.approx(0.5 + 0.5 * share)
    assert weights_of(known, ((CLASSES[0], 0.0),)) == pytest.approx(even)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"paused": True}, "paused"),
        ({"pinned": (0.5, 0.5, 0.0)}, "pinned"),
        ({"intensity_g_per_kwh": None}, "no intensity"),
        ({"held": "shadow"}, "shadow mode"),
        ({"held": "block"}, "a block of L0"),
        ({"caps": Caps(most=(0.1, 0.2, 0.2))}, "no feasible policy"),
    ],
)
def test_no_part_for_prompts(fields: dict[str, Any], why: str) -> None:
    given = inputs(**fields)
    made = Prompted().known(given, plan(given))
    assert made is not None
    assert made.prompt is None
    assert made.no_prompt == why
    assert f"by prompt   none: {why}" in made.lines()


def test_without_a_predictor_nothing_is_said() -> None:
    given = inputs(prompts=None)
    made = Prompted().known(given, plan(given))
    assert made is not None
    assert (made.prompt, made.no_prompt) == (None, "")
    assert not any("by prompt" in line for line in made.lines())


def test_where_l0_has_no_preference_nothing_is_compared() -> None:
    base = inputs()
    given = replace(base, profile=tuple(replace(p, preference=0.0) for p in base.profile))
    made = Prompted().known(given, plan(given))
    assert made is not None
    assert "L0 has no preference" in made.no_prompt


def test_a_floor_of_all_still_has_room() -> None:
    """At the cleanest hour the mix is all L0; prompts trade with each other."""
    given = inputs(intensity_g_per_kwh=100.0)
    mix = plan(given)
    assert mix.shares[0] == pytest.approx(1)
    made = priced(given, predicted())
    assert made.expected_preference >= 1 - 1e-6
    assert made.expected_g < 0.9 * made.mix_g


def test_equal_inputs_set_no_prices_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = prices.price

    def counting(given: Inputs, *rest: Any) -> Any:
        asked.append(given)
        return real(given, *rest)

    monkeypatch.setattr(prices, "price", counting)
    given, held = inputs(), Prompted()
    assert held.known(given, plan(given)) is None
    held.solve(given, plan(given), predicted())
    older = tuple(replace(p, age_s=12.0) for p in given.profile)
    for again in (given, replace(given, profile=older)):
        found = held.known(again, plan(again))
        assert found is not None
        assert found.prompt is not None
    assert held.known(replace(given, intensity_g_per_kwh=210.0), plan(given)) is None
    assert len(asked) == 1


def test_what_fails_is_a_problem_and_no_prices() -> None:
    given, held = inputs(), Prompted()
    held.solve(given, plan(given), replace(predicted(), joules=np.ones((5, 3))))
    found = held.known(given, plan(given))
    assert found is not None
    assert found.prompt is None
    assert held.problem == found.no_prompt
    assert held.problem.startswith("prices of prompts can't be set: ")
    held.solve(given, plan(given), predicted())
    assert held.problem == ""


def test_weights_of_late_policies_are_kept() -> None:
    shelf = Shelf()
    names = [f"{i:064x}" for i in range(KEPT + 1)]
    for name in names:
        shelf.put(replace(predicted(m=3), weights_sha256=name, weights=name.encode()))
        shelf.put(replace(predicted(m=3), weights_sha256=names[0], weights=names[0].encode()))
    assert shelf.get(names[0]) == names[0].encode()  # named by the newest policy
    assert shelf.get(names[1]) is None
    assert shelf.get(names[-1]) == names[-1].encode()


def test_equal_levels_are_told_apart_as_the_request_path_does() -> None:
    """The lower one, though the other is the cheaper."""
    point = PromptPoint(1.0, 4.0, (0.0, 0.0))
    preferences, joules = np.array([[0.75, 0.25]]), np.array([[3.0, 1.0]])
    assert choose(np.ones(2), point, joules, preferences).tolist() == [0]
