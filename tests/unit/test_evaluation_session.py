# SPDX-License-Identifier: Apache-2.0
"""Whole evaluations against a real control plane; the engine is a stand-in that adds up."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import control_plane
import grpc
import pytest
from some_weights import packed
from sums_session import (
    LEVELS,
    RIGHT,
    TIMEOUT_S,
    Engine,
    Idle,
    configured,
    control_of,
    evaluated,
    in_tritons_place,
    open_session,
    status,
)
from waiting import PATIENCE_S

from sprout.config import Config, EvaluateConfig
from sprout.console import evaluate as console
from sprout.errors import EvaluationError, RequestCancelled, RequestError, SproutError
from sprout.evaluate import asking, findings, journal, reporting, scoring, session
from sprout.evaluate.answering import Answering
from sprout.evaluate.answers import Answer, Question
from sprout.evaluate.journal import Journal
from sprout.evaluate.judges.account import Rates
from sprout.evaluate.judges.verdict import Verdict
from sprout.evaluate.judging import Judging
from sprout.evaluate.run import Evaluation, Price, Progress
from sprout.evaluate.scoring import Scoring
from sprout.evaluate.session import Options
from sprout.evaluate.traffic import Gate
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub
from sprout_ext import weights


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


def test_what_the_predictor_says_of_each_prompt_goes_along(
    cfg: Config, control: ControlStub, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers beside the scores, in the order of the questions; those of other weights stay out."""
    sent: list[pb.Evaluation] = []
    real = reporting.send

    def send(stub: ControlStub, of: Journal, actor: str) -> pb.Evaluation | None:
        assert of.unacknowledged is not None
        sent.append(pb.Evaluation.FromString(of.unacknowledged[0]))
        return real(stub, of, actor)

    monkeypatch.setattr(reporting, "send", send)
    data, older = packed(seed=1), packed(seed=2)
    scorings = [Scoring(weights.name(x), x, 3) for x in (older, data)]

    def by_turns(*_: Any) -> Scoring:
        return scorings.pop(0)

    monkeypatch.setattr(scoring, "of_policy", by_turns)

    def cancel(evaluation: Evaluation, of: Journal) -> None:
        evaluation._progress = lambda now: evaluation.cancel() if now.done == 30 else None

    first = open_session(cfg, control, whole=True)
    assert first.run(first.sample(), started=cancel) is None
    file = next((cfg.stack.state / "evaluations").glob("*.jsonl"))
    kept = journal.read(file)
    assert kept is not None
    done = len(kept.entries)
    assert {entry.weights for entry in kept.entries} == {weights.name(older)}
    second = open_session(cfg, control, whole=True)
    sample = second.sample()
    assert second.run(sample) is not None
    (message,) = sent
    assert message.weights == weights.name(data)
    assert len(message.by_prompt) == 80 - done
    whole = journal.read(file)
    assert whole is not None
    texts = {question.id: question.text.encode() for question in sample.questions}
    for row, entry in zip(message.by_prompt, whole.entries[done:], strict=True):
        expected = weights.scorer(data).score_many([texts[entry.id]])[0]
        assert list(row.predicted) == pytest.approx(expected, rel=1e-6)
        assert entry.predicted == tuple(expected)
        assert list(row.scores) == list(entry.scores)
        assert (row.task, row.weight) == ("sums", 1.0)
    assert all(texts[entry.id] not in message.SerializeToString() for entry in whole.entries)


def test_without_levels_by_prompt_nothing_is_scored(
    cfg: Config, control: ControlStub, engine: Engine
) -> None:
    made = open_session(cfg, control, whole=True)
    assert made.run(made.sample()) is not None
    kept = journal.read(next((cfg.stack.state / "evaluations").glob("*.jsonl")))
    assert kept is not None
    assert {(entry.predicted, entry.weights) for entry in kept.entries} == {((), "")}


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
    paid = len(engine.asked)
    engine.asked.clear()
    second = open_session(cfg, control, whole=True)
    found = second.run(second.sample())
    assert found is not None
    assert found.id == kept.id
    assert found.classes[0].judged == 80
    assert len(set(engine.asked)) == 80 - len(kept.entries)
    # What was answered ahead and let go of was paid for as well.
    assert found.cost.requests == paid + len(engine.asked)
    assert found.cost.energy_joules == pytest.approx(engine.joules)


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
    assert found.cost.requests == len(engine.asked) >= 90
    assert found.cost.energy_joules == pytest.approx(engine.joules)
    # Bounds for every moment, not for a size that was set before.
    fixed = findings.find(evaluated(cfg), "exact").classes[0]
    assert found.classes[0].low[2] < fixed.low[2]
    assert found.classes[0].high[2] > fixed.high[2]


