# SPDX-License-Identifier: Apache-2.0
"""Prices where classes and tenants have mixes of their own: against HiGHS on the whole program."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from predicted_synthetic import PREFERENCE, follow, inputs, predicted

from sprout.control import joint, prices
from sprout.control.decide import plan
from sprout.control.inputs import Group, Horizon, Inputs
from sprout.control.part import weights
from sprout.control.plan import PromptGroup, PromptPlan
from sprout.control.predicted import Predicted
from sprout.optimize.caps import Caps
from sprout.optimize.contrast import multinomial
from sprout.profile import LevelProfile

optimize = pytest.importorskip("scipy.optimize")

Part = tuple[Group, float, Any, Any, Any]  # group, share of the requests, weights, grams, worth


def profile(q: tuple[float, ...], joules: tuple[float, ...]) -> tuple[LevelProfile, ...]:
    rows = inputs().profile
    return tuple(
        replace(row, preference=a, energy_joules=b)
        for row, a, b in zip(rows, q, joules, strict=True)
    )


SUMS = Group(
    task="sums", traffic=0.35, minimum=1.0, profile=profile((0.5, 0.36, 0.2), (90.0, 25.0, 15.0))
)
TRIVIA = Group(task="trivia", traffic=0.25, profile=profile((0.36, 0.33, 0.3), (30.0, 15.0, 9.0)))
ACME = Group(tenant="acme", traffic=0.1, minimum=0.99)
QUIET = Group(tenant="quiet", traffic=0.1, opted_out=True)
EVERYBODY = (ACME, QUIET, SUMS, TRIVIA)


def priced(given: Inputs, known: Predicted) -> PromptPlan:
    made, why = prices.price(given, plan(given), known)
    assert made is not None, why
    return made


def of_class(known: Predicted, task: str) -> Any:
    own = known.label == known.classes.index(task)
    return own / own.sum()


def parts(given: Inputs, known: Predicted) -> list[Part]:
    """Written anew from the page."""
    assert given.prompts is not None
    assert given.intensity_g_per_kwh is not None
    rest = Group(traffic=1 - sum(g.traffic for g in given.groups))
    taking = [rest, *(g for g in given.groups if not g.opted_out)]
    total = sum(g.traffic for g in taking)
    found: list[Part] = []
    for group in taking:
        rows = group.profile or given.profile
        if group.task:
            w = of_class(known, group.task)
        else:
            w = weights(known, dict(given.prompts.tenants).get(group.tenant, given.prompts.traffic))
        e, p, q = (
            np.array([getattr(row, name) for row in rows])
            for name in ("energy_joules", "device_seconds", "preference")
        )
        a_joule = given.intensity_g_per_kwh * given.pue / 3.6e6
        grams = a_joule * known.joules * e / (w @ known.joules) + given.embodied_g_per_s * p
        means = w @ known.preferences
        worth = known.preferences / means[0] + q / q[0] - means / means[0]
        found.append((group, group.traffic / total, w, grams, worth))
    return found


def of(made: PromptPlan, group: Group) -> PromptPlan | PromptGroup:
    if not group.tenant and not group.task:
        return made
    found = made.of(group.key)
    assert found is not None
    return found


def counts(given: Inputs, found: list[Part]) -> list[float]:
    """What a unit of each part's own normalised preference counts in that of all."""
    q0 = [(group.profile or given.profile)[0].preference for group, *_ in found]
    if given.against == "own":
        return [share for _, share, *_ in found]
    mean = sum(share * q for (_, share, *_), q in zip(found, q0, strict=True))
    return [share * q / mean for (_, share, *_), q in zip(found, q0, strict=True)]


