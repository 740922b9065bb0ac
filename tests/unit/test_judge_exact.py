# SPDX-License-Identifier: Apache-2.0
"""Answers compared with references."""

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest

from sprout.evaluate.answers import Answer, Question
from sprout.evaluate.judges.exact import ExactMarker, Kind, infer
from sprout.evaluate.judges.verdict import Reason

PROMPTS = (
    Path(os.environ.get("SPROUT_DATA", Path(__file__).parents[3] / "shared" / "data")) / "prompts"
)


def mark(reference: str, text: str, task: str = "", **settings: str) -> float | Reason:
    marker = ExactMarker(separator=settings.get("separator", ";"))
    return marker.mark(Question("q", "?", task, reference), Answer(0, text))


@pytest.mark.parametrize(
    ("reference", "text", "right"),
    [
        ("18", "She makes 9 * 2 = $18 every day.", True),
        ("18", "9 * 2 = 18 dollars from 9 eggs", False),  # the last number counts
        ("18", "#### 18\nas 9 eggs are sold", True),  # unless one is marked
        ("18", "18.00", True),
        ("18", "18.5", False),
        ("18", "\\boxed{18}.", True),
        ("18", "**18**", True),
        ("1,450,000", "It costs $1450000.", True),
        ("1450000", "1,450,000 in total", True),
        ("5600", "5,600,000", False),
        ("-3", "it is -3 degrees", True),
        ("-3", "it is \u22123", True),
        ("3", "10-3", True),  # a minus between two things is no sign
        ("-3", "10-3", False),
        ("70000", "no number", False),
        ("70000", "", False),
        ("It takes 2/2=<<2/2=1>>1 bolt\n#### 3", "3 bolts", True),
        ("It takes 2/2=<<2/2=1>>1 bolt\n#### 3", "1 bolt", False),
        ("#### none", "3", Reason.NO_REFERENCE),
    ],
)
def test_numbers(reference: str, text: str, right: bool | Reason) -> None:
    assert mark(reference, text) == right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("B", True),
        ("(B)", True),
        ("B. Paris", True),
        ("**B**", True),
        ("**B) Paris**, as the capital is there", True),
        ("The answer is (B).", True),
        ("Answer: B", True),
        ("The correct answer is **B**: Paris", True),
        ("It is option B, because of C", True),
        ("B\n", True),
        ("C", False),
        ("The answer is C. B is wrong.", False),
        ("The answer is B. No, the answer is C.", False),  # commits to none
        ("Both are possible.", False),
        ("But why", False),
        ("b", False),
        ("The answer is because of it", False),
        ("", False),
    ],
)
def test_letters(text: str, right: bool) -> None:
    assert mark("(B)", text) == right


@pytest.mark.parametrize("text", ["A dog is an animal.", "A", "I think so"])
def test_an_article_is_no_letter(text: str) -> None:
    assert mark("A", text) == (text == "A")


@pytest.mark.parametrize(
    ("reference", "text", "right"),
    [
        ("New York; NYC", "It was in the city of new-york!", True),
        ("New York; NYC", "nyc.", True),
        ("New York; NYC", "York is new", False),
        ("art", "He likes party music", False),  # whole words
        ("The Beatles", "Beatles", True),
        ("Bishop's Finger", "bishops finger", True),
        ("Guinée", "La Guinée est là", True),
        ("the; ; !", "the", Reason.NO_REFERENCE),  # nothing is left of it
        ("New York", "", False),
    ],
)
def test_aliases(reference: str, text: str, right: bool | Reason) -> None:
    assert mark(reference, text) == right


def test_the_separator_of_aliases_is_stated() -> None:
    assert mark("a cat|some dog", "some dog", separator="|") == 1
    assert mark("a cat|some dog", "some dog") == 0


def test_the_kind_is_inferred_or_stated_by_task() -> None:
    assert infer("1,450,000") is Kind.NUMBER
    assert infer("C") is infer("(C)") is Kind.LETTER
    assert infer("Paris") is infer("A; a cappella") is Kind.ALIASES
    assert infer("") is infer("    for i in x:\n        return i\n") is infer("x" * 30_000) is None
    marker = ExactMarker({"vitamins": Kind.ALIASES})
    text = Answer(1, "It is vitamin C that helps.")
    assert marker.mark(Question("q", "?", "vitamins", "C"), text) == 1
    assert marker.mark(Question("q", "?", "", "C"), text) == 0
    assert marker.version != ExactMarker().version != ExactMarker(separator="|").version


def test_a_stated_kind_that_the_reference_is_not() -> None:
    marker = ExactMarker({"sums": Kind.NUMBER, "quiz": Kind.LETTER})
    for task in ("sums", "quiz"):
        found = marker.mark(Question("q", "?", task, "Paris"), Answer(0, "Paris"))
        assert found is Reason.NO_REFERENCE


@pytest.mark.data
@pytest.mark.skipif(not PROMPTS.is_dir(), reason=f"no prompts at {PROMPTS} (SPROUT_DATA)")
def test_real_references_are_right_for_themselves_and_seldom_for_others() -> None:
    """Every worked solution and every alias; the next question's is right as often as by chance."""
    marker = ExactMarker()
    rows = {
        name: [json.loads(line) for line in (PROMPTS / f"{name}.jsonl").read_bytes().splitlines()]
        for name in ("gsm8k", "triviaqa")
    }

    def right(row: dict[str, str], text: str) -> float | Reason:
        reference = row.get("final_answer") or row["reference"]
        return marker.mark(Question(row["id"], row["prompt"], "", reference), Answer(0, text))

    sums, quiz = rows["gsm8k"], rows["triviaqa"]
    assert all(right(row, row["reference"]) == 1 for row in sums)
    for row in quiz:
        for alias in row["reference"].split(";"):
            assert right(row, f"I believe it is {alias.strip()}.") == 1, (row["id"], alias)
    for found in (sums, quiz):
        others = [right(a, b["reference"]) for a, b in pairwise(found)]
        assert Reason.NO_REFERENCE not in others
        assert others.count(1.0) / len(others) < 0.05
