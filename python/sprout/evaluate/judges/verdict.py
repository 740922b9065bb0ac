# SPDX-License-Identifier: Apache-2.0
"""What a judge says, and what a judge is: one that compares answers, or one that marks each."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol, runtime_checkable

from sprout.evaluate.answers import Answer, Question

# "pairwise": which of two, or a tie. "choice": the best of all, no ties.
Method = Literal["pairwise", "choice"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # of the places, in the order shown


class Reason(StrEnum):
    """Why there is no verdict."""

    MALFORMED = "malformed"  # not exactly one JSON object of the shape that was asked for
    TRUNCATED = "truncated"  # the judge ran out of tokens
    REFUSED = "refused"  # the judge's server says that it won't
    REJECTED = "rejected"  # its server does not take this prompt: too long for it, as a rule
    OVERSIZED = "oversized"  # a reply beyond all bounds
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"  # no connection, or an error of the server's own
    RATE_LIMITED = "rate limited"
    NO_REFERENCE = "no reference"  # or none that a program can compare with
    NOT_RECORDED = "not recorded"
    NO_ANSWER = "no answer"  # the engine gave none at this level
    NOT_TEXT = "not text"  # half of a surrogate pair: no encoding has it


# The judge was not heard at all; another try later may be.
UNHEARD = frozenset({Reason.TIMEOUT, Reason.UNAVAILABLE, Reason.RATE_LIMITED})


@dataclass(frozen=True, slots=True)
class Spent:
    """What asking a judge took, failed tries included."""

    calls: int = 0
    uncounted_calls: int = 0  # of them: the judge did not say how many tokens they took
    input_tokens: int = 0
    output_tokens: int = 0
    # Of receipts, where the judge gives any; `receipt_tokens` are those that they cover.
    receipt_joules: float = 0.0
    receipt_tokens: int = 0
    cut: int = 0  # texts that were cut to be shown

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one comparison."""

    place: int | None = None  # 0 = the first that was shown; None: a tie, or unusable
    unusable: Reason | None = None
    spent: Spent = Spent()


class Judge(Protocol):
    """Compares the answers to a question. Any thread may call."""

    @property
    def name(self) -> str:
        """For people, e.g. "openai gpt-4o"."""

    @property
    def version(self) -> str:
        """Of model, instructions and settings: judgments of two versions don't mix."""

    @property
    def method(self) -> Method: ...

    # The verdict follows from the texts shown: equal ones tie unasked, and it can be kept.
    by_text: bool

    def prefer(self, question: Question, shown: Sequence[Answer], stop: threading.Event) -> Verdict:
        """Which of the answers, in the order shown.

        An unusable verdict is returned, not raised. Raises JudgeError where asking on is
        pointless, RequestCancelled once `stop` is set.
        """

    def close(self) -> None: ...


@runtime_checkable
class Marker(Protocol):
    """Marks each answer by itself. Any thread may call."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def mark(self, question: Question, answer: Answer) -> float | Reason:
        """0 … 1; a Reason where the question can't be marked."""

    def close(self) -> None: ...