def whole(given: Inputs, found: list[Part], floor: float) -> float:
    """Grams per request of the best, a variable per part, prompt and level."""
    m, cost, common, own, bars = len(found[0][2]), [], [], [], []
    for number, ((group, share, w, grams, worth), v) in enumerate(
        zip(found, counts(given, found), strict=True)
    ):
        cost.append(share * (w[:, None] * grams).ravel())
        common.append(v * (w[:, None] * worth).ravel())

        def row(gains: Any, at: int = number) -> Any:
            return np.concatenate(
                [gains.ravel() if k == at else np.zeros(3 * m) for k in range(len(found))]
            )

        if group.minimum:
            own.append(-row(w[:, None] * worth))
            bars.append(-group.minimum)
        for level, most in enumerate(given.caps.most or ()):
            own.append(row(w[:, None] * np.eye(3)[level]))
            bars.append(most)
    n = m * len(found)
    done = optimize.linprog(
        np.concatenate(cost),
        A_ub=np.array([-np.concatenate(common), *own]),
        b_ub=[-floor, *bars],
        A_eq=np.kron(np.eye(n), np.ones(3)),
        b_eq=np.ones(n),
    )
    assert done.status == 0
    return float(done.fun)


@pytest.mark.parametrize("against", ["own", "pooled"])
@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("caps", [Caps(), Caps(most=(1.0, 1.0, 0.4))], ids=["free", "capped"])
def test_what_is_published_is_what_highs_makes_of_the_whole_program(
    against: Any, coarse: bool, caps: Caps
) -> None:
    given = inputs(groups=EVERYBODY, against=against, caps=caps)
    known = predicted(3, 120, coarse=coarse)
    made = priced(given, known)
    assert [group.key for group in made.groups] == [("acme", ""), ("", "sums"), ("", "trivia")]
    assert made.kept == ()
    found = parts(given, known)
    grams = preference = 0.0
    for (group, share, w, cost, worth), v in zip(found, counts(given, found), strict=True):
        own = of(made, group)
        often = follow(own, known)
        has = float(w @ (often * worth).sum(1))
        assert has >= group.minimum - 1e-6
        assert own.expected_preference == pytest.approx(has)
        assert own.expected_g == pytest.approx(float(w @ (often * cost).sum(1)))
        assert own.shares == pytest.approx(tuple(w @ often))
        assert len(own.points) <= 4
        assert sum(point.fraction for point in own.points) == pytest.approx(1)
        grams += share * own.expected_g
        preference += v * has
    assert preference >= 0.95 - 1e-6
    assert grams == pytest.approx(whole(given, found, 0.95), rel=1e-6)


def test_a_guard_is_a_price_on_top_and_everybody_else_has_one() -> None:
    """Per unit of their own normalised preference."""
    given, known = inputs(groups=EVERYBODY), predicted(3, 400)
    made = priced(given, known)
    price = {}
    for group, _, w, _, _ in parts(given, known):
        mean0 = float(w @ known.preferences[:, 0])
        own = of(made, group)
        price[group.key] = sum(p.fraction * p.g_per_preference for p in own.points) * mean0
    assert price["", "trivia"] == pytest.approx(price["", ""], rel=1e-4)
    assert price["", "sums"] > 1.1 * price["", ""]
    assert price["acme", ""] > 1.1 * price["", ""]
    alone = priced(replace(given, groups=(QUIET, replace(SUMS, minimum=0.0), TRIVIA)), known)
    assert alone.groups[0].points[0].g_per_preference < made.groups[1].points[0].g_per_preference


def as_judged(own: PromptPlan | PromptGroup, part: Part, known: Predicted, given: Inputs) -> float:
    group, _, w, _, _ = part
    often, won = follow(own, known), np.eye(3)[known.preferred]
    q = np.array([row.preference for row in group.profile or given.profile])
    shares = w @ often
    gained = w @ (often * won).sum(1) - shares @ (w @ won)
    return float(shares @ q / q[0] + gained / (w @ won)[0])


