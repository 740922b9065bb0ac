# SPDX-License-Identifier: Apache-2.0
"""What became of an evaluation's report: acknowledged, lost on the way, late, refused."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import control_plane
import grpc
import pytest
from sums_session import (
    TIMEOUT_S,
    Engine,
    configured,
    control_of,
    in_tritons_place,
    open_session,
    status,
)

from sprout.config import Config
from sprout.errors import EvaluationError
from sprout.evaluate import journal
from sprout.evaluate.journal import Journal
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return in_tritons_place(monkeypatch)


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    return configured(tmp_path)


@pytest.fixture
def control(cfg: Config) -> Iterator[ControlStub]:
    with control_of(cfg) as stub:
        yield stub


@pytest.mark.parametrize("trigger", ["operator", "never evaluated; 72 h"])
def test_a_report_that_nobody_acknowledged_is_sent_again_as_it_was(
    cfg: Config,
    control: ControlStub,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    trigger: str,
) -> None:
    class KilledError(Exception): ...

    def die(*_: object) -> None:
        raise KilledError

    first = open_session(cfg, control, whole=True, trigger="never evaluated; 71 h")
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "finish", die)
        with pytest.raises(KilledError):
            first.run(first.sample())
    reported = status(control).evaluation.latest
    engine.asked.clear()
    second = open_session(cfg, control, whole=True, trigger=trigger)
    assert second.run(second.sample()) == reported
    assert not engine.asked
    kept = next(journal.finished(cfg.stack.state / "evaluations"))
    assert kept.id == reported.id
    third = open_session(cfg, control, whole=True, trigger=trigger)
    new = third.run(third.sample())
    assert new is not None
    assert new.id != reported.id


def test_the_same_findings_for_another_reason_are_the_same_evaluation(
    cfg: Config, control: ControlStub, engine: Engine
) -> None:
    made = open_session(cfg, control, whole=True)
    found = made.run(made.sample())
    assert found is not None
    again = pb.Evaluation()
    again.CopyFrom(found)
    again.trigger = "never evaluated; 72 h"
    control.ReportEvaluation(pb.ReportEvaluationRequest(evaluation=again), timeout=TIMEOUT_S)
    assert status(control).evaluation.latest == found
    again.unusable += 1
    with pytest.raises(grpc.RpcError, match="another evaluation has the id"):
        control.ReportEvaluation(pb.ReportEvaluationRequest(evaluation=again), timeout=TIMEOUT_S)


def test_one_that_did_not_arrive_is_delivered_before_another_begins(
    cfg: Config, control: ControlStub, engine: Engine
) -> None:
    first = open_session(cfg, control, whole=True)
    with control_plane.stub_of("127.0.0.1:1") as away:
        first._control = SimpleNamespace(ReportEvaluation=away.ReportEvaluation)  # type: ignore
        with pytest.raises(grpc.RpcError):
            first.run(first.sample())
    assert not status(control).evaluation.HasField("latest")
    other = open_session(cfg, control, whole=True, seed=5)
    found = other.run(other.sample())
    ids = [one.id for one in journal.finished(cfg.stack.state / "evaluations")]
    listed = control.ListEvaluations(pb.ListEvaluationsRequest(), timeout=TIMEOUT_S).evaluations
    assert found is not None
    assert sorted(ids) == sorted(one.id for one in listed)
    assert len(ids) == 2
    assert found.id in ids


def test_a_report_that_is_refused_is_not_sent_for_ever(
    cfg: Config, control: ControlStub, engine: Engine
) -> None:
    first = open_session(cfg, control, whole=True)
    real = first._message

    def wrong(*given: Any, **named: Any) -> pb.Evaluation:
        made = real(*given, **named)
        made.levels.append("L9")
        return made

    first._message = wrong  # type: ignore[method-assign]
    with pytest.raises(EvaluationError, match="refused"):
        first.run(first.sample())
    engine.asked.clear()
    second = open_session(cfg, control, whole=True)
    found = second.run(second.sample())
    assert found is not None
    assert not engine.asked  # the judgments were no worse for it
    assert status(control).evaluation.latest.id == found.id
