# SPDX-License-Identifier: Apache-2.0
"""The floor with a chosen confidence: against a fine grid, SLSQP and draws of judgments."""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sprout.errors import InfeasibleError
from sprout.optimize.bank import BankModel
from sprout.optimize.caps import Caps
from sprout.optimize.cone import VIOLATION, Cone
from sprout.optimize.contrast import Certainty, deviation, factor, multinomial
from sprout.optimize.problem import Problem, Solution

Array = NDArray[np.float64]

COSTS = np.array([1218.0, 273.0, 182.0])
Q = np.array([0.40, 0.34, 0.26])


def problem(
    confidence: float = 0.95, judgments: int = 1000, target: float = 0.9, **changes: object
) -> Problem:
    certainty = Certainty(confidence, multinomial(Q, judgments)[None])
    base = Problem(COSTS[None, None], np.ones((1, 1)), Q[None], target=target, certainty=certainty)
    return replace(base, **changes)  # type: ignore[arg-type]


def solve(p: Problem) -> Solution:
    return BankModel(*p.shape).solve(p)


def left(shares: Array, q: Array, covariance: Array, tau: float, z: float) -> float:
    """The constraint, from its formula."""
    y = shares.copy()
    y[0] -= tau
    return float(y @ q) - z * math.sqrt(max(0.0, float(y @ covariance @ y)))


# --- by hand -------------------------------------------------------------------------------------


def test_multinomial_by_hand() -> None:
    s = multinomial(np.array([0.5, 0.3]), 10)
    assert s == pytest.approx(np.array([[0.025, -0.015], [-0.015, 0.021]]))
    # the difference of two shares is less sure than of independent ones
    assert np.array([1, -1]) @ s @ np.array([1, -1]) == pytest.approx((0.8 - 0.04) / 10)


def test_multinomial_is_the_covariance_of_draws() -> None:
    draws = np.random.default_rng(1).multinomial(50, Q, size=200_000) / 50
    assert np.cov(draws.T) == pytest.approx(multinomial(Q, 50), abs=5e-5)


def test_two_levels_by_hand() -> None:
    """x of L0 and 1 - x of L1: y = (x - tau, 1 - x); the least x whose margin is 0."""
    q, n, tau = np.array([0.6, 0.4]), 400, 0.9
    covariance = multinomial(q, n)
    solution = solve(
        Problem(
            COSTS[None, None, :2],
            np.ones((1, 1)),
            q[None],
            tau,
            certainty=Certainty(0.95, covariance[None]),
        )
    )
    low, high = 0.0, 1.0
    for _ in range(60):
        x = 0.5 * (low + high)
        sure = left(np.array([x, 1 - x]), q, covariance, tau, NormalDist().inv_cdf(0.95)) >= 0
        low, high = (low, x) if sure else (x, high)
    assert solution.shares[0, 0, 0] == pytest.approx(high, abs=1e-7)
    assert high > 0.7  # the plain floor: 0.6 x + 0.4 (1 - x) = 0.54


def test_half_confidence_is_the_plain_floor() -> None:
    plain = solve(replace(problem(), certainty=None))
    half = solve(problem(confidence=0.5))
    assert (half.shares == plain.shares).all()
    assert (half.z, half.tangents) == (0, 0)


# --- all-L0 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [0.0, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("confidence", [0.9, 0.99, 0.99999])
def test_all_l0_meets_any_floor(target: float, confidence: float) -> None:
    p = problem(confidence, 1000, target)
    assert Cone(p).margin(np.array([[[1.0, 0.0, 0.0]]])) >= -1e-15
    solution = solve(p)
    assert solution.short_request_points == 0
    assert solution.z == solution.z_wanted == pytest.approx(NormalDist().inv_cdf(confidence))


def test_with_a_handful_of_judgments_z_is_clamped_and_said() -> None:
    """q0 = 0.4 of 5 judgments has sd 0.219: told from 0 with z = 1.826, not with 2.326."""
    solution = solve(problem(confidence=0.99, judgments=5))
    assert solution.z_wanted == pytest.approx(2.326, abs=1e-3)
    assert solution.z == pytest.approx(0.4 / math.sqrt(0.24 / 5))
    assert solution.short_request_points == pytest.approx(0, abs=1e-6)
    assert Cone(problem(0.99, 5)).margin(solution.shares) >= -VIOLATION


