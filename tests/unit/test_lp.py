# SPDX-License-Identifier: Apache-2.0
"""The linear program against enumeration, scipy and hand-worked cases."""

import csv
import gzip
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from sprout.errors import InfeasibleError
from sprout.optimize import lp, program
from sprout.optimize.caps import Caps
from sprout.optimize.closed_form import closed_form, most_preferred
from sprout.optimize.floor import Range, place

COSTS = (1218.0, 273.0, 182.0)
PREFERENCES = (0.40, 0.34, 0.26)


Problem = tuple[list[float], list[float], float]


def sized_problems(n: int) -> st.SearchStrategy[Problem]:
    number = st.floats(0, 1, allow_nan=False).map(lambda v: round(v, 4))
    column = st.lists(number, min_size=n, max_size=n)
    scale = st.sampled_from([1e-6, 1e-3, 1.0, 1e4])
    costs = st.tuples(column, scale).map(lambda pair: [c * pair[1] for c in pair[0]])
    return st.tuples(costs, column, number)


def problems() -> st.SearchStrategy[Problem]:
    return st.integers(1, 8).flatmap(sized_problems)


@settings(max_examples=150, deadline=None)
@given(problems())
@example(([0.0, 3.12e-8, 0.0], [0.0, 0.9219, 0.0], 0.9062))
def test_feasible_and_as_good_as_the_closed_form(
    problem: Problem,
) -> None:
    costs, preferences, floor = problem
    assume(floor <= max(preferences))
    solution = lp.solve(costs, preferences, floor)
    scale = max(costs) or 1.0
    assert math.fsum(solution.shares) == pytest.approx(1, abs=1e-9)
    assert all(0 <= x <= 1 + 1e-12 for x in solution.shares)
    assert sum(x > 1e-9 for x in solution.shares) <= 2
    assert np.dot(preferences, solution.shares) >= floor - 1e-5 * (max(preferences) or 1)
    # The closed form's tolerances are absolute, as HiGHS's are: it is made for numbers about 1.
    top = max(preferences) or 1.0
    c, q = [cost / scale for cost in costs], [preference / top for preference in preferences]
    best = np.dot(c, closed_form(c, q, floor / top)[0])
    assert np.dot(c, solution.shares) == pytest.approx(best, abs=1e-5)
    assert solution.mismatch is None
    assert lp.solve(costs, preferences, floor) == solution  # deterministic


@settings(max_examples=60, deadline=None)
@given(problems())
def test_as_good_as_scipy(problem: Problem) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    costs, preferences, floor = problem
    scale = max(costs) or 1.0
    theirs = optimize.linprog(
        np.array(costs) / scale,
        A_ub=[[-q for q in preferences]],
        b_ub=[-floor],
        A_eq=[[1.0] * len(costs)],
        b_eq=[1.0],
        bounds=(0, 1),
    )
    if theirs.status == 2 and floor - max(preferences) > 1e-6:
        with pytest.raises(InfeasibleError):
            lp.solve(costs, preferences, floor)
    elif theirs.status == 0 and floor <= max(preferences):
        ours = lp.solve(costs, preferences, floor)
        assert np.dot(costs, ours.shares) / scale == pytest.approx(theirs.fun, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.floats(50, 500), st.floats(50, 500))
def test_dirtier_grid_never_means_more_l0(k_a: float, k_b: float) -> None:
    """The floor falls as k0 rises, so the share of short answers does not."""
    within = Range(50, 500, "test")

    def l0(k0: float) -> float:
        floor = place(k0, within, 0.1, 0.5)
        return lp.solve([k0 * e for e in COSTS], PREFERENCES, floor.relative * 0.40).shares[0]

    low, high = sorted((k_a, k_b))
    assert l0(low) >= l0(high) - 1e-6


def test_by_hand() -> None:
    # floor 0.37 lies half-way between L0 (0.40) and L1 (0.34); L0/L2 would need t = 11/14
    solution = lp.solve(COSTS, PREFERENCES, 0.37)
    assert solution.shares == pytest.approx((0.5, 0.5, 0), abs=1e-9)
    assert solution.active == "quality"


