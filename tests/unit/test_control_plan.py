# SPDX-License-Identifier: Apache-2.0
"""From inputs to a plan and its explanation, and when a plan is news."""

import math
from dataclasses import replace

import pytest
from round_priors import ROUND_PRIORS

from sprout.config import Config, ControlConfig, RequestConfig
from sprout.control import messages
from sprout.control.decide import offline, plan
from sprout.control.inputs import NO_RANGE, Inputs, inputs_of, priors
from sprout.control.publisher import Publisher
from sprout.control.trigger import trigger
from sprout.directives import pack
from sprout.errors import ConfigError
from sprout.optimize.floor import Range

CONFIG = Config(control=ControlConfig(**ROUND_PRIORS))
LEVELS = ("L0", "L1", "L2")


def inputs(k0: float | None = 200.0, within: Range | None = None) -> Inputs:
    return inputs_of(CONFIG, k0, within or Range(100, 300, "test"), priors(CONFIG, LEVELS))


def test_by_hand() -> None:
    """Half-way up the range, xi 0.1: floor 95 %; q 0.40 and 0.34: a third of L1 reaches it."""
    made = plan(inputs())
    assert made.fraction == pytest.approx(0.5)
    assert made.floor == pytest.approx(0.95)
    assert made.shares == pytest.approx((2 / 3, 1 / 3, 0))
    assert made.active_constraint == "quality"
    assert made.expected_preference == pytest.approx(0.95)
    assert made.expected_l0_g == pytest.approx(60 / 3.6e6 * 200)
    assert made.expected_g == pytest.approx((60 * 2 / 3 + 20 / 3) / 3.6e6 * 200)
    assert made.saving_percent == pytest.approx(100 * (1 - 140 / 3 / 60))
    assert made.degraded == {}


def test_cleanest_hour_is_l0_and_dirtiest_gives_up_xi() -> None:
    assert plan(inputs(100)).shares == pytest.approx((1, 0, 0))
    assert plan(inputs(300)).expected_preference == pytest.approx(0.9)


def test_no_intensity_is_l0() -> None:
    made = plan(inputs(None))
    assert made.shares == (1, 0, 0)
    assert made.active_constraint == "no intensity"
    assert math.isnan(made.expected_g)
    assert made.floor == 1


def test_pause_is_l0_whatever_else() -> None:
    for k0 in (None, 300.0):
        made = plan(replace(inputs(k0), paused=True))
        assert made.shares == (1, 0, 0)
        assert made.active_constraint == "paused"


def test_pause_asks_no_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    from sprout.optimize import lp

    def broken(*_: object) -> None:
        raise OSError("solver")

    monkeypatch.setattr(lp, "solve", broken)
    assert plan(replace(inputs(), paused=True)).shares == (1, 0, 0)


def test_infeasible_is_l0_and_degraded(monkeypatch: pytest.MonkeyPatch) -> None:
    from sprout.errors import InfeasibleError
    from sprout.optimize import lp

    def infeasible(*_: object) -> None:
        raise InfeasibleError("quality floor too high")

    monkeypatch.setattr(lp, "solve", infeasible)
    made = plan(inputs())
    assert made.shares == (1, 0, 0)
    assert made.active_constraint == "infeasible"
    assert made.degraded == {"infeasible": "no feasible policy, serving L0: quality floor too high"}


def test_a_solver_that_differs_is_degraded(monkeypatch: pytest.MonkeyPatch) -> None:
    from sprout.optimize import lp
    from sprout.optimize.program import OPTIMAL, Found

    wrong = Found(OPTIMAL, (0.0, 0.0, 1.0), (0.0, 0.0), 0.0)
    monkeypatch.setattr(lp.PaperModel, "_highs", lambda *_: wrong)
    made = plan(inputs())
    assert made.shares == pytest.approx((2 / 3, 1 / 3, 0))
    assert "differ" in made.degraded["solver"]


def test_embodied_carbon_and_pue_count() -> None:
    made = plan(replace(inputs(0.0), embodied_g_per_s=2e-4, within=Range(0, 300, "test")))
    assert made.expected_l0_g == pytest.approx(3 * 2e-4)
    doubled = plan(replace(inputs(), pue=2.0))
    assert doubled.expected_l0_g == pytest.approx(2 * plan(inputs()).expected_l0_g)


def test_clean_grid_without_embodied_carbon_has_no_reason_to_shorten() -> None:
    made = plan(replace(inputs(0.0), within=NO_RANGE))
    assert made.shares == (1, 0, 0)
    assert made.saving_percent == 0


