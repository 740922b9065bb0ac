# SPDX-License-Identifier: Apache-2.0
"""Quality as a budget: against scipy on the program written out anew, and cases worked by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sprout.errors import InfeasibleError
from sprout.optimize import lp
from sprout.optimize.bank import BankModel, carry_on
from sprout.optimize.caps import Caps
from sprout.optimize.problem import Problem, Solution

Array = NDArray[np.float64]

# e in kWh, p in s, q: the published measurements, rounded
ENERGY = np.array([3.4e-4, 7.6e-5, 5.1e-5])
SECONDS = np.array([7.0, 1.5, 1.0])
Q = np.array([[0.40, 0.34, 0.26]])
EMBODIED = 1.67e-4


def grams(k0: list[float]) -> Array:
    """(hours, 1, levels)"""
    return np.asarray((np.outer(k0, ENERGY) + EMBODIED * SECONDS)[:, None, :])


def solve(problem: Problem) -> Solution:
    return BankModel(*problem.shape).solve(problem)


def small(**changes: object) -> Problem:
    """Three hours, one class: clean, middling, dirty."""
    base = Problem(grams([100, 300, 500]), np.full((3, 1), 10.0), Q, target=0.95)
    return replace(base, **changes)  # type: ignore[arg-type]


# --- by hand -------------------------------------------------------------------------------------


def test_by_hand_the_dirtiest_hours_pay() -> None:
    """L0 for L1 gives up 0.15 of r. Of 3 hours' requests 0.15 may be given up in all: the dirtiest
    hour's, whole, and nothing is left."""
    solution = solve(small(hourly_minimum=0.8))
    assert solution.shares[:, 0] == pytest.approx(np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]]))
    assert solution.expected_preference == pytest.approx(0.95)
    assert solution.short_request_points == 0


def test_by_hand_a_little_more_target() -> None:
    """0.96: 0.12 may be given up; 80 % of the dirtiest hour at L1. The price is its slope there."""
    solution = solve(small(target=0.96, hourly_minimum=0.8))
    assert solution.shares[2, 0] == pytest.approx([0.2, 0.8, 0])
    c = grams([500])[0, 0]
    assert solution.price_g_per_point == pytest.approx((c[0] - c[1]) / 0.15 / 100)


def test_by_hand_the_hourly_minimum_binds() -> None:
    """0.9 an hour: the dirtiest gives up 0.1 at most, the next one the other 0.05."""
    solution = solve(small(hourly_minimum=0.9))
    assert solution.shares[:, 0, 1] == pytest.approx([0, 1 / 3, 2 / 3])
    middle, dirty = grams([300])[0, 0], grams([500])[0, 0]
    price = (middle[0] - middle[1]) / 0.15 / 100
    assert solution.price_g_per_point == pytest.approx(price)
    assert solution.hourly_price_g_per_point == pytest.approx(
        [0, 0, (dirty[0] - dirty[1]) / 0.15 / 100 - price]
    )


def test_by_hand_a_surplus_is_spent_and_a_debt_repaid() -> None:
    target = small(target=0.96, hourly_minimum=0.8)
    # 10 requests, 3 points each: the dirtiest hour can be L1 throughout
    rich = solve(replace(target, carry_request_points=30.0))
    assert rich.shares[2, 0] == pytest.approx([0, 1, 0])
    poor = solve(replace(target, carry_request_points=-60.0))
    assert poor.shares[2, 0] == pytest.approx([0.6, 0.4, 0])


def test_more_debt_than_the_horizon_can_repay() -> None:
    """3 hours of all-L0 earn 30 requests x 4 points."""
    solution = solve(small(target=0.96, carry_request_points=-150.0))
    assert solution.shares[:, 0, 0] == pytest.approx(1)
    assert solution.short_request_points == pytest.approx(30)
    assert solution.price_g_per_point == math.inf
    assert solution.status == "most preferred"
    just = solve(small(target=0.96, carry_request_points=-120.0))
    assert just.shares[:, 0, 0] == pytest.approx(1)
    assert just.short_request_points == 0


