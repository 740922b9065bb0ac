# SPDX-License-Identifier: Apache-2.0
"""Drift: the tail against scipy, false alarms over a series, and what is said."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from sprout.evaluate.statistics.drift import (
    Drift,
    Measured,
    alpha_of,
    chi_square_tail,
    drift,
    ratio_moments,
)
from sprout.evaluate.statistics.quality import measure
from sprout.optimize.contrast import multinomial

NAMES = ("L0", "L1", "L2")


def evaluation(rng: np.random.Generator, q: tuple[float, ...], n: int) -> Measured:
    found = measure(np.eye(3)[rng.choice(3, size=n, p=q)], method="choice")
    return Measured(NAMES, found.preferences, found.covariance)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("x", [0.01, 1.0, 8.0, 60.0])
def test_the_tail(x: float, degrees: int) -> None:
    assert chi_square_tail(x, degrees) == pytest.approx(stats.chi2.sf(x, degrees), rel=1e-9)


def test_a_series_rings_by_chance_as_seldom_as_stated() -> None:
    """Twenty evaluations each, against the one before: ever an alarm in at most 20 %."""
    rng = np.random.default_rng(1)
    rang = 0
    for _ in range(200):
        series = [evaluation(rng, (0.4, 0.35, 0.25), 150) for _ in range(20)]
        rang += any(
            drift(old, new, test=k, alpha=0.2).alert
            for k, (old, new) in enumerate(itertools.pairwise(series), 1)
        )
    assert rang <= 56  # 40 at most are expected; more by chance in 1 of 400


def test_p_values_are_even() -> None:
    rng = np.random.default_rng(2)
    p = [
        drift(*(evaluation(rng, (0.4, 0.35, 0.25), 300) for _ in range(2)), test=1).p_value
        for _ in range(300)
    ]
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.09
    assert 0.4 <= np.mean(np.array(p) <= 0.5) <= 0.6


def test_what_moved_is_found_and_named() -> None:
    rng = np.random.default_rng(3)
    old, new = (evaluation(rng, q, 2000) for q in ((0.4, 0.36, 0.24), (0.45, 0.25, 0.3)))
    found = drift(old, new, test=3, alpha=0.05)
    assert isinstance(found, Drift)
    assert found.alert
    assert found.threshold == pytest.approx(0.05 * 6 / (9 * math.pi**2))
    assert found.what.startswith("quality moved")
    assert found.what.index("L1") < found.what.index("L2")  # it moved more, against its error
    assert "no drift shown" in drift(old, old, test=1).what


def test_what_is_spent_adds_up_to_alpha() -> None:
    assert math.fsum(alpha_of(k, 0.05) for k in range(1, 100_000)) == pytest.approx(0.05, rel=1e-4)


def test_the_delta_method_against_simulation() -> None:
    rng = np.random.default_rng(4)
    draws = rng.multinomial(2000, (0.4, 0.35, 0.25), size=4000) / 2000
    q = draws.mean(axis=0)
    _, s = ratio_moments(q, multinomial(q, 2000))
    assert s[1:, 1:] == pytest.approx(np.cov((draws / draws[:, :1])[:, 1:].T), rel=0.1)


def test_only_common_levels_are_compared() -> None:
    rng = np.random.default_rng(5)
    old = evaluation(rng, (0.4, 0.35, 0.25), 500)
    new = Measured(("L0", "L2"), old.preferences[[0, 2]], old.covariance[np.ix_([0, 2], [0, 2])])
    found = drift(old, new, test=1)
    assert found.p_value == 1
    assert "L2" in found.what
    assert "L1" not in found.what


def test_what_can_not_be_compared_is_refused() -> None:
    one = Measured(("L0", "L1"), np.array([0.5, 0.5]), np.eye(2) / 100)
    for other, why in (
        (Measured(("A", "L1"), one.preferences, one.covariance), "same level"),
        (Measured(("L0", "B"), one.preferences, one.covariance), "no level in common"),
        (Measured(("L0", "L1"), np.array([0.0, 1.0]), one.covariance), "q_0 is 0"),
    ):
        with pytest.raises(ValueError, match=why):
            drift(one, other, test=1)
    with pytest.raises(ValueError, match="counts from 1"):
        drift(one, one, test=0)