@pytest.mark.parametrize("judged", ["drawn", "blind"])
@pytest.mark.parametrize("seed", range(2))
def test_floor_and_guards_are_kept_as_judged_where_that_is_less(seed: int, judged: str) -> None:
    given, known = inputs(groups=EVERYBODY), predicted(seed, 400, judged=judged)
    made, why = prices.price(given, plan(given), known)
    if made is None:  # a predictor that is no use
        assert judged == "blind"
        assert why.startswith(("no prices surely keep", "no lower"))
        return
    # Whose promise is not to be had by what the predictor tells keeps its mix.
    keep = {(tenant, task) for tenant, task, _ in made.kept}
    mixes = {group.key: group.expected_preference for group in plan(given).groups}
    assert not keep or judged == "blind"
    assert all(why.startswith("no prices keep") for *_, why in made.kept)
    total_told = total_was = 0.0
    for part in parts(given, known):
        group, share, w, _, worth = part
        if group.key in keep:
            total_told, total_was = (x + share * mixes[group.key] for x in (total_told, total_was))
            continue
        own = of(made, group)
        told = float(w @ (follow(own, known) * worth).sum(1))
        was = as_judged(own, part, known, given)
        assert min(told, was) >= group.minimum - 1e-6
        if group.minimum:
            assert isinstance(own, PromptGroup)
            assert told >= own.least - 1e-6 >= group.minimum - 2e-6
        total_told += share * told
        total_was += share * was
    assert min(total_told, total_was) >= 0.95 - 1e-6
    expected = [
        mixes[group.key] if group.key in keep else of(made, group).expected_preference
        for group, *_ in parts(given, known)
    ]
    shares = [share for _, share, *_ in parts(given, known)]
    assert np.dot(shares, expected) == pytest.approx(min(total_told, total_was))