def test_the_last_hour_is_like_any_other() -> None:
    """The same intensity in the first and in the last hour: the same mix, whatever the carry."""
    k0 = [400.0, 100.0, 250.0, 400.0 + 1e-9]
    for carry in (-20.0, 0.0, 20.0, 80.0):
        problem = Problem(
            grams(k0), np.full((4, 1), 10.0), Q, 0.95, 0.85, carry_request_points=carry
        )
        x = solve(problem).shares[:, 0]
        served = x @ Q[0] / Q[0, 0]
        assert (served >= 0.85 - 1e-9).all()
        # no hour with less carbon at stake is served worse than one with more
        assert served[1] >= served[2] - 1e-9 >= max(served[0], served[3]) - 2e-9


def test_an_hour_without_requests_spends_nothing_and_has_a_mix() -> None:
    n = np.array([[10.0], [0.0], [10.0]])
    solution = solve(small(requests=n, hourly_minimum=0.8))
    assert solution.shares.sum(-1) == pytest.approx(1)
    # 20 requests may give up 0.1 of r in the dirty hour
    assert solution.shares[2, 0] == pytest.approx([1 / 3, 2 / 3, 0])
    # at the dirty hour's price, L0's quality is cheap at 300 g/kWh
    assert solution.shares[1, 0] == pytest.approx([1, 0, 0])
    quiet_and_dirty = solve(small(requests=np.array([[10.0], [10.0], [0.0]]), hourly_minimum=0.85))
    assert quiet_and_dirty.shares[2, 0] == pytest.approx([0, 1, 0])  # L1 is just 0.85


def test_classes_own_and_pooled_differ() -> None:
    """Class 1's L0 is seldom preferred: pooled, it is where quality costs the least."""
    q = np.array([[0.6, 0.3, 0.1], [0.2, 0.1, 0.05]])
    costs = np.tile(grams([300]), (1, 2, 1))
    problem = Problem(costs, np.full((1, 2), 10.0), q, target=0.9)
    own, pooled = solve(problem), solve(replace(problem, against="pooled"))
    # own: both lose half by L1, so it does not matter where; 20 % of all requests at L1
    assert own.shares[0, :, 1].sum() == pytest.approx(0.4)
    # pooled: Q = 0.4; class 1 loses 0.25 of it by L1, so 80 % of it pays for all
    assert pooled.shares[0, 0] == pytest.approx([1, 0, 0])
    assert pooled.shares[0, 1, 1] == pytest.approx(0.8)
    assert pooled.expected_g < own.expected_g
    guarded = solve(replace(problem, against="pooled", class_minimum=np.array([0.0, 0.9])))
    assert guarded.shares[0, 1] @ q[1] / q[1, 0] == pytest.approx(0.9)


def test_one_hour_of_one_class_is_the_published_program() -> None:
    for floor in (0.7, 0.85, 0.93, 1.0):
        bank = solve(Problem(grams([300]), np.ones((1, 1)), Q, target=floor))
        paper = lp.solve(grams([300])[0, 0].tolist(), Q[0].tolist(), floor * 0.4)
        assert bank.shares[0, 0] == pytest.approx(paper.shares, abs=1e-7)
    assert solve(
        Problem(grams([300]), np.ones((1, 1)), Q, target=0.93)
    ).price_g_per_point == pytest.approx(
        lp.solve(grams([300])[0, 0].tolist(), Q[0].tolist(), 0.93 * 0.4).price_g_per_point
    )


def test_the_step_limits_the_first_hour() -> None:
    solution = solve(
        small(
            costs_g=grams([500, 300, 100]),
            hourly_minimum=0.5,
            caps=Caps(step=0.1),
            previous=np.array([[1.0, 0.0, 0.0]]),
        )
    )
    assert solution.shares[0, 0, 1:].max() <= 0.1 + 1e-9
    assert solution.shares[0, 0, 0] >= 0.9 - 1e-9
    assert solution.shares[1, 0, 0] < 0.9


