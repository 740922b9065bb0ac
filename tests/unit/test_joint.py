# SPDX-License-Identifier: Apache-2.0
"""The default mix, task classes and tenants decided together."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joint_inputs import ACME, CODE, CONFIG, L0, QUIET, Q, covariance, everyone, inputs, profile
from some_evaluation import PACK

from sprout.control import history, joint, messages
from sprout.control.decide import plan
from sprout.control.inputs import Group, Horizon, Inputs
from sprout.control.publisher import Publisher
from sprout.control.quality import quality
from sprout.control.trigger import trigger
from sprout.evaluate.answers import Judged, Question
from sprout.evaluate.findings import find
from sprout.optimize.bank import BankModel
from sprout.optimize.caps import Caps
from sprout.optimize.lp import PaperModel
from sprout.optimize.problem import Problem
from sprout.v1 import control_pb2 as pb

# --- by hand -------------------------------------------------------------------------------------


def test_two_classes_by_hand() -> None:
    """Floor 95 %. L1 costs the one class 5 % of its q, the other 25 %, and saves both 40 J: 5 % of
    all may be given up, so all of the first class's half takes 2.5 points, and a fifth of the
    other's half the rest."""
    code = Group(task="code", traffic=0.5, profile=profile((0.4, 0.38, 0.1)))
    made = plan(inputs(profile=profile((0.4, 0.3, 0.1)), groups=(code,)))
    assert made.groups[0].shares == pytest.approx((0, 1, 0))
    assert made.shares == pytest.approx((0.8, 0.2, 0))
    assert made.expected_preference == pytest.approx(0.95)
    assert made.active_constraint == "quality"
    # The last point was the other class's: 25 points save 40 J.
    assert made.price_g_per_point == pytest.approx(40 / 3.6e6 * 200 / 25)
    least = plan(
        replace(inputs(profile=profile((0.4, 0.3, 0.1))), groups=(replace(code, minimum=0.98),))
    )
    assert least.groups[0].shares == pytest.approx((0.6, 0.4, 0))
    assert least.shares == pytest.approx((0.68, 0.32, 0))


def test_lines_can_be_checked_by_hand() -> None:
    code = Group(task="code", traffic=0.5, profile=profile((0.4, 0.38, 0.1)))
    out = Group(tenant="quiet", traffic=0.25, opted_out=True)
    text = "\n".join(plan(inputs(profile=profile((0.4, 0.3, 0.1)), groups=(out, code))).lines())
    assert (
        "class code  L0 0.0 %  L1 100.0 %  L2 0.0 %; 50.0 % of requests; q 0.4 0.38 0.1: 95.0 %"
        in text
    )
    assert "tenant quiet L0 100.0 %  L1 0.0 %  L2 0.0 %; 25.0 % of requests" in text
    assert "(tenant opted out)" in text
    assert "the others  25.0 % of requests, under the mix above" in text


def test_all_requests_are_at_least_as_well_off_as_those_under_the_policy() -> None:
    """The control group and the canary's rest are at L0 by draws of their own, so L0's share of all
    requests is at least theirs, and the floor holds of all as it does of those under the policy."""
    made = plan(inputs(control_share=0.1, canary_share=0.5))
    assert made.apart == pytest.approx(1 - 0.9 * 0.5)
    assert made.overall_preference == pytest.approx(0.55 + 0.45 * 0.95)
    assert made.overall_g == pytest.approx(0.55 * made.expected_l0_g + 0.45 * made.expected_g)
    out = Group(tenant="quiet", traffic=0.5, opted_out=True)
    assert plan(inputs(groups=(out,), control_share=0.0)).apart == pytest.approx(0.5)


# --- the published program is a case of it -------------------------------------------------------


@st.composite
def hours(draw: st.DrawFn) -> tuple[list[float], list[float], float]:
    levels = draw(st.integers(2, 5))
    costs = draw(st.lists(st.floats(1, 200), min_size=levels, max_size=levels))
    q = draw(st.lists(st.floats(0.05, 1), min_size=levels, max_size=levels))
    return costs, q, draw(st.floats(0, 1))


@settings(max_examples=150, deadline=None)
@given(hours())
def test_one_row_without_confidence_is_the_published_program(
    hour: tuple[list[float], list[float], float],
) -> None:
    costs, q, target = hour
    published = PaperModel(len(q)).solve(costs, q, target * q[0])
    found = BankModel(1, 1, len(q)).solve(
        Problem(np.array([[costs]]), np.ones((1, 1)), np.array([q]), target=target)
    )
    assert found.short_request_points == 0
    assert found.expected_g == pytest.approx(
        sum(c * x for c, x in zip(costs, published.shares, strict=True)), rel=1e-6
    )


