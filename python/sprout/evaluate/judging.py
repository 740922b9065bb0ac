# SPDX-License-Identifier: Apache-2.0
"""Answers to scores: who is asked, in which orders, how many at once.

pairwise   each level against L0, in both orders. A win is 1, a tie half; score_i = 2 * their mean,
           so that a judge who likes what stands first (or second) likes both levels alike.
choice     all levels at once in an order drawn at random, as published: 1 for the one that won.
exact      each answer against the reference.

What can't be judged is counted, by reason, and never imputed: a level that one order can't be heard
for has no score, and a question of which a level has none is not `Judged`.
"""

import random
import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

from sprout.config import Config
from sprout.errors import JudgeError, RequestCancelled
from sprout.evaluate.answers import Answer, Judged, Question
from sprout.evaluate.judges import build
from sprout.evaluate.judges.account import Account
from sprout.evaluate.judges.cache import Cache, key
from sprout.evaluate.judges.model import Turn
from sprout.evaluate.judges.verdict import LETTERS, Judge, Marker, Reason, Verdict

AHEAD = 2  # questions taken from the source for each that is judged


@dataclass(frozen=True, slots=True)
class Result:
    """Of one question."""

    question: Question
    scores: tuple[float | None, ...]  # (levels,) None: could not be judged
    unusable: tuple[tuple[int, Reason], ...]  # (level, why), one for each comparison or mark
    judged: Judged | None  # None: a score is missing


Item = tuple[Question, Sequence[Answer]]


class Judging:
    """levels: L0 … that every question shall have a score for.

    seed: of the orders of the method "choice". concurrency: questions judged at once, each with one
    call at a time.
    """

    def __init__(
        self,
        judge: Judge | Marker,
        *,
        levels: int,
        seed: int = 0,
        concurrency: int = 4,
        cache: Cache | None = None,
    ) -> None:
        if not 2 <= levels <= len(LETTERS):
            raise ValueError(f"{levels} levels: two to {len(LETTERS)} can be compared")
        self._judge, self._levels, self._seed = judge, levels, seed
        self._concurrency, self._cache = concurrency, cache
        self._cancelled = False
        self._runs: set[threading.Event] = set()  # what stops each
        self.account = Account()

    @property
    def name(self) -> str:
        return self._judge.name

    @property
    def version(self) -> str:
        return self._judge.version

    @property
    def method(self) -> Literal["pairwise", "choice", "exact"]:
        return "exact" if isinstance(self._judge, Marker) else self._judge.method

    def cancel(self) -> None:
        """No further call, ever. `results` ends; what was in flight counts nowhere."""
        self._cancelled = True
        for stop in tuple(self._runs):
            stop.set()

    def close(self) -> None:
        self.cancel()
        self._judge.close()
        if self._cache is not None:
            self._cache.close()

    def results(self, items: Iterable[Item]) -> Generator[Result, None, None]:
        """Of each question, in the order of `items`, which are taken as they are needed.

        In that order, because what is quick to judge is not like the rest: a rule that stops on
        what has come so far would see a biased sample. Raises JudgeError where the judge can't be
        used, also because it goes by places alone. Leaving the iterator stops the calls in flight;
        their questions count nowhere.
        """
        source, room = iter(items), AHEAD * self._concurrency
        left: deque[Future[Result]] = deque()
        stop = threading.Event()
        self._runs.add(stop)
        if self._cancelled:
            stop.set()
        more = True
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="sprout-judging") as pool:
            try:
                while left or more:
                    if left and (left[0].done() or len(left) >= room or not more):
                        result = left.popleft().result()
                        self._check()
                        self.account.done(complete=result.judged is not None)
                        yield result
                    elif stop.is_set() or (item := next(source, None)) is None:
                        more = False
                    else:
                        left.append(pool.submit(self._one, *item, stop))
            except RequestCancelled:
                return
            finally:
                stop.set()
                self._runs.discard(stop)
                for future in left:
                    future.cancel()

    def _check(self) -> None:
        position = self.account.position
        if position.decides:
            raise JudgeError(
                f"{self.name} named the same place in {max(position.wins):.0f} of "
                f"{position.comparisons} comparisons, whatever stood there: to such a judge every "
                "level is as good as L0; take another one"
            )

    def _one(self, question: Question, answers: Sequence[Answer], stop: threading.Event) -> Result:
        found = _Found(question, {answer.level: answer for answer in answers})
        for level in range(self._levels):
            if level not in found.answers:
                found.no_score(level, Reason.NO_ANSWER)
                self.account.unasked(Reason.NO_ANSWER)
        if isinstance(self._judge, Marker):
            self._mark(self._judge, found)
        elif self._judge.method == "pairwise":
            self._pairs(self._judge, found, stop)
        else:
            self._choice(self._judge, found, stop)
        return found.result(self._levels)

    def _mark(self, marker: Marker, found: "_Found") -> None:
        for level, answer in found.answers.items():
            mark = marker.mark(found.question, answer)
            if isinstance(mark, Reason):
                found.no_score(level, mark)
                self.account.unasked(mark)
            else:
                found.scores[level] = mark

    def _pairs(self, judge: Judge, found: "_Found", stop: threading.Event) -> None:
        base = found.answers.get(0)
        if base is None:
            return  # nothing to compare with
        found.scores[0] = 1.0
        for level in range(1, self._levels):
            answer = found.answers.get(level)
            if answer is None:
                continue
            if judge.by_text and answer.text == base.text:
                self.account.unasked(None)
                found.scores[level], found.orders[level] = 1.0, (0.5, 0.5)
                continue
            first = self._ask(judge, found.question, (base, answer), stop)
            if first.unusable is not None:  # one order alone would be worth nothing
                found.no_score(level, first.unusable)
                continue
            second = self._ask(judge, found.question, (answer, base), stop)
            if second.unusable is not None:
                found.no_score(level, second.unusable)
                continue
            won = (_won(first, 1), _won(second, 0))
            self.account.pair(consistent=won[0] == won[1])
            found.scores[level], found.orders[level] = sum(won), won

    def _choice(self, judge: Judge, found: "_Found", stop: threading.Event) -> None:
        if len(found.answers) < self._levels:
            return
        shown = [found.answers[level] for level in range(self._levels)]
        if judge.by_text and len({answer.text for answer in shown}) == 1:
            self.account.unasked(None)
            found.scores.update(dict.fromkeys(range(self._levels), 1 / self._levels))
            return
        # By question, not in turn: the same whichever thread comes first, and after a restart.
        random.Random(f"{self._seed} {found.question.id}").shuffle(shown)  # noqa: S311 - no secret
        verdict = self._ask(judge, found.question, shown, stop)
        for place, answer in enumerate(shown):
            if verdict.unusable is not None:
                found.no_score(answer.level, verdict.unusable)
            else:
                found.scores[answer.level] = float(place == verdict.place)

    def _ask(
        self, judge: Judge, question: Question, shown: Sequence[Answer], stop: threading.Event
    ) -> Verdict:
        if stop.is_set():
            raise RequestCancelled("the evaluation was stopped")
        texts = [answer.text for answer in shown]
        if not all(_encodable(text) for text in (question.text, *texts)):
            verdict = Verdict(unusable=Reason.NOT_TEXT)
            self.account.asked(verdict, len(shown))
            return verdict
        cache = self._cache if judge.by_text else None
        made = key(judge.version, question.text, texts)
        if cache is not None and (kept := cache.get(made)) is not None:
            verdict = Verdict(kept[0])
            self.account.asked(verdict, len(shown), cached=True)
            return verdict
        verdict = judge.prefer(question, shown, stop)
        self.account.asked(verdict, len(shown))
        if cache is not None and verdict.unusable is None:
            cache.put(made, verdict.place)
        return verdict


