# SPDX-License-Identifier: Apache-2.0
"""Estimates from outcomes: decay, outliers, and policies that would confirm themselves."""

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sprout.control.propensity import served
from sprout.profile import NOTHING
from sprout.profile.live import LEAST_PROPENSITY, Samples, effective, estimate, winsorised
from sprout.v1 import control_pb2 as pb
from sprout_ext.board import BoardPolicy, BoardReader, BoardWriter

Floats = NDArray[np.float64]


def samples(joules: Floats, propensity: Floats | None = None, age: Floats | None = None) -> Samples:
    n = len(joules)
    return Samples(
        age_outcomes=np.arange(n, dtype=np.float64) if age is None else age,
        energy_joules=joules,
        device_seconds=joules / 10,
        input_tokens=np.full(n, 50.0),
        output_tokens=joules * 2,
        propensity=np.ones(n) if propensity is None else propensity,
        metered=np.ones(n, np.bool_),
        energy_estimated=True,
        age_s=3.0,
    )


def joules(s: Samples, half_life: float = math.inf) -> float:
    return estimate(s, half_life_outcomes=half_life).energy_joules


# --- means and what stands behind them ------------------------------------------------------------


def test_nothing_is_nothing() -> None:
    assert estimate(samples(np.zeros(0)), half_life_outcomes=10) is NOTHING


def test_without_decay_it_is_the_mean() -> None:
    found = estimate(samples(np.array([7.0, 8.0, 9.0, 10.0])), half_life_outcomes=math.inf)
    assert (found.outcomes, found.energy_joules, found.output_tokens) == (4, 8.5, 17.0)
    assert found.device_seconds == pytest.approx(0.85)
    assert found.effective_outcomes == pytest.approx(4)
    assert found.energy_se_joules == pytest.approx(np.std([7, 8, 9, 10], ddof=1) / 2)
    assert (found.energy_estimated, found.age_s, found.input_tokens) == (True, 3.0, 50.0)


def test_what_is_explored_where_prompts_choose_weighs_in_full() -> None:
    """Half of the requests get the level by one in two, half by a hundredth of a drawn tenth."""
    shares = np.repeat([0.5, 0.001], [5000, 10])  # of 10,000 requests each
    found = joules(samples(np.repeat([40.0, 100.0], [5000, 10]), shares))
    assert found == pytest.approx(70)


def test_one_outcome_has_no_standard_error() -> None:
    assert estimate(samples(np.array([7.0])), half_life_outcomes=9).energy_se_joules is None


def test_half_life() -> None:
    """The newer of two outcomes, one half-life apart, counts twice."""
    found = joules(samples(np.array([6.0, 3.0]), age=np.array([5.0, 105.0])), half_life=100)
    assert found == pytest.approx((2 * 6 + 3) / 3)


def test_a_level_without_traffic_keeps_what_it_has() -> None:
    """That ten thousand others came later changes nothing but its age."""
    fresh = samples(np.array([6.0, 3.0, 5.0]), age=np.array([0.0, 40.0, 90.0]))
    old = replace(fresh, age_outcomes=fresh.age_outcomes + 10_000, age_s=9e4)
    a, b = (estimate(s, half_life_outcomes=50) for s in (fresh, old))
    assert b.energy_joules == pytest.approx(a.energy_joules)
    assert b.effective_outcomes == pytest.approx(a.effective_outcomes)
    assert b.age_s == 9e4


def test_an_engine_that_changed_is_followed() -> None:
    """After four half-lives 6 % of the old are left."""
    old, new = np.full(1000, 10.0), np.full(400, 20.0)
    found = joules(samples(np.concatenate((new, old))), half_life=100)
    assert found == pytest.approx(20 - 10 * 2**-4, rel=0.01)


def test_standard_errors_hold() -> None:
    """The truth lies within two of them in about 95 % of the runs, weights and all."""
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(400):
        likely = rng.random(300) < 0.5
        s = samples(rng.lognormal(0, 0.5, 300), np.where(likely, 0.8, 0.2))
        found = estimate(s, half_life_outcomes=100)
        assert found.energy_se_joules is not None
        truth = math.exp(0.125)
        inside += abs(found.energy_joules - truth) < 2 * found.energy_se_joules
    assert 0.90 < inside / 400 < 0.985


# --- what was not metered -------------------------------------------------------------------------


def gapped(rng: np.random.Generator, mean_s: float, n: int, period_s: float = 60.0) -> Samples:
    """100 J a second each, give and take; a reading is missed each minute, and with it 2 s."""
    start, took = rng.uniform(0, 1e6, n), rng.exponential(mean_s, n)
    s = samples(took * 100 * rng.lognormal(-0.02, 0.2, n))
    into = start % period_s
    metered = (into >= 2) & (into + took < period_s)
    joules = np.where(metered, s.energy_joules, 0.0)
    return replace(s, energy_joules=joules, device_seconds=took, metered=metered)


