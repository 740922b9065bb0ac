# SPDX-License-Identifier: Apache-2.0
"""Draws of prompts, and the weights that make a mean over them one over the requests."""

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from sprout.control.draw import Drawable, Stock, parts
from sprout.control.reservoir import MAX_CLASSES, Reservoir
from sprout.errors import ControlError
from sprout.evaluate import questions
from sprout.v1 import control_pb2 as pb

NOW = 1_700_000_000.0


def made(number: int, task: str = "", **fields: bool) -> pb.SampledPrompt:
    prompt = pb.SampledPrompt(id=number, text=f"t{number}", task=task, max_tokens=9, **fields)
    prompt.sampled_at.FromNanoseconds(round(NOW * 1e9))
    return prompt


def stock(sizes: dict[str, int], chance: float = 1.0) -> Stock:
    ids = iter(range(1, 10**9))
    return Stock(
        {
            task: Drawable(chance, [made(next(ids), task) for _ in range(size)])
            for task, size in sizes.items()
        }
    )


def reservoir(prompts: Iterable[pb.SampledPrompt], room: int = 10_000) -> Reservoir:
    found = Reservoir(room, 3600, wall=lambda: NOW, salt=b"s")
    found.add(prompts)
    return found


def whole(of: Stock, total: int, seed: int, most: int) -> list[pb.SampledPrompt]:
    """As an evaluation draws: calls of at most so many, each without what the others gave."""
    drawn: list[pb.SampledPrompt] = []
    while len(drawn) < total:
        had = {p.id for p in drawn}
        new = of.draw(min(most, total - len(drawn)), seed, had, total)
        if not new:
            break
        drawn += new
    return drawn


def weights(drawn: Iterable[pb.SampledPrompt]) -> Counter[str]:
    """Sum by task."""
    found: Counter[str] = Counter()
    for prompt in drawn:
        found[prompt.task] += prompt.stands_for
    return found


def test_parts_are_equal_as_far_as_classes_last():
    assert parts([100, 2, 50], 60) == [29, 2, 29]
    assert parts([5, 5], 100) == [5, 5]
    assert parts([9, 9, 9], 10) == [3, 3, 4]
    assert parts([], 10) == []


def test_the_weights_of_a_draw_add_up_to_what_its_classes_stand_for():
    drawn = stock({"a": 300, "b": 40, "c": 3}, chance=0.25).draw(60, seed=1)
    assert Counter(p.task for p in drawn) == {"c": 3, "a": 29, "b": 28}
    assert weights(drawn) == pytest.approx({"a": 1200, "b": 160, "c": 12})
    assert {p.inclusion for p in drawn} == {0.25}


@pytest.mark.parametrize("most", [7, 25, 1000])
def test_in_however_many_calls_it_is_one_draw(most: int):
    """The classes don't last equally long, so later calls would give another mix of them."""
    of = stock({"a": 300, "b": 40, "c": 3})
    one = [(p.id, p.stands_for) for p in of.draw(100, seed=5)]
    assert [(p.id, p.stands_for) for p in whole(of, 100, 5, most)] == one
    assert len({number for number, _ in one}) == 100


def test_all_of_it_can_be_drawn_and_then_there_is_no_more():
    of = stock({"a": 30, "b": 4})
    drawn = whole(of, 100, 1, 10)
    assert len(drawn) == 34
    assert {p.stands_for for p in drawn} == {1.0}
    assert of.draw(10, 1, {p.id for p in drawn}, 100) == []


def test_without_a_total_a_draw_counts_what_the_caller_has():
    of = stock({"a": 300, "b": 10})
    first = of.draw(20, seed=1)
    assert weights(first) == pytest.approx({"a": 300, "b": 10})
    second = of.draw(20, 1, {p.id for p in first})
    assert {p.task for p in second} == {"a"}  # b is used up
    assert {p.stands_for for p in second} == {300 / 30}
    # More of a class than its part: the others still get theirs.
    has = {p.id for p in of.classes["a"].prompts[:100]}
    third = of.draw(10, 1, has)
    assert Counter(p.task for p in third) == {"b": 10}


def test_what_comes_between_two_calls_moves_little():
    before = stock({"a": 400, "b": 400})
    first = before.draw(50, 3, total=100)
    after = Stock(
        {
            task: Drawable(1.0, [*group.prompts[4:], made(10_000 + i, task)])
            for i, (task, group) in enumerate(before.classes.items())
        }
    )
    second = after.draw(50, 3, {p.id for p in first}, 100)
    old = {p.id for p in before.draw(100, 3)}
    assert sum(p.id in old for p in second) >= 45
    assert weights([*first, *second]) == pytest.approx({"a": 400, "b": 400}, rel=0.05)


