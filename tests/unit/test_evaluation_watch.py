# SPDX-License-Identifier: Apache-2.0
"""The process that runs evaluations whenever they are due; what it runs is a stand-in."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE_S

from sprout.config import Config, load
from sprout.console import evaluate as console
from sprout.energy.carbontracker import Span
from sprout.errors import EvaluationError, SproutError
from sprout.evaluate import watch
from sprout.evaluate.session import Options
from sprout.evaluate.watch import Watch
from sprout.v1 import control_pb2 as pb


def due(*, now: bool) -> pb.Status:
    return pb.Status(evaluation=pb.EvaluationStatus(due=now, why="never evaluated"))


def test_the_watch_evaluates_when_it_is_due_and_not_before() -> None:
    ran: list[pb.EvaluationStatus] = []
    answers = iter([due(now=False), due(now=True), due(now=False)])
    made = Watch(lambda: next(answers), ran.append, look_s=7)  # type: ignore[func-returns-value]
    assert [made.step() for _ in range(3)] == [7, 7, 7]
    assert [standing.why for standing in ran] == ["never evaluated"]


def test_what_fails_is_tried_again_after_a_while_that_grows() -> None:
    def fail(_: pb.EvaluationStatus) -> None:
        raise EvaluationError("no judge")

    made = Watch(lambda: due(now=True), fail, first_retry_s=10)
    assert [made.step() for _ in range(3)] == [10, 20, 40]
    for _ in range(40):
        assert made.step() <= 3600


def test_the_watch_ends_when_it_is_told_to() -> None:
    looked = threading.Event()

    def look() -> pb.Status:
        looked.set()
        return due(now=False)

    made = Watch(look, lambda _: None, look_s=3600)
    thread = threading.Thread(target=made.run)
    thread.start()
    assert looked.wait(PATIENCE_S)
    made.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_each_scheduled_evaluation_draws_anew_and_one_that_goes_on_does_not() -> None:
    seeds = [watch.seed(latest) for latest in ("", "20260101T000000Z-a", "20260102T000000Z-b")]
    assert len(set(seeds)) == 3
    assert seeds == [
        watch.seed(latest) for latest in ("", "20260101T000000Z-a", "20260102T000000Z-b")
    ]


class Watched:
    """In place of a session, under `sprout evaluate watch`."""

    options: Options
    did: list[str]

    def __init__(self, cfg: Config, control: object, triton: str, options: Options) -> None:
        type(self).options = options

    def sample(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # told to stop while prompts are drawn

    def cancel(self) -> None:
        self.did.append("cancelled")

    def run(self, sample: None, started: Callable[[Any, Any], None]) -> None:
        self.did.append("runs")
        started(self, None)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Watched]]:
    standing = due(now=True)
    standing.evaluation.latest.id = "the-last"
    Watched.did = []
    monkeypatch.setattr(console, "Session", Watched)
    monkeypatch.setattr(console.operator, "status", lambda _: standing)
    monkeypatch.setattr(console.operator, "control", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(console, "grpc_address", lambda _: "")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield Watched
    for number, handler in before.items():
        signal.signal(number, handler)


def test_told_to_stop_before_it_began_it_does_not_begin(
    watched: type[Watched],
) -> None:
    console.watch(Config())
    assert watched.did == ["runs", "cancelled"]
    assert watched.options.seed == watch.seed("the-last")
    assert watched.options.scheduled


def test_carbontracker_runs_beside_scheduled_evaluations(
    watched: type[Watched],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    @contextlib.contextmanager
    def beside(_: Config) -> Iterator[Span]:
        watched.did.append("tracked")
        yield Span()
        watched.did.append("tracked no more")

    monkeypatch.setattr(console.tracked, "beside", beside)
    monkeypatch.setattr(console.tracked, "line", lambda _: "CarbonTracker 2.3: 12 J")
    with caplog.at_level("INFO"):
        console.watch(Config())
    assert watched.did == ["tracked", "runs", "cancelled", "tracked no more"]
    assert "CarbonTracker 2.3: 12 J" in caplog.messages


@pytest.mark.parametrize("missing", ["judge", "prompts"])
def test_a_rule_without_a_judge_or_prompts_is_refused(tmp_path: Path, missing: str) -> None:
    file = tmp_path / "sprout.toml"
    judge = 'judge = { kind = "exact" }\n' if missing == "prompts" else ""
    source = 'prompts_file = "x"\n' if missing == "judge" else ""
    file.write_text(f'[evaluate]\n{judge}{source}schedule = {{ rule = "fixed" }}\n')
    with pytest.raises(SproutError, match="needs"):
        load(file, environ={})