def test_gaps_meet_long_answers_and_make_none_look_short() -> None:
    """20 s against 8 s: 60 % less. Of those alone that no gap met it would be 44 %."""
    rng = np.random.default_rng(3)
    l0, l1 = gapped(rng, 20, 40_000), gapped(rng, 8, 40_000)
    spared = [s.energy_joules[s.metered].mean() for s in (l0, l1)]
    assert 1 - spared[1] / spared[0] == pytest.approx(0.44, abs=0.02)
    found = [estimate(s, half_life_outcomes=math.inf) for s in (l0, l1)]
    assert 1 - found[1].energy_joules / found[0].energy_joules == pytest.approx(0.6, abs=0.02)
    assert [m.device_seconds for m in found] == pytest.approx([20, 8], rel=0.03)
    assert [m.outcomes for m in found] == [s.metered.sum() for s in (l0, l1)]


def test_standard_errors_hold_with_gaps() -> None:
    rng = np.random.default_rng(7)
    inside = 0
    for _ in range(400):
        found = estimate(gapped(rng, 8, 300), half_life_outcomes=math.inf)
        assert found.energy_se_joules is not None
        inside += abs(found.energy_joules - 800) < 2 * found.energy_se_joules
    assert 0.90 < inside / 400 < 0.985


def test_of_none_that_was_metered_nothing_is_known() -> None:
    s = replace(samples(np.array([7.0, 8.0])), metered=np.zeros(2, np.bool_))
    assert estimate(s, half_life_outcomes=10) is NOTHING


def test_one_that_was_metered_gives_its_rate_and_no_error() -> None:
    s = replace(samples(np.array([10.0, 0.0])), metered=np.array([True, False]))
    found = estimate(replace(s, device_seconds=np.array([1.0, 3.0])), half_life_outcomes=math.inf)
    assert (found.energy_joules, found.device_seconds) == (pytest.approx(20.0), pytest.approx(2.0))
    assert (found.outcomes, found.energy_se_joules) == (1, None)


# --- outliers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sigma", "broken", "most_percent"),
    [(0.3, 0.0, 0.2), (0.7, 0.0, 0.5), (1.0, 0.0, 1.2), (0.3, 1e-3, 1.5), (0.7, 1e-3, 1.5)],
)
def test_bias_of_the_mean(sigma: float, broken: float, most_percent: float) -> None:
    """broken: the share of outcomes a thousand times too large. The plain mean is 100 % off."""
    rng = np.random.default_rng(1)
    truth, found, plain = math.exp(sigma**2 / 2), [], []
    for _ in range(400):
        x = rng.lognormal(0, sigma, 1000)
        x = np.where(rng.random(1000) < broken, 1000 * x, x)
        found.append(winsorised(x, np.ones(1000)).mean())
        plain.append(x.mean())
    assert 100 * abs(np.mean(found) / truth - 1) < most_percent
    assert broken == 0 or np.mean(plain) / truth > 1.8


def test_answers_of_two_kinds_are_no_outliers() -> None:
    x = np.array([1.0] * 70 + [7.4] * 30)
    assert winsorised(x, np.ones(100)).mean() == pytest.approx(x.mean())


def test_noughts_stay_and_set_no_limit() -> None:
    x = np.array([0.0] * 60 + [5.0] * 40)
    assert winsorised(x, np.ones(100)).tolist() == x.tolist()
    assert winsorised(np.zeros(3), np.ones(3)).tolist() == [0, 0, 0]


# --- propensities --------------------------------------------------------------------------------


def confounded(seed: int, likely: float) -> tuple[Samples, Floats]:
    """Long prompts cost 20 J at L1, short ones 4 J; half of all are long. A policy that looks at
    the prompt sends short ones to L1 with `likely`, long ones with 1 - `likely`."""
    rng = np.random.default_rng(seed)
    long = rng.random(20_000) < 0.5
    cost = np.where(long, 20.0, 4.0) * rng.lognormal(0, 0.2, 20_000)
    chance = np.where(long, 1 - likely, likely)
    drawn = rng.random(20_000) < chance
    return samples(cost[drawn], chance[drawn]), cost


def test_a_policy_does_not_confirm_itself() -> None:
    s, cost = confounded(1, likely=0.9)
    truth = cost.mean()
    naive = joules(replace(s, propensity=np.ones(len(s.energy_joules))))
    assert naive < 0.55 * truth  # what it would have believed: 5.6 J instead of 12.2
    weighted = estimate(s, half_life_outcomes=math.inf)
    assert weighted.energy_se_joules is not None
    assert abs(weighted.energy_joules - truth) < 3 * weighted.energy_se_joules
    assert weighted.energy_joules == pytest.approx(truth, rel=0.03)
    # The price of the correction.
    assert weighted.effective_outcomes is not None
    assert weighted.effective_outcomes < 0.6 * weighted.outcomes


def test_draws_that_do_not_look_are_weighted_alike() -> None:
    s, _ = confounded(2, likely=0.5)
    assert joules(s) == pytest.approx(s.energy_joules.mean())