def test_without_evaluation_classes_or_tenants_it_is_solved_as_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("not the published program")

    monkeypatch.setattr(joint, "solve", never)
    assert plan(inputs()).active_constraint == "quality"
    assert plan(inputs(confidence=0.95)).active_constraint == "quality"  # a prior has no covariance
    s = covariance((0.4, 0.34, 0.26), 400)
    assert plan(inputs(confidence=0.5, covariance=s)).confidence is None
    out = Group(tenant="quiet", opted_out=True, traffic=0.5)
    assert plan(inputs(groups=(out,))).shares == plan(inputs()).shares


# --- what always holds ---------------------------------------------------------------------------


@st.composite
def situations(draw: st.DrawFn) -> Inputs:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes, tenants = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    traffic = rng.dirichlet(np.ones(classes + tenants + 1)).round(3)
    traffic[rng.random(len(traffic)) < 0.2] = 0.0

    def drawn() -> tuple[float, ...]:
        return tuple(map(float, rng.dirichlet(np.ones(4))[:3] + 1e-3))

    q = drawn()
    judged = int(rng.integers(20, 4000))
    groups = [
        Group(tenant=f"t{i}", traffic=float(traffic[i]), minimum=float(rng.uniform(0.01, 1)))
        if rng.random() < 0.8
        else Group(tenant=f"t{i}", traffic=float(traffic[i]), opted_out=True)
        for i in range(tenants)
    ]
    for i in range(classes):
        own, n = drawn(), int(rng.integers(5, max(6, judged // classes)))
        groups.append(
            Group(
                task=f"c{i}",
                traffic=float(traffic[tenants + i]),
                minimum=float(rng.choice([0.0, 0.8])),
                profile=profile(own, tuple(map(float, rng.uniform(5, 100, 3)))),
                covariance=covariance(tuple(x / 1.01 for x in own), n),
                judged=n,
                shrunk=float(rng.choice([0.0, 0.4, 1.0])),
            )
        )
    made = inputs(
        float(rng.uniform(100, 300)),
        profile=profile(q),
        covariance=covariance(tuple(x / 1.01 for x in q), judged),
        judged=judged,
        confidence=draw(st.sampled_from([0.5, 0.9, 0.99])),
        against=draw(st.sampled_from(["own", "pooled"])),
        exploration_share=float(rng.choice([0.0, 0.02])),
        groups=tuple(groups),
        xi=float(rng.uniform(0.02, 0.4)),
    )
    if draw(st.booleans()):
        made = replace(made, caps=Caps(most=(1.0, 0.5, 0.5), step=0.2), previous=(0.9, 0.1, 0.0))
    if draw(st.booleans()):
        ahead = tuple(map(float, rng.uniform(100, 300, 6)))
        horizon = Horizon(ahead, (10.0,) * 6, 0.9, float(rng.uniform(-20, 20)), "test")
        made = replace(made, mode="bank", horizon=horizon)
    return made


@settings(max_examples=120, deadline=None)
@given(situations())
def test_floor_minima_and_opt_outs_hold(given_: Inputs) -> None:
    made = plan(given_)
    assert made.active_constraint != "infeasible", made.degraded
    assert made.degraded == {}
    mixes = [made.shares, *(group.shares for group in made.groups)]
    for shares in mixes:
        assert math.fsum(shares) == pytest.approx(1)
        assert min(shares) >= -1e-9
    for group in made.groups:
        assert group.expected_preference >= group.minimum - 1e-6
        if group.opted_out:
            assert group.shares == L0
    if given_.mode == "paper" and not all(g.opted_out for g in given_.groups):
        assert made.expected_preference >= made.floor - 1e-6


@settings(max_examples=30, deadline=None)
@given(situations())
def test_stored_inputs_solve_to_the_same(given_: Inputs) -> None:
    made = plan(given_)
    publisher = Publisher(CONFIG, PACK, 1, wall=lambda: 1.0, uptime=lambda: 1.0)
    policy = publisher.publish(made, None, overridden=False, pause_reason=None, trigger="t")
    again, same = history.solve_again(pb.Decision(policy=policy, inputs_json=history.dump(given_)))
    assert same
    assert again.shares == made.shares
    del policy.mixes[:]
    # As one of a control plane that did not name who has L0 beside a mix of L0.
    unnamed = all(mix[0] == 1 for mix in (made.shares, *(group.shares for group in made.groups)))
    assert history.solve_again(pb.Decision(policy=policy, inputs_json=history.dump(given_)))[1] == (
        not made.groups or unnamed
    )


def test_the_cleanest_hour_is_all_l0_whatever_is_asked() -> None:
    q = (0.4, 0.34, 0.26)
    groups = (
        Group(tenant="acme", traffic=0.3, minimum=1.0),
        Group(
            task="code", traffic=0.3, profile=profile(q), covariance=covariance(q, 30), judged=30
        ),
    )
    made = plan(
        inputs(100.0, covariance=covariance(q, 100), judged=100, confidence=0.99, groups=groups)
    )
    assert made.shares == pytest.approx(L0)
    assert all(group.shares == pytest.approx(L0) for group in made.groups)
    assert made.active_constraint == "quality"


def test_a_minimum_that_caps_rule_out_is_l0_and_degraded() -> None:
    caps = Caps(most=(0.5, 1.0, 1.0))
    acme = Group(tenant="acme", traffic=0.3, minimum=0.99)
    made = plan(inputs(300.0, caps=caps, groups=(acme,)))
    assert made.groups[0].shares == L0
    assert "minimum 0.9900 of tenant acme is" in made.degraded["minima"]
    assert made.shares[0] <= 0.5


def test_an_exploration_share_yields_to_a_tenants_minimum_alone() -> None:
    acme = Group(tenant="acme", traffic=0.3, minimum=1.0)
    made = plan(inputs(300.0, exploration_share=0.02, groups=(acme,)))
    assert made.groups[0].shares == pytest.approx(L0)
    assert min(made.shares) == pytest.approx(0.02)


def test_too_few_judgments_say_so() -> None:
    q = (0.04, 0.03, 0.02)
    made = plan(inputs(profile=profile(q), covariance=covariance(q, 10), confidence=0.99))
    assert made.confidence is not None
    assert made.confidence.z < made.confidence.z_wanted
    assert "for want of judgments" in "\n".join(made.lines())


# --- who stands above whom -----------------------------------------------------------------------


def test_a_pin_keeps_promises_and_nothing_else() -> None:
    made = plan(everyone(pinned=(0.0, 0.0, 1.0)))
    acme, quiet = made.groups
    assert made.shares == (0, 0, 1)
    assert acme.shares == pytest.approx((0.8, 0, 0.2))  # half of L0's preference: 0.8 + 0.1
    assert quiet.shares == L0
    mild = plan(everyone(pinned=(0.5, 0.5, 0.0)))
    assert mild.groups[0].shares == (0.5, 0.5, 0.0)  # 92.5 %: as pinned


def test_pause_shadow_and_blocks_of_l0_are_for_everybody() -> None:
    for made in (
        plan(everyone(paused=True)),
        plan(everyone(held="shadow")),
        plan(everyone(held="block")),
        plan(everyone(held="block", pinned=(0.0, 0.0, 1.0))),
    ):
        assert made.shares == L0
        # Named, as nothing is drawn for it whatever is decided.
        assert [(g.tenant, g.shares) for g in made.groups] == [("quiet", L0)]
    shadow = plan(everyone(held="shadow"))
    assert len(shadow.decided) == 3
    assert shadow.expected_preference == pytest.approx(plan(everyone()).expected_preference)


def test_a_policy_explains_its_mixes_as_its_plan_does() -> None:
    made = plan(everyone(covariance=covariance(Q, 400), judged=400, confidence=0.9))
    publisher = Publisher(CONFIG, PACK, 1, wall=lambda: 1.0, uptime=lambda: 1.0)
    from datetime import UTC, datetime

    from sprout.carbon import Intensity

    value = Intensity(200.0, "NL", "trace", "direct", "average", datetime.now(UTC))
    policy = publisher.publish(made, value, overridden=False, pause_reason=None, trigger="t")
    assert messages.plan_of(policy).lines() == made.lines()
    assert [m.basis for m in policy.mixes] == ["tenant's minimum", "tenant opted out", "class"]


def test_what_is_news() -> None:
    def news(new: Inputs) -> str | None:
        return trigger(plan(everyone()), plan(new), intensity_g_per_kwh=5, profile_ratio=0.1)

    assert news(everyone()) is None
    assert news(replace(everyone(), evaluation="e2")) == "evaluation"
    assert news(replace(everyone(), groups=(ACME, QUIET))) == "mixes"
    assert news(replace(everyone(), groups=(replace(ACME, minimum=0.95), QUIET, CODE))) == "mixes"
    a_little = replace(CODE, traffic=0.32)
    assert news(replace(everyone(), groups=(ACME, QUIET, a_little))) is None
    dear = replace(CODE, profile=profile(Q, (600, 20, 15)))
    assert news(replace(everyone(), groups=(ACME, QUIET, dear))) == "profile"


def test_what_limits_a_mix_that_the_floor_does_not() -> None:
    """An exploration share is no limit, as in the published program; caps and minima are."""
    better = profile((0.30, 0.35, 0.42))  # the cheapest level is preferred
    promised = Group(tenant="acme", traffic=0.3, minimum=0.98)
    explored = inputs(300.0, profile=better, exploration_share=0.02, groups=(promised, CODE))
    made = plan(explored)
    assert min(made.groups[0].shares) == pytest.approx(0.02)
    assert made.groups[0].expected_preference > 1.3
    assert made.active_constraint == plan(replace(explored, groups=())).active_constraint == "none"
    capped = replace(explored, caps=Caps(most=(1.0, 1.0, 0.5)))
    assert plan(capped).active_constraint == "caps"
    assert plan(replace(capped, groups=())).active_constraint == "caps"
    worse = replace(explored, profile=profile(Q), xi=0.9)
    assert plan(worse).active_constraint == "minima"
    # An exploration share that yields to a minimum is no cap either.
    kept = replace(promised, minimum=1.0)
    assert plan(replace(worse, groups=(kept,))).active_constraint == "minima"


# --- covariance ----------------------------------------------------------------------------------


def test_tenants_share_judgments_with_everybody_and_classes_their_own() -> None:
    s, own = covariance(Q, 400), covariance((0.5, 0.3, 0.2), 100)
    rows = [
        Group(covariance=s, judged=400),
        ACME,
        Group(task="a", profile=profile(Q), covariance=own, judged=100),
        Group(task="b", profile=profile(Q), covariance=own, judged=100, shrunk=0.5),
    ]
    joined = joint.covariance(rows)
    # The same estimate, judgment for judgment.
    assert np.array_equal(joined[0, :, 1, :], joined[0, :, 0, :])
    assert np.array_equal(joined[1, :, 1, :], joined[0, :, 0, :])
    # To within what was cut off for it to be a covariance.
    assert joined[0, :, 0, :] == pytest.approx(np.array(s), abs=1e-5)
    assert joined[0, :, 2, :] == pytest.approx(np.array(own) / 4, abs=1e-5)
    assert joined[2, :, 3, :] == pytest.approx(np.zeros((3, 3)), abs=1e-5)
    flat = joined.reshape(12, 12)
    assert np.linalg.eigvalsh(flat).min() > -1e-12
    for i, row in enumerate((s, s, own, own)):  # none smaller than stated
        assert np.linalg.eigvalsh(joined[i, :, i, :] - np.array(row)).min() > -1e-12


# --- judgments that are drawn alike and weighted -------------------------------------------------


def test_a_class_has_its_weight_in_the_covariance_with_all() -> None:
    """90 % of the requests are of the one class, and half of the prompts: drawn alike, weighted.
    Against the q that came out, evaluation for evaluation."""
    share, preferred, prompts = np.array([0.9, 0.1]), np.array([[0.45, 0.25], [0.2, 0.1]]), 100
    rng = np.random.default_rng(1)

    def found() -> dict[str, pb.ClassQuality]:
        judged = []
        for c, task in enumerate("ab"):
            for number in range(prompts):
                scores = 2.0 * (rng.random(2) < preferred[c])
                question = Question(f"{task}{number}", "", task, weight=2 * share[c])
                judged.append(Judged(question, (1.0, *map(float, scores))))
        made = pb.Evaluation(levels=PACK.levels, classes=find(judged, "pairwise").classes)
        return {c.task: c for c in made.classes}

    def stated(classes: dict[str, pb.ClassQuality]) -> np.ndarray:
        made = pb.Evaluation(levels=PACK.levels, classes=classes.values())
        of = quality(made).classes
        rows = [
            Group(
                task=task,
                covariance=of[task].covariance,
                judged=of[task].judged,
                shrunk=of[task].shrunk,
                weight_share=of[task].weight_share,
            )
            for task in ("", "a", "b")
        ]
        return joint.covariance(rows)

    drawn = [found() for _ in range(400)]
    assert [drawn[0][task].weight_share for task in ("", "a", "b")] == pytest.approx([1, 0.9, 0.1])
    q = np.array([[each[task].preference[1] for task in ("", "a", "b")] for each in drawn])
    seen = np.cov(q.T)
    said = np.mean([stated(each)[:, 1, :, 1] for each in drawn[:100]], axis=0)
    # Of 400 draws a covariance is known to a few percent; shrinkage moves it by as much again.
    assert said[0, 0] == pytest.approx(seen[0, 0], rel=0.25)
    assert said[0, 1] == pytest.approx(seen[0, 1], rel=0.25)  # by prompts: half of it
    assert said[0, 2] < seen[0, 2] + 0.002  # by prompts: five times as much
