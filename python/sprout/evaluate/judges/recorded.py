# SPDX-License-Identifier: Apache-2.0
"""Judgments that were made before: for tests, and to replay what another tool judged.

One JSON object a line; levels are named by their number:

    {"id": "q1", "shown": [0, 2], "better": "A"}      pairwise: L0 shown first, and better
    {"id": "q1", "shown": [2, 0, 1], "choice": "C"}   choice
    {"id": "q1", "preferred": 1}                      choice, whatever the order was
"""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sprout.errors import ConfigError
from sprout.evaluate import lines
from sprout.evaluate.answers import Answer, Question
from sprout.evaluate.judges.verdict import LETTERS, Method, Reason, Verdict

_Key = tuple[str, tuple[int, ...]]  # question, levels in the order shown; (): in any order


class RecordedJudge:
    """ConfigError names the line that is wrong. Two lines that contradict each other are wrong."""

    by_text = False

    def __init__(self, path: Path, method: Method) -> None:
        self._path, self._method = path, method
        self._said: dict[_Key, int | None] = {}
        content = lines.read(path, self._add, setting="evaluate.judge.recorded_file")
        self._digest = hashlib.sha256(content).hexdigest()
        if not self._said:
            raise ConfigError(f"{path} holds no judgment of the method {method!r}")

    def _add(self, entry: Any, _: int) -> None:
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
            raise TypeError("not a JSON object with a text `id`")
        kinds = [kind for kind in ("better", "choice", "preferred") if kind in entry]
        if len(kinds) != 1:
            raise ValueError("exactly one of `better`, `choice` and `preferred` is needed")
        shown: tuple[int, ...] = ()
        if kinds[0] == "preferred":
            verdict: int | None = _level(entry["preferred"])
        else:
            shown = tuple(_level(level) for level in entry.get("shown", ()))
            if len(set(shown)) < max(2, len(shown)) or (kinds == ["better"] and len(shown) != 2):
                raise ValueError(f"`shown` is not the levels in the order shown: {shown}")
            verdict = _place(entry[kinds[0]], len(shown), tie=kinds == ["better"])
        if (kinds == ["better"]) != (self._method == "pairwise"):
            return  # of the other method
        key = (entry["id"], shown)
        if self._said.setdefault(key, verdict) != verdict:
            raise ValueError("contradicts a line above")

    @property
    def name(self) -> str:
        return f"recorded {self._path.name}"

    @property
    def version(self) -> str:
        return hashlib.sha256(f"recorded {self._method} {self._digest}".encode()).hexdigest()[:16]

    @property
    def method(self) -> Method:
        return self._method

    def prefer(self, question: Question, shown: Sequence[Answer], stop: threading.Event) -> Verdict:
        levels = tuple(answer.level for answer in shown)
        if (question.id, levels) in self._said:
            return Verdict(self._said[question.id, levels])
        preferred = self._said.get((question.id, ()))
        if preferred in levels:
            return Verdict(levels.index(preferred))
        return Verdict(unusable=Reason.NOT_RECORDED)

    def close(self) -> None:
        pass


def _level(value: Any) -> int:
    if type(value) is not int or not 0 <= value < len(LETTERS):
        raise ValueError(f"not a level's number: {value!r}")
    return value


def _place(said: Any, shown: int, *, tie: bool) -> int | None:
    if said == "tie" and tie:
        return None
    if not isinstance(said, str) or len(said) != 1 or said not in LETTERS[:shown]:
        raise ValueError(f"not one of those shown: {said!r}")
    return LETTERS.index(said)