def test_a_tiny_propensity_is_capped() -> None:
    s = samples(np.array([10.0, 1.0]), np.array([1e-9, LEAST_PROPENSITY]))
    assert joules(s) == pytest.approx(5.5)


def test_an_unknown_propensity_counts_as_the_others() -> None:
    s = samples(np.array([4.0, 6.0, 8.0]), np.array([0.5, math.nan, 0.5]))
    assert joules(s) == pytest.approx(6)
    assert joules(samples(np.array([4.0, 8.0]), np.array([math.nan] * 2))) == pytest.approx(6)


def test_kish() -> None:
    assert effective(np.ones(7)) == pytest.approx(7)
    assert effective(np.array([1.0, 1e-9])) == pytest.approx(1)


def policy(**fields: object) -> bytes:
    shares = [pb.LevelShare(level=f"L{i}", share=x) for i, x in enumerate((0.5, 0.3, 0.2))]
    return pb.Policy(**{"shares": shares, "canary_share": 1.0, **fields}).SerializeToString()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (0.5, 0.3, 0.2)),
        ({"control_share": 0.1}, (0.55, 0.27, 0.18)),
        ({"canary_share": 0.5}, (0.75, 0.15, 0.1)),
        ({"control_share": 0.1, "canary_share": 0.5}, (0.775, 0.135, 0.09)),
        ({"canary_share": 0.0}, (1, 0, 0)),
        ({"paused": True, "control_share": 0.1}, (1, 0, 0)),
        # Those whose prompt chooses are no chance's.
        ({"prompt": pb.PromptPolicy(share=0.9)}, (0.05, 0.03, 0.02)),
        (
            {"prompt": pb.PromptPolicy(share=0.9), "control_share": 0.1, "canary_share": 0.5},
            (0.55 + 0.0225, 0.0135, 0.009),
        ),
    ],
)
def test_propensities_of_a_policy(fields: dict[str, object], expected: tuple[float, ...]) -> None:
    found = served(policy(**fields))
    assert found is not None
    assert found.of("", "") == pytest.approx(expected)


def test_propensities_are_those_of_the_mix_that_a_request_is_under() -> None:
    mixes = [
        pb.Mix(tenant="acme", shares=mix(0.9, 0.1, 0), basis="tenant's minimum"),
        pb.Mix(tenant="quiet", shares=mix(1, 0, 0), basis="tenant opted out"),
        pb.Mix(task="code", shares=mix(0.2, 0.8, 0), basis="class"),
    ]
    prompted = served(policy(mixes=mixes, prompt=pb.PromptPolicy(share=1.0)))
    assert prompted is not None
    assert prompted.of("other", "code") == pytest.approx((0.2, 0.8, 0))  # a mix of its own
    assert prompted.of("other", "chat") == (0, 0, 0)
    mixes[2].prompt.least = 0.9  # with prices, whatever they are
    tenth = served(policy(mixes=mixes, prompt=pb.PromptPolicy(share=0.9), control_share=0.5))
    assert tenth is not None
    assert tenth.of("other", "code") == pytest.approx((0.5 + 0.01, 0.04, 0))
    assert tenth.of("acme", "code") == pytest.approx((0.95, 0.05, 0))
    mixes[2].ClearField("prompt")
    found = served(policy(mixes=mixes, control_share=0.5))
    assert found is not None
    assert found.of("acme", "code") == pytest.approx((0.95, 0.05, 0))  # a tenant's stands above
    assert found.of("other", "code") == pytest.approx((0.6, 0.4, 0))
    assert found.of("other", "chat") == pytest.approx((0.75, 0.15, 0.1))
    assert found.opted_out == {"quiet"}
    paused = served(policy(mixes=mixes, paused=True))
    assert paused is not None
    assert paused.of("other", "code") == (1, 0, 0)


def mix(*shares: float) -> list[pb.LevelShare]:
    return [pb.LevelShare(level=f"L{i}", share=share) for i, share in enumerate(shares)]


def test_propensities_are_how_often_levels_are_really_served(tmp_path: Path) -> None:
    """Against the request path's own draws: control first, canary next, level last."""
    writer = BoardWriter(tmp_path / "policy.board")
    writer.publish(
        BoardPolicy(
            version=1 << 32 | 1,
            seed=42,
            pack_hash=7,
            shares=(0.5, 0.3, 0.2),
            control_share=0.1,
            canary_share=0.5,
            paused=False,
            deadline_boottime_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 3600 * 10**9,
            intensity_g_per_kwh=100.0,
            pue=1.0,
            embodied_g_per_s=0.0,
        )
    )
    reader = BoardReader(tmp_path / "policy.board", 7, 1, 2, 0)
    levels = [choice.level for choice in reader.choose_many(0, 40_000)]
    writer.close()
    found = served(policy(control_share=0.1, canary_share=0.5))
    assert found is not None
    assert np.bincount(levels, minlength=3) / 40_000 == pytest.approx(found.default, abs=0.01)


@pytest.mark.parametrize("message", [b"policy", pb.Policy().SerializeToString()])
def test_what_is_no_policy_has_none(message: bytes) -> None:
    assert served(message) is None