def test_no_floor_takes_the_cheapest() -> None:
    solution = lp.solve(COSTS, PREFERENCES, 0.0)
    assert solution.shares == pytest.approx((0, 0, 1))
    assert solution.active == "none"


def test_floor_at_the_best_level() -> None:
    solution = lp.solve(COSTS, PREFERENCES, 0.40)
    assert solution.shares == pytest.approx((1, 0, 0))
    assert solution.active == "quality"


def test_floor_above_all() -> None:
    with pytest.raises(InfeasibleError, match=r"0\.4100 is above .*at most 0\.4000"):
        lp.solve(COSTS, PREFERENCES, 0.41)


def test_short_answers_may_be_preferred() -> None:
    """q0 is not always the largest: a short level that is better and cheaper takes all."""
    assert lp.solve(COSTS, (0.3, 0.5, 0.2), 0.5).shares == pytest.approx((0, 1, 0))


@pytest.mark.parametrize(
    ("costs", "preferences", "expected"),
    [
        ((5, 5, 5), (0.2, 0.5, 0.3), (0, 1, 0)),  # equal cost: the best one
        ((0, 0, 0), (0.5, 0.3, 0.2), (1, 0, 0)),  # a grid of 0 g/kWh: no reason to shorten
        ((5, 5), (0.5, 0.5), (1, 0)),  # equal throughout: the earlier level
        ((7, 2, 2), (0.5, 0.3, 0.4), (0, 0, 1)),
    ],
)
def test_ties_go_to_quality(
    costs: tuple[float, ...], preferences: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    assert lp.solve(costs, preferences, 0.1).shares == pytest.approx(expected)


def test_realistic_grams_are_above_the_solvers_tolerance() -> None:
    """1e-5 g per request is near HiGHS's absolute 1e-7: unscaled, L1 and L2 would be a tie."""
    small = [c * 1e-11 for c in COSTS]
    assert lp.solve(small, PREFERENCES, 0.2).shares == pytest.approx((0, 0, 1))


@pytest.mark.parametrize(
    ("costs", "preferences", "floor"),
    [
        ((), (), 0.1),
        ((1.0,), (0.5, 0.5), 0.1),
        ((math.nan,), (0.5,), 0.1),
        ((-1.0,), (0.5,), 0.1),
        ((1.0,), (math.inf,), 0.1),
        ((1.0,), (0.5,), math.nan),
    ],
)
def test_nonsense_is_refused(
    costs: tuple[float, ...], preferences: tuple[float, ...], floor: float
) -> None:
    with pytest.raises(ValueError, match=r"want as many|finite"):
        lp.solve(costs, preferences, floor)


def test_a_solver_that_differs_is_reported_and_not_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = program.Found(program.OPTIMAL, [0.0, 0.0, 1.0], [0.0, 0.0], 182 / 1218)
    monkeypatch.setattr(program.Program, "run", lambda _: wrong)
    solution = lp.solve(COSTS, PREFERENCES, 0.37)
    assert solution.shares == pytest.approx((0.5, 0.5, 0))
    assert solution.mismatch is not None
    assert "floor missed by 0.11" in solution.mismatch
    assert "HiGHS costs -563 g" in solution.mismatch


def test_a_solver_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = program.Found("Unknown", [], [], 0.0)
    monkeypatch.setattr(program.Program, "run", lambda _: failed)
    solution = lp.solve(COSTS, PREFERENCES, 0.37)
    assert solution.shares == pytest.approx((0.5, 0.5, 0))
    assert solution.mismatch == "HiGHS: Unknown"


# --- the kept model ------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8).flatmap(lambda n: st.lists(sized_problems(n), min_size=2, max_size=5)))
def test_a_kept_model_answers_as_a_new_one(
    sequence: list[Problem],
) -> None:
    kept = lp.PaperModel(len(sequence[0][0]))
    for costs, preferences, floor in sequence:
        if floor > max(preferences):
            with pytest.raises(InfeasibleError):
                kept.solve(costs, preferences, floor)
            continue
        solution = kept.solve(costs, preferences, floor)
        assert solution.mismatch is None
        assert solution == lp.solve(costs, preferences, floor)


def test_q_of_zero_comes_and_goes_in_the_kept_model() -> None:
    model = lp.PaperModel(3)
    for q in (PREFERENCES, (0.4, 0.0, 0.0), (0.0, 0.0, 0.4), PREFERENCES):
        solution = model.solve(COSTS, q, 0.2)
        assert solution.mismatch is None
        assert solution == lp.solve(COSTS, q, 0.2)


# --- the price of quality ------------------------------------------------------------------------


def test_price_by_hand() -> None:
    # L0 for L1: 945 g for 0.06 of q; a point is 0.01 * 0.40
    solution = lp.solve(COSTS, PREFERENCES, 0.37)
    assert solution.price_g_per_point == pytest.approx((1218 - 273) / 0.06 * 0.004)
    # one point less of the floor saves just that
    less = lp.solve(COSTS, PREFERENCES, 0.37 - 0.004)
    saved = np.dot(COSTS, solution.shares) - np.dot(COSTS, less.shares)
    assert saved == pytest.approx(solution.price_g_per_point)


def test_price_at_a_kink_is_what_the_last_point_cost() -> None:
    at_l1 = lp.solve(COSTS, PREFERENCES, 0.34)
    assert at_l1.shares == pytest.approx((0, 1, 0))
    assert at_l1.price_g_per_point == pytest.approx((273 - 182) / 0.08 * 0.004)
    assert lp.solve(COSTS, PREFERENCES, 0.2).price_g_per_point == 0


@settings(max_examples=100, deadline=None)
@given(problems(), st.floats(0, 1))
def test_price_is_a_slope_of_the_optimal_cost(problem: Problem, other: float) -> None:
    """Cost is convex in the floor: the line through it with the price as slope stays below."""
    costs, preferences, floor = problem
    assume(floor <= max(preferences) and other <= max(preferences) and preferences[0] > 0)
    here = lp.solve(costs, preferences, floor)
    there = lp.solve(costs, preferences, other)
    points = (other - floor) / preferences[0] * 100
    line = np.dot(costs, here.shares) + here.price_g_per_point * points
    assert here.price_g_per_point >= 0
    scale = max(costs) or 1.0
    assert line <= np.dot(costs, there.shares) + 1e-6 * (scale + abs(line))


@settings(max_examples=60, deadline=None)
@given(problems(), st.floats(0, 1))
def test_a_looser_floor_never_costs_more(problem: Problem, ease: float) -> None:
    costs, preferences, floor = problem
    assume(floor <= max(preferences))
    tight = np.dot(costs, lp.solve(costs, preferences, floor).shares)
    loose = np.dot(costs, lp.solve(costs, preferences, floor * ease).shares)
    assert loose <= tight + 1e-6 * (max(costs) or 1.0)


# --- caps ----------------------------------------------------------------------------------------


def capped() -> st.SearchStrategy[tuple[list[float], list[float], float, Caps, list[float]]]:
    """A problem of 1 to 6 levels with caps that leave a mix, and a previous one."""

    def of_size(
        n: int,
    ) -> st.SearchStrategy[tuple[list[float], list[float], float, Caps, list[float]]]:
        unit = st.floats(0, 1).map(lambda v: round(v, 3))
        column = st.lists(unit, min_size=n, max_size=n)
        least = st.none() | column.map(lambda v: tuple(x / (2 * n) for x in v))
        most = st.none() | column.map(lambda v: tuple(min(1.0, x / 2 + 1 / n) for x in v))
        caps = st.builds(Caps, least=least, most=most, step=st.none() | unit)
        previous = column.filter(lambda v: sum(v) > 0.1).map(lambda v: [x / sum(v) for x in v])
        return st.tuples(column, column, unit, caps, previous)

    return st.integers(1, 6).flatmap(of_size)


# What the step and the largest shares leave is a mix only with the least shares.
ONLY_BY_LEAST = Caps((0.0, 0.0, 0.0, 0.125), (0.25, 0.25, 0.375, 0.25), step=0.0)


@settings(max_examples=150, deadline=None)
@given(capped())
@example(([0.0, 0.0, 0.0, 1.0], [0.0] * 4, 0.0, ONLY_BY_LEAST, [0.0, 0.5, 0.5, 0.0]))
def test_with_caps_as_good_as_scipy(
    problem: tuple[list[float], list[float], float, Caps, list[float]],
) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    costs, preferences, floor, caps, previous = problem
    try:
        lower, upper = caps.bounds(len(costs), previous)
    except InfeasibleError:
        assume(False)
    theirs = optimize.linprog(
        costs,
        A_ub=[[-q for q in preferences]],
        b_ub=[-floor],
        A_eq=[[1.0] * len(costs)],
        b_eq=[1.0],
        bounds=list(zip(lower, upper, strict=True)),
        method="highs",
    )
    if theirs.status == 2:
        most = np.dot(preferences, most_preferred(costs, preferences, lower, upper))
        if floor - most > 1e-6:
            with pytest.raises(InfeasibleError):
                lp.solve(costs, preferences, floor, caps, previous)
        return
    assert theirs.status == 0
    ours = lp.solve(costs, preferences, floor, caps, previous)
    assert ours.mismatch is None
    assert math.fsum(ours.shares) == pytest.approx(1, abs=1e-9)
    for x, low, high in zip(ours.shares, lower, upper, strict=True):
        assert low - 1e-9 <= x <= high + 1e-9
    assert np.dot(preferences, ours.shares) >= floor - 1e-6
    assert np.dot(costs, ours.shares) == pytest.approx(theirs.fun, abs=1e-5)


def test_free_bounds_change_nothing() -> None:
    for floor in (0.2, 0.26, 0.3, 0.34, 0.37, 0.4):
        free = closed_form(COSTS, PREFERENCES, floor)
        bounded = closed_form(COSTS, PREFERENCES, floor, (0.0,) * 3, (1.0,) * 3)
        assert bounded[0] == pytest.approx(free[0])
        assert bounded[1] == pytest.approx(free[1])


def test_caps_by_hand() -> None:
    # 5 % must go to L2; what is left must make up for its 0.08 less than L1
    solution = lp.solve(COSTS, PREFERENCES, 0.37, Caps(least=(0, 0, 0.05)))
    x0 = (0.37 - 0.05 * 0.26 - 0.95 * 0.34) / 0.06
    assert solution.shares == pytest.approx((x0, 0.95 - x0, 0.05))
    assert solution.binding_caps == ("least L2",)
    assert solution.active == "quality"
    alone = lp.solve(COSTS, PREFERENCES, 0.1, Caps(most=(1, 1, 0.6)))
    assert alone.shares == pytest.approx((0, 0.4, 0.6))
    assert (alone.active, alone.binding_caps) == ("caps", ("most L2",))


def test_exploration_is_no_constraint() -> None:
    """A level is kept alive on purpose: nothing is in the way of the cheapest mix."""
    explored = lp.solve(COSTS, PREFERENCES, 0.1, Caps(least=(0.01, 0.01, 0.01)))
    assert explored.shares == pytest.approx((0.01, 0.01, 0.98))
    assert explored.active == "none"
    assert set(explored.binding_caps) == {"least L0", "least L1"}
    both = lp.solve(COSTS, PREFERENCES, 0.1, Caps(least=(0.01,) * 3, most=(1, 1, 0.9)))
    assert both.active == "caps"
    step = lp.solve(COSTS, PREFERENCES, 0.1, Caps(least=(0.01,) * 3, step=0.1), (0.5, 0.5, 0))
    assert step.active == "caps"


@pytest.mark.parametrize(
    ("caps", "floor", "message"),
    [
        (Caps(least=(0, 0, 0.1)), 0.4, r"0\.4000 is 0\.0140 above .* \(0\.3860\).*least L2 alone"),
        (Caps(most=(0.5, 1, 1)), 0.38, r"0\.0100 above .*\(0\.3700\); in the way: most L0 alone"),
        (
            Caps(least=(0, 0.1, 0.1), most=(0.7, 1, 1)),
            0.395,
            r"0\.0210 above .*in the way: several caps",
        ),
    ],
)
def test_what_is_in_the_way_and_by_how_much(caps: Caps, floor: float, message: str) -> None:
    with pytest.raises(InfeasibleError, match=message):
        lp.solve(COSTS, PREFERENCES, floor, caps)


# --- the published measurements ------------------------------------------------------------------

DATA = Path(os.environ.get("SPROUT_DATA", Path(__file__).parents[3] / "shared" / "data"))
BUNDLE = DATA / "sprout2023"


@pytest.mark.data
@pytest.mark.skipif(not BUNDLE.is_dir(), reason=f"no replay data at {BUNDLE} (SPROUT_DATA)")
@pytest.mark.parametrize("zone", ["US-TEX-ERCO", "US-CAL-CISO", "AU-SA", "NL", "GB"])
@pytest.mark.parametrize("start_hour", [800, 3900, 7000])
def test_published_months_come_out_near_the_published_figures(zone: str, start_hour: int) -> None:
    """The published runs see another q each hour, sampled from that hour's prompts: in some hours
    L1 wins outright, which saves more at less preference. With one q for the whole year, as here,
    a window saves less than published, at a higher preference, and by no more than that explains.
    """
    energy, seconds, preferred = _published_requests()
    grid = _intensities(zone)
    window = grid[start_hour : start_hour + 720]
    within = Range(min(grid), max(grid), "whole trace")
    q = [preferred[i] / sum(preferred) for i in range(3)]
    ours = base = preference = 0.0
    for k0 in window:
        costs = [k0 * e + 1.6715e-4 * p for e, p in zip(energy, seconds, strict=True)]
        floor = place(k0, within, 0.1, 0.5)
        solution = lp.solve(costs, q, floor.relative * q[0])
        assert solution.mismatch is None
        relative = float(np.dot(q, solution.shares)) / q[0]
        assert relative >= floor.relative - 1e-6
        ours, base = ours + float(np.dot(costs, solution.shares)), base + costs[0]
        preference += relative / len(window)
    saving, published_preference, published_base_mg = _published(zone, start_hour)
    assert 1e3 * base / len(window) == pytest.approx(published_base_mg, rel=0.02)
    assert saving - 21 <= 100 * (1 - ours / base) <= saving
    assert published_preference <= 100 * preference <= published_preference + 3.5


def _published_requests() -> tuple[list[float], list[float], list[int]]:
    """Mean kWh and seconds by level, each task counted alike; how often each was preferred."""
    by_task: dict[str, list[list[float]]] = {}
    preferred = [0, 0, 0]
    with gzip.open(BUNDLE / "requests.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            values = [float(row[f"wh_l{i}"]) / 1e3 for i in range(3)]
            values += [float(row[f"s_l{i}"]) for i in range(3)]
            by_task.setdefault(row["task"], []).append(values)
            if row["preferred"]:
                preferred[int(row["preferred"])] += 1
    means = np.mean([np.mean(rows, axis=0) for rows in by_task.values()], axis=0)
    return [float(v) for v in means[:3]], [float(v) for v in means[3:]], preferred


def _intensities(zone: str) -> list[float]:
    with open(BUNDLE / "carbon" / f"{zone}.csv") as file:
        return [float(row["gco2_per_kwh_direct"]) for row in csv.DictReader(file)]


def _published(zone: str, start_hour: int) -> tuple[float, float, float]:
    with open(BUNDLE / "published.csv") as file:
        runs = {
            row["scheme"]: row
            for row in csv.DictReader(file)
            if (row["zone"], int(row["start_hour"])) == (zone, start_hour) and row["xi"] == "0.1"
        }
    run = runs["SPROUT"]
    return (
        float(run["carbon_saving_pct"]),
        float(run["normalised_preference_pct"]),
        float(run["base_mg_per_request"] or runs["BASE"]["base_mg_per_request"]),
    )
