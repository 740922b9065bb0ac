# SPDX-License-Identifier: Apache-2.0
"""Bounds that hold at every look, and the rule that stops on them."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sprout.evaluate.statistics.quality import Method
from sprout.evaluate.statistics.region import Region
from sprout.evaluate.statistics.sequential import Hour, Stopping
from sprout.optimize import lp

HOUR = Hour(costs_g=(1.2, 0.3, 0.2), floor=0.95)


def draw(rng: np.random.Generator, method: Method, n: int) -> tuple[NDArray[np.float64], float]:
    """Scores (n, 2) and the true ratio."""
    if method == "choice":
        return np.eye(2)[rng.choice(2, size=n, p=[0.55, 0.45])], 0.45 / 0.55
    if method == "exact":
        return (rng.random((n, 2)) < [0.7, 0.6]).astype(float), 6 / 7
    return np.column_stack([np.ones(n), rng.choice([0, 1, 2], size=n, p=[0.4, 0.3, 0.3])]), 0.9


@pytest.mark.parametrize("method", ["choice", "exact", "pairwise"])
def test_bounds_hold_at_all_looks_together(method: Method) -> None:
    """A generous alpha, so that a bound which is off shows: with 0.2, of 150 series of 40 looks at
    most 30 are expected to be missed ever; more than 45 are by chance in 1 of 500."""
    rng = np.random.default_rng(2)
    missed = 0
    for _ in range(150):
        region = Region(2, method=method, alpha=0.2, aim=0.1)
        scores, truth = draw(rng, method, 600)
        for batch in np.split(scores, 40):
            region.add(batch)
            if not region.low[1] <= truth <= region.high[1]:
                missed += 1
                break
    assert missed <= 45


def test_weights_move_the_bounds_to_what_they_stand_for() -> None:
    """Half of the prompts count a fifth: the ratio is that of the weighted population."""
    rng = np.random.default_rng(3)
    heavy = rng.random(6000) < 0.5
    right = rng.random(6000) < np.where(heavy, 0.9, 0.1)
    scores = np.column_stack([np.ones(6000), right])
    region = Region(2, method="exact", aim=0.1, most_weight=1.0)
    region.add(scores, np.where(heavy, 1.0, 0.2))
    truth = (0.9 + 0.2 * 0.1) / 1.2
    assert region.low[1] < truth < region.high[1]
    assert region.high[1] - region.low[1] < 0.1
    with pytest.raises(ValueError, match="above the stated most"):
        region.add(scores[:1], [1.5])


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.integers(0, 30))
@settings(max_examples=25, deadline=None)
def test_the_order_does_not_matter_to_what_is_known_now(won: list[int], cut: int) -> None:
    """All at once, or the same prompts sorted: the bounds of the moment are the same."""
    one, other = (Region(3, method="choice", aim=0.1) for _ in range(2))
    one.add(np.eye(3)[won])
    other.add(np.eye(3)[sorted(won)])
    assert one.low == pytest.approx(other.low)
    assert one.high == pytest.approx(other.high)
    # In two parts they can only be narrower: what was excluded before stays so.
    parts = Region(3, method="choice", aim=0.1)
    parts.add(np.eye(3)[won[:cut]] if won[:cut] else np.empty((0, 3)))
    parts.add(np.eye(3)[won[cut:]] if won[cut:] else np.empty((0, 3)))
    assert (parts.low >= one.low - 1e-9).all()
    assert (parts.high <= one.high + 1e-9).all()


def test_bounds_close_in() -> None:
    region = Region(2, method="pairwise", aim=0.05)
    assert (region.low[1], region.high[1]) == (0, 2)
    widths = []
    for _ in range(4):
        region.add(np.tile([[1.0, 0.0], [1.0, 2.0], [1.0, 1.0], [1.0, 1.0]], (200, 1)))
        widths.append(region.high[1] - region.low[1])
    assert widths == sorted(widths, reverse=True)
    # Not much wider than an interval for one look at 3,200 prompts (sd 0.707, z = 1.96).
    assert widths[-1] < 2 * 1.96 * 0.707 / math.sqrt(3200) * 1.6


def test_what_contradicts_itself_is_said_and_never_stops() -> None:
    rule = Stopping([HOUR], method="choice", most_g_ratio=9, most_points=90)
    rule.update(np.eye(3)[[0] * 900 + [1] * 100])
    verdict = rule.update(np.eye(3)[[1] * 9000 + [0] * 100])
    assert rule.region.contradicts_itself
    assert not verdict.stop
    assert "contradict" in verdict.why


def region_of(rule: Stopping, points: int = 9) -> list[NDArray[np.float64]]:
    sides = [
        np.linspace(low, high, points)
        for low, high in zip(rule.region.low[1:], rule.region.high[1:], strict=True)
    ]
    return [np.array([1.0, a, b]) for a in sides[0] for b in sides[1]]


def test_the_regret_is_the_worst_of_the_region() -> None:
    """Against a grid over the region, each point solved by itself."""
    rng = np.random.default_rng(4)
    hours = [Hour((1.2, 0.3, 0.2), 0.95, 2.0), Hour((0.6, 0.2, 0.15), 0.9)]
    rule = Stopping(hours, method="choice", most_g_ratio=0.1, most_points=1)
    verdict = rule.update(np.eye(3)[rng.choice(3, size=800, p=[0.4, 0.35, 0.25])])
    assert verdict.judged == 800
    spent = sum(h.weight * np.dot(h.costs_g, x) for h, x in zip(hours, verdict.shares, strict=True))
    excess, points = [], []
    for ratios in region_of(rule):
        best = sum(
            h.weight * np.dot(h.costs_g, lp.solve(h.costs_g, ratios.tolist(), h.floor).shares)
            for h in hours
        )
        excess.append(spent / best - 1)
        points += [100 * (h.floor - ratios @ x) for h, x in zip(hours, verdict.shares, strict=True)]
    assert verdict.regret_g_ratio == pytest.approx(max(excess), rel=1e-6)
    assert verdict.violation_points == pytest.approx(max(points), rel=1e-6)


def test_it_stops_when_both_are_within_limits_and_says_so() -> None:
    rng = np.random.default_rng(5)
    rule = Stopping([HOUR], method="choice", most_g_ratio=0.2, most_points=10)
    for _ in range(500):
        verdict = rule.update(np.eye(3)[rng.choice(3, size=10, p=[0.55, 0.27, 0.18])])
        within = verdict.regret_g_ratio <= 0.2 and verdict.violation_points <= 10
        assert verdict.stop == within
        if verdict.stop:
            break
    assert verdict.stop
    assert 20 < verdict.judged < 3000
    assert "within limits" in verdict.why
    assert math.fsum(verdict.shares[0]) == pytest.approx(1)


def test_the_plan_in_force_can_be_judged_instead() -> None:
    """All L0 violates nothing, and is as dear as can be."""
    rule = Stopping([HOUR], method="choice", most_g_ratio=9, most_points=1)
    verdict = rule.update(np.eye(3)[[0, 1, 2] * 100], shares=[(1, 0, 0)])
    assert verdict.violation_points == 0
    assert verdict.regret_g_ratio == pytest.approx(1.2 / 0.2 - 1)
    assert verdict.stop
    with pytest.raises(ValueError, match="plan is not for"):
        rule.update(np.empty((0, 3)), shares=[(1, 0)])


def test_nothing_judged_and_l0_that_never_won_go_on() -> None:
    rule = Stopping([HOUR], method="choice", most_g_ratio=9, most_points=99)
    for scores in (np.empty((0, 3)), np.eye(3)[[1, 2]]):
        verdict = rule.update(scores)
        assert not verdict.stop
        assert math.isinf(verdict.regret_g_ratio)
        assert verdict.shares == ()


@pytest.mark.parametrize(
    ("hours", "limits", "why"),
    [
        ([], (1, 1), "no hour"),
        ([HOUR, Hour((1.0,), 0.9)], (1, 1), "different numbers"),
        ([Hour((1.0, 0.5), 1.2)], (1, 1), "floor"),
        ([Hour((1.0, 0.0), 0.9)], (1, 1), "costs"),
        ([HOUR], (0, 1), "never reached"),
    ],
)
def test_what_can_not_be_is_refused(
    hours: list[Hour], limits: tuple[float, float], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        Stopping(hours, method="choice", most_g_ratio=limits[0], most_points=limits[1])


def wealth(rows: NDArray[np.float64], r: float, *, against_low: bool) -> float:
    """K(r) or K'(r) of scores (prompts, 2), as the formula says it, with the region's own bets."""
    region = Region(2, method="choice", alpha=0.1, aim=0.1)
    gains = rows[:, 1] / r - rows[:, 0] if against_low else r * rows[:, 0] - rows[:, 1]
    each = np.prod(1 + np.outer(region._bets, gains), axis=1)
    return float(np.exp(region._log_share) @ each)


@pytest.mark.parametrize("against_low", [True, False])
def test_no_bet_gains_at_the_true_ratio(against_low: bool) -> None:
    """Over all 3^6 series of six judgments, weighted by their chance, wealth is 1 on average."""
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    chances = np.array([0.5, 0.3, 0.2])
    mean = sum(
        chances[list(series)].prod() * wealth(rows[list(series)], 0.6, against_low=against_low)
        for series in itertools.product(range(3), repeat=6)
    )
    assert mean == pytest.approx(1)


def test_the_bounds_are_where_the_wealth_is_what_alpha_asks_for() -> None:
    """One level, two sides: 2 / 0.1 = 20 times the stake."""
    region = Region(2, method="choice", alpha=0.1, aim=0.1)
    rows = np.eye(2)[[0] * 200 + [1] * 150]
    region.add(rows)
    assert wealth(rows, region.low[1], against_low=True) == pytest.approx(20, rel=0.01)
    assert wealth(rows, region.high[1], against_low=False) == pytest.approx(20, rel=0.01)
