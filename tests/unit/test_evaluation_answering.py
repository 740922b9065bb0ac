# SPDX-License-Identifier: Apache-2.0
"""An evaluation's answers: what starts when, what is tried again, what is left out."""

import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from answering_engine import Engine, make, questions

from sprout.errors import (
    ConfigError,
    EngineError,
    RequestCancelled,
    RequestError,
)
from sprout.evaluate.answering import GIVE_UP_AFTER
from sprout.evaluate.answers import Question
from sprout.evaluate.traffic import Slots
from sprout.serve import client
from sprout.serve.client import Receipt


def test_every_question_at_every_level_with_its_receipts() -> None:
    made = make(Engine())
    (first, second) = made.answers([*questions(1), Question("own", "?", max_tokens=3)])
    assert [a.level for a in first.answers] == [0, 1, 2]
    assert [a.text for a in first.answers] == ["at L0", "at L1", "at L2"]
    assert [a.energy_joules for a in first.answers] == [10, 20, 30]
    assert [a.truncated for a in first.answers] == [True, False, False]
    assert first.answers[0].output_tokens == 64
    assert first.answers[1].input_tokens == 5
    assert first.answers[1].carbon_g == 0.5
    assert not first.answers[0].energy_estimated
    assert second.question.id == "own"
    assert second.answers[0].output_tokens == 3
    assert (made.tally.requests, made.tally.answered, made.tally.left_out) == (6, 2, 0)
    assert made.held_too_long == ""


def test_what_was_not_metered_is_no_zero() -> None:
    class Unmetered(Engine):
        def answer(self, level: int, max_tokens: int) -> client.Answer:
            return client.Answer("?", receipt=Receipt(level, 0, math.nan, math.nan, math.nan))

    made = make(Unmetered())
    (answered,) = made.answers(questions(1))
    assert all(a.energy_estimated and a.carbon_g is None for a in answered.answers)
    assert made.tally.unmetered == 3
    assert made.tally.carbon_unknown == made.tally.estimated == 3


@pytest.mark.parametrize("concurrency", [1, 3])
def test_at_most_so_many_at_once_and_all_of_them(concurrency: int) -> None:
    together = threading.Barrier(concurrency)

    class Slow(Engine):
        def work(self, on_text: Callable[[str], None]) -> None:
            together.wait(timeout=60)  # broken unless that many are there at once

    engine = Slow()
    made = make(engine, concurrency=concurrency)
    answered = list(made.answers(questions(3 * concurrency)))
    assert len(answered) == 3 * concurrency
    assert engine.most == concurrency


class Scripted:
    """Clients as a list says, a number a look; the last one stays. Keeps what it said."""

    def __init__(self, *clients: int | None) -> None:
        self._clients = iter(clients[:-1])
        self._last = clients[-1]
        self.said: list[int | None] = []

    def clients(self, own: int) -> int | None:
        self.said.append(next(self._clients, self._last))
        return self.said[-1]


def test_a_request_starts_only_while_clients_are_under_the_bound() -> None:
    traffic = Scripted(5, 2, None, 1, 0, 7, 2, 1, 1)
    seen_at_start: list[int | None] = []

    class Watched(Engine):
        def work(self, on_text: Callable[[str], None]) -> None:
            seen_at_start.append(traffic.said[-1])

    made = make(Watched(), traffic, bound=2)
    list(made.answers(questions(1)))
    assert seen_at_start == [1, 0, 1]  # never 5, 2, 7, and not where nobody knows
    assert len(traffic.said) == 8
    assert made.tally.held == 2


def test_of_many_starts_none_is_over_the_bound() -> None:
    """Clients come and go by chance; every single start is looked at."""
    traffic = Scripted(*itertools.islice(itertools.cycle([0, 3, 1, 4, 2, 0, 9, 9, 1]), 900), 0)
    starts: list[int | None] = []

    class Watched(Engine):
        def work(self, on_text: Callable[[str], None]) -> None:
            starts.append(traffic.said[-1])

    list(make(Watched(), traffic, bound=3).answers(questions(60)))
    assert len(starts) == 180
    assert set(starts) == {0, 1, 2}


def test_held_for_too_long_ends_the_evaluation_and_says_why() -> None:
    made = make(Engine(), Scripted(0, 0, 0, 4), bound=4, hold_s=0.01)
    answered = list(made.answers(questions(5)))
    assert [a.question.id for a in answered] == ["q0"]
    assert "4 requests of clients were in flight and fewer than 4" in made.held_too_long
    made = make(Engine(), Scripted(None), hold_s=0.01)
    assert list(made.answers(questions(2))) == []
    assert "the load was not known" in made.held_too_long
    assert made.tally.requests == 0


def test_a_failure_is_tried_again_and_then_left_out() -> None:
    def fails(question: str, level: str, attempt: int) -> Exception | None:
        if question == "q0" and level == "L1" and attempt < 2:
            return EngineError("busy")
        return EngineError("too long for this engine") if question == "q1" else None

    engine = Engine(fails)
    made = make(engine)
    answered = list(made.answers(questions(3)))
    assert [a.question.id for a in answered] == ["q0", "q2"]
    assert Counter(engine.asked)["q0", "L1"] == 3
    assert Counter(engine.asked)["q1", "L0"] == 3  # and its other levels never
    assert ("q1", "L1") not in engine.asked
    tally = made.tally
    assert (tally.answered, tally.left_out, tally.repeated) == (2, 1, 4)
    assert tally.requests == len(engine.asked) == 11


