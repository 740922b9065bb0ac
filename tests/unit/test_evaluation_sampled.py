# SPDX-License-Identifier: Apache-2.0
"""Evaluations of prompts that nodes sampled, against a real control plane: what they weigh."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import control_plane
import pytest
from waiting import PATIENCE_S

from sprout.config import Config, EvaluateConfig
from sprout.control import prompts as control_prompts
from sprout.evaluate import answering, journal, session
from sprout.evaluate.answering import Answering
from sprout.evaluate.answers import Question
from sprout.evaluate.journal import Journal
from sprout.evaluate.run import Evaluation, Progress
from sprout.evaluate.session import Options, Session
from sprout.evaluate.traffic import Gate
from sprout.serve import client
from sprout.serve.client import Receipt
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub

TIMEOUT_S = PATIENCE_S


class Engine:
    def ask(
        self, question: Question, level: str, max_tokens: int, on_text: Callable[[str], None]
    ) -> client.Answer:
        receipt = Receipt(int(level[1]), 1, 1.0, 0.1, 300.0)
        return client.Answer(f"in {level}", 1, 5, 9, receipt=receipt)

    def close(self) -> None: ...


class Idle:
    def clients(self, own: int) -> int | None:
        return 0


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(cfg: Config, address: str, levels: Any, **given: Any) -> tuple[Answering, Engine]:
        made, gate = Engine(), Gate(Idle(), 1, hold_s=60)
        own = Answering(
            made, gate, levels, concurrency=1, max_tokens=64, retries=0, energy_estimated=False
        )
        return own, made

    monkeypatch.setattr(answering, "answering", fake)


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    """Every answer is as good as every other."""
    recorded = tmp_path / "recorded.jsonl"
    ties = [
        {"id": f"{i:016x}", "shown": shown, "better": "tie"}
        for i in range(1, 200)
        for level in (1, 2)
        for shown in ([0, level], [level, 0])
    ]
    recorded.write_text("\n".join(map(json.dumps, ties)))
    evaluate = EvaluateConfig(
        sampling={"share": 0.1},
        judge={"kind": "recorded", "recorded_file": recorded},
        schedule={"least_prompts": 1000},  # so that nothing ends before its last prompt
    )
    made = control_plane.configure(tmp_path / "state")
    return made.model_copy(update={"evaluate": evaluate})


@pytest.fixture
def control(cfg: Config) -> Iterator[ControlStub]:
    with control_plane.running(cfg) as address, control_plane.stub_of(address) as stub:
        control_plane.first(stub)
        yield stub


def send(control: ControlStub, task: str, ids: range) -> None:
    prompts = []
    for number in ids:
        prompts.append(pb.SampledPrompt(id=number, text=f"{task}?", task=task, propensity=1.0))
        prompts[-1].sampled_at.FromNanoseconds(time.time_ns())
    control.ReportPrompts(pb.ReportPromptsRequest(node="n", prompts=prompts), timeout=TIMEOUT_S)


def opened(cfg: Config, control: ControlStub, most: int) -> Session:
    return Session(cfg, control, "127.0.0.1:1", Options(most=most))


def by_task(weights: list[tuple[str, float]]) -> dict[str, float]:
    found: Counter[str] = Counter()
    for task, weight in weights:
        found[task] += weight
    return dict(found)


def test_a_sample_of_several_calls_weighs_as_the_requests_do(
    cfg: Config, control: ControlStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_prompts, "DRAW_BYTES", 500)  # some ten prompts
    send(control, "a", range(1, 91))
    send(control, "b", range(101, 111))
    sample = opened(cfg, control, most=40).sample()
    assert Counter(q.task for q in sample.questions) == {"a": 30, "b": 10}
    assert by_task([(q.task, q.weight) for q in sample.questions]) == {"a": 90, "b": 10}
    assert sample.most_weight == 3


def test_one_that_goes_on_after_other_traffic_weighs_as_the_requests_do(
    cfg: Config, control: ControlStub
) -> None:
    send(control, "a", range(1, 21))
    send(control, "b", range(21, 41))
    first = opened(cfg, control, most=40)

    def cancel_after_half(evaluation: Evaluation, of: Journal) -> None:
        def cancel(now: Progress) -> None:
            if now.done == 20:
                evaluation.cancel()

        evaluation._progress = cancel

    assert first.run(first.sample(), started=cancel_after_half) is None
    # Meanwhile six of seven requests are "b", so what a drawn one stands for is more than before.
    send(control, "b", range(41, 140))
    second = opened(cfg, control, most=40)
    sample = second.sample()
    assert sample.most_weight > 5
    assert second.run(sample) is not None
    (found,) = journal.finished(cfg.stack.state / "evaluations")
    weights = by_task([(entry.task, entry.weight) for entry in found.entries])
    assert weights["a"] / sum(weights.values()) == pytest.approx(20 / 139, rel=0.15)


def test_where_prompts_are_drawn_no_core_is_dumped(
    cfg: Config, control: ControlStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(session, "no_core_dumps", lambda: asked.append(True))
    send(control, "a", range(1, 3))
    file = tmp_path / "own.jsonl"
    file.write_text('{"prompt": "of the operator"}')
    Session(cfg, control, "127.0.0.1:1", Options(prompts=file)).sample()
    assert asked == []
    opened(cfg, control, most=1).sample()
    assert asked == [True]
