# SPDX-License-Identifier: Apache-2.0
"""Answers compared with the right one: no model, no bias, but only where there is a reference.

| kind    | reference           | an answer is right if |
| number  | 70000 · 1,450,000   | its last number is equal, or that after "####" (GSM8K) |
| letter  | B · (B)             | it commits to that letter and to no other |
| aliases | New York; NYC       | one of them stands in it as whole words, normalised as in SQuAD |

Aliases are looked for anywhere in an answer, because models answer in sentences. So an answer that
names many candidates may pass, and longer ones name more.
"""

import hashlib
import re
import string
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum

from sprout.evaluate.answers import Answer, Question
from sprout.evaluate.judges.verdict import Reason

MAX_REFERENCE_CHARS = 20_000
MAX_ALIAS_CHARS = 200  # longer ones are worked solutions or programs; equality says nothing of them
RULES = 1  # of comparison; counted up when they change


class Kind(StrEnum):
    NUMBER = "number"
    LETTER = "letter"
    ALIASES = "aliases"


class ExactMarker:
    """kinds: of references, by task; where a task is not named, inferred from the reference.

    separator: between the aliases of a reference.
    """

    def __init__(self, kinds: Mapping[str, Kind] | None = None, *, separator: str = ";") -> None:
        self._kinds, self._separator = dict(kinds or {}), separator

    @property
    def name(self) -> str:
        return "exact"

    @property
    def version(self) -> str:
        kinds = sorted((task, str(kind)) for task, kind in self._kinds.items())
        said = f"exact {RULES} {kinds} {self._separator}"
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def mark(self, question: Question, answer: Answer) -> float | Reason:
        """1 right, 0 wrong."""
        reference = question.reference.strip()
        kind = self._kinds.get(question.task) or infer(reference)
        right: bool | None
        match kind:
            case Kind.NUMBER:
                right = _same_number(reference, answer.text)
            case Kind.LETTER:
                right = _same_letter(reference, answer.text)
            case Kind.ALIASES:
                right = _names(reference.split(self._separator), answer.text)
            case None:
                right = None
        return Reason.NO_REFERENCE if right is None else float(right)

    def close(self) -> None:
        pass


def infer(reference: str) -> Kind | None:
    """None: none that a program can compare with."""
    if not reference or len(reference) > MAX_REFERENCE_CHARS:
        return None
    if _SOLUTION in reference or _NUMBER.fullmatch(reference):
        return Kind.NUMBER
    if _LETTER.fullmatch(reference):
        return Kind.LETTER
    return None if "\n" in reference else Kind.ALIASES


_SOLUTION = "####"  # GSM8K: the final answer follows
# A minus belongs to a number unless it stands between two things, as in "5-3".
_NUMBER = re.compile(
    r"(?P<minus>(?<![\w)\]])[-\u2212])?[$\u20ac\u00a3]?(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
    r"(?P<part>\.\d+)?",
    re.ASCII,
)


def last_number(text: str) -> Decimal | None:
    if _SOLUTION in text:
        text = text.rsplit(_SOLUTION, 1)[1]
        found = _NUMBER.search(text)
    else:
        found = next(iter([*_NUMBER.finditer(text)][-1:]), None)
    if found is None:
        return None
    number = Decimal(found["digits"].replace(",", "") + (found["part"] or ""))
    return -number if found["minus"] else number


def _same_number(reference: str, text: str) -> bool | None:
    right = last_number(reference)
    return None if right is None else last_number(text) == right


_LETTER = re.compile(r"\(?([A-Z])\)?[.:]?")
# "answer is (B)", "Answer: B", "option B"; the letter may be set in Markdown.
_STATED = re.compile(
    r"(?:answer|option|choice)(?:\s+is)?\s*:?\s*(?:option\s+)?[*_(\[\s]*([A-Z])(?![\w'\u2019])",
    re.IGNORECASE,
)
# The letter at the beginning, alone or set apart from what follows: "B", "(B) Paris", "**B**: …".
# A letter before a space is a word: "A dog", "I think".
_LEADING = re.compile(r"[*_(\[\s]*([A-Z])(?:[*_\s]*$|[*_]*[)\].:,](?!\w))")


def stated_letter(text: str) -> str | None:
    """The letter that an answer commits to; None: to none, or to several."""
    stated = {found.upper() for found in _STATED.findall(text) if found.isupper()}
    if stated:
        return stated.pop() if len(stated) == 1 else None
    leading = _LEADING.match(text)
    return leading[1] if leading else None


def _same_letter(reference: str, text: str) -> bool | None:
    right = _LETTER.fullmatch(reference)
    return None if right is None else stated_letter(text) == right[1]


_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_TO_SPACE = str.maketrans(dict.fromkeys(string.punctuation + "\u2018\u2019\u00b4", " "))
_APOSTROPHES = str.maketrans("", "", "'\u2018\u2019\u00b4`")


def normalised(text: str) -> tuple[str, ...]:
    """Words without case, punctuation and articles (SQuAD); a hyphen parts words (TriviaQA).

    An apostrophe joins: "Bishop's" is "bishops".
    """
    bare = text.lower().translate(_APOSTROPHES).translate(_TO_SPACE)
    return tuple(_ARTICLES.sub(" ", bare).split())


def _names(aliases: list[str], text: str) -> bool | None:
    wanted = {normalised(alias) for alias in aliases if len(alias) <= MAX_ALIAS_CHARS} - {()}
    if not wanted:
        return None
    said = f" {' '.join(normalised(text))} "
    return any(f" {' '.join(words)} " in said for words in wanted)
