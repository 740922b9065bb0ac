# SPDX-License-Identifier: Apache-2.0
"""q, its covariance and intervals: by hand, by resampling, and at the edges."""

import numpy as np
import pytest
from numpy.typing import NDArray

from sprout.evaluate.statistics.quality import Method, Quality, measure, wilson
from sprout.optimize.contrast import Certainty, multinomial
from sprout.proof.interval import Absent, Interval


def choices(*counts: int) -> NDArray[np.float64]:
    return np.repeat(np.eye(len(counts)), counts, axis=0)


def interval(quality: Quality, level: int) -> Interval:
    found = quality.ratios[level]
    assert isinstance(found, Interval)
    return found


def test_equal_choices_are_shares_with_the_multinomial_covariance() -> None:
    found = measure(choices(50, 30, 20), method="choice")
    assert found.preferences == pytest.approx([0.5, 0.3, 0.2])
    assert found.effective == pytest.approx(100)
    blank = (np.eye(3) / 3 - 1 / 9) / 100**2
    assert found.covariance - blank == pytest.approx(multinomial(found.preferences, 99))
    Certainty(0.95, found.covariance[None]).check(1, 3)  # what the optimizer asks of it


def test_the_interval_of_a_choice_is_wilsons_of_the_two_levels_alone() -> None:
    """Judgments that a third level won say nothing of the ratio of the other two."""
    found = interval(measure(choices(500, 300, 200), method="choice"), 1)
    low, high = wilson(300 / 800, 800, 1.9623)  # Student's t with 999 degrees
    assert found.value == pytest.approx(0.6)
    assert found.low == pytest.approx(low / (1 - low), rel=2e-3)
    assert found.high == pytest.approx(high / (1 - high), rel=2e-3)


def test_weights_count_as_repeated_prompts_would_but_are_no_surer() -> None:
    once = measure(choices(2, 1), method="choice", weights=[1, 1, 4])
    assert once.preferences == pytest.approx([1 / 3, 2 / 3])
    assert once.effective == pytest.approx(36 / 18)
    repeated = measure(choices(2, 4), method="choice")
    assert repeated.preferences == pytest.approx(once.preferences)
    assert once.covariance[1, 1] > repeated.covariance[1, 1]
    scaled = measure(choices(2, 1), method="choice", weights=[10, 10, 40])
    assert scaled.covariance == pytest.approx(once.covariance)


def test_weights_undo_an_uneven_sample() -> None:
    """Of two kinds of prompts one is drawn four times as often."""
    rng = np.random.default_rng(1)
    errors = []
    for _ in range(300):
        often = rng.random(400) < 0.8
        right = rng.random(400) < np.where(often, 0.9, 0.3)
        scores = np.column_stack([np.ones(400), right])
        found = measure(scores, method="exact", weights=np.where(often, 1.0, 4.0))
        errors.append((found.preferences[1] - 0.6) / np.sqrt(found.covariance[1, 1]))
    assert abs(np.mean(errors)) < 0.2
    assert 0.85 < np.std(errors) < 1.15


@pytest.mark.parametrize("n", [12, 100])
@pytest.mark.parametrize(
    ("method", "chances"),
    [("choice", (0.45, 0.35, 0.2)), ("pairwise", (0.35, 0.3, 0.35)), ("exact", (0.6, 0.5, 0.4))],
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    method: Method, chances: tuple[float, ...], n: int
) -> None:
    rng = np.random.default_rng(n)
    held = count = 0
    for _ in range(400):
        if method == "choice":
            scores = np.eye(3)[rng.choice(3, size=n, p=chances)]
            truth = np.array(chances) / chances[0]
        elif method == "pairwise":  # lost, tied, won, twice
            verdicts = rng.choice([0, 0.5, 1], size=(n, 2, 2), p=chances)
            scores = np.column_stack([np.ones(n), verdicts.sum(axis=2)])
            truth = np.ones(3)
        else:
            scores = (rng.random((n, 1)) < chances).astype(float)  # one difficulty a prompt
            truth = np.array(chances) / chances[0]
        for ratio, true in zip(measure(scores, method=method).ratios[1:], truth[1:], strict=True):
            if isinstance(ratio, Interval):
                held += ratio.low <= true <= ratio.high
                count += 1
    # Right answers that go together are the hardest (docs/evaluation_statistics.md).
    assert (0.91 if method == "exact" else 0.93) <= held / count <= 0.995


def test_a_level_that_never_won_has_an_upper_end() -> None:
    found = interval(measure(choices(20, 0, 10), method="choice"), 1)
    assert found.value == found.low == 0
    assert 0.05 < found.high < 0.5


def test_all_ties_are_not_certain() -> None:
    few = interval(measure(np.ones((5, 2)), method="pairwise"), 1)
    many = interval(measure(np.ones((500, 2)), method="pairwise"), 1)
    assert few.low < 0.8 < 1.2 < few.high
    assert 0.98 < many.low < 1 < many.high < 1.02
    assert measure(np.ones((5, 2)), method="pairwise").covariance[1, 1] > 0


def test_one_prompt_says_next_to_nothing() -> None:
    found = measure([[1, 2, 0]], method="pairwise")
    assert found.covariance == pytest.approx(np.diag([0, 2, 2]))
    assert interval(found, 1).high == 2
    assert interval(found, 1).low < 0.5
    assert interval(found, 2).low == 0


def test_l0_that_never_won_leaves_nothing_to_be_relative_to() -> None:
    found = measure(choices(0, 3, 2), method="choice")
    assert all(isinstance(ratio, Absent) for ratio in found.ratios)
    assert found.preferences == pytest.approx([0, 0.6, 0.4])


def test_l0_of_pairwise_is_known() -> None:
    found = measure([[1, 0.5], [1, 2], [1, 1]], method="pairwise")
    assert found.covariance[0] == pytest.approx([0, 0])
    assert interval(found, 0) == Interval(1, 1, 1)


@pytest.mark.parametrize(
    ("scores", "method", "weights", "why"),
    [
        ([], "choice", None, "not \\(prompts, levels\\)"),
        (np.empty((0, 2)), "choice", None, "no prompt"),
        ([[1, 3]], "pairwise", None, r"\[0, 2\]"),
        ([[0.5, 1]], "pairwise", None, "L0's score is 1"),
        ([[1, 1]], "choice", None, "add up"),
        ([[1, np.nan]], "exact", None, r"\[0, 1\]"),
        ([[1, 0]], "exact", [0], "above 0"),
        ([[1, 0]], "exact", [1, 1], "weights are"),
    ],
)
def test_what_can_not_be_is_refused(
    scores: object, method: Method, weights: object, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        measure(scores, method=method, weights=weights)  # type: ignore[arg-type]
