# SPDX-License-Identifier: Apache-2.0
"""An engine that answers an evaluation's questions, for tests."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from sprout.evaluate.answering import Answering
from sprout.evaluate.answers import Question
from sprout.evaluate.traffic import Gate, Traffic
from sprout.serve import client
from sprout.serve.client import Receipt

LEVELS = ("L0", "L1", "L2")


def questions(n: int) -> list[Question]:
    return [Question(id=f"q{i}", text=f"What is {i}?", task="maths") for i in range(n)]


class Idle:
    """No client is there."""

    def clients(self, own: int) -> int | None:
        return 0


class Engine:
    """Answers at once; `fails` says which requests do not, by question and level."""

    def __init__(self, fails: Callable[[str, str, int], Exception | None] | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.most = 0  # at once
        self._fails = fails or (lambda question, level, attempt: None)
        self._now, self._lock = 0, threading.Lock()

    def ask(
        self, question: Question, level: str, max_tokens: int, on_text: Callable[[str], None]
    ) -> client.Answer:
        with self._lock:
            attempt = Counter(self.asked)[question.id, level]
            self.asked.append((question.id, level))
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            self.work(on_text)
            if error := self._fails(question.id, level, attempt):
                raise error
            return self.answer(LEVELS.index(level), max_tokens)
        finally:
            with self._lock:
                self._now -= 1

    def work(self, on_text: Callable[[str], None]) -> None:
        """While it answers."""

    def answer(self, level: int, max_tokens: int) -> client.Answer:
        tokens = max_tokens if level == 0 else 7
        receipt = Receipt(level, 1, 10.0 * (level + 1), 0.5, 300.0)
        return client.Answer(f"at L{level}", 1, 5, tokens, receipt=receipt)

    def close(self) -> None: ...


def make(engine: Engine, traffic: Traffic | None = None, bound: int = 1, **given: Any) -> Answering:
    settings = {"concurrency": 1, "max_tokens": 64, "retries": 2, "energy_estimated": False}
    gate = Gate(traffic or Idle(), bound, hold_s=given.pop("hold_s", 60), poll_s=0.001)
    return Answering(engine, gate, LEVELS, retry_s=0, **(settings | given))
