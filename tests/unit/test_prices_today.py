# SPDX-License-Identifier: Apache-2.0
"""Prices corrected by how an evaluation judged prompts of today."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from predicted_synthetic import PREFERENCE, inputs, predicted

from sprout.control import prices
from sprout.control.decide import plan
from sprout.control.inputs import Group, Inputs
from sprout.control.part import choose, counted
from sprout.control.plan import PromptPlan
from sprout.control.predicted import Predicted
from sprout.control.quality import Judgments

Q = np.array(PREFERENCE)


def today_of(
    known: Predicted, seed: int, n: int, *, judged: str, weights: str = "", tasks: Any = ("",)
) -> Judgments:
    """n prompts of another draw, asked of the same predictor; `judged` as in `predicted`, or every
    other one blindly: "half"."""
    other = predicted(seed, n, judged="drawn" if judged == "half" else judged)
    preferred = other.preferred
    if judged == "half":
        blind = predicted(seed, n, judged="blind").preferred
        preferred = np.where(np.arange(n) % 2, blind, preferred)
    return Judgments(
        weights or known.weights_sha256,
        tuple(tasks[i % len(tasks)] for i in range(n)),
        np.random.default_rng(seed).uniform(0.5, 2.0, n),
        other.preferences,
        other.joules,
        np.eye(3)[preferred],
    )


def priced(given: Inputs, known: Predicted, today: Judgments | None) -> PromptPlan:
    made, why = prices.price(given, plan(given), known, today)
    assert made is not None, why
    return made


def gains(made: PromptPlan, known: Predicted, today: Judgments) -> tuple[float, ...]:
    """(predicted, judged then, its standard error, heard today, its standard error), anew: what
    the rule gains over drawing the same shares; errors by an infinitesimal jackknife."""
    m = len(known.label)

    def often(joules: Any, preferences: Any) -> Any:
        found = np.zeros_like(joules)
        for point in made.points:
            levels = choose(np.array(made.g_per_joule), point, joules, preferences)
            found[np.arange(len(found)), levels] += point.fraction
        return found

    shares = np.array(made.shares)

    def gain(w: Any, x: Any, scores: Any) -> float:
        v = w / w.sum()
        return float((v @ (x * scores).sum(1) - shares @ (v @ scores)) / (v @ scores)[0])

    def error(w: Any, x: Any, scores: Any) -> float:
        base, w = gain(w, x, scores), w / w.sum()
        slopes = [
            (gain(w + 1e-7 * w[i] * row, x, scores) - base) / 1e-7
            for i, row in enumerate(np.eye(len(w)))
        ]
        return float(np.sqrt(np.square(slopes).sum()))

    then = often(known.joules, known.preferences)
    now = often(today.joules, today.preferences)
    won, even = np.eye(3)[known.preferred], np.full(m, 1 / m)
    means = known.preferences.mean(0)
    worth = known.preferences / means[0] + Q / Q[0] - means / means[0]
    told = float(even @ (then * worth).sum(1) - shares @ Q / Q[0])
    w = today.stands_for
    return (
        told,
        gain(even, then, won),
        error(even, then, won),
        gain(w, now, today.scores),
        error(w, now, today.scores),
    )


def test_noise_changes_little_and_never_for_the_worse() -> None:
    assert counted(0.0, 0.01) == 0.0
    assert counted(-0.02, 0.03) == 0.0  # its error alone would put it there
    assert counted(-0.05, 0.03) == pytest.approx(-0.05 * (1 - 0.36))
    assert counted(-0.05, 0.0) == -0.05
    assert counted(0.05, 0.03) == 0.0  # not surely better
    assert counted(0.10, 0.03) == pytest.approx(0.10 - 1.96 * 0.03)
    assert counted(0.10, 0.0) == 0.10


@pytest.mark.parametrize("judged", ["half", "drawn", "better"])
@pytest.mark.parametrize("n", [200, 1000])
def test_the_gap_to_today_is_counted_as_it_is_sure(judged: str, n: int) -> None:
    """The sample says that predictions are right; today's prompts say so, or that they are not, or
    that they are too modest. The floor is kept with what is counted, and the page says so."""
    given, known = inputs(), predicted(1, 1000, judged="drawn")
    today = today_of(known, 77, n, judged=judged)
    made, without = priced(given, known, today), priced(given, known, None)
    told, then, then_se, now, now_se = gains(made, known, today)
    reckoned = min(told, then)
    sd = np.hypot(then_se, now_se)
    more = counted(now - reckoned, sd)
    assert made.expected_preference == pytest.approx(
        np.array(made.shares) @ Q / Q[0] + reckoned + more, abs=1e-6
    )
    assert made.expected_preference >= 0.95 - 1e-6
    said = re.search(
        r"; (\d+) prompts of the evaluation, by what they chose: (\S+) ± (\S+) points, (\S+) "
        "counted$",
        made.basis,
    )
    assert said is not None
    assert said.group(1) == str(n)
    assert [float(x) for x in said.groups()[1:]] == pytest.approx(
        [100 * (now - reckoned), 100 * sd, 100 * more], abs=0.06
    )
    if judged == "half" and n == 1000:
        assert more < -0.01
        assert made.least > without.least  # dearer
        assert made.expected_g > without.expected_g
    if judged == "better":
        assert more > 0.01
        assert 0.95 <= made.least <= without.least
        assert made.expected_g <= without.expected_g * (1 + 1e-9)


def test_where_the_predictor_tells_nothing_of_today_there_are_no_prices() -> None:
    given, known = inputs(), predicted(1, 1000, judged="drawn")
    made, why = prices.price(given, plan(given), known, today_of(known, 77, 1000, judged="blind"))
    assert made is None
    assert why == "no prices surely keep 95.00 % of L0's preference"


def test_what_is_too_little_or_another_predictor_s_changes_nothing() -> None:
    given, known = inputs(), predicted(1, 400)
    without = priced(given, known, None)
    few = priced(given, known, today_of(known, 77, 29, judged="blind"))
    assert few == without
    other = priced(given, known, today_of(known, 77, 500, judged="blind", weights="b" * 64))
    assert other.basis == (
        f"{without.basis}; the evaluation's prompts were scored by another predictor"
    )
    assert replace(other, basis=without.basis) == without
    lost = today_of(known, 77, 500, judged="blind")
    lost.scores[:, 0] = 0.0  # L0 never won: nothing can be relative to it
    assert priced(given, known, lost) == without


def test_each_prompt_is_of_its_own_mix() -> None:
    """A class that has one hears of its own prompts, everybody else of all the others'."""
    rows = inputs().profile
    sums = Group(task="sums", traffic=0.4, minimum=0.97, profile=rows)
    acme = Group(tenant="acme", traffic=0.1, minimum=0.9)
    given, known = inputs(groups=(acme, sums)), predicted(1, 4000, judged="drawn")
    bad = today_of(known, 77, 6000, judged="half", tasks=("sums", "poems", ""))
    good = today_of(known, 77, 6000, judged="drawn", tasks=("sums", "poems", ""))
    of_sums = np.array([task == "sums" for task in bad.task])
    mixed = replace(good, scores=np.where(of_sums[:, None], bad.scores, good.scores))
    made, without = priced(given, known, mixed), priced(given, known, None)
    assert "6000 prompts of the evaluation" in made.basis
    # The class's promise is kept by what was heard of it, so it asks for more than before.
    assert made.of(("", "sums")) is not None
    one, before = (x.of(("", "sums")) for x in (made, without))
    assert one is not None
    assert before is not None
    assert one.least > before.least + 0.005
    tenant, then = (x.of(("acme", "")) for x in (made, without))
    assert tenant is not None
    assert then is not None
    assert tenant.least == then.least  # whose of the others they were is not known