def test_questions_that_the_engine_does_not_answer_are_left_out(
    cfg: Config, control: ControlStub, engine: Engine
) -> None:
    engine._fails = lambda question: question.id == "sum-7"
    seen: list[Progress] = []
    made = open_session(cfg, control, whole=True)
    found = made.run(made.sample(), progress=lambda now, _: seen.append(now))
    assert found is not None
    assert found.classes[0].judged == 79
    assert found.cost.left_out == 1
    assert found.cost.requests == len(engine.asked) == 79 * 3 + 1
    assert found.cost.carbon_unknown  # of the one that failed
    kept = next(journal.finished(cfg.stack.state / "evaluations"))
    assert kept.evaluation is not None
    assert any("1 prompts were left out" in note for note in kept.evaluation["notes"])
    assert kept.left_out == {"sum-7": "SproutError"}
    assert seen[-1].left_out == 1


class Slow:
    """A judge who says nothing before three more questions are answered: they are taken ahead."""

    name, version, method, by_text = "slow", "1", "pairwise", False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def prefer(self, question: Question, shown: Sequence[Answer], stop: threading.Event) -> Verdict:
        number = int(question.id.removeprefix("sum-"))
        while len(self._engine.asked) < 3 * (number + 4):
            if stop.wait(0.001):
                raise RequestCancelled("stopped")
        return Verdict(number % 2)

    def close(self) -> None: ...


class Sure:
    """Has seen enough at the first look."""

    def update(self, scores: Any, weights: Any) -> Any:
        return SimpleNamespace(stop=True, judged=len(scores), why="sure")


def test_answers_taken_ahead_are_paid_for_though_nobody_reads_them(tmp_path: Path) -> None:
    engine = Engine()
    answers = Answering(
        engine,
        Gate(Idle(), 1, hold_s=60),
        LEVELS,
        concurrency=1,
        max_tokens=64,
        retries=0,
        energy_estimated=False,
    )
    judge: Any = Slow(engine)
    stopping: Any = Sure()
    key = journal.Key("0", "1", "pairwise", "file", LEVELS, "greedy")
    with contextlib.closing(journal.open_journal(tmp_path, key)) as kept:
        evaluation = Evaluation(
            answers,
            Judging(judge, levels=3),
            kept,
            Price(Rates(), None),
            stopping=stopping,
            least=10,
        )
        asked = [Question(f"sum-{i}", "?", reference=str(i + 1)) for i in range(300)]
        assert evaluation.run(asked) == "sure"
        assert len(kept.entries) == 10
        assert len(engine.asked) >= 3 * 13
        assert evaluation.cost().requests == len(engine.asked)
        assert evaluation.cost().energy_joules == pytest.approx(engine.joules)
    found = journal.read(kept.path)
    assert found is not None
    assert found.earlier[-1]["requests"] == len(engine.asked)