@pytest.mark.parametrize("of_all", [300, 3000])
def test_confidence_is_of_all_together(of_all: int) -> None:
    """Its standard error by differences: of q with the joint covariance, of what telling prompts
    apart gains by an infinitesimal jackknife over the sample, whose prompts count in several
    parts."""

    def judged(group: Group, count: int) -> Group:
        q = np.array([row.preference for row in group.profile])
        s = tuple(map(tuple, multinomial(q / q.sum(), count).tolist()))
        return replace(group, covariance=s, judged=count)

    q = np.array(PREFERENCE)
    s = tuple(map(tuple, multinomial(q, of_all).tolist()))
    groups = (ACME, judged(SUMS, of_all // 3), judged(TRIVIA, of_all // 4))
    given = inputs(
        groups=groups, covariance=s, judged=of_all, evaluation="e", confidence=0.9, xi=0.3
    )
    known, mix = predicted(2), plan(given)
    assert mix.confidence is not None
    made = priced(given, known)
    found = parts(given, known)
    own = [of(made, group) for group, *_ in found]
    often = [follow(each, known) for each in own]
    shares = np.array([w @ x for (_, _, w, *_), x in zip(found, often, strict=True)])
    qs = np.array([[row.preference for row in g.profile or given.profile] for g, *_ in found])
    has = np.array([each.expected_preference for each in own])
    told = has - (shares * qs).sum(1) / qs[:, 0]
    n = np.array([share for _, share, *_ in found])
    # With the weights of the contrast as they are: over the L0 that each is compared with.
    y = n[:, None] * (shares + (told - mix.floor)[:, None] * np.eye(3)[0]) / qs[:, :1]
    rows = [joint.default(given), *given.groups]
    of_q = float(np.tensordot(y, np.tensordot(joint.covariance(rows), y, 2), 2))
    won, step = np.eye(3)[known.preferred], 1e-6

    def told_by(more: Any) -> float:
        total = 0.0
        for (_, share, w, *_), x, drawn in zip(found, often, shares, strict=True):
            v = w * (1 + more)
            v = v / v.sum()
            total += share * float((v @ (x * won).sum(1) - drawn @ (v @ won)) / (v @ won)[0])
        return total

    slopes = [(told_by(step * row) - told_by(np.zeros(len(row)))) / step for row in np.eye(400)]
    surely = float(n @ has) - mix.confidence.z * math.sqrt(of_q + float(np.square(slopes).sum()))
    assert mix.floor - 1e-5 <= surely
    if made.least > mix.floor + 1e-3:  # it is what binds
        assert surely <= mix.floor + 1e-3


def test_a_class_that_the_predictor_does_not_know_keeps_its_mix_and_counts_with_it() -> None:
    base = inputs()
    poems = Group(task="poems", traffic=0.5, profile=profile((0.4, 0.2, 0.1), (60.0, 20.0, 12.0)))
    given = replace(base, groups=(poems, replace(SUMS, traffic=0.2)))
    known = predicted(3, 200)
    mix = plan(given)
    made = priced(given, known)
    assert made.kept == (("", "poems", "the predictor was judged on 0 prompts of the class"),)
    assert [group.task for group in made.groups] == ["sums"]
    of_poems = mix.groups[0].expected_preference
    rest = 0.3 * made.expected_preference + 0.2 * made.groups[0].expected_preference
    assert rest + 0.5 * of_poems >= 0.95 - 1e-6
    lines = "\n".join(replace(mix, prompt=made).lines())
    assert "class poems keeps its mix: the predictor was judged on 0 prompts of the class" in lines
    assert "class sums by prompt: L0 " in lines
    few = replace(known, label=np.where(np.arange(200) < 29, 0, 1))
    kept = priced(given, few).kept
    assert kept[1] == ("", "sums", "the predictor was judged on 29 prompts of the class")


def test_a_class_whose_l0_has_no_preference_leaves_nothing_to_compare_with() -> None:
    given = inputs(groups=(SUMS,))
    mix = plan(given)
    nothing = replace(SUMS, minimum=0.0, profile=profile((0.0, 0.3, 0.2), (60.0, 20.0, 12.0)))
    made, why = prices.price(replace(given, groups=(nothing,)), mix, predicted(3, 200))
    assert made is None
    assert why == "prices can't be set: L0 of a class has no preference to compare with"


def test_a_promise_that_the_caps_rule_out_leaves_the_tenant_at_l0() -> None:
    given = inputs(groups=(replace(ACME, minimum=1.0),), caps=Caps(most=(0.9, 1.0, 1.0)))
    mix = plan(given)
    assert mix.groups[0].shares == (1.0, 0.0, 0.0)
    made = priced(given, predicted(3, 200))
    assert made.kept == (("acme", "", "what it was promised is above what the caps allow"),)
    assert made.groups == ()


def test_a_tenant_s_prompts_weigh_as_its_own_traffic() -> None:
    known = predicted(3, 200)
    base = inputs(groups=(ACME,), traffic=(("sums", 1.0),))
    assert base.prompts is not None
    other = replace(base.prompts, tenants=(("acme", (("trivia", 1.0),)),))
    by = {}
    for given in (base, replace(base, prompts=other)):
        made = priced(given, known)
        w = of_class(known, "trivia" if given.prompts is other else "sums")
        assert made.groups[0].shares == pytest.approx(tuple(w @ follow(made.groups[0], known)))
        by[given.prompts is other] = made.groups[0].g_per_joule
    assert by[True] != by[False]


def test_under_a_budget_what_the_mixes_of_this_hour_have_is_kept() -> None:
    horizon = Horizon((200.0, *([100.0, 300.0] * 12)), (10.0,) * 25, 0.95, 0.0, "given")
    given = inputs(mode="bank", horizon=horizon, groups=(ACME, SUMS))
    mix = plan(given)
    assert mix.budget is not None
    made = priced(given, predicted(3, 400))
    share = np.array([0.55, 0.1, 0.35])
    q = [(group.profile or given.profile) for group in (Group(), ACME, SUMS)]
    mixes = [mix.shares, *(group.shares for group in mix.groups)]
    has = [
        sum(x * row.preference for x, row in zip(shares, rows, strict=True)) / rows[0].preference
        for shares, rows in zip(mixes, q, strict=True)
    ]
    ours = [made.expected_preference, *(group.expected_preference for group in made.groups)]
    assert share @ ours >= share @ has - 1e-6
    assert made.least == pytest.approx(float(share @ has), abs=1e-3)


def test_nobody_s_traffic_is_known_yet() -> None:
    """A tenant that was promised something and has not come so far has prices all the same."""
    given = inputs(groups=(replace(ACME, traffic=0.0),))
    made = priced(given, predicted(3, 200))
    assert made.groups[0].expected_preference >= 0.99 - 1e-6
    assert made.expected_g == pytest.approx(
        priced(inputs(), predicted(3, 200)).expected_g, rel=1e-4
    )
