# SPDX-License-Identifier: Apache-2.0
"""Judges with leanings, made to measure: q is left within 2 points of the truth."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize

from sprout.evaluate.statistics import choice, length, logistic, position
from sprout.proof.interval import Absent

Array = NDArray[np.float64]
N = 20_000
# Log-odds with which L1 and L2 beat L0, spread over prompts.
MEAN, SIGMA = np.array([-0.2, -0.6]), 1.0
TWO_POINTS = 0.02


def prompts(rng: np.random.Generator) -> tuple[Array, Array]:
    """Log-odds (prompts, 2) and the true q (2,)."""
    odds = MEAN + SIGMA * rng.standard_normal((N, 2))
    return odds, 2 * logistic.logistic(odds).mean(axis=0)


def both_orders(rng: np.random.Generator, first: Array, second: Array) -> Array:
    """Verdicts (prompts, 2, 2) of probabilities to win with L0 first and second."""
    return (rng.random((*first.shape, 2)) < np.stack([first, second], axis=-1)).astype(float)


def test_twenty_points_for_position_one_cancel_in_both_orders() -> None:
    rng = np.random.default_rng(1)
    odds, truth = prompts(rng)
    p = logistic.logistic(odds)
    orders = both_orders(rng, np.clip(p - 0.2, 0, 1), np.clip(p + 0.2, 0, 1))
    found = position.measure(orders)
    assert isinstance(found, position.Position)
    assert found.points == pytest.approx(20, abs=2.5)  # some is cut off at 0 and 1
    assert found.first.low > 0.6
    assert 2 * orders.mean(axis=(0, 2)) == pytest.approx(truth, abs=TWO_POINTS)
    # One order alone is far off: without the cancelling this test would fail.
    assert (np.abs(2 * orders[..., 0].mean(axis=0) - truth) > 0.3).all()


def test_a_leaning_on_the_log_odds_is_taken_out() -> None:
    """Both orders alone leave the worse level too good; the regression does not."""
    rng = np.random.default_rng(2)
    odds, truth = prompts(rng)
    lean = 1.5
    orders = both_orders(rng, logistic.logistic(odds - lean), logistic.logistic(odds + lean))
    found = position.measure(orders)
    assert isinstance(found, position.Position)
    assert found.points > 20
    assert 2 * orders.mean(axis=(0, 2))[1] - truth[1] > TWO_POINTS
    corrected = position.without(orders)
    assert corrected.preferences[1:] == pytest.approx(truth, abs=TWO_POINTS)
    assert corrected.preferences[0] == 1
    assert corrected.covariance[0] == pytest.approx([0, 0, 0])
    assert corrected.coefficient.low > 0.5


def test_no_leaning_is_not_found() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        found = position.measure(rng.choice([0, 0.5, 1], size=(30, 2, 2)))
        assert isinstance(found, position.Position)
        held += found.first.low <= 0.5 <= found.first.high
    assert held >= 183  # of 190 expected; fewer by chance in 1 of 100


def test_position_at_the_edges() -> None:
    assert isinstance(position.measure(np.ones((1, 2, 2))), Absent)
    alike = position.measure(np.tile([[[0.0, 1.0]]], (5, 1, 1)))
    assert isinstance(alike, position.Position)
    assert (alike.points, alike.consistent) == (50, 0)
    assert alike.first.low < 0.9  # five prompts are not for ever
    with pytest.raises(ValueError, match="orders are"):
        position.measure(np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        position.measure(np.full((3, 1, 2), np.nan))


def lengths(rng: np.random.Generator) -> Array:
    """Tokens (prompts, 3): shorter levels, though not always."""
    long = rng.lognormal(5, 0.6, N)
    shorter = rng.lognormal((-1, -1.5), 0.8, (N, 2))
    return np.column_stack([long, long[:, None] * shorter])


def judged_by_length(
    rng: np.random.Generator, odds: Array, tokens: Array, strength: float
) -> Array:
    more = tokens[:, 1:] - tokens[:, :1]
    p = logistic.logistic(odds + strength * np.tanh(more / more.std()))
    return np.column_stack([np.ones(N), (rng.random((2, N, 2)) < p).sum(axis=0)])


@pytest.mark.parametrize("strength", [0.7, 0.0])
def test_a_judge_who_prefers_the_longer_answer(strength: float) -> None:
    rng = np.random.default_rng(4)
    odds, truth = prompts(rng)
    tokens = lengths(rng)
    scores = judged_by_length(rng, odds, tokens, strength)
    found = length.without(scores, tokens)
    assert found.corrected.preferences[1:] == pytest.approx(truth, abs=TWO_POINTS)
    raw = np.abs(scores.mean(axis=0)[1:] - truth)
    assert (raw > 0.1).all() if strength else (raw < TWO_POINTS).all()
    taken = found.corrected.coefficient
    assert taken.low > 0.4 if strength else taken.low < 0 < taken.high
    assert 0.02 < found.reach < 0.3


def test_classes_that_differ_in_length_and_in_quality_don_t_pass_for_a_leaning() -> None:
    """Long answers where brevity costs most: without the class the length takes the blame."""
    rng = np.random.default_rng(5)
    long = rng.random(N) < 0.5
    odds = np.where(long[:, None], -1.0, 0.5) + np.zeros((N, 1))
    tokens = np.column_stack([np.where(long, 400, 60) * rng.lognormal(0, 0.3, N), np.full(N, 50.0)])
    scores = np.column_stack(
        [np.ones(N), 2.0 * (rng.random((N, 1)) < logistic.logistic(odds))[:, 0]]
    )
    truth = 2 * logistic.logistic(odds).mean()
    labels = ["long" if x else "short" for x in long]
    assert abs(length.without(scores, tokens).corrected.preferences[1] - truth) > 0.1
    found = length.without(scores, tokens, labels=labels).corrected
    error = found.preferences[1] - truth
    assert abs(error) < 3 * np.sqrt(found.covariance[1, 1])
    assert found.coefficient.low < 0 < found.coefficient.high


def test_length_that_tells_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="differs alike"):
        length.without([[1, 2], [1, 0]], [[10, 5], [20, 15]])
    with pytest.raises(ValueError, match="want"):
        length.without([[1, 2], [1, 0]], [[10, 5]])


def test_choices_in_random_order_lose_the_position() -> None:
    """A judge who picks the first shown as often as the published one did, 48.6 %."""
    rng = np.random.default_rng(6)
    q = np.array([0.5, 0.3, 0.2])
    lean = np.array([1.0, 0.55, 0.0])
    at = np.argsort(rng.random((N, 3)), axis=1)
    won = (np.log(q) + lean[at] + rng.gumbel(size=(N, 3))).argmax(axis=1)
    found = choice.without(won, at)
    assert found.by_position[0] > 0.45 > found.by_position[1] > found.by_position[2]
    assert found.preferences == pytest.approx(q, abs=0.01)
    assert (np.abs(found.preferences - q) < 3 * np.sqrt(np.diag(found.covariance))).all()
    assert np.abs(found.balanced - q).max() > 0.012  # pulled towards one third
    assert found.balanced.sum() == pytest.approx(1)


def test_balanced_choices_undo_an_uneven_order() -> None:
    """L0 stood first in most judgments; an indifferent judge who always takes the first."""
    at = np.array([[0, 1]] * 90 + [[1, 0]] * 10)
    won = np.array([0] * 90 + [1] * 10)
    assert choice.without(won, at).balanced == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("won", "at", "why"),
    [
        ([0], [[0, 1]], "want"),
        ([0, 1], [[0, 0], [1, 0]], "order of all levels"),
        ([0, 2], [[0, 1], [1, 0]], "level numbers"),
        ([0, 1], [[0, 1], [0, 1]], "balanced"),
    ],
)
def test_choices_that_can_not_be_are_refused(won: list[int], at: list[list[int]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        choice.without(won, at)


def test_the_regression_is_the_likelihoods_top() -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((300, 2))
    y = rng.choice([0, 0.5, 1], size=300)

    def loss(b: Array) -> float:
        eta = x @ b
        prior = logistic.PRIOR_PRECISION * float(b @ b) / 2
        return float((np.logaddexp(0, eta) - y * eta).sum()) + prior

    found = logistic.fit(y, x, np.arange(300))
    assert found.coefficients == pytest.approx(optimize.minimize(loss, np.zeros(2)).x, abs=1e-4)


def test_rows_of_one_prompt_make_it_no_surer() -> None:
    rng = np.random.default_rng(8)
    x, y = np.ones((100, 1)), (rng.random(100) < 0.3).astype(float)
    once = logistic.fit(y, x, np.arange(100))
    thrice = logistic.fit(np.repeat(y, 3), np.repeat(x, 3, axis=0), np.repeat(np.arange(100), 3))
    assert thrice.covariance == pytest.approx(once.covariance, rel=0.01)


def test_outcomes_that_are_separated_stay_finite() -> None:
    x = np.array([[-1.0], [-1.0], [1.0], [1.0]])
    found = logistic.fit(np.array([0.0, 0, 1, 1]), x, np.arange(4))
    assert 1 < found.coefficients[0] < 20