class Busy:
    """No client is there for so many looks; then they stay."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def clients(self, own: int) -> int | None:
        self.left -= 1
        return 0 if self.left >= 0 else 7


@pytest.mark.parametrize("looks", [9, 120])  # fewer, and more, than least_prompts need
def test_an_evaluation_that_clients_hold_back_has_no_q_and_goes_on_later(
    cfg: Config, control: ControlStub, engine: Engine, looks: int
) -> None:
    before = status(control)
    engine.traffic = Busy(looks)
    held = open_session(cfg, control, whole=True)
    with pytest.raises(EvaluationError, match=r"held back with .* 7 requests of clients"):
        held.run(held.sample())
    after = status(control)
    assert not after.evaluation.HasField("latest")
    assert list(after.policy.shares) == list(before.policy.shares)
    first = set(engine.asked)
    assert len(first) < 80
    engine.traffic = Idle()
    engine.asked.clear()
    again = open_session(cfg, control, whole=True)
    found = again.run(again.sample())
    assert found is not None
    assert found.classes[0].judged == 80
    assert len(set(engine.asked) & first) <= 1  # the one that was held half way
    kept = next(journal.finished(cfg.stack.state / "evaluations"))
    assert kept.evaluation is not None
    assert any("waited for clients" in note for note in kept.evaluation["notes"])


def test_an_operator_may_ask_for_few_prompts_and_a_rule_may_not(
    cfg: Config, control: ControlStub, engine: Engine
) -> None:
    by_rule = open_session(cfg, control, most=12, trigger="never evaluated")
    with pytest.raises(EvaluationError, match="12 prompts are there and 20"):
        by_rule.run(by_rule.sample())
    assert not engine.asked
    by_operator = open_session(cfg, control, most=12)
    found = by_operator.run(by_operator.sample())
    assert found is not None
    assert found.classes[0].judged == 12


def test_a_rule_s_evaluation_with_too_few_that_can_be_judged_has_no_q(
    cfg: Config, control: ControlStub, engine: Engine
) -> None:
    engine._fails = lambda question: int(question.id.removeprefix("sum-")) % 5 != 0
    engine.error = RequestError  # each for itself
    by_rule = open_session(cfg, control, trigger="never evaluated")
    with pytest.raises(EvaluationError, match="16 prompts could be judged and 20"):
        by_rule.run(by_rule.sample())
    assert not status(control).evaluation.HasField("latest")


def test_another_engine_s_answers_are_another_evaluation(
    cfg: Config, control: ControlStub, engine: Engine, tmp_path: Path
) -> None:
    weights = tmp_path / "model.gguf"
    weights.write_text("one")
    kinds: list[dict[str, Any]] = [{"kind": "echo"}, {"model": weights}, {"context_tokens": 512}]
    changed = [
        cfg.model_copy(update={"engine": cfg.engine.model_copy(update=update)}) for update in kinds
    ]
    schedule = cfg.evaluate.schedule.model_copy(update={"endpoint": "other:8001"})
    changed.append(
        cfg.model_copy(update={"evaluate": cfg.evaluate.model_copy(update={"schedule": schedule})})
    )
    engines = {asking.engine(one) for one in (cfg, *changed)}
    weights.write_text("another")  # in its place
    assert len(engines | {asking.engine(changed[1])}) == 6

    first = open_session(cfg, control, whole=True)

    def cancel(evaluation: Evaluation, _: Journal) -> None:
        evaluation._progress = lambda now: evaluation.cancel() if now.done == 30 else None

    assert first.run(first.sample(), started=cancel) is None
    engine.asked.clear()
    second = open_session(changed[0], control, whole=True)
    found = second.run(second.sample())
    assert found is not None
    assert len(set(engine.asked)) == found.classes[0].judged == 80


def test_of_a_sampled_prompt_its_client_says_how_long_an_answer_may_be(tmp_path: Path) -> None:
    sampling = EvaluateConfig(
        sampling={"share": 0.1, "reservoir_prompts": 100}, judge={"kind": "exact"}
    )
    cfg = control_plane.configure(tmp_path / "state").model_copy(update={"evaluate": sampling})
    with control_plane.running(cfg) as address, control_plane.stub_of(address) as control:
        control_plane.first(control)
        for number, most in ((1, 7), (2, 99_999), (3, 0)):
            prompt = pb.SampledPrompt(id=number, text="?", propensity=1.0, max_tokens=most)
            prompt.sampled_at.FromNanoseconds(time.time_ns())
            control.ReportPrompts(
                pb.ReportPromptsRequest(node="n", prompts=[prompt]), timeout=TIMEOUT_S
            )
        asked = {q.id[-1]: q.max_tokens for q in open_session(cfg, control).sample().questions}
    assert asked == {"1": 7, "2": cfg.evaluate.schedule.max_tokens, "3": 0}


def test_a_status_that_can_t_be_had_is_load_that_is_not_known(
    cfg: Config, control: ControlStub
) -> None:
    """With the real client against nobody: what it raises is no error of ours."""
    made = open_session(cfg, control)
    with control_plane.stub_of("127.0.0.1:1") as away:
        made._control = away
        assert made._reported.clients(0) is None


def test_the_judge_s_requests_share_the_slots_of_the_answers(
    cfg: Config, control: ControlStub, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge on the clients' own server: never more of the evaluation at once than is set."""
    monkeypatch.setattr(session, "LedgerTraffic", lambda _: Idle())
    made = open_session(cfg, control, whole=True)
    made.run(made.sample())
    slots = engine.given["slots"]
    stop, judging, asked = threading.Event(), threading.Event(), threading.Event()

    def judge() -> None:
        asked.set()
        with made._turn(stop):
            judging.set()

    thread = threading.Thread(target=judge)
    with slots.one(stop):  # schedule.concurrency is 1: an answer is under way
        thread.start()
        assert asked.wait(PATIENCE_S)
        assert not judging.wait(0.2)
    assert judging.wait(PATIENCE_S)
    thread.join(PATIENCE_S)
    stop.set()
    with (
        slots.one(threading.Event()),
        pytest.raises(RequestCancelled),
        made._turn(stop),
    ):
        pass


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
    made.status.policy.embodied_g_per_s = 0.001  # which receipts count as well
    whole = made.expected(made.sample()).carbon_g
    assert whole == pytest.approx(expected.carbon_g + expected.seconds * 0.001)
    assert not engine.asked


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_shows_the_notes_of_the_journal(
    cfg: Config,
    control: ControlStub,
    engine: Engine,
    capsys: pytest.CaptureFixture[str],
    *,
    as_json: bool,
) -> None:
    engine._fails = lambda question: question.id == "sum-7"
    port = int((cfg.stack.state / "control.port").read_text())
    cfg = cfg.model_copy(update={"control": cfg.control.model_copy(update={"port": port})})
    console.run(cfg, Options(whole=True), dry_run=False, json=as_json)
    said = capsys.readouterr().out
    assert "1 prompts were left out" in said
    kept = next(journal.finished(cfg.stack.state / "evaluations"))
    assert kept.evaluation is not None
    if as_json:
        assert json.loads(said)["evaluation"] == kept.evaluation
    assert kept.evaluation["classes"][0]["task"] == ""  # as the other documents have it


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
    with pytest.raises(grpc.RpcError) as found:
        open_session(none, control).sample()
    assert control_plane.code_of(found) is grpc.StatusCode.FAILED_PRECONDITION
    assert "evaluate.sampling.share" in found.value.details()