def test_lines_say_what_limits_and_what_it_is_based_on() -> None:
    text = "\n".join(plan(inputs()).lines())
    for part in (
        "L0 66.7 %  L1 33.3 %  L2 0.0 %",
        "200.0 g/kWh",
        "100.0 to 300.0 g/kWh, test; position 0.50",
        "95.0 % of L0's preference (prior, not this model; xi 0.1)",
        "at 95.0 % of L0's preference (prior, not this model)",
        "the floor costs carbon",
        "saves 22.2 %",
        "preference 0.4 (prior, not this model)",
        "2 % of all requests get L0 for comparison",
    ):
        assert part in text
    unknown = "\n".join(plan(inputs(None)).lines())
    assert "intensity   unknown" in unknown
    assert "expected" not in unknown


def test_offline() -> None:
    assert plan(offline(CONFIG, 300, 100, 300)).expected_preference == pytest.approx(0.9)
    assert plan(offline(CONFIG, 300)).range_basis == "configured fraction: no range"
    for low, high in ((100, None), (None, 100), (300, 100)):
        with pytest.raises(ConfigError, match="range needs both ends"):
            offline(CONFIG, 300, low, high)


@pytest.mark.parametrize(
    ("control", "message"),
    [
        (ControlConfig(prior_energy_joules=(60.0, 20.0)), "has 2 values, the pack .* 3 levels"),
        (ControlConfig(prior_device_s=(1.0, -1.0, 1.0)), "must not be negative"),
        (ControlConfig(prior_preference=(1.0, -0.1, 1.0)), "must not be negative"),
    ],
)
def test_priors_must_fit_the_pack(control: ControlConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        priors(Config(control=control, request=RequestConfig(pack="paper")), LEVELS)


def test_a_policy_explains_itself_as_its_plan_does() -> None:
    from datetime import UTC, datetime

    from sprout.carbon import Intensity

    publisher = Publisher(CONFIG, pack("explicit"), 7, wall=lambda: 1e9, uptime=lambda: 50.0)
    narrow = Range(200, 200.5, "trailing 168 h")
    for made in (
        plan(inputs()),
        plan(inputs(None, NO_RANGE)),
        plan(inputs(200, NO_RANGE)),
        plan(inputs(200, narrow)),
    ):
        k0 = made.intensity_g_per_kwh
        now = datetime.now(UTC)
        value = k0 and Intensity(k0, "NL", "trace", "direct", "average", now)
        policy = publisher.publish(
            made, value or None, overridden=False, pause_reason=None, trigger="start"
        )
        told = messages.plan_of(policy)
        assert told.lines() == made.lines()
        assert told.within.basis == made.within.basis  # so that it can be planned with again


# --- when a plan is news -------------------------------------------------------------------------


def why(old: Inputs, new: Inputs) -> str | None:
    return trigger(plan(old), plan(new), intensity_g_per_kwh=5, profile_ratio=0.1)


def test_first_plan_is_news() -> None:
    assert trigger(None, plan(inputs()), intensity_g_per_kwh=5, profile_ratio=0.1) == "start"


def test_small_moves_are_not_news() -> None:
    assert why(inputs(200), inputs(205)) is None
    assert why(inputs(200), inputs(200, Range(104, 296, "test"))) is None


def test_what_is_news() -> None:
    old = inputs(200)
    assert why(old, inputs(205.1)) == "intensity"
    assert why(old, inputs(None)) == "intensity"
    assert why(inputs(None), old) == "intensity"
    assert why(old, inputs(200, Range(94, 300, "test"))) == "range"
    assert why(old, inputs(200, Range(100, 306, "test"))) == "range"
    assert why(old, inputs(200, NO_RANGE)) == "range"
    assert why(inputs(200, NO_RANGE), inputs(200, NO_RANGE)) is None
    l0 = replace(old.profile[0], energy_joules=67.0)
    assert why(old, replace(old, profile=(l0, *old.profile[1:]))) == "profile"
    assert why(old, replace(old, paused=True)) == "pause"
    assert why(replace(old, paused=True), old) == "pause"


def test_a_reason_that_comes_or_goes_is_news_and_its_wording_is_not() -> None:
    made = plan(inputs())
    a, b = replace(made, degraded={"feed": "x"}), replace(made, degraded={"feed": "y"})
    assert trigger(a, b, intensity_g_per_kwh=5, profile_ratio=0.1) is None
    assert trigger(made, a, intensity_g_per_kwh=5, profile_ratio=0.1) == "degraded"
    assert trigger(a, made, intensity_g_per_kwh=5, profile_ratio=0.1) == "degraded"
