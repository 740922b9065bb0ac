# SPDX-License-Identifier: Apache-2.0
"""Whole evaluations against a real control plane; the engine alone is a stand-in."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import control_plane
import pytest

from sprout.config import Config, EvaluateConfig, load
from sprout.errors import EvaluationError, SproutError
from sprout.evaluate import answering, findings, journal, session
from sprout.evaluate.answering import Answering
from sprout.evaluate.answers import Judged, Question
from sprout.evaluate.journal import Journal
from sprout.evaluate.run import Evaluation
from sprout.evaluate.session import Options, Session
from sprout.evaluate.traffic import Gate
from sprout.evaluate.watch import Watch
from sprout.serve import client
from sprout.serve.client import Receipt
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub

LEVELS = ("L0", "L1", "L2")
# Of ten sums, how many each level gets right.
RIGHT = {"L0": 10, "L1": 9, "L2": 3}
TIMEOUT_S = 10.0


class Engine:
    """Adds up, and at shorter levels errs in some; idle otherwise."""

    def __init__(self, fails: Callable[[Question], bool] = lambda _: False) -> None:
        self.asked: list[str] = []
        self._fails = fails

    def ask(
        self, question: Question, level: str, max_tokens: int, on_text: Callable[[str], None]
    ) -> client.Answer:
        self.asked.append(question.id)
        if self._fails(question):
            raise SproutError("the engine is away")
        number = int(question.id.removeprefix("sum-"))
        right = number % 10 < RIGHT[level]
        text = f"It is {int(question.reference) + (not right)}."
        receipt = Receipt(LEVELS.index(level), 1, 6.0 / (1 + LEVELS.index(level)), 0.5, 300.0)
        return client.Answer(text, 1, 5, 20 >> LEVELS.index(level), receipt=receipt)

    def close(self) -> None: ...


class Idle:
    def clients(self, own: int) -> int | None:
        return 0


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "sums.jsonl"
    lines = [
        {"id": f"sum-{i}", "task": "sums", "prompt": f"{i} + 1?", "final_answer": str(i + 1)}
        for i in range(80)
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine()

    def fake(cfg: Config, address: str, levels: Any, **given: Any) -> tuple[Answering, Engine]:
        gate = Gate(Idle(), 1, hold_s=60)
        own = Answering(
            made, gate, levels, concurrency=1, max_tokens=64, retries=0, energy_estimated=False
        )
        return own, made

    monkeypatch.setattr(answering, "answering", fake)
    return made


@pytest.fixture
def cfg(tmp_path: Path, prompts: Path) -> Config:
    made = control_plane.configure(tmp_path / "state")
    evaluate = EvaluateConfig(
        prompts_file=prompts, judge={"kind": "exact"}, schedule={"least_prompts": 20}
    )
    return made.model_copy(update={"evaluate": evaluate})


@pytest.fixture
def control(cfg: Config) -> Iterator[ControlStub]:
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


def test_q_moves_the_policy_moves_and_the_status_says_why(
    cfg: Config, control: ControlStub, engine: Engine
) -> None:
    before = status(control).policy
    assert before.explanation.preference_basis == "prior, not this model"
    made = open_session(cfg, control, whole=True)
    found = made.run(made.sample())
    assert found is not None
    pooled = found.classes[0]
    q = [value / pooled.preference[0] for value in pooled.preference]
    assert q == pytest.approx([1, 0.9, 0.3])
    assert found.stopped == "every prompt was judged"
    assert found.cost.requests == 240
    assert found.cost.energy_joules == pytest.approx(80 * (6 + 3 + 2))
    after = status(control)
    assert after.evaluation.latest.id == found.id
    assert after.policy.explanation.trigger == "evaluation"
    assert "exact" in after.policy.explanation.preference_basis
    assert [p.preference for p in after.policy.explanation.profile] == pytest.approx(
        list(pooled.preference)
    )
    assert [s.share for s in after.policy.shares] != [s.share for s in before.shares]


def test_it_goes_on_where_it_was_cancelled(
    cfg: Config, control: ControlStub, engine: Engine
) -> None:
    first = open_session(cfg, control, whole=True)

    def cancel(evaluation: Evaluation, of: Journal) -> None:
        def look(now: Any, _: Journal) -> None:
            if now.done == 30:
                evaluation.cancel()

        evaluation._progress = lambda now: look(now, of)

    assert first.run(first.sample(), started=cancel) is None
    done = len(set(engine.asked))
    assert 30 <= done < 80
    kept = journal.read(next((cfg.stack.state / "evaluations").glob("*.jsonl")))
    assert kept is not None
    engine.asked.clear()
    second = open_session(cfg, control, whole=True)
    found = second.run(second.sample())
    assert found is not None
    assert found.id == kept.id
    assert found.classes[0].judged == 80
    assert len(set(engine.asked)) == 80 - len(kept.entries)
    assert found.cost.requests == 240


def test_it_stops_when_it_is_sure_enough(cfg: Config, control: ControlStub, engine: Engine) -> None:
    schedule = cfg.evaluate.schedule.model_copy(
        update={"stop_g_ratio": 50.0, "stop_points": 90.0, "least_prompts": 25}
    )
    cfg = cfg.model_copy(
        update={"evaluate": cfg.evaluate.model_copy(update={"schedule": schedule})}
    )
    made = open_session(cfg, control)
    found = made.run(made.sample())
    assert found is not None
    assert found.classes[0].judged == 30  # the first look after 25
    assert "within limits" in found.stopped
    # Bounds for every moment, not for a size that was set before.
    fixed = findings.find(evaluated(cfg), "exact").classes[0]
    assert found.classes[0].low[2] < fixed.low[2]
    assert found.classes[0].high[2] > fixed.high[2]


def test_questions_that_the_engine_does_not_answer_are_left_out(
    cfg: Config, control: ControlStub, engine: Engine
) -> None:
    engine._fails = lambda question: question.id == "sum-7"
    made = open_session(cfg, control, whole=True)
    found = made.run(made.sample())
    assert found is not None
    assert found.classes[0].judged == 79


def test_where_nothing_is_answered_there_is_no_q(
    cfg: Config, control: ControlStub, engine: Engine
) -> None:
    engine._fails = lambda _: True
    made = open_session(cfg, control, whole=True)
    with pytest.raises(SproutError, match="the engine is away"):
        made.run(made.sample())
    assert not status(control).evaluation.HasField("latest")


def test_where_l0_is_never_right_it_says_so_and_goes_on_with_more(
    cfg: Config, control: ControlStub, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RIGHT, "L0", 0)
    few = open_session(cfg, control, most=5, whole=True)
    with pytest.raises(EvaluationError, match="never"):
        few.run(few.sample())
    monkeypatch.setitem(RIGHT, "L0", 10)
    engine.asked.clear()
    more = open_session(cfg, control, whole=True)
    found = more.run(more.sample())
    assert found is not None
    assert found.classes[0].judged == 80
    assert len(set(engine.asked)) == 75


def test_a_dry_run_says_what_it_would_take(
    cfg: Config, control: ControlStub, engine: Engine
) -> None:
    made = open_session(cfg, control, most=40)
    expected = made.expected(made.sample())
    assert (expected.prompts, expected.requests, expected.judge_calls) == (40, 120, 0)
    assert expected.joules == pytest.approx(40 * sum(cfg.control.prior_energy_joules))
    assert expected.carbon_g == pytest.approx(expected.joules * 300 / 3.6e6)
    assert not engine.asked


def test_two_at_once_are_refused(cfg: Config, tmp_path: Path) -> None:
    folder = cfg.stack.state / "evaluations"
    with (
        session.alone(folder),
        pytest.raises(EvaluationError, match="another evaluation"),
        session.alone(folder),
    ):
        pass
    with session.alone(folder):
        pass


def test_without_sampled_prompts_it_says_what_to_do(
    cfg: Config, control: ControlStub, engine: Engine
) -> None:
    none = cfg.model_copy(
        update={"evaluate": cfg.evaluate.model_copy(update={"prompts_file": None})}
    )
    with pytest.raises(Exception, match="sampl"):
        open_session(none, control).sample()


# --- the process that waits ----------------------------------------------------------------------


def due(*, now: bool) -> pb.Status:
    return pb.Status(evaluation=pb.EvaluationStatus(due=now, why="never evaluated"))


def test_the_watch_evaluates_when_it_is_due_and_not_before() -> None:
    ran: list[str] = []
    answers = iter([due(now=False), due(now=True), due(now=False)])
    watch = Watch(lambda: next(answers), ran.append, look_s=7)  # type: ignore[func-returns-value]
    assert [watch.step() for _ in range(3)] == [7, 7, 7]
    assert ran == ["never evaluated"]


def test_what_fails_is_tried_again_after_a_while_that_grows() -> None:
    def fail(_: str) -> None:
        raise EvaluationError("no judge")

    watch = Watch(lambda: due(now=True), fail, first_retry_s=10)
    assert [watch.step() for _ in range(3)] == [10, 20, 40]
    for _ in range(40):
        assert watch.step() <= 3600


def test_the_watch_ends_when_it_is_told_to() -> None:
    looked = threading.Event()

    def look() -> pb.Status:
        looked.set()
        return due(now=False)

    watch = Watch(look, lambda _: None, look_s=3600)
    thread = threading.Thread(target=watch.run)
    thread.start()
    assert looked.wait(10)
    watch.stop()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("missing", ["judge", "prompts"])
def test_a_rule_without_a_judge_or_prompts_is_refused(tmp_path: Path, missing: str) -> None:
    file = tmp_path / "sprout.toml"
    judge = 'judge = { kind = "exact" }\n' if missing == "prompts" else ""
    source = 'prompts_file = "x"\n' if missing == "judge" else ""
    file.write_text(f'[evaluate]\n{judge}{source}schedule = {{ rule = "fixed" }}\n')
    with pytest.raises(SproutError, match="needs"):
        load(file, environ={})
