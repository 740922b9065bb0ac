# SPDX-License-Identifier: Apache-2.0
"""Whatever a judge says, the control plane takes what is made of it; classes are treated alike."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from some_evaluation import of_findings

from sprout.control import quality
from sprout.directives import pack
from sprout.evaluate import findings, limits
from sprout.evaluate.answers import Judged, Question
from sprout.evaluate.judges.account import Account
from sprout.evaluate.judges.verdict import Spent, Verdict
from sprout.evaluate.statistics.quality import Method

PACK = pack("paper")
LEVELS = len(PACK.levels)


def judged(
    rng: np.random.Generator, method: Method, tasks: list[str], wins: float, most_weight: float
) -> list[Judged]:
    """wins: how often a level's answer is the better one; 0 and 1 are among what can be."""
    found = []
    for k, task in enumerate(tasks):
        weight = float(np.exp(rng.uniform(0, math.log(most_weight))))
        tokens = tuple(rng.integers(0, 400, LEVELS).tolist())
        question = Question(str(k), "", task, weight=weight)
        if method == "pairwise":
            orders = tuple((float(a), float(b)) for a, b in rng.random((LEVELS - 1, 2)) < wins)
            scores = (1.0, *(a + b for a, b in orders))
            found.append(Judged(question, scores, orders, tokens))
        elif method == "choice":
            won = 0 if rng.random() >= wins else int(rng.integers(1, LEVELS))
            found.append(Judged(question, tuple(np.eye(LEVELS)[won].tolist())))
        else:
            right = rng.random(LEVELS) < [1 - wins / 2, *[wins] * (LEVELS - 1)]
            found.append(Judged(question, tuple(right.astype(float).tolist())))
    return found


@given(
    seed=st.integers(0, 2**32),
    method=st.sampled_from(["pairwise", "choice", "exact"]),
    prompts=st.integers(1, 120),
    classes=st.integers(1, 100),
    wins=st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]),
    most_weight=st.sampled_from([1.0, 30.0, 1e9]),
    length_corrected=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_whatever_was_judged_the_control_plane_takes_it(
    seed: int,
    method: Method,
    prompts: int,
    classes: int,
    wins: float,
    most_weight: float,
    length_corrected: bool,
) -> None:
    rng = np.random.default_rng(seed)
    tasks = [f"c{c}" if c else "" for c in rng.integers(0, classes, prompts)]
    found = findings.find(
        judged(rng, method, tasks, wins, most_weight), method, length_corrected=length_corrected
    )
    assume(found.pooled.preferences[0] > 0)  # else an evaluation says so and reports nothing
    quality.checked(of_findings(found, method), PACK, now=10.0)
    most = 2.0 if method == "pairwise" else math.inf
    assert all(high <= most for c in found.classes for high in c.high)


@pytest.mark.parametrize("steepness", [0.0, 2.9])
def test_a_level_that_always_won_is_not_better_than_that(steepness: float) -> None:
    """A weighted mean of 18 twos is 2.0000000000000004 on a machine."""
    for n in range(2, 60):
        rows = [
            Judged(Question(str(k), "", weight=0.1 + steepness * k / n), (1.0, 2.0, 2.0))
            for k in range(n)
        ]
        assert findings.find(rows, "pairwise").pooled.preferences.max() <= 2


def test_a_class_is_not_drawn_past_what_a_score_can_be() -> None:
    """Levels that go together elsewhere: a class's second level is lifted with its first."""
    rng = np.random.default_rng(4)
    rows = []
    for c in range(12):
        both = rng.uniform(0.1, 1.0)
        for k in range(6 if c else 3):
            won = 2.0 * float(rng.random() < both)
            scores = (1.0, won, won) if c else (1.0, float(k == 0), 2.0)
            rows.append(Judged(Question(f"{c}-{k}", "", f"c{c}"), scores))
    for c in findings.find(rows, "pairwise").classes:
        assert max(c.preference) <= 2
        assert max(c.high) <= 2


