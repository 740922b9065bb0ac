# SPDX-License-Identifier: Apache-2.0
"""Small classes borrow: better on average, honest about it, and never the wrong way."""

import numpy as np
import pytest

from sprout.evaluate.statistics.quality import Method, Quality, measure
from sprout.evaluate.statistics.shrinkage import between, shrink
from sprout.optimize.contrast import Certainty

SIZES = (400, 60, 30, 15, 15, 15)


def classes(
    rng: np.random.Generator, truth: np.ndarray[tuple[int, int], np.dtype[np.float64]]
) -> list[Quality]:
    return [
        measure(np.eye(3)[rng.choice(3, size=n, p=q)], method="choice", task=str(c))
        for c, (n, q) in enumerate(zip(SIZES, truth, strict=True))
    ]


@pytest.mark.parametrize("spread", [500.0, 30.0])
def test_the_squared_error_falls_and_the_covariance_says_by_how_much(spread: float) -> None:
    """Classes that are alike, and classes that differ as the published ones do."""
    rng = np.random.default_rng(6)
    own, shrunk, held = 0.0, 0.0, []
    for _ in range(150):
        truth = rng.dirichlet(spread * np.array([0.4, 0.35, 0.25]), size=len(SIZES))
        before = classes(rng, truth)
        for q, a, b in zip(truth, before, shrink(before).classes, strict=True):
            own += float(((a.preferences - q) ** 2).sum())
            shrunk += float(((b.preferences - q) ** 2).sum())
            held.append(np.abs(b.preferences - q) <= 1.96 * np.sqrt(np.diag(b.covariance)))
    assert shrunk < 0.75 * own
    assert np.mean(held) > 0.92


def test_classes_that_are_many_and_differ_are_left_alone() -> None:
    shares = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7], [0.4, 0.3, 0.3]])
    counts = np.round(20_000 * shares).astype(int)
    before = [
        measure(np.repeat(np.eye(3), row, axis=0), method="choice", task=str(c))
        for c, row in enumerate(counts)
    ]
    for a, b in zip(before, shrink(before).classes, strict=True):
        assert b.amount < 0.02
        assert b.preferences == pytest.approx(a.preferences, abs=1e-3)


def test_less_is_borrowed_by_those_who_have_more() -> None:
    found = shrink(classes(np.random.default_rng(7), np.tile([0.4, 0.35, 0.25], (6, 1))))
    amounts = [c.amount for c in found.classes]
    assert all(0 <= amount <= 1 for amount in amounts)
    assert amounts[0] < amounts[1] < min(amounts[3:])
    Certainty(0.95, np.stack([c.covariance for c in found.classes])).check(6, 3)


@pytest.mark.parametrize("method", ["choice", "pairwise"])
def test_what_is_known_stays(method: Method) -> None:
    """Shares add up to 1, and L0 of pairwise is 1, after as before."""
    rng = np.random.default_rng(8)
    before = []
    for c in range(5):
        scores = np.eye(3)[rng.choice(3, size=20)]
        if method == "pairwise":
            scores = np.column_stack([np.ones(20), rng.choice([0.0, 1.0, 2.0], size=(20, 2))])
        before.append(measure(scores, method=method, task=str(c)))
    for c in shrink(before).classes:
        known = c.preferences.sum() if method == "choice" else c.preferences[0]
        assert known == pytest.approx(1)
        direction = np.ones(3) if method == "choice" else np.array([1.0, 0, 0])
        assert float(direction @ c.covariance @ direction) == pytest.approx(0, abs=1e-12)


def test_one_class_and_classes_of_one_prompt() -> None:
    alone = measure([[1, 0], [0, 1]], method="choice", task="a")
    found = shrink([alone]).classes[0]
    assert (found.amount, found.preferences.tolist()) == (0, [0.5, 0.5])
    single = measure([[1, 0]], method="choice", task="b")
    both = shrink([alone, single]).classes
    assert both[1].amount > both[0].amount
    assert 0.5 < both[1].preferences[0] < 1


def test_between_is_the_moments_of_two_scalars_by_hand() -> None:
    """q = 0, 1 with variance 0.1 each: (0.25 - 0.05) / 0.5, plus 3 x 0.1."""
    b = between(np.array([[0.0], [1.0]]), np.full((2, 1, 1), 0.1), np.array([0.5, 0.5]))
    assert b == pytest.approx(np.array([[0.4 + 0.3]]))
    # Closer together than their noise: the moments' part is 0, not negative.
    b = between(np.array([[0.5], [0.5]]), np.full((2, 1, 1), 0.1), np.array([0.5, 0.5]))
    assert b == pytest.approx(np.array([[0.3]]))


def test_what_does_not_go_together_is_refused() -> None:
    a = measure([[1, 0]], method="choice", task="a")
    with pytest.raises(ValueError, match="no class"):
        shrink([])
    with pytest.raises(ValueError, match="twice"):
        shrink([a, a])
    with pytest.raises(ValueError, match="different levels"):
        shrink([a, measure([[1, 0]], method="exact", task="b")])