def test_prompts_of_the_clients_own_level_stand_for_nothing():
    """Else the ten of `code` that a policy decided on would stand for a hundred."""
    chat = [made(i, "chat") for i in range(1, 101)]
    code = [made(i, "code", pinned=i % 3 == 1, off=i % 3 == 2) for i in range(201, 231)]
    of = reservoir([*chat, *code])
    assert of.counts() == {"chat": 100, "code": 10}
    assert (of.size(), of.chosen) == (110, 20)
    assert weights(of.stock().draw(1000, 0)) == {"chat": 100, "code": 10}


def test_pooled_classes_have_the_weight_of_the_pool():
    ids = iter(range(1, 10**6))
    named = [made(next(ids), f"c{c}") for c in range(MAX_CLASSES - 1) for _ in range(10)]
    late = [made(next(ids), "late") for _ in range(300)]
    of = reservoir([*named, *late, *(made(next(ids)) for _ in range(10))]).stock()
    found = weights(of.draw(1000, 0))
    assert (found["late"], found[""], found["c7"]) == pytest.approx((300, 10, 10))
    found = weights(of.draw(320, 0))  # five of each class
    assert sum(found.values()) == pytest.approx(940)
    assert found["late"] + found[""] == pytest.approx(310)
    assert found["c7"] == pytest.approx(10)


# (prompts, share that a level wins) by class: the mean over requests is far from that over classes.
POPULATION = {"chat": (600, 0.9), "code": (150, 0.3), "maths": (40, 0.6)}


def estimates(seed: int, room: int, total: int, most: int) -> tuple[float, float, float]:
    """Weighted means: over the draw, over its first call, and the draw's plain one."""
    choice = random.Random(seed)
    ids = iter(choice.sample(range(1, 2**63), sum(n for n, _ in POPULATION.values())))
    won: dict[int, float] = {}
    came = []
    for task, (n, wins) in POPULATION.items():
        for i in range(n):
            came.append(made(next(ids), task))
            won[came[-1].id] = float(i < n * wins)
    choice.shuffle(came)
    of = Reservoir(room, 3600, wall=lambda: NOW, salt=b"%d" % seed)
    of.add(came)
    drawn = whole(of.stock(), total, seed, most)

    def mean(some: Sequence[pb.SampledPrompt]) -> float:
        w = np.array([p.stands_for for p in some])
        return float(w @ np.array([won[p.id] for p in some]) / w.sum())

    return mean(drawn), mean(drawn[:most]), sum(won[p.id] for p in drawn) / len(drawn)


def test_the_pooled_estimate_is_that_of_the_requests():
    """Over many reservoirs that keep a part and draws that take a part of that in several calls:
    the mean is true within 4 standard errors, for an evaluation that stops after the first call
    too. The errors are small beside what is wrong with the plain mean."""
    runs = 150
    found = np.array([estimates(seed, room=300, total=120, most=50) for seed in range(runs)])
    truth = sum(n * w for n, w in POPULATION.values()) / sum(n for n, _ in POPULATION.values())
    errors = found.std(axis=0, ddof=1) / math.sqrt(runs)
    assert errors.max() < 0.01
    for column in (0, 1):
        assert abs(found[:, column].mean() - truth) <= 4 * errors[column]
    assert abs(found[:, 2].mean() - truth) > 0.1


# --- as questions --------------------------------------------------------------------------------


def test_a_question_has_the_weight_that_its_prompt_was_drawn_with():
    drawn = stock({"a": 300, "": 2}).draw(12, seed=1)
    found = questions.sampled(drawn)
    assert [(q.id, q.text, q.task, q.max_tokens) for q in found] == [
        (f"{p.id:016x}", p.text, p.task, 9) for p in drawn
    ]
    assert sorted({q.weight for q in found}) == [1.0, 30.0]
    # Of two draws: what each stands for, whatever the mean of either.
    other = questions.sampled(stock({"b": 60}).draw(6, seed=1))
    assert {q.weight for q in other} == {10.0}
    assert questions.sampled([]) == []


def test_a_control_plane_that_gives_no_weights_is_named():
    with pytest.raises(ControlError, match="stands for"):
        questions.sampled([made(1)])
