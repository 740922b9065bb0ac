# SPDX-License-Identifier: Apache-2.0
"""Judgments that were made before."""

import json
import threading
from pathlib import Path

import pytest
from judge_api import given, question

from sprout.errors import ConfigError
from sprout.evaluate.answers import Answer
from sprout.evaluate.judges.recorded import RecordedJudge
from sprout.evaluate.judges.verdict import Method, Reason, Verdict


def recorded(path: Path, *lines: object, method: Method = "pairwise") -> RecordedJudge:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts))
    return RecordedJudge(path, method)


def prefer(judge: RecordedJudge, *levels: int, id: str = "q0") -> Verdict:
    answers = [given("a", "b", "c")[level] for level in levels]
    return judge.prefer(question(id=id), answers, threading.Event())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "judgments.jsonl"


def test_pairwise_is_by_question_and_order(path: Path) -> None:
    judge = recorded(
        path,
        {"id": "q0", "shown": [0, 1], "better": "A"},
        {"id": "q0", "shown": [1, 0], "better": "tie"},
        "",
        {"id": "q0", "preferred": 2},  # of the other method
        {"id": "q1", "shown": [0, 1], "better": "B"},
    )
    assert prefer(judge, 0, 1) == Verdict(0)
    assert prefer(judge, 1, 0) == Verdict(None)
    assert prefer(judge, 0, 1, id="q1") == Verdict(1)
    for levels, name in (((1, 0), "q1"), ((0, 2), "q0"), ((0, 1), "q2")):
        assert prefer(judge, *levels, id=name).unusable is Reason.NOT_RECORDED


def test_a_choice_is_by_order_or_for_any(path: Path) -> None:
    judge = recorded(
        path,
        {"id": "q0", "shown": [2, 0, 1], "choice": "C"},
        {"id": "q1", "preferred": 2},
        method="choice",
    )
    assert prefer(judge, 2, 0, 1) == Verdict(2)
    assert prefer(judge, 0, 1, 2).unusable is Reason.NOT_RECORDED
    assert prefer(judge, 0, 1, 2, id="q1") == Verdict(2)
    assert prefer(judge, 2, 1, 0, id="q1") == Verdict(0)
    assert prefer(judge, 0, 1, id="q1").unusable is Reason.NOT_RECORDED


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[1]",
        {"shown": [0, 1], "better": "A"},
        {"id": 1, "shown": [0, 1], "better": "A"},
        {"id": "q1"},
        {"id": "q1", "preferred": 1, "better": "A"},
        {"id": "q1", "preferred": -1},
        {"id": "q1", "preferred": True},
        {"id": "q1", "preferred": "L1"},
        {"id": "q1", "better": "A"},
        {"id": "q1", "shown": [0, 0], "better": "A"},
        {"id": "q1", "shown": [0, 1, 2], "better": "A"},
        {"id": "q1", "shown": [0, 1], "better": "C"},
        {"id": "q1", "shown": [0, 1], "better": ""},
        {"id": "q1", "shown": [0, 1], "choice": "tie"},
        {"id": "q1", "shown": 7, "better": "A"},
        {"id": "q0", "shown": [0, 1], "better": "B"},  # contradicts the first
    ],
)
def test_a_line_that_is_wrong_is_named(path: Path, line: object) -> None:
    with pytest.raises(ConfigError, match=r"judgments\.jsonl:2"):
        recorded(path, {"id": "q0", "shown": [0, 1], "better": "A"}, line)


def test_a_file_of_no_use(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no judgment of the method 'choice'"):
        recorded(path, {"id": "q0", "shown": [0, 1], "better": "A"}, method="choice")
    with pytest.raises(ConfigError, match="recorded_file"):
        RecordedJudge(tmp_path / "absent", "choice")


def test_a_verdict_is_not_taken_from_equal_texts(path: Path) -> None:
    """Judgments may be replayed without any text."""
    judge = recorded(path, {"id": "q0", "shown": [0, 1], "better": "B"})
    assert not judge.by_text
    shown = [Answer(0, ""), Answer(1, "")]
    assert judge.prefer(question(), shown, threading.Event()) == Verdict(1)


def test_the_version_is_of_the_content(path: Path) -> None:
    line = {"id": "q0", "shown": [0, 1], "better": "A"}
    first = recorded(path, line).version
    assert recorded(path, line).version == first
    assert recorded(path, line, {"id": "q1", "shown": [0, 1], "better": "A"}).version != first
