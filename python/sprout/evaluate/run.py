# SPDX-License-Identifier: Apache-2.0
"""One evaluation: questions are answered at every level, judged, written down, until it is enough.

What is done is in the journal before it counts, so a killed evaluation goes on with the next
question. The rule that stops is asked after each batch, of all that the journal has.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from sprout.evaluate import sittings
from sprout.evaluate.answering import Answering
from sprout.evaluate.answers import Answer, Judged, Question
from sprout.evaluate.journal import Entry, Journal, Took
from sprout.evaluate.judges.account import Rates
from sprout.evaluate.judging import Item, Judging, Result
from sprout.evaluate.scoring import Scoring
from sprout.evaluate.sittings import Sitting
from sprout.evaluate.statistics.sequential import Stopping, Verdict
from sprout.v1 import control_pb2 as pb

BATCH = 10  # questions between two looks at whether it is enough
WHOLE = "every prompt was judged"
CANCELLED = "cancelled"


@dataclass(frozen=True)
class Progress:
    """After each question."""

    done: int  # questions, unusable ones included
    judged: int
    of: int  # questions, if it does not stop before
    verdict: Verdict | None  # the newest
    left_out: int = 0  # questions that the engine did not answer, beside those done
    held: int = 0  # requests of this sitting that waited for clients


@dataclass(frozen=True)
class Price:
    """What judging is counted with."""

    rates: Rates
    intensity_g_per_kwh: float | None  # None: not known
    pue: float = 1.0


class Evaluation:
    """For one thread; `cancel` from any."""

    def __init__(
        self,
        answering: Answering,
        judging: Judging,
        journal: Journal,
        price: Price,
        *,
        stopping: Stopping | None = None,
        least: int = 0,
        keep_texts: bool = False,
        scoring: Scoring | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """stopping: None = every question is judged; least: judged ones before it may stop.
        keep_texts: in the journal, to be read side by side. scoring: None = no level is chosen by
        its prompt.
        """
        self._answering, self._judging, self._journal = answering, judging, journal
        self._price, self._stopping, self._least = price, stopping, least
        self._keep_texts, self._scoring, self._progress = keep_texts, scoring, progress
        self._cancelled = False
        self._answers: dict[str, tuple[Answer, ...]] = {}  # of questions that are being judged
        self._fed = 0  # entries that the stopping rule knows
        self.verdict: Verdict | None = None

    @property
    def held_too_long(self) -> str:
        """Why it ended though prompts were left and nobody had enough; "": it did not."""
        return self._answering.held_too_long

    @property
    def judged(self) -> list[Judged]:
        return [one for entry in self._journal.entries if (one := entry.judged) is not None]

    def cancel(self) -> None:
        """What is judged stays in the journal."""
        self._cancelled = True
        self._answering.cancel()
        self._judging.cancel()

    def run(self, questions: Sequence[Question]) -> str:
        """Why it ended. Raises what answering and judging raise; the journal has what was done."""
        known = {entry.id for entry in self._journal.entries}
        left = [question for question in questions if question.id not in known]
        total = len(known) + len(left)
        if (why := self._enough()) is not None:
            return why
        items = self._items(left)
        results = self._judging.results(items)
        try:
            for result in results:
                self._paid()  # before the entry: a kill between the two counts it, and asks again
                self._journal.add(self._entry(result))
                done = len(self._journal.entries)
                enough = self._enough() if done - self._fed >= BATCH else None
                self._progress(self._so_far(done, total))
                if enough is not None:
                    return enough
        finally:
            results.close()
            items.close()  # what was answered ahead is paid for, too
            self._paid()
        self._enough()  # so that the last few are in the verdict
        if self._cancelled:
            return CANCELLED
        return self._answering.held_too_long or WHOLE

    def cost(self) -> pb.EvaluationCost:
        """Of all sittings, the answers' and the judge's."""
        return sittings.cost(self._sittings(), left_out=len(self._journal.left_out))

    def notes(self) -> tuple[str, ...]:
        """What happened on the way, for people."""
        return tuple(sittings.notes(self._sittings(), self._journal.left_out))

    def _items(self, questions: Sequence[Question]) -> Generator[Item, None, None]:
        for answered in self._answering.answers(questions):
            self._answers[answered.question.id] = answered.answers
            yield answered.question, answered.answers

    def _so_far(self, done: int, total: int) -> Progress:
        return Progress(
            done,
            len(self.judged),
            total,
            self.verdict,
            left_out=len(self._answering.left_out),
            held=self._answering.tally.held,
        )

    def _entry(self, result: Result) -> Entry:
        question, judged = result.question, result.judged
        answers = list(self._answers.pop(question.id))
        scoring = self._scoring
        return Entry(
            question.id,
            question.task,
            question.weight,
            scores=() if judged is None else judged.scores,
            orders=() if judged is None else judged.orders,
            output_tokens=tuple(answer.output_tokens for answer in answers),
            unusable=tuple((level, str(why)) for level, why in result.unusable),
            took=Took.of(answers),
            predicted=() if scoring is None else scoring.of(question),
            weights="" if scoring is None else scoring.sha256,
            prompt=question.text if self._keep_texts else None,
            answers=tuple(answer.text for answer in answers) if self._keep_texts else (),
        )

    def _enough(self) -> str | None:
        """Why it may stop; None: it may not. Tells the rule what it does not know yet."""
        entries = self._journal.entries
        new = [one for entry in entries[self._fed :] if (one := entry.judged) is not None]
        self._fed = len(entries)
        if self._stopping is None or not new:
            return None
        self.verdict = self._stopping.update(
            np.array([one.scores for one in new], np.float64),
            np.array([one.question.weight for one in new], np.float64),
        )
        if self.verdict.stop and self.verdict.judged >= self._least:
            return self.verdict.why
        return None

    def _paid(self) -> None:
        """Write down what this sitting took so far."""
        self._journal.leave_out(self._answering.left_out)
        self._journal.sitting(self._sitting())

    def _sittings(self) -> list[Sitting]:
        return [*self._journal.earlier, self._sitting()]

    def _sitting(self) -> Sitting:
        price = self._price
        judge = self._judging.account.cost(
            price.rates, intensity_g_per_kwh=price.intensity_g_per_kwh, pue=price.pue
        )
        return sittings.sitting(self._answering.tally, judge)
