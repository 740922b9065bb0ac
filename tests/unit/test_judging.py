# SPDX-License-Identifier: Apache-2.0
"""Answers to scores: orders, ties, what can't be judged, how many at once."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from judge_api import Api, Asked, better, given, question, said, serving
from loopback_api import Answer, answer

from sprout.config import load
from sprout.errors import ConfigError, JudgeError
from sprout.evaluate.answers import Answer as Given
from sprout.evaluate.answers import Question
from sprout.evaluate.judges.cache import Cache
from sprout.evaluate.judges.exact import ExactMarker
from sprout.evaluate.judges.instructions import Instructions
from sprout.evaluate.judges.model import ModelJudge
from sprout.evaluate.judges.openai import OpenAILine
from sprout.evaluate.judges.pace import Pace
from sprout.evaluate.judges.verdict import Judge, Marker, Method, Reason, Verdict
from sprout.evaluate.judging import AHEAD, Judging, Result, of_config

MakeJudging = Callable[..., Judging]


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as server:
        yield server


@pytest.fixture
def make(api: Api) -> Iterator[MakeJudging]:
    made: list[Judging] = []

    def judging(
        *, method: Method = "pairwise", levels: int = 3, retries: int = 0, **settings: Any
    ) -> Judging:
        judge = ModelJudge(
            OpenAILine(api.url, "judge", connections=16),
            Instructions(method),
            retries=retries,
            pace=Pace(retry_s=0),
        )
        made.append(Judging(judge, levels=levels, **settings))
        return made[-1]

    yield judging
    for one in made:
        one.close()


def best(*texts: str) -> Callable[[Asked], Answer]:
    """Likes an earlier one of `texts` better; one that is not among them least, two such alike."""

    def rank(text: str) -> int:
        return texts.index(text) if text in texts else len(texts)

    def program(asked: Asked) -> Answer:
        shown = {t.removeprefix("ANSWER "): rank(x) for t, x in asked.blocks.items()}
        del shown["QUESTION"]
        low = min(shown.values())
        first = [letter for letter, place in shown.items() if place == low]
        if '{"choice"' in asked.system:
            return said({"choice": first[0]})
        return better(first[0] if len(first) == 1 else "tie")

    return program


def one(judging: Judging, *texts: str, **fields: Any) -> Result:
    return next(iter(list(judging.results([(question(**fields), given(*texts))]))))


def test_each_level_meets_l0_in_both_orders(api: Api, make: MakeJudging) -> None:
    api.program = best("good", "fair")
    judging = make(levels=4)
    result = one(judging, "fair", "good", "bad", "fair")
    assert result.judged is not None
    assert result.judged.scores == result.scores == (1.0, 2.0, 0.0, 1.0)
    assert result.judged.orders == ((1.0, 1.0), (0.0, 0.0), (0.5, 0.5))
    assert result.judged.output_tokens == (4, 4, 3, 4)
    shown = [(a.blocks["ANSWER A"], a.blocks["ANSWER B"]) for a in api.asked]
    assert shown == [("fair", "good"), ("good", "fair"), ("fair", "bad"), ("bad", "fair")]
    position = judging.account.position
    assert (position.first_wins, position.pairs, position.consistent) == (0.5, 2, 2)
    assert judging.account.identical == 1  # L3 says what L0 says: a tie that nobody was asked for


def test_a_tie_is_half_and_a_judge_of_places_has_no_say(api: Api, make: MakeJudging) -> None:
    api.program = lambda _: better("tie")
    assert one(make(levels=2), "a", "b").scores == (1.0, 1.0)
    api.program = lambda _: better("A")
    judging = make(levels=2)
    result = one(judging, "a", "b")
    assert result.judged is not None
    assert (result.judged.scores, result.judged.orders) == ((1.0, 1.0), ((0.0, 1.0),))
    position = judging.account.position
    assert (position.bias, position.pairs, position.consistent) == (0.5, 1, 0)


class Leaning:
    """P(the level is preferred to L0) is `truth`, and 20 points more or less by its place.

    Spread evenly over n questions instead of drawn (197 and n have no common divisor): the means
    are exact to 1 / n.
    """

    name, version, by_text = "leaning", "1", True
    method: Method = "pairwise"

    def __init__(self, truth: float, n: int) -> None:
        self._truth, self._n = truth, n

    def prefer(self, question: Question, shown: Sequence[Given], stop: threading.Event) -> Verdict:
        wins_first = (self._truth if shown[0].level else 1 - self._truth) + 0.2
        number = int(question.id.removeprefix("q"))
        u = (number * 197 % self._n + 0.5) / self._n
        return Verdict(0 if u < wins_first else 1)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("truth", [0.2, 0.4, 0.5])
def test_a_judge_that_leans_to_the_first_by_20_points_leaves_q_where_it_is(truth: float) -> None:
    n = 500
    judge: Judge = Leaning(truth, n)
    with closing(Judging(judge, levels=2)) as judging:
        items = [(question(k), given("a", "b")) for k in range(n)]
        judged = [result.judged for result in judging.results(items)]
    scores = [one.scores[1] for one in judged if one is not None]
    assert len(scores) == n
    assert sum(scores) / n == pytest.approx(2 * truth, abs=0.01)
    # While either order alone is far off, and the bias is seen.
    alone = [sum(one.orders[0][k] for one in judged if one is not None) / n for k in (0, 1)]
    assert alone == pytest.approx([truth - 0.2, truth + 0.2], abs=0.01)
    assert judging.account.position.bias == pytest.approx(0.2, abs=0.01)


def test_a_judge_of_places_alone_is_stopped(api: Api, make: MakeJudging) -> None:
    """Its q would be 1 at each level, and very sure."""
    api.program = lambda _: better("A")
    got = list[Result]()
    items = [(question(k), given("a", "b", "c")) for k in range(100)]
    with pytest.raises(JudgeError, match="every level is as good as L0"):
        got.extend(make().results(items))
    assert len(got) < 20


def test_a_level_with_one_order_unusable_has_no_score_and_is_counted(
    api: Api, make: MakeJudging
) -> None:
    def program(asked: Asked) -> Answer:
        return said("?") if asked.blocks["ANSWER A"] == "short" else better("B")

    api.program = program
    judging = make()
    result = one(judging, "long", "medium", "short")
    assert result.judged is None
    assert result.scores == (1.0, 1.0, None)
    assert result.unusable == ((2, Reason.MALFORMED),)
    account = judging.account
    assert account.unusable == {Reason.MALFORMED: 1}
    assert (account.judged, account.incomplete, account.position.pairs) == (0, 1, 1)


def test_the_second_order_is_not_paid_for_where_the_first_is_unusable(
    api: Api, make: MakeJudging
) -> None:
    api.program = lambda _: said("?")
    result = one(make(levels=2, retries=2), "a", "b")
    assert result.unusable == ((1, Reason.MALFORMED),)
    assert len(api.asked) == 3


def test_what_is_missing_or_no_text_is_counted_unasked(api: Api, make: MakeJudging) -> None:
    judging = make()
    (result,) = judging.results([(question(), [Given(0, "a"), Given(2, "half \ud800")])])
    assert result.scores == (1.0, None, None)
    assert result.unusable == ((1, Reason.NO_ANSWER), (2, Reason.NOT_TEXT))
    (result,) = judging.results([(question(), given("a", "b", "c")[1:])])
    assert result.scores == (None, None, None)
    assert judging.account.unusable == {Reason.NO_ANSWER: 2, Reason.NOT_TEXT: 1}
    assert api.asked == []


def test_a_choice_shows_all_in_an_order_that_question_and_seed_fix(
    api: Api, make: MakeJudging
) -> None:
    api.program = best("b")
    texts = ("a", "b", "c")
    items = [(question(k), given(*texts)) for k in range(40)]

    def orders(seed: int, concurrency: int) -> list[str]:
        api.asked.clear()
        results = list(make(method="choice", seed=seed, concurrency=concurrency).results(items))
        assert {result.scores for result in results} == {(0.0, 1.0, 0.0)}
        by_question = {a.blocks["QUESTION"]: a.blocks for a in api.asked}
        blocks = [by_question[q.text] for q, _ in items]
        return ["".join(b[f"ANSWER {letter}"] for letter in "ABC") for b in blocks]

    first = orders(1, 1)
    assert orders(1, 8) == first
    assert orders(2, 8) != first
    assert len(set(first)) == 6


def test_a_choice_among_equal_texts_is_shared_and_a_missing_one_spoils_it(
    api: Api, make: MakeJudging
) -> None:
    judging = make(method="choice")
    assert one(judging, "a", "a", "a").scores == (1 / 3, 1 / 3, 1 / 3)
    assert one(judging, "a", "b").unusable == ((2, Reason.NO_ANSWER),)
    assert api.asked == []
    api.program = lambda _: said({"choice": "D"})
    result = one(judging, "a", "b", "c")
    assert result.scores == (None, None, None)
    assert judging.account.unusable[Reason.MALFORMED] == 1


def test_exact_marks_each_answer_by_itself() -> None:
    marker: Marker = ExactMarker()
    with closing(Judging(marker, levels=2)) as judging:
        assert judging.method == "exact"
        result = one(judging, "It is 4.", "5", reference="4")
        assert result.judged is not None
        assert (result.judged.scores, result.judged.orders) == ((1.0, 0.0), ())
        result = one(judging, "It is 4.", "5")
        assert (result.judged, result.scores) == (None, (None, None))
        assert result.unusable == ((0, Reason.NO_REFERENCE), (1, Reason.NO_REFERENCE))


def test_a_judgment_is_paid_for_once_across_restarts(
    api: Api, make: MakeJudging, tmp_path: Path
) -> None:
    api.program = best("b")
    items = [(question(k), given("a", "b", "c")) for k in range(5)]
    path = tmp_path / "judgments.sqlite"
    first = make(cache=Cache(path))
    taken = first.results(items)
    some = [next(taken), next(taken)]
    taken.close()
    first.close()
    with closing(Cache(path)) as kept:
        done = len(kept)
    assert done >= 8

    api.asked.clear()
    second = make(cache=Cache(path))
    results = list(second.results(items))
    assert results[:2] == some
    assert len(api.asked) == 20 - done
    assert second.account.cached == done
    assert second.account.spent.calls == 20 - done
    second.close()

    api.asked.clear()
    third = make(cache=Cache(path))
    assert list(third.results(items)) == results
    assert (api.asked, third.account.cached) == ([], 20)
    assert third.account.position == second.account.position
    other = make(method="choice", cache=Cache(path))  # of another version: none is taken over
    list(other.results(items))
    assert other.account.cached == 0


def test_what_was_unusable_is_asked_again_after_a_restart(
    api: Api, make: MakeJudging, tmp_path: Path
) -> None:
    api.program = lambda _: said("?")
    with closing(make(levels=2, cache=Cache(tmp_path / "c"))) as judging:
        assert one(judging, "a", "b").judged is None
    api.program = lambda _: better("A")
    with closing(make(levels=2, cache=Cache(tmp_path / "c"))) as judging:
        assert one(judging, "a", "b").judged is not None


def test_as_many_calls_at_once_as_set_and_no_more(api: Api, make: MakeJudging) -> None:
    lock, full = threading.Lock(), threading.Event()
    now = peak = 0

    def program(_: Asked) -> Answer:
        nonlocal now, peak
        with lock:
            now += 1
            peak = max(peak, now)
            if now == 3:
                full.set()
        full.wait(60)  # nobody leaves before three have come
        with lock:
            now -= 1
        return better("tie")

    api.program = program
    items = [(question(k), given("a", "b", "c")) for k in range(12)]
    assert len(list(make(concurrency=3).results(items))) == 12
    assert full.is_set()
    assert peak == 3
    assert len(api.asked) == 48


def test_results_come_in_the_order_of_the_questions_taken_as_needed(
    api: Api, make: MakeJudging
) -> None:
    others = threading.Event()
    taken = []

    def program(asked: Asked) -> Answer:
        number = int(asked.blocks["QUESTION"].split()[2])
        if number == 3:
            others.set()
        elif number == 0:
            others.wait(60)  # judged after a later one
        return better("A")

    def items() -> Iterator[tuple[Question, Sequence[Given]]]:
        for number in range(100):
            taken.append(number)
            yield question(number), given("a", "b")

    api.program = program
    results = make(levels=2, concurrency=4).results(items())
    for number in range(10):
        assert next(results).question.id == f"q{number}"
        assert len(taken) <= number + 1 + AHEAD * 4
    results.close()
    assert len(taken) < 100


def test_cancelling_ends_calls_in_flight_which_count_nowhere(api: Api, make: MakeJudging) -> None:
    api.program = lambda _: Answer(deaf=True)
    judging, got = make(levels=2, concurrency=2), list[Result]()
    items = [(question(k), given("a", "b")) for k in range(50)]
    thread = threading.Thread(target=lambda: got.extend(judging.results(items)))
    thread.start()
    for _ in range(2):
        assert api.arrived.acquire(timeout=60)
    judging.cancel()
    thread.join(60)
    assert not thread.is_alive()
    assert (got, len(api.asked)) == ([], 2)
    account = judging.account
    assert (account.judged, account.incomplete, sum(account.unusable.values())) == (0, 0, 0)
    assert list(judging.results(items)) == []  # for good


def test_who_leaves_early_does_not_wait_for_what_is_in_flight(api: Api, make: MakeJudging) -> None:
    first = question(0).text

    def program(asked: Asked) -> Answer:
        return better("A") if asked.blocks["QUESTION"] == first else Answer(deaf=True)

    api.program = program
    judging = make(levels=2, concurrency=2)
    for result in judging.results((question(k), given("a", "b")) for k in range(50)):
        assert result.judged is not None
        break
    assert judging.account.judged == 1
    # A later run goes on.
    api.program = lambda _: better("A")
    assert one(judging, "a", "b").judged is not None


def test_a_judge_that_can_t_be_used_ends_it(api: Api, make: MakeJudging) -> None:
    api.program = lambda _: answer({}, 401)
    items = [(question(k), given("a", "b")) for k in range(50)]
    with pytest.raises(JudgeError, match="HTTP 401"):
        list(make(levels=2, concurrency=2).results(items))
    assert len(api.asked) <= 2 * AHEAD * 2


@pytest.mark.parametrize("levels", [1, 27])
def test_levels_that_can_t_be_compared(levels: int) -> None:
    with pytest.raises(ValueError, match=f"{levels} levels"):
        Judging(ExactMarker(), levels=levels)


def configured(tmp_path: Path, **settings: Any) -> Judging:
    flags = {f"evaluate.judge.{name}": value for name, value in settings.items()}
    cfg = load(environ={}, flags={"stack.state_dir": tmp_path / "state"} | flags)
    return of_config(cfg, levels=2)


def test_the_judge_of_the_configuration(api: Api, tmp_path: Path) -> None:
    api.program = lambda _: better("B")
    criteria = tmp_path / "criteria"
    criteria.write_text("Judge the rhyme.")
    settings = {
        "kind": "openai",
        "url": api.url,
        "model": "judge-7b",
        "instructions_file": criteria,
        "length_instruction": "prefer_short",
        "max_tokens": 99,
    }
    with closing(configured(tmp_path, **settings)) as judging:
        assert (judging.name, judging.method) == ("openai judge-7b", "pairwise")
        assert one(judging, "a", "b").scores == (1.0, 1.0)
    asked = api.asked[0]
    assert "Judge the rhyme." in asked.system
    assert "the shorter one is better" in asked.system
    assert asked.body["max_tokens"] == 99
    assert (tmp_path / "state" / "judgments.sqlite").exists()


def test_judges_that_ask_nobody_keep_nothing(tmp_path: Path) -> None:
    with closing(
        configured(tmp_path, kind="exact", exact_kinds="sums=number,quiz=letter")
    ) as found:
        assert found.method == "exact"
        result = one(found, "B", "C", reference="B", task="quiz")
        assert result.scores == (1.0, 0.0)
    recorded = tmp_path / "recorded.jsonl"
    recorded.write_text('{"id": "q0", "preferred": 1}')
    settings = {"kind": "recorded", "recorded_file": recorded, "method": "choice"}
    with closing(configured(tmp_path, **settings)) as found:
        assert one(found, "", "").scores == (0.0, 1.0)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, 'evaluate.judge.kind is "none"'),
        ({"kind": "openai", "model": "m"}, "needs evaluate.judge.url"),
        ({"kind": "openai", "url": "https://judge.example/v1"}, "needs evaluate.judge.model"),
        ({"kind": "recorded"}, "needs evaluate.judge.recorded_file"),
        ({"kind": "openai", "url": "judge", "model": "m"}, "evaluate.judge.url must begin"),
        ({"kind": "exact", "exact_kinds": "sums"}, "exact_kinds"),
        ({"kind": "exact", "exact_kinds": "sums=words"}, "exact_kinds"),
        ({"kind": "openai", "url": "http://h", "model": "m", "key_file": "/none"}, "key_file"),
    ],
)
def test_what_is_wrong_in_the_configuration_is_named(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(tmp_path, **settings)
    assert said in str(caught.value)
