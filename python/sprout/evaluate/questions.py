# SPDX-License-Identifier: Apache-2.0
"""Where questions come from: a file of the operator's, or prompts that nodes sampled."""

import hashlib
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sprout.errors import ConfigError, ControlError
from sprout.evaluate import lines
from sprout.evaluate.answers import Question
from sprout.v1 import control_pb2 as pb
from sprout_ext.board import NAME_LENGTH


def read_file(path: Path) -> list[Question]:
    """Of a JSON-lines file: `prompt`, and if there are any `id`, `reference` or `final_answer` (the
    shorter of the two is the one to compare with), `task` or `dataset`, `max_tokens`.

    ConfigError names the line that is wrong.
    """
    found: dict[str, Question] = {}

    def take(entry: Any, number: int) -> None:
        question = _question(entry, number)
        if question.id in found:
            raise ValueError(f"the id {question.id!r} is there twice")
        found[question.id] = question

    lines.read(path, take)
    if not found:
        raise ConfigError(f"{path} holds no prompt")
    return list(found.values())


def _question(entry: Any, number: int) -> Question:
    if not isinstance(entry, dict):
        raise TypeError("not a JSON object")
    text = entry.get("prompt")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("`prompt` is no text")
    task = str(entry.get("task") or entry.get("dataset") or "")
    if len(task) > NAME_LENGTH or not (task.isascii() and task.isprintable()):
        raise ValueError(f"a task is printable ASCII of at most {NAME_LENGTH} characters: {task!r}")
    max_tokens = entry.get("max_tokens", 0)
    if not isinstance(max_tokens, int) or max_tokens < 0:
        raise ValueError(f"`max_tokens` is no number of tokens: {max_tokens!r}")
    reference = entry.get("final_answer") or entry.get("reference") or ""
    return Question(
        id=str(entry.get("id") or f"line-{number}"),
        text=text,
        task=task,
        reference=str(reference),
        max_tokens=max_tokens,
    )


def sampled(prompts: Iterable[pb.SampledPrompt]) -> list[Question]:
    """Of a draw. A question's weight is how many sampled requests it stands for, so that questions
    of several draws go together as the requests do: it is nowhere divided by a mean.

    ControlError where the control plane does not say.
    """
    found = []
    for prompt in prompts:
        if not prompt.stands_for > 0:
            raise ControlError(
                "the control plane drew a prompt and does not say how many requests it stands for: "
                "is it of an older version?"
            )
        found.append(
            Question(
                f"{prompt.id:016x}",
                prompt.text,
                prompt.task,
                weight=prompt.stands_for,
                max_tokens=prompt.max_tokens,
                as_asked=not prompt.redacted,
            )
        )
    return found


def some(found: Sequence[Question], most: int, seed: int) -> list[Question]:
    """At most so many, drawn at random, the same for the same seed."""
    order = list(found)
    random.Random(seed).shuffle(order)  # noqa: S311
    return order[:most]


def fingerprint(questions: Sequence[Question]) -> str:
    """Of a set of questions, whatever their order."""
    texts = sorted(f"{q.id}\0{q.text}\0{q.reference}" for q in questions)
    return hashlib.sha256("\0\0".join(texts).encode(errors="surrogatepass")).hexdigest()[:16]
