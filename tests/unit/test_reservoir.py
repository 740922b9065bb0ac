# SPDX-License-Identifier: Apache-2.0
"""The reservoir of sampled prompts: bounds, fairness between classes, equal chances, forgetting."""

import math
import random
from collections import Counter
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprout.control.reservoir import MAX_CLASSES, Reservoir
from sprout.v1 import control_pb2 as pb

START = 1_700_000_000.0
HOUR = 3600.0


class Rig:
    """A reservoir under a clock of its own."""

    def __init__(
        self, prompts: int = 100, retention_s: float = 24 * HOUR, salt: bytes = b""
    ) -> None:
        self.now = START
        self.ids = count(1)
        self.reservoir = Reservoir(prompts, retention_s, wall=lambda: self.now, salt=salt)

    def add(self, *tasks: str, at: float | None = None) -> int:
        at = self.now if at is None else at
        return self.reservoir.add([made(task, at, next(self.ids)) for task in tasks])


def made(task: str, at: float, number: int) -> pb.SampledPrompt:
    prompt = pb.SampledPrompt(id=number, text="t", task=task)
    prompt.sampled_at.FromNanoseconds(round(at * 1e9))
    return prompt


def tasks(drawn: list[pb.SampledPrompt]) -> dict[str, int]:
    return dict(Counter(prompt.task for prompt in drawn))


def test_few_prompts_are_all_kept_and_drawn():
    rig = Rig()
    assert rig.add("a", "a", "b") == 3
    assert rig.reservoir.counts() == {"a": 2, "b": 1}
    drawn = rig.reservoir.stock().draw(10, seed=1)
    assert tasks(drawn) == {"a": 2, "b": 1}
    assert {prompt.inclusion for prompt in drawn} == {1.0}


def test_classes_have_equal_room_as_far_as_they_last():
    rig = Rig(90)
    for _ in range(20):
        rig.add(*["a"] * 50, *["b"] * 20, "c")
    assert rig.reservoir.counts() == {"a": 35, "b": 35, "c": 20}
    assert tasks(rig.reservoir.stock().draw(30, seed=1)) == {"a": 10, "b": 10, "c": 10}
    assert tasks(rig.reservoir.stock().draw(90, seed=1)) == {"a": 35, "b": 35, "c": 20}
    left_out = {p.id for p in rig.reservoir.stock().draw(90, seed=1) if p.task == "c"}
    assert "c" not in tasks(rig.reservoir.stock().draw(90, 1, left_out))
    parts = sorted(tasks(rig.reservoir.stock().draw(31, seed=2)).values())
    assert parts == [10, 10, 11]


def test_a_draw_is_repeatable_and_another_seed_draws_others():
    rig = Rig()
    rig.add(*["a"] * 100)
    first, again, other = (
        [prompt.id for prompt in rig.reservoir.stock().draw(20, seed)] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert first != sorted(first)  # in random order: who stops early has a random part
    assert len(set(first)) == 20


def test_a_copy_changes_nothing():
    rig = Rig(10)
    prompts = [made("a", START, i + 1) for i in range(50)]
    kept = rig.reservoir.add(prompts)
    assert kept == 10
    for _ in range(5):
        assert rig.reservoir.add(prompts) == 10  # nor has what was given up another chance
    assert rig.reservoir.counts() == {"a": 10}


def test_prompts_are_forgotten_in_time():
    rig = Rig(retention_s=HOUR)
    rig.add("a", "b")
    rig.now += HOUR / 2
    rig.add("a")
    rig.now += HOUR / 2
    assert rig.reservoir.counts() == {"a": 1}
    rig.now += HOUR / 2
    assert rig.reservoir.stock().draw(10, seed=1) == []
    assert rig.reservoir.counts() == {}
    assert rig.add("a", at=rig.now - HOUR) == 0  # it was late
    assert rig.add("a", at=rig.now + 9 * HOUR) == 1  # a clock that is ahead gains nothing
    rig.now += HOUR
    assert rig.reservoir.counts() == {}


def test_classes_are_bounded():
    rig = Rig(10_000)
    for i in range(MAX_CLASSES + 10):
        rig.add(f"class {i}", "")
    counts = rig.reservoir.counts()
    assert len(counts) == MAX_CLASSES
    assert rig.reservoir.pooled == 11
    assert counts[""] == MAX_CLASSES + 10 + 11
    # The others keep their name, in the pool.
    drawn = rig.reservoir.stock().draw(1000, seed=1)
    assert {f"class {i}" for i in range(MAX_CLASSES + 10)} <= {prompt.task for prompt in drawn}
    rig.now += 25 * HOUR
    rig.add("new")
    assert rig.reservoir.counts() == {"new": 1}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 30), st.floats(0, 3 * HOUR)), max_size=25
    ),
    st.integers(1, 40),
)
def test_bounds_hold_whatever_comes(moves: list[tuple[str, int, float]], most: int):
    rig = Rig(most, retention_s=5 * HOUR)
    for task, n, pause_s in moves:
        rig.now += pause_s
        rig.add(*[task] * n, at=rig.now)
        counts = rig.reservoir.counts()
        assert sum(counts.values()) <= most
        drawn = rig.reservoir.stock().draw(most, seed=n)
        assert len({prompt.id for prompt in drawn}) == len(drawn)
        for prompt in drawn:
            assert prompt.sampled_at.ToNanoseconds() / 1e9 > rig.now - 5 * HOUR
            assert 0 < prompt.inclusion <= 1


