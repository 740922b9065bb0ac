# SPDX-License-Identifier: Apache-2.0
"""The floor under a mix that was chosen by the very estimates it is judged by."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq, nnls
from scipy.stats import chi2

from sprout.optimize.bank import BankModel
from sprout.optimize.choice import z_of_choice
from sprout.optimize.contrast import Certainty, multinomial
from sprout.optimize.problem import Problem

WANTED = 0.9


def alone(*deviations: float) -> np.ndarray:
    """(1, levels, levels) of independent errors; L0's is 0."""
    return np.diag([0.0, *(d**2 for d in deviations)])[None]


def test_one_short_level_leaves_no_choice() -> None:
    assert z_of_choice(alone(0.05), WANTED, np.ones((1, 2))) == pytest.approx(1.2816, abs=0.04)


def test_two_levels_alike_are_a_chi_bar_square() -> None:
    """Both errors positive: two degrees of freedom. One: that one. None: nothing is flattered."""
    z = brentq(lambda z: chi2.sf(z**2, 1) / 2 + chi2.sf(z**2, 2) / 4 - 1 + WANTED, 1, 3)
    assert z == pytest.approx(1.72, abs=0.01)
    assert z_of_choice(alone(0.05, 0.02), WANTED, np.ones((1, 3))) == pytest.approx(z, abs=0.03)


def test_levels_that_go_together_are_one() -> None:
    s = np.zeros((1, 3, 3))
    s[:, 1:, 1:] = 0.01  # the same judgments
    assert z_of_choice(s, WANTED, np.ones((1, 3))) == pytest.approx(1.2816, abs=0.04)


def test_rows_that_share_their_judgments_are_one() -> None:
    s = multinomial(np.array([0.4, 0.34, 0.26]), 400)
    q = np.array([[0.4, 0.34, 0.26]])
    twice = np.broadcast_to(s[None, :, None], (2, 3, 2, 3))
    one = z_of_choice(s[None], WANTED, q)
    assert z_of_choice(twice, WANTED, np.repeat(q, 2, 0)) == pytest.approx(one, abs=1e-6)


def test_nothing_uncertain() -> None:
    assert z_of_choice(np.zeros((2, 3, 3)), WANTED, np.ones((2, 3))) == 0


@pytest.mark.parametrize("pooled", [False, True])
def test_against_projections_one_at_a_time(pooled: bool) -> None:
    """By another solver and other draws, in the space of the judgments."""
    rng = np.random.default_rng(5)
    q = rng.uniform(0.2, 0.5, (3, 3))
    s = np.array([multinomial(row / row.sum(), 200) for row in q])
    directions = []
    for c in range(3):
        for i in range(3):
            y = np.zeros((3, 3))
            y[c, i] += 1
            y[c, 0] -= (i > 0) if pooled else q[c, i] / q[c, 0]
            if y.any():
                values, vectors = np.linalg.eigh(s[c])
                b = np.zeros((3, 2))  # shares add up to 1: the first eigenvalue is 0
                b[c] = np.sqrt(values[1:]) * (vectors[:, 1:].T @ y[c])
                directions.append(b.ravel())
    g = np.array(directions).T
    g /= np.linalg.norm(g, axis=0)
    lengths = [math.hypot(*(g @ nnls(g, z)[0])) for z in rng.standard_normal((4000, 6))]
    expected = np.quantile(lengths, WANTED)
    assert z_of_choice(s, WANTED, None if pooled else q) == pytest.approx(expected, abs=0.06)


# --- over the draws of the judgments -------------------------------------------------------------


def held(of: str, truth: np.ndarray, judged: int, rounds: int = 400) -> float:
    """How often the mix that was chosen by `judged` pairwise judgments meets the floor by the
    truth, q (levels,)."""
    rng = np.random.default_rng(8)
    model, costs, met = BankModel(1, 1, 3), np.array([[[60.0, 14.0, 13.0]]]), 0
    for _ in range(rounds):
        scores = 2.0 * (rng.random((judged, 2)) < truth[1:] / 2)
        q, s = np.append(1.0, scores.mean(0)), np.zeros((1, 3, 3))
        s[0, 1:, 1:] = np.cov(scores.T) / judged
        certainty = Certainty(WANTED, s, of)  # type: ignore[arg-type]
        found = model.solve(
            Problem(costs, np.ones((1, 1)), q[None], target=0.95, certainty=certainty)
        )
        met += float(found.shares[0, 0] @ truth) >= 0.95 - 1e-9
    return met / rounds


def test_the_floor_holds_as_often_as_was_asked_of_the_mix_that_was_chosen() -> None:
    """Three standard errors of a share of 400 are 4.5 points."""
    alike = np.array([1.0, 0.9, 0.9])
    assert held("mix", alike, 400) < WANTED - 0.06, "else there would be nothing to make up for"
    assert held("choice", alike, 400) >= WANTED - 0.045
    assert held("choice", np.array([1.0, 0.9, 0.4]), 400) >= WANTED - 0.045