def of_config(
    cfg: Config,
    *,
    levels: int,
    seed: int = 0,
    address: str = "",
    turn: Turn = nullcontext,
) -> Judging:
    """With the judge that the configuration names, and the stack's cache of judgments.

    address, turn: of `build.judge`. Raises ConfigError, PrerequisiteError, JudgeError. Close it
    afterwards.
    """
    judge = build.judge(cfg, address=address, turn=turn)
    try:
        kept = isinstance(judge, Marker) or not judge.by_text
        cache = None if kept else Cache(build.cache_path(cfg))
    except JudgeError:
        judge.close()
        raise
    concurrency = cfg.evaluate.judge.concurrency
    return Judging(judge, levels=levels, seed=seed, concurrency=concurrency, cache=cache)


class _Found:
    """Of one question, so far."""

    def __init__(self, question: Question, answers: dict[int, Answer]) -> None:
        self.question, self.answers = question, answers
        self.scores: dict[int, float] = {}
        self.orders: dict[int, tuple[float, float]] = {}
        self._unusable: list[tuple[int, Reason]] = []

    def no_score(self, level: int, why: Reason) -> None:
        self._unusable.append((level, why))

    def result(self, levels: int) -> Result:
        scores = tuple(self.scores.get(level) for level in range(levels))
        whole = tuple(score for score in scores if score is not None)
        judged = None
        if len(whole) == levels:
            judged = Judged(
                question=self.question,
                scores=whole,
                orders=tuple(self.orders[level] for level in sorted(self.orders)),
                output_tokens=tuple(self.answers[level].output_tokens for level in range(levels)),
            )
        return Result(self.question, scores, tuple(self._unusable), judged)


def _won(verdict: Verdict, place: int) -> float:
    return 0.5 if verdict.place is None else float(verdict.place == place)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
