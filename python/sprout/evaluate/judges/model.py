# SPDX-License-Identifier: Apache-2.0
"""A language model as the judge: asked, read strictly, asked again up to a bound.

What differs between an OpenAI-compatible endpoint and Triton is a `Line`: one prompt, one reply.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from sprout.errors import JudgeError
from sprout.evaluate.answers import Answer, Question
from sprout.evaluate.judges.instructions import Instructions, Prompt
from sprout.evaluate.judges.pace import Pace
from sprout.evaluate.judges.reply import read
from sprout.evaluate.judges.verdict import UNHEARD, Method, Reason, Spent, Verdict

GIVE_UP_AFTER = 8  # comparisons in a row for which the judge was not heard


@dataclass(frozen=True, slots=True)
class Reply:
    """To one prompt."""

    text: str = ""
    failed: Reason | None = None  # set: there is no text to read
    retry_after_s: float | None = None  # the server asked not to be asked before
    input_tokens: int | None = None  # None: not said
    output_tokens: int | None = None
    receipt_joules: float | None = None  # metered for this reply; None: no receipt


# Entered around a call to a model that others use too; it may wait there, until the event is set.
Turn = Callable[[threading.Event], AbstractContextManager[object]]


class Line(Protocol):
    """To a model. Any thread may call."""

    @property
    def name(self) -> str:
        """For people, e.g. "openai gpt-4o"."""

    @property
    def identity(self) -> dict[str, object]:
        """Model and settings, as far as a verdict may depend on them."""

    def ask(self, prompt: Prompt, stop: threading.Event) -> Reply:
        """One try. JudgeError where no other try can help, RequestCancelled once `stop` is set."""

    def close(self) -> None: ...


class ModelJudge:
    """retries: further tries of a comparison, after the first."""

    by_text = True

    def __init__(
        self, line: Line, instructions: Instructions, *, retries: int = 3, pace: Pace | None = None
    ) -> None:
        self._line, self._instructions, self._retries = line, instructions, retries
        self._pace = pace or Pace()
        self._lock = threading.Lock()
        self._unheard = 0  # comparisons in a row

    @property
    def name(self) -> str:
        return self._line.name

    @property
    def version(self) -> str:
        said = {"line": self._line.identity, "instructions": self._instructions.digest}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def method(self) -> Method:
        return self._instructions.method

    def prefer(self, question: Question, shown: Sequence[Answer], stop: threading.Event) -> Verdict:
        texts = [answer.text for answer in shown]
        spent, why, unheard = Spent(), Reason.MALFORMED, 0
        for attempt in range(self._retries + 1):
            self._pace.wait(unheard, stop)
            prompt = self._instructions.prompt(
                question.text, texts, again=attempt > 0 and why not in UNHEARD
            )
            reply = self._line.ask(prompt, stop)
            spent += _spent(reply)
            if reply.retry_after_s is not None:
                self._pace.hold(reply.retry_after_s)
            if reply.failed is None:
                found = read(reply.text, prompt)
                if not isinstance(found, Reason):
                    self._heard()
                    return Verdict(found, spent=spent + Spent(cut=prompt.cut))
                why = found
            else:
                why = reply.failed
                if why is Reason.REJECTED:
                    break
            unheard = unheard + 1 if why in UNHEARD else 0
        self._heard() if why not in UNHEARD else self._not_heard(why)
        return Verdict(unusable=why, spent=spent)

    def close(self) -> None:
        self._line.close()

    def _heard(self) -> None:
        with self._lock:
            self._unheard = 0

    def _not_heard(self, why: Reason) -> None:
        with self._lock:
            self._unheard += 1
            unheard = self._unheard
        # Else an outage would be written down as thousands of unusable judgments.
        if unheard >= GIVE_UP_AFTER:
            raise JudgeError(
                f"{self.name}: {unheard} comparisons in a row came to nothing, the last: {why}; "
                "what is judged so far is kept, so run the evaluation again when it answers"
            )


def _spent(reply: Reply) -> Spent:
    tokens_in, tokens_out = reply.input_tokens or 0, reply.output_tokens or 0
    counted = reply.input_tokens is not None and reply.output_tokens is not None
    return Spent(
        calls=1,
        uncounted_calls=0 if counted else 1,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        receipt_joules=reply.receipt_joules or 0.0,
        receipt_tokens=0 if reply.receipt_joules is None else tokens_in + tokens_out,
    )
