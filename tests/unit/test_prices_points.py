# SPDX-License-Identifier: Apache-2.0
"""Mixes whose prices would take more points than a policy has, and mixes that are alike."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from predicted_synthetic import inputs, predicted

from sprout.control import prices
from sprout.control.decide import plan
from sprout.control.inputs import Group, Inputs, Prompts
from sprout.control.part import MOST_POINTS, Part
from sprout.control.plan import PromptGroup, PromptPlan
from sprout.control.predicted import Predicted
from sprout.optimize import blocks
from sprout.optimize.caps import Caps
from sprout.profile import NOTHING, build

Q = np.array((0.30, 0.24, 0.20, 0.15, 0.11))


def five_levels(seed: int = 0, m: int = 600) -> Predicted:
    rng, known = np.random.default_rng(seed), predicted(1, m)
    preferences = rng.dirichlet((5.0, 4.0, 3.5, 3.0, 2.5), m)
    joules = rng.gamma(2.0, 1.0, (m, 1)) * rng.uniform(0.7, 1.3, (m, 5))
    return replace(
        known,
        preferences=preferences,
        joules=joules * np.array((900.0, 500.0, 300.0, 200.0, 120.0)),
        preferred=np.argmax(preferences / preferences.mean(0), axis=1),
    )


def given(**more: Any) -> Inputs:
    profile = build(
        tuple(f"L{level}" for level in range(5)),
        [NOTHING] * 5,
        prior_energy_joules=(60, 40, 25, 18, 12),
        prior_device_s=(3, 2, 1.2, 0.9, 0.6),
        prior_preference=tuple(Q),
        min_outcomes=3,
    )
    return inputs(profile=profile, **more)


def often(made: PromptPlan | PromptGroup, known: Predicted) -> Any:
    """(m, L) how often a prompt gets a level."""
    found = np.zeros_like(known.joules)
    for point in made.points:
        costs = np.array(point.g) + np.array(made.g_per_joule) * known.joules
        chosen = np.argmin(costs - point.g_per_preference * known.preferences, axis=1)
        found[np.arange(len(found)), chosen] += point.fraction
    return found


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("least", [None, (0.0, 0.05, 0.05, 0.05, 0.05)])
def test_four_caps_that_bind_take_no_more_points_than_a_policy_has(
    least: tuple[float, ...] | None, seed: int
) -> None:
    caps = Caps(least=least, most=(1.0, 0.3, 0.25, 0.2, 0.2))
    asked, known = given(caps=caps), five_levels(seed)
    made, why = prices.price(asked, plan(asked), known)
    assert made is not None, why
    assert len(made.points) <= MOST_POINTS
    shares = often(made, known).mean(0)
    assert shares == pytest.approx(made.shares)
    assert all(shares <= np.array(caps.most) + 1e-7)
    assert all(shares >= np.array(caps.least or (0.0,) * 5) - 1e-7)
    # All bind but for a few prompts.
    assert shares[1:] == pytest.approx((0.3, 0.25, 0.2, 0.2), abs=0.02)


def test_who_takes_more_keeps_its_mix_and_the_others_have_prices() -> None:
    """Of a class with so few prompts that there are no caps tighter by a few."""
    known = five_levels(5)
    known = replace(known, label=(np.arange(600) >= 40).astype(np.int64))
    caps = Caps(least=(0.0, 0.05, 0.05, 0.05, 0.05), most=(1.0, 0.3, 0.25, 0.2, 0.2))
    sums = Group(task="sums", traffic=0.3, profile=given().profile)
    asked = given(caps=caps, groups=(sums,))
    made, why = prices.price(asked, plan(asked), known)
    assert made is not None, why
    assert made.groups == ()
    assert made.kept == (("", "sums", "its prices take 5 points, a policy has 4"),)
    mix = plan(asked).groups[0].expected_preference
    assert mix is not None
    assert 0.7 * made.expected_preference + 0.3 * mix >= 0.95 - 1e-6  # the floor of both


def test_tenants_that_are_alike_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepared, guarded and solved once; each has prices, and each counts."""
    counted = {"parts": 0, "blocks": 0}
    prepare, solve = Part.__init__, blocks.Blocks.__init__

    def part(*args: Any) -> None:
        counted["parts"] += 1
        prepare(*args)

    def program(self: blocks.Blocks, given: Any) -> None:
        counted["blocks"] += len(given)
        solve(self, given)

    monkeypatch.setattr(Part, "__init__", part)
    monkeypatch.setattr(blocks.Blocks, "__init__", program)
    tenants = tuple(Group(tenant=f"t{i}", traffic=0.03, minimum=0.97) for i in range(20))
    own = replace(tenants[7], minimum=0.98)  # of the same requests, promised more
    everybody = (*tenants[:7], own, *tenants[8:])
    traffic = (("t3", (("sums", 1.0),)),)  # and one with requests of its own
    asked = inputs(groups=everybody, prompts=Prompts("f" * 64, 0.9, (), traffic))
    known = predicted(3, 400)
    made, why = prices.price(asked, plan(asked), known)
    assert made is not None, why
    assert counted["parts"] == 2
    # Programs of their own of three guards; then in one: all others, and these.
    assert counted["blocks"] == 3 + 4
    found = {group.tenant: group for group in made.groups}
    assert len(found) == 20
    alike = [found[f"t{i}"] for i in range(20) if i not in (3, 7)]
    assert all(replace(each, tenant="") == replace(alike[0], tenant="") for each in alike)
    assert found["t3"].g_per_joule != alike[0].g_per_joule
    assert found["t7"].expected_preference >= 0.98 - 1e-6
    total = 0.4 * made.expected_preference + 0.03 * sum(
        each.expected_preference for each in found.values()
    )
    assert total >= 0.95 - 1e-6


def test_what_alike_tenants_pay_is_what_one_of_them_all_pays() -> None:
    known = predicted(3, 400, judged="drawn")
    many = inputs(groups=tuple(Group(tenant=f"t{i}", traffic=0.1, minimum=0.97) for i in range(5)))
    one = inputs(groups=(Group(tenant="t", traffic=0.5, minimum=0.97),))
    made, _ = prices.price(many, plan(many), known)
    alone, _ = prices.price(one, plan(one), known)
    assert made is not None
    assert alone is not None
    for one_s, other in ((made, alone), (made.groups[0], alone.groups[0])):
        assert [p.fraction for p in one_s.points] == pytest.approx(
            [p.fraction for p in other.points]
        )
        assert one_s.expected_g == pytest.approx(other.expected_g)
        assert one_s.expected_preference == pytest.approx(other.expected_preference)