def test_the_largest_classes_have_a_q_of_their_own() -> None:
    rng = np.random.default_rng(5)
    most = limits.MAX_CLASSES
    tasks = [f"c{c}" for c in range(most + 9) for _ in range(2 + (c >= 9))]
    found = findings.find(judged(rng, "pairwise", tasks, 0.5, 1.0), "pairwise")
    assert [c.task for c in found.classes] == ["", *sorted(f"c{c}" for c in range(9, most + 9))]
    assert found.classes[0].judged == len(tasks)
    assert any(f"the {most} largest of {most + 9} classes" in note for note in found.notes)
    few = findings.find(judged(rng, "pairwise", tasks[-3:], 0.5, 1.0), "pairwise")
    assert not any("largest" in note for note in few.notes)


def by_length(task: str, prompts: int, rng: np.random.Generator) -> list[Judged]:
    """Both as good at equal length, and the level's answer much shorter; he likes long ones."""
    rows = []
    for k in range(prompts):
        shorter = int(rng.lognormal(4, 0.6))
        p = 1 / (1 + math.exp(1.5 * math.tanh(shorter / 60)))
        order = (float(rng.random() < p), float(rng.random() < p))
        tokens = (600, max(0, 600 - shorter))
        rows.append(Judged(Question(f"{task}{k}", "", task), (1.0, sum(order)), (order,), tokens))
    return rows


def test_small_classes_are_corrected_for_length_as_large_ones_are() -> None:
    rng = np.random.default_rng(1)
    rows = by_length("big", 1500, rng) + [
        one for c in range(8) for one in by_length(f"small{c}", 25, rng)
    ]
    plain = findings.find(rows, "pairwise")
    found = findings.find(rows, "pairwise", length_corrected=True)
    small = [c for c in found.classes if c.task.startswith("small")]
    assert len(small) == 8
    raw = [c.preference[1] for c in plain.classes if c.task.startswith("small")]
    assert np.mean(raw) < 0.75
    assert np.mean([c.preference[1] for c in small]) == pytest.approx(1, abs=0.2)
    for c in (*small, *found.classes[:2]):
        assert abs(c.preference[1] - 1) < 3 * math.sqrt(c.covariance[3])
    # What all are unsure by, the judge's leaning, is not lessened by borrowing from each other.
    corrected = found.classes[0].covariance[3]
    assert all(c.covariance[3] > 0.9 * corrected for c in small)


def test_a_class_that_always_wins_is_not_certain_at_equal_length() -> None:
    rng = np.random.default_rng(2)
    rows = by_length("big", 200, rng)
    for k in range(5):
        order = (1.0, 1.0)
        rows.append(Judged(Question(f"w{k}", "", "w"), (1.0, 2.0), (order,), (100, 50 + k)))
    found = findings.find(rows, "pairwise", length_corrected=True)
    w = next(c for c in found.classes if c.task == "w")
    assert w.covariance[3] > 0.01
    assert w.low[1] < 1.7


def test_intervals_of_classes_that_borrow_hold_the_truth() -> None:
    """Sizes down to ten prompts, where a normal approximation would be too narrow."""
    rng = np.random.default_rng(3)
    held = []
    for _ in range(60):
        rows, truth = [], {}
        for c, size in enumerate((120, 60, 30, 20, 12, 10)):
            p = rng.uniform(0.3, 0.5)
            truth[f"c{c}"] = 2 * p
            for k in range(size):
                won = 2.0 * float(rng.random() < p)
                rows.append(Judged(Question(f"{c}-{k}", "", f"c{c}"), (1.0, won)))
        for found in findings.find(rows, "pairwise").classes[1:]:
            held.append(found.low[1] <= truth[found.task] <= found.high[1])
    assert np.mean(held) > 0.93


def test_the_order_of_choices_is_told_by_those_who_heard_them() -> None:
    rng = np.random.default_rng(6)
    rows = judged(rng, "choice", ["", "math"] * 20, 0.5, 1.0)
    account = Account()
    for place in (0, 0, 0, 1, 2, 0):
        account.asked(Verdict(place, spent=Spent()), LEVELS)
    found = findings.find(rows, "choice", places=account.position)
    assert found.bias == {"position": pytest.approx(4 / 6 - 1 / LEVELS)}
    assert findings.find(rows, "choice", places=Account().position).bias == {}
    assert findings.find(rows, "choice").bias == {}