# --- the optimum ---------------------------------------------------------------------------------


@pytest.mark.parametrize("judgments", [30, 300, 6000])
@pytest.mark.parametrize("target", [0.8, 0.9, 0.95])
def test_as_good_as_a_fine_grid(judgments: int, target: float) -> None:
    p = problem(0.95, judgments, target)
    solution = solve(p)
    step = 1 / 800
    i, j = np.meshgrid(np.arange(801), np.arange(801))
    mixes = np.stack([i, j, 800 - i - j], -1)[i + j <= 800] * step
    assert p.certainty is not None
    y = mixes.copy()
    y[:, 0] -= target
    covariance = p.certainty.covariance[0]
    sd = np.sqrt(np.maximum(0, np.einsum("ni,ij,nj->n", y, covariance, y)))
    sure = y @ Q - p.z_wanted * sd >= 0
    best = (mixes[sure] @ COSTS).min()
    ours = solution.shares[0, 0] @ COSTS
    assert Cone(p).margin(solution.shares) >= -VIOLATION
    assert best - 2 * step * COSTS.max() <= ours <= best + 1e-6 * COSTS.max()


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """One hour, one or two classes, two to five levels, a covariance of either kind."""
    classes, levels = draw(st.integers(1, 2)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    q = rng.dirichlet(np.full(levels, 3.0), classes)
    if draw(st.booleans()):
        n = draw(st.sampled_from([40, 200, 1000]))
        covariance = np.stack([multinomial(row, n) for row in q])
    else:
        root = rng.normal(0, 0.02, (classes, levels, levels))
        covariance = root @ root.swapaxes(1, 2)
    costs = np.sort(rng.uniform(0.02, 1, (1, classes, levels)), axis=-1)[..., ::-1].copy()
    return Problem(
        costs,
        rng.uniform(0.5, 2, (1, classes)),
        q,
        target=draw(st.sampled_from([0.7, 0.9, 0.97])),
        against=draw(st.sampled_from(["own", "pooled"])),
        certainty=Certainty(draw(st.sampled_from([0.8, 0.95, 0.99])), covariance),
    )


@settings(max_examples=60, deadline=None)
@given(problems())
def test_as_good_as_slsqp(p: Problem) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    solution = solve(p)
    assume(solution.short_request_points == 0)
    cone, weight = Cone(p), p.requests / p.requests.sum()
    assert cone.margin(solution.shares) >= -VIOLATION
    c = (weight[..., None] * p.costs_g).ravel()
    sums = np.kron(np.eye(p.shape[1]), np.ones(p.shape[2]))
    # from all-L0, a little inside, where the cone has a gradient
    start = np.full(p.shape, 0.02 / (p.shape[2] - 1))
    start[..., 0] = 0.98
    theirs = optimize.minimize(
        lambda x: c @ x,
        start.ravel(),
        jac=lambda _: c,
        method="SLSQP",
        bounds=[(0, 1)] * c.size,
        constraints=[
            {"type": "ineq", "fun": lambda x: cone.margin(x.reshape(p.shape))},
            {"type": "eq", "fun": lambda x: sums @ x - 1, "jac": lambda _: sums},
        ],
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assume(theirs.success and cone.margin(theirs.x.reshape(p.shape)) >= -1e-8)
    assert c @ solution.shares.ravel() <= theirs.fun + 1e-5
    # Convex: a local optimum is the optimum. SLSQP may stop early, but not below it.
    assert theirs.fun >= c @ solution.shares.ravel() - 1e-5


@settings(max_examples=60, deadline=None)
@given(problems(), st.booleans())
def test_tangents_touch_and_never_cut_off(p: Problem, joint: bool) -> None:
    """At v with |v| > t at least one is violated, and what the cone holds violates none."""
    assert p.certainty is not None
    s = p.certainty.covariance
    classes, levels = p.preferences.shape
    if joint:
        whole = np.einsum("ab,aij->aibj", np.eye(classes), s)
        p = replace(p, certainty=replace(p.certainty, covariance=whole))
    r = factor(s if not joint else whole)
    rng = np.random.default_rng(0)
    y, other = rng.normal(0, 1, (2, classes, levels))
    assert np.linalg.norm(r @ y.ravel()) == pytest.approx(deviation(y, s))
    cone, ends = Cone(p), classes * levels
    k = len(r)

    def point(v: np.ndarray, t: float) -> np.ndarray:
        shares = v**2 / t if t > 0 else np.zeros(k)
        return np.concatenate((np.zeros(ends), v, shares, [t]))

    v, w = r @ y.ravel(), r @ other.ravel()
    cuts = cone.cuts(point(v, 0.5 * float(np.linalg.norm(v))) * [*[1] * (ends + k), *[0] * k, 1], 0)
    assert cuts
    for inside in (point(v, float(np.linalg.norm(v))), point(w, 1.1 * float(np.linalg.norm(w)))):
        assert all(inside[columns] @ values >= -1e-12 for columns, values in cuts)


@settings(max_examples=40, deadline=None)
@given(problems())
def test_classes_judged_apart_are_a_joint_covariance_without_blocks_between(p: Problem) -> None:
    assert p.certainty is not None
    s = np.einsum("ab,aij->aibj", np.eye(p.shape[1]), p.certainty.covariance)
    joint = solve(replace(p, certainty=replace(p.certainty, covariance=s)))
    assert joint.expected_g == pytest.approx(solve(p).expected_g, rel=1e-6)


def test_the_same_judgments_in_two_rows_count_once() -> None:
    """Two rows of the same requests with the same q: as sure as one row, not surer by root 2."""
    one = problem(0.95, 400)
    assert one.certainty is not None
    s = one.certainty.covariance[0]
    two = replace(
        one,
        costs_g=one.costs_g.repeat(2, axis=1),
        requests=one.requests.repeat(2, axis=1) / 2,
        preferences=one.preferences.repeat(2, axis=0),
        certainty=Certainty(0.95, np.einsum("ab,ij->aibj", np.ones((2, 2)), s)),
    )
    assert solve(two).expected_g == pytest.approx(solve(one).expected_g, rel=1e-6)
    apart = replace(two, certainty=Certainty(0.95, np.stack((s, s))))
    assert solve(apart).expected_g < solve(one).expected_g * 0.999


@settings(max_examples=40, deadline=None)
@given(problems())
def test_surer_never_costs_less(p: Problem) -> None:
    assert p.certainty is not None
    plain = solve(replace(p, certainty=None))
    sure = solve(p)
    surer = solve(replace(p, certainty=replace(p.certainty, confidence=0.995)))
    assume(sure.z == sure.z_wanted and surer.z == surer.z_wanted)
    assert plain.expected_g <= sure.expected_g + 1e-6
    assert sure.expected_g <= surer.expected_g + 1e-6


def test_more_judgments_never_cost_more() -> None:
    costs = [solve(problem(0.95, n)).expected_g for n in (20, 100, 1000, 10_000, 10**7)]
    assert costs == sorted(costs, reverse=True)
    plain = solve(replace(problem(), certainty=None)).expected_g
    assert costs[-1] == pytest.approx(plain, rel=1e-2)


def test_the_floor_holds_as_often_as_promised() -> None:
    """Judgments drawn anew: a mix whose true q lies on its floor would be refused 95 times in 100.

    That is what the contrast promises: with the true mean of the contrast at 0, the estimate is
    beyond z sd in one case of 20.
    """
    n, tau, draws = 1000, 0.9, 4000
    t = (tau * Q[0] - Q[1]) / (Q[0] - Q[1])
    mix = np.array([t, 1 - t, 0.0])  # truly on the floor
    z = NormalDist().inv_cdf(0.95)
    seen = np.random.default_rng(3).multinomial(n, Q, size=draws) / n
    accepted = [left(mix, q, multinomial(q, n), tau, z) >= 0 for q in seen]
    assert np.mean(accepted) == pytest.approx(0.05, abs=0.015)


# --- in the bank ---------------------------------------------------------------------------------


def hours(confidence: float = 0.95, **changes: object) -> Problem:
    k0 = 300 + 200 * np.sin(np.arange(24) / 24 * 2 * np.pi)
    base = problem(
        confidence,
        600,
        0.93,
        costs_g=k0[:, None, None] * COSTS * 1e-6,
        requests=np.full((24, 1), 50.0),
        hourly_minimum=0.85,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_over_a_horizon_the_mean_mix_is_sure() -> None:
    p = hours()
    solution = solve(p)
    mean = solution.shares.mean((0, 1))
    assert p.certainty is not None
    covariance = p.certainty.covariance[0]
    assert left(mean, Q, covariance, 0.93, solution.z) == pytest.approx(0, abs=1e-8)
    plain = solve(replace(p, certainty=None))
    assert plain.expected_g < solution.expected_g < solution.expected_l0_g
    assert left(plain.shares.mean((0, 1)), Q, covariance, 0.93, solution.z) < 0


def test_over_a_horizon_the_price_is_a_slope() -> None:
    p = hours()
    here = solve(p)
    for carry in (-60.0, -5.0, 5.0, 60.0):
        there = solve(replace(p, carry_request_points=carry))
        line = here.expected_g - here.price_g_per_point * carry
        assert line <= there.expected_g + 1e-7 * here.expected_l0_g
    nudged = solve(replace(p, carry_request_points=0.01))
    slope = (here.expected_g - nudged.expected_g) / 0.01
    assert slope == pytest.approx(here.price_g_per_point, rel=1e-3)


def test_exploration_that_leaves_too_little_says_by_how_much() -> None:
    """With 5 % at L2 a floor of 0.98 can be met (0.9825), but not surely."""
    p = problem(0.95, 300, 0.98, caps=Caps(least=(0.0, 0.0, 0.05)))
    solution = solve(p)
    assert solution.shares[0, 0] == pytest.approx([0.95, 0, 0.05], abs=1e-6)
    lack = -Cone(p).margin(solution.shares)
    assert lack > 0
    assert solution.short_request_points == pytest.approx(100 * lack, rel=1e-5)
    assert solution.price_g_per_point == math.inf
    assert solution.status == "Optimal"


def test_a_debt_that_only_the_plain_budget_can_repay() -> None:
    earned = 0.07 * 24 * 50 * 100  # what all-L0 earns in a day, in request-points
    solution = solve(hours(carry_request_points=-0.999 * earned))
    assert solution.short_request_points > 0
    assert solution.shares[..., 0].min() > 0.99


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.4, 1.0, math.nan])
def test_confidence_is_a_probability(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        Certainty(confidence, multinomial(Q, 10)[None])


@pytest.mark.parametrize(
    "covariance",
    [np.eye(3), -np.eye(3)[None], np.full((1, 3, 3), math.nan), np.triu(np.ones((3, 3)))[None]],
)
def test_a_covariance_is_one(covariance: Array) -> None:
    with pytest.raises(ValueError, match="covariance"):
        solve(problem(certainty=Certainty(0.9, covariance)))


def test_shares_need_judgments() -> None:
    with pytest.raises(ValueError, match="judgments"):
        multinomial(Q, 0)
    with pytest.raises(ValueError, match="same judgments"):
        multinomial(np.array([0.9, 0.2]), 10)


def test_no_uncertainty_is_the_plain_floor() -> None:
    sure = solve(problem(certainty=Certainty(0.99, np.zeros((1, 3, 3)))))
    plain = solve(problem(certainty=None))
    assert sure.shares == pytest.approx(plain.shares)
    assert deviation(np.ones((1, 3)), np.zeros((1, 3, 3))) == 0


def test_minima_come_first() -> None:
    with pytest.raises(InfeasibleError, match="hourly minimum"):
        solve(hours(hourly_minimum=0.99, caps=Caps(least=(0, 0, 0.1))))