def test_carry_by_hand() -> None:
    assert carry_on(5.0, 100, 0.93, 0.95, 1e3) == pytest.approx(5 - 200)
    assert carry_on(900.0, 100, 1.0, 0.95, 1e3) == 1e3  # a surplus has a bound, a debt has none
    assert carry_on(-9e3, 100, 0.9, 0.95, 1e3) == pytest.approx(-9500)


# --- refusals ------------------------------------------------------------------------------------


def test_a_minimum_out_of_reach_names_hour_and_amount() -> None:
    caps = Caps(least=(0, 0, 0.2))  # at most 0.93
    with pytest.raises(InfeasibleError, match=r"0\.9500 is 0\.0200 above .*hour 0 .*\(0\.9300\)"):
        solve(small(hourly_minimum=0.95, caps=caps))
    with pytest.raises(InfeasibleError, match=r"0\.9500 of class 0 is 0\.0200 above .*hour 0"):
        solve(small(class_minimum=np.array([0.95]), caps=caps))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"requests": np.zeros((3, 1))}, "no request is expected"),
        ({"requests": np.ones((2, 1))}, "requests is"),
        ({"requests": np.full((3, 1), math.nan)}, "finite"),
        ({"costs_g": grams([1, 2, 3]) * -1}, "not negative"),
        ({"preferences": np.array([[0.0, 0.5, 0.5]])}, "q0 of class 0 is 0"),
        ({"preferences": np.array([[0.0, 0.5, 0.5]]), "against": "pooled"}, "no class has a q0"),
        ({"target": -0.1}, "target"),
        ({"carry_request_points": math.inf}, "carry"),
        ({"previous": np.ones(3)}, "previous"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve(small(**changes))


def test_a_model_has_a_shape() -> None:
    with pytest.raises(ValueError, match="the model is for"):
        BankModel(4, 1, 3).solve(small())
    with pytest.raises(ValueError, match="no hours"):
        BankModel(0, 1, 3)


# --- properties ----------------------------------------------------------------------------------


@st.composite
def problems(draw: st.DrawFn, *, easy: bool = False) -> Problem:
    """Up to 5 hours, 3 classes, 5 levels; quiet hours, ties, zeros, caps, carries.

    Easy: no caps, minima that all-L0 meets, carries that it can repay, so that there is a policy.
    """
    hours, classes, levels = (draw(st.integers(1, most)) for most in (5, 3, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    coarse = draw(st.booleans())  # many ties and zeros

    def numbers(*shape: int) -> Array:
        values = rng.uniform(0, 1, shape)
        return np.round(values * 4) / 4 if coarse else np.round(values, 4)

    q = numbers(classes, levels)
    q[:, 0] = np.maximum(q[:, 0], 0.25)
    k0 = numbers(hours) * draw(st.sampled_from([0.0, 1.0, 500.0]))
    k1 = draw(st.sampled_from([0.0, 1e-4]))
    costs = k0[:, None, None] * numbers(classes, levels) * 3e-4 + k1 * numbers(classes, levels)
    n = numbers(hours, classes) * draw(st.sampled_from([1.0, 1e5]))
    assume(n.sum() > 0)
    least = tuple(numbers(levels) / (2 * levels)) if draw(st.booleans()) else None
    most = tuple(np.minimum(1, numbers(levels) / 2 + 1 / levels)) if draw(st.booleans()) else None
    before = numbers(classes, levels) + 0.01
    minimum = draw(st.sampled_from([0.0, 0.5, 0.8, 1.0]))
    if easy:
        least = most = None
        q[:, 0] = np.maximum(q[:, 0], 0.5)
    return Problem(
        costs,
        n,
        q,
        target=draw(st.sampled_from([0.7, 0.9, 0.95] if easy else [0.0, 0.7, 0.9, 0.97, 1.0])),
        hourly_minimum=minimum,
        class_minimum=numbers(classes) if draw(st.booleans()) else None,
        carry_request_points=float(draw(st.sampled_from([0, 0, -3, 3])) * n.sum()),
        against=draw(st.sampled_from(["own", "pooled"])),
        caps=Caps(least, most, draw(st.sampled_from([None, 0.1]))),
        previous=before / before.sum(1, keepdims=True) if draw(st.booleans()) else None,
    )


def written_out(p: Problem) -> dict[str, object]:
    """The same program for scipy, row by row from the formulae, in requests and grams."""
    hours, classes, levels = p.shape
    n, q = p.requests, p.preferences
    columns = hours * classes * levels
    at = np.arange(columns).reshape(p.shape)
    scale, mean = float(p.costs_g.max()) or 1.0, float(n.mean())
    c = (n[..., None] * p.costs_g / scale / mean).ravel()
    above, right, equal = [], [], []
    budget, need = np.zeros(columns), -p.carry_request_points / 100 / mean
    bounds: list[tuple[float, float]] = []
    for t in range(hours):
        hour, of_hour = np.zeros(columns), 0.0
        q_t = (n[t] @ q[:, 0] / n[t].sum()) if n[t].sum() > 0 else 1.0
        for k in range(classes):
            one = np.zeros(columns)
            one[at[t, k]] = 1
            equal.append(one)
            r = q[k] / (q[k, 0] if p.against == "own" else q_t)
            hour[at[t, k]] = n[t, k] / mean * r
            of_hour += n[t, k] / mean
            budget[at[t, k]] = n[t, k] / mean * r
            if p.class_minimum is not None and n[t, k] > 0:
                row = np.zeros(columns)
                row[at[t, k]] = q[k] / q[k, 0]
                above.append(row)
                right.append(p.class_minimum[k])
            before = None if p.previous is None or t > 0 else p.previous[k].tolist()
            bounds += zip(*p.caps.bounds(levels, before), strict=True)
        above.append(hour)
        right.append(p.hourly_minimum * of_hour)
        need += p.target * of_hour
    above.append(budget)
    right.append(need)
    return {
        "c": c,
        "A_ub": -np.array(above),
        "b_ub": -np.array(right),
        "A_eq": np.array(equal),
        "b_eq": np.ones(len(equal)),
        "bounds": bounds,
        "method": "highs",
    }


@settings(max_examples=200, deadline=None)
@given(problems())
def test_as_good_as_scipy(problem: Problem) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    try:
        program = written_out(problem)
    except InfeasibleError:  # the caps leave no mix
        with pytest.raises(InfeasibleError):
            solve(problem)
        return
    theirs = optimize.linprog(**program)
    try:
        ours = solve(problem)
    except InfeasibleError:
        assert theirs.status == 2
        return
    if ours.short_request_points > 0:
        # without the budget's row it can be solved, with it not
        assert theirs.status == 2
        program["A_ub"], program["b_ub"] = program["A_ub"][:-1], program["b_ub"][:-1]  # type: ignore[index]
        assert optimize.linprog(**program).status == 0
        return
    x = ours.shares.ravel()
    assert ours.shares.sum(-1) == pytest.approx(1, abs=1e-9)
    assert (program["A_ub"] @ x <= program["b_ub"] + 1e-7).all()  # type: ignore[operator]
    assert theirs.status == 0
    assert program["c"] @ x == pytest.approx(theirs.fun, abs=1e-6)
    lower, upper = np.array(program["bounds"]).T
    assert ((x >= lower - 1e-7) & (x <= upper + 1e-7)).all()


@settings(max_examples=60, deadline=None)
@given(problems(easy=True), st.floats(0, 1))
def test_the_price_is_a_slope_of_the_optimal_cost(problem: Problem, ease: float) -> None:
    """Cost is convex in the carry: the line with the price as slope stays below it."""
    points = (ease - 0.3) * problem.requests.sum()
    here = solve(problem)
    there = solve(replace(problem, carry_request_points=problem.carry_request_points + points))
    assert here.short_request_points == there.short_request_points == 0
    assert here.price_g_per_point >= 0
    line = here.expected_g - here.price_g_per_point * points
    assert line <= there.expected_g + 1e-5 * (here.expected_l0_g + abs(line))


@settings(max_examples=60, deadline=None)
@given(problems(), st.floats(0, 1))
def test_looser_never_costs_more(problem: Problem, ease: float) -> None:
    try:
        tight = solve(problem)
    except InfeasibleError:
        assume(False)
    assume(tight.short_request_points == 0)
    for looser in (
        replace(problem, target=problem.target * ease),
        replace(problem, hourly_minimum=problem.hourly_minimum * ease),
        replace(
            problem,
            carry_request_points=problem.carry_request_points + ease * problem.requests.sum(),
        ),
    ):
        assert solve(looser).expected_g <= tight.expected_g + 1e-6 * (1e-9 + tight.expected_l0_g)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(10, 600), min_size=2, max_size=8), st.floats(0.86, 1))
def test_a_bank_never_costs_more_than_a_floor_or_a_static_mix(
    k0: list[float], target: float
) -> None:
    """Both are feasible in the bank's program: at the same mean it can only be better."""
    costs = grams(k0)
    n = np.full((len(k0), 1), 10.0)
    bank = solve(Problem(costs, n, Q, target))
    static = lp.solve(costs.mean((0, 1)).tolist(), Q[0].tolist(), target * 0.4)
    assert bank.expected_g <= 10 * costs.sum((0, 1)) @ static.shares * (1 + 1e-9)
    tilted = [target + 0.02 * (0.5 - i / (len(k0) - 1)) for i in range(len(k0))]
    hourly = [
        lp.solve(c[0].tolist(), Q[0].tolist(), min(floor, 1.0) * 0.4).shares
        for c, floor in zip(costs, tilted, strict=True)
    ]
    mean = float(np.mean([np.dot(x, Q[0]) / 0.4 for x in hourly]))
    spent = 10 * sum(float(c[0] @ x) for c, x in zip(costs, hourly, strict=True))
    assert solve(Problem(costs, n, Q, mean)).expected_g <= spent * (1 + 1e-7)


@settings(max_examples=40, deadline=None)
@given(problems(), st.floats(0, 1))
def test_a_kept_model_answers_as_a_new_one(problem: Problem, ease: float) -> None:
    """To the bit: the answer does not hang on what was solved before."""
    model = BankModel(*problem.shape)
    before = replace(
        problem,
        target=problem.target * ease,
        costs_g=problem.costs_g[::-1] ** 2,
        preferences=problem.preferences[:, ::-1].copy(),
    )
    try:
        new = solve(problem)
        model.solve(replace(problem, target=problem.target * ease))
        model.solve(before)
    except (InfeasibleError, ValueError):
        assume(False)
    again = model.solve(problem)
    assert (again.shares == new.shares).all()
    assert again.price_g_per_point == new.price_g_per_point


def test_a_month_of_many_classes_against_scipy() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(5)
    hours, classes, levels = 48, 6, 4
    k0 = 300 + 150 * np.sin(np.arange(hours) / 24 * 2 * np.pi)
    e = np.sort(rng.uniform(0.05, 1, (classes, levels)), axis=1)[:, ::-1] * 3e-4
    q = np.sort(rng.uniform(0.1, 0.5, (classes, levels)), axis=1)[:, ::-1].copy()
    problem = Problem(k0[:, None, None] * e, rng.uniform(1, 1e3, (hours, classes)), q, 0.93, 0.85)
    ours = solve(problem)
    program = written_out(problem)
    theirs = optimize.linprog(**program)
    assert program["c"] @ ours.shares.ravel() == pytest.approx(theirs.fun, rel=1e-9)  # type: ignore[operator]
    assert ours.expected_preference >= 0.93 - 1e-9