def arrivals(rates: list[int]) -> list[list[float]]:
    """Times of arrivals, by hour."""
    return [[START + HOUR * (h + (i + 0.5) / n) for i in range(n)] for h, n in enumerate(rates)]


@pytest.mark.parametrize(
    "rates",
    [
        [40] * 30,
        [*[80] * 10, *[10] * 20],  # traffic falls: the chance rises again, in time
        [*[10] * 15, *[80] * 15],
        [*[100] * 2, *[0] * 25, *[30] * 8],
    ],
)
def test_older_and_newer_prompts_have_equal_chances(rates: list[int]):
    """Over many reservoirs: each prompt of the window is drawable as often as any other, and the
    sum of inverse chances is the number that came (within 4 standard errors, each of which is of a
    binomial, or from the runs themselves)."""
    runs, room, window_h = 120, 50, 24
    times = arrivals(rates)
    first = max(0, len(rates) - window_h)
    hits = [0] * len(rates)
    totals: list[float] = []
    for run in range(runs):
        rig = Rig(room, retention_s=window_h * HOUR, salt=b"%d" % run)
        for hour in times:
            for at in hour:
                rig.now = at
                rig.add("a")
        rig.now = START + len(rates) * HOUR
        drawn = rig.reservoir.stock().draw(room, seed=1)
        totals.append(sum(1 / prompt.inclusion for prompt in drawn))
        for prompt in drawn:
            hits[int((prompt.sampled_at.ToNanoseconds() / 1e9 - START) / HOUR)] += 1
    came = sum(rates[first:])
    overall = sum(hits) / (runs * came)
    for hour in range(len(rates)):
        expected = runs * rates[hour] * overall if hour >= first else 0.0
        # Reservoirs differ in their chance too, so a little more than binomial.
        assert abs(hits[hour] - expected) <= 5 * math.sqrt(expected + 1), hour
    mean = sum(totals) / runs
    error = math.sqrt(sum((t - mean) ** 2 for t in totals) / (runs - 1) / runs)
    assert abs(mean - came) <= 4 * error + 1e-9
    assert error < 0.05 * came  # which would show a bias of a fifth


def test_a_class_that_became_rare_is_kept_whole_again():
    rig = Rig(100)
    for _ in range(48):
        rig.now += HOUR
        rig.add(*["a"] * 60)
    assert rig.reservoir.stock().draw(1, seed=1)[0].inclusion < 0.1
    for _ in range(72):
        rig.now += HOUR
        rig.add("a")
    drawn = rig.reservoir.stock().draw(100, seed=1)
    assert len(drawn) == 24
    assert {prompt.inclusion for prompt in drawn} == {1.0}


def test_what_is_kept_does_not_follow_the_text():
    """Chances come from ids, which are random, and from a salt: not from what a client wrote."""
    rig, other = Rig(10, salt=b"one"), Rig(10, salt=b"other")
    prompts = [made("a", START, number) for number in random.Random(1).sample(range(1, 10**9), 200)]
    rig.reservoir.add(prompts)
    other.reservoir.add(prompts)
    assert {p.id for p in rig.reservoir.stock().draw(10, 1)} != {
        p.id for p in other.reservoir.stock().draw(10, 1)
    }
