# SPDX-License-Identifier: Apache-2.0
"""Sessions of an evaluation that asks for sums, for tests."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import control_plane
import pytest
from waiting import PATIENCE_S

from sprout.config import Config, EvaluateConfig
from sprout.errors import SproutError
from sprout.evaluate import answering, journal
from sprout.evaluate.answering import Answering
from sprout.evaluate.answers import Judged, Question
from sprout.evaluate.session import Options, Session
from sprout.evaluate.traffic import Gate
from sprout.serve import client
from sprout.serve.client import Receipt
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub

LEVELS = ("L0", "L1", "L2")

# Of ten sums, how many each level gets right.
RIGHT = {"L0": 10, "L1": 9, "L2": 3}

TIMEOUT_S = PATIENCE_S


class Engine:
    """Adds up, and at shorter levels errs in some; idle otherwise."""

    def __init__(self, fails: Callable[[Question], bool] = lambda _: False) -> None:
        self.asked: list[str] = []
        self.error: type[Exception] = SproutError  # of what fails
        self.joules = 0.0  # of all that it answered
        self.max_tokens: dict[str, int] = {}
        self.traffic: Any = Idle()
        self.given: dict[str, Any] = {}  # by the session
        self._fails = fails

    def ask(
        self, question: Question, level: str, max_tokens: int, on_text: Callable[[str], None]
    ) -> client.Answer:
        self.asked.append(question.id)
        self.max_tokens[question.id] = max_tokens
        if self._fails(question):
            raise self.error("the engine is away")
        number = int(question.id.removeprefix("sum-"))
        right = number % 10 < RIGHT[level]
        text = f"It is {int(question.reference) + (not right)}."
        receipt = Receipt(LEVELS.index(level), 1, 6.0 / (1 + LEVELS.index(level)), 0.5, 300.0)
        self.joules += receipt.energy_joules
        return client.Answer(text, 1, 5, 20 >> LEVELS.index(level), receipt=receipt)

    def close(self) -> None: ...


class Idle:
    def clients(self, own: int) -> int | None:
        return 0


def sums(folder: Path) -> Path:
    """Eighty prompts."""
    file = folder / "sums.jsonl"
    lines = [
        {"id": f"sum-{i}", "task": "sums", "prompt": f"{i} + 1?", "final_answer": str(i + 1)}
        for i in range(80)
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


def in_tritons_place(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """One that answers every session from now on."""
    made = Engine()

    def fake(cfg: Config, address: str, levels: Any, **given: Any) -> tuple[Answering, Engine]:
        made.given = given
        gate = Gate(made.traffic, 1, hold_s=0.05, poll_s=0.001)
        own = Answering(
            made, gate, levels, concurrency=1, max_tokens=64, retries=0, energy_estimated=False
        )
        return own, made

    monkeypatch.setattr(answering, "answering", fake)
    return made


def configured(folder: Path) -> Config:
    made = control_plane.configure(folder / "state")
    evaluate = EvaluateConfig(
        prompts_file=sums(folder), judge={"kind": "exact"}, schedule={"least_prompts": 20}
    )
    return made.model_copy(update={"evaluate": evaluate})


@contextlib.contextmanager
def control_of(cfg: Config) -> Iterator[ControlStub]:
    with (
        control_plane.running(cfg) as address,
        control_plane.stub_of(address) as stub,
    ):
        control_plane.first(stub)
        yield stub


def status(control: ControlStub) -> pb.Status:
    return control.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)


def evaluated(cfg: Config) -> list[Judged]:
    """What the newest evaluation judged."""
    found = next(journal.finished(cfg.stack.state / "evaluations"))
    return [one for entry in found.entries if (one := entry.judged) is not None]


def open_session(cfg: Config, control: ControlStub, **given: Any) -> Session:
    return Session(cfg, control, "127.0.0.1:1", Options(**given))