def test_what_is_wrong_with_a_request_is_not_tried_again() -> None:
    engine = Engine(lambda question, level, attempt: RequestError("no") if level == "L2" else None)
    made = make(engine)
    assert list(made.answers(questions(1))) == []
    assert Counter(engine.asked)["q0", "L2"] == 1
    assert made.tally.left_out == 1
    assert made.left_out == {"q0": "RequestError"}
    # Nor is it a sign of an engine that is gone, however many there are.
    many = make(Engine(lambda question, *_: None if question == "q9" else RequestError("no")))
    assert [a.question.id for a in many.answers(questions(10))] == ["q9"]
    assert many.tally.left_out == 9
    assert many.tally.failed == 0  # refused: nothing was used


def test_what_was_paid_for_counts_whether_it_is_used_or_not() -> None:
    """Of a question that is left out at its last level, of repeats, of what comes unread."""
    engine = Engine(lambda question, level, attempt: EngineError("no") if level == "L2" else None)
    made = make(engine, retries=1)
    assert list(made.answers(questions(2))) == []
    tally = made.tally
    assert (tally.requests, tally.failed, tally.left_out) == (8, 4, 2)
    assert tally.energy_joules == 2 * (10 + 20)
    assert tally.output_tokens == 2 * (64 + 7)
    assert tally.carbon_g == 2 * 2 * 0.5
    assert (tally.estimated, tally.carbon_unknown) == (0, 0)

    ahead = make(Engine(), concurrency=2)
    answers = ahead.answers(questions(9))
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    receipts = ahead.tally.requests - ahead.tally.failed
    assert ahead.tally.carbon_g == receipts * 0.5
    assert receipts >= 3


def test_slots_are_shared_and_end_with_the_evaluation() -> None:
    slots, stop = Slots(1), threading.Event()
    assert slots.in_flight == 0
    with slots.asking():
        assert slots.in_flight == 1
    assert slots.in_flight == 0
    with slots.one(stop):
        stop.set()
        with pytest.raises(RequestCancelled), slots.one(stop):
            pass
    made = make(Engine(), slots=slots)
    assert len(list(made.answers(questions(2)))) == 2
    with slots.one(threading.Event()):  # the judge has it, and does not let go
        waiting = make(Engine(), slots=slots)
        threading.Timer(0.05, waiting.cancel).start()
        assert list(waiting.answers(questions(2))) == []
    assert waiting.tally.requests == 0


def test_an_engine_that_is_gone_ends_it() -> None:
    engine = Engine(lambda *_: EngineError("Triton is not reachable"))
    made = make(engine, retries=0)
    with pytest.raises(EngineError, match="not reachable"):
        list(made.answers(questions(50)))
    assert len(engine.asked) == GIVE_UP_AFTER


def test_another_level_than_asked_for_says_what_to_do() -> None:
    class Deaf(Engine):
        def answer(self, level: int, max_tokens: int) -> client.Answer:
            return super().answer(0, max_tokens)  # hints are switched off

    engine = Deaf()
    with pytest.raises(ConfigError, match=r"L1 was asked for and L0 served.*token_file"):
        list(make(engine).answers(questions(3)))
    assert engine.asked == [("q0", "L0"), ("q0", "L1")]


def test_an_answer_without_a_receipt_is_none() -> None:
    class Bare(Engine):
        def answer(self, level: int, max_tokens: int) -> client.Answer:
            return client.Answer("who knows at which level")

    made = make(Bare())
    assert list(made.answers(questions(1))) == []
    assert (made.tally.requests, made.tally.left_out) == (3, 1)


def test_a_reader_that_stops_costs_no_more_questions() -> None:
    taken: list[str] = []

    def source() -> Iterator[Question]:
        for question in questions(100):
            taken.append(question.id)
            yield question

    made = make(Engine(), concurrency=2)
    answers = made.answers(source())
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert len(taken) <= 3


def test_cancelling_lets_go_of_what_runs() -> None:
    answering_now = threading.Event()

    class Endless(Engine):
        def work(self, on_text: Callable[[str], None]) -> None:
            while True:
                on_text("and ")
                answering_now.set()
                time.sleep(0.001)

    made = make(Endless())
    answered: list[Any] = []
    reader = threading.Thread(target=lambda: answered.extend(made.answers(questions(9))))
    reader.start()
    assert answering_now.wait(60)
    made.cancel()
    reader.join(60)
    assert not reader.is_alive()
    assert answered == []
    assert (made.tally.requests, made.tally.left_out) == (1, 0)


def test_cancelling_ends_a_wait_for_clients() -> None:
    made = make(Engine(), Scripted(9))
    threading.Timer(0.01, made.cancel).start()
    assert list(made.answers(questions(3))) == []
    assert made.held_too_long == ""
