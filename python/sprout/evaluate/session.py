# SPDX-License-Identifier: Apache-2.0
"""What one evaluation needs, put together: questions, engine, judge, journal, rule that stops."""

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sprout.channel import translated
from sprout.config import Config, no_core_dumps
from sprout.directives import pack
from sprout.errors import EvaluationError, JudgeError, RequestCancelled
from sprout.evaluate import (
    answering,
    asking,
    dry_run,
    findings,
    horizon,
    in_force,
    judging,
    reporting,
    scoring,
)
from sprout.evaluate.answers import Judged
from sprout.evaluate.dry_run import Expected
from sprout.evaluate.findings import Findings
from sprout.evaluate.journal import Journal, Key, open_journal, place, unacknowledged
from sprout.evaluate.judges import build
from sprout.evaluate.judging import Judging
from sprout.evaluate.limits import MAX_BY_PROMPT, MAX_NAME, MAX_TEXT
from sprout.evaluate.reporting import TIMEOUT_S
from sprout.evaluate.run import CANCELLED, Evaluation, Price, Progress
from sprout.evaluate.sample import Sample, of_file, of_requests
from sprout.evaluate.statistics.sequential import Stopping
from sprout.evaluate.traffic import Gate, LedgerTraffic, ReportedTraffic, Slots, Traffic
from sprout.serve.state import StackPaths
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub

OPERATOR = "operator"  # who starts an evaluation that no rule does


@dataclass(frozen=True)
class Options:
    prompts: Path | None = None  # in place of `evaluate.prompts_file`
    most: int | None = None  # questions, in place of `evaluate.schedule.prompts`
    whole: bool = False  # judge all of them, whatever the rule that stops says
    fresh: bool = False  # don't go on with an evaluation that was cut short
    seed: int = 0  # of the draw of questions and of the orders in which answers are shown
    trigger: str = OPERATOR
    actor: str = ""

    @property
    def scheduled(self) -> bool:
        """A rule started it, and nobody looks at how few prompts it had."""
        return self.trigger != OPERATOR


class Session:
    """control, triton: the control plane's stub, and the gRPC address of the stack's Triton.

    Raises ConfigError, ControlError, EngineError, EvaluationError, JudgeError.
    """

    def __init__(self, cfg: Config, control: ControlStub, triton: str, options: Options) -> None:
        self._cfg, self._control, self._triton, self._options = cfg, control, triton, options
        self._pack = pack(cfg.request.pack)
        schedule = cfg.evaluate.schedule
        self._slots = Slots(schedule.concurrency)  # the judge's requests are among them
        self._reported = ReportedTraffic(lambda: list(self._status().nodes), schedule.nodes)
        self.status = self._status()

    @property
    def levels(self) -> tuple[str, ...]:
        return self._pack.levels

    @property
    def _most(self) -> int:
        """Questions."""
        return self._options.most or self._cfg.evaluate.schedule.prompts

    def sample(self) -> Sample:
        """EvaluationError where there is no prompt to ask."""
        most, seed = self._most, self._options.seed
        path = self._options.prompts or self._cfg.evaluate.prompts_file
        if path is not None:
            return of_file(path, most, seed)
        no_core_dumps()
        cap = self._cfg.evaluate.schedule.max_tokens
        return of_requests(self._control, most, seed, actor=self._options.actor, max_tokens=cap)

    def expected(self, sample: Sample) -> Expected:
        """What it would take if it judged every prompt; nothing is asked."""
        rates = build.rates(self._cfg.evaluate.judge)
        with self._judge() as judge:
            return dry_run.expected(self.status.policy, len(self.levels), sample, judge, rates)

    def run(
        self,
        sample: Sample,
        progress: Callable[[Progress, Journal], None] = lambda _, __: None,
        started: Callable[[Evaluation, Journal], None] = lambda _, __: None,
    ) -> pb.Evaluation | None:
        """The evaluation, which the control plane knows by then; None: it was cancelled.

        started: told before the first question, so that it can be cancelled from elsewhere.
        """
        folder = place(self._cfg)
        with alone(folder), self._judge() as judge:
            key = self._key(judge, sample)
            for kept in unacknowledged(folder):
                with closing(kept):
                    found = reporting.send(self._control, kept, self._options.actor)
                if kept.key == key and not self._options.fresh and found is not None:
                    return found
            with closing(open_journal(folder, key, fresh=self._options.fresh)) as journal:
                return self._run(sample, judge, journal, progress, started)

    def _run(
        self,
        sample: Sample,
        judge: Judging,
        journal: Journal,
        progress: Callable[[Progress, Journal], None],
        started: Callable[[Evaluation, Journal], None],
    ) -> pb.Evaluation | None:
        schedule, policy = self._cfg.evaluate.schedule, self.status.policy
        known = {entry.id for entry in journal.entries} | {q.id for q in sample.questions}
        if self._options.scheduled and len(known) < schedule.least_prompts:
            raise EvaluationError(
                f"{len(known)} prompts are there and {schedule.least_prompts} "
                "(evaluate.schedule.least_prompts) are needed"
            )
        answers, asker = answering.answering(
            self._cfg,
            self._triton,
            self.levels,
            energy_estimated=any(
                node.energy_estimated
                for node in self.status.nodes
                if not schedule.nodes or node.node in schedule.nodes
            ),
            traffic=self._reported if schedule.endpoint else None,
            slots=self._slots,
        )
        rates, k0 = build.rates(self._cfg.evaluate.judge), in_force.intensity(policy)
        evaluation = Evaluation(
            answers,
            judge,
            journal,
            Price(rates, k0, policy.pue),
            stopping=self._stopping(sample, judge, journal),
            least=schedule.least_prompts,
            keep_texts=sample.own,
            scoring=scoring.of_policy(self._control, policy, len(self.levels)),
            progress=lambda now: progress(now, journal),
        )
        try:
            started(evaluation, journal)
            stopped = evaluation.run(sample.questions)
        finally:
            asker.close()
        if stopped == CANCELLED:
            return None
        return self._report(evaluation, journal, judge, sample, stopped)

    def _stopping(self, sample: Sample, judge: Judging, journal: Journal) -> Stopping | None:
        """None: every prompt is judged."""
        hours = horizon.hours(self.status.policy)
        if self._options.whole or not hours:
            return None
        schedule = self._cfg.evaluate.schedule
        return Stopping(
            hours,
            method=judge.method,
            most_g_ratio=schedule.stop_g_ratio,
            most_points=schedule.stop_points,
            # Known before a prompt of this sitting is judged. Entries of an earlier one keep the
            # weights of their draw: both count sampled requests, so they go together.
            most_weight=max([sample.most_weight, *(e.weight for e in journal.entries)]),
        )

    def _report(
        self, evaluation: Evaluation, journal: Journal, judge: Judging, sample: Sample, stopped: str
    ) -> pb.Evaluation:
        judged = self._judged(evaluation, sample, stopped)
        verdict = evaluation.verdict
        early = verdict is not None and verdict.stop and len(judged) == verdict.judged
        found = findings.find(
            judged,
            judge.method,
            length_corrected=self._cfg.evaluate.judge.length_correction,
            always=(verdict.low, verdict.high) if verdict is not None and early else None,
            places=judge.account.position,
        )
        if not found.pooled.preferences[0] > 0:
            raise EvaluationError(
                f"{self.levels[0]} was never preferred, or never right, in {len(judged)} prompts: "
                "nothing can be relative to it: run it again with more prompts"
            )
        message = self._message(judge, journal, sample, found, stopped=stopped)
        message.cost.CopyFrom(evaluation.cost())
        journal.reporting(message.SerializeToString(), (*found.notes, *evaluation.notes()))
        sent = reporting.send(self._control, journal, self._options.actor)
        if sent is None:
            raise EvaluationError("the control plane refused the evaluation; its log says why")
        return sent

    def _judged(self, evaluation: Evaluation, sample: Sample, stopped: str) -> list[Judged]:
        """EvaluationError where that is too little for a q."""
        judged = evaluation.judged
        if stopped == evaluation.held_too_long:
            raise EvaluationError(
                f"it was held back with {len(judged)} prompts judged: {stopped}. They are kept: "
                "the next try goes on"
            )
        if not judged:
            raise EvaluationError(f"nothing could be judged ({stopped}): there is no q")
        least = self._cfg.evaluate.schedule.least_prompts
        if self._options.scheduled and len(judged) < least:
            more = "those left out" if sample.own else "those left out, and newly sampled ones"
            raise EvaluationError(
                f"{len(judged)} prompts could be judged and {least} "
                "(evaluate.schedule.least_prompts) are needed for q. They are kept: the next try "
                f"asks the prompts that are not judged yet ({more}) and adds them"
            )
        return judged

    def _message(
        self, judge: Judging, journal: Journal, sample: Sample, found: Findings, *, stopped: str
    ) -> pb.Evaluation:
        message = pb.Evaluation(
            id=journal.id,
            pack=self._pack.name,
            pack_hash=self._pack.hash,
            levels=self.levels,
            judge=judge.name[:MAX_NAME],
            method=judge.method,
            judge_version=judge.version,
            classes=found.classes,
            stopped=stopped[:MAX_TEXT],
            prompts=sample.said,
            bias=found.bias,
            unusable=sum(len(entry.unusable) for entry in journal.entries),
            trigger=self._options.trigger[:MAX_TEXT],
        )
        message.started_at.FromNanoseconds(int(journal.started_at * 1e9))
        message.finished_at.GetCurrentTime()
        scored = [entry for entry in journal.entries if entry.predicted and entry.scores]
        if scored:
            message.weights = scored[-1].weights  # those of an earlier sitting may be others
            message.by_prompt.extend(
                pb.JudgedPrompt(
                    task=entry.task,
                    weight=entry.weight,
                    predicted=entry.predicted,
                    scores=entry.scores,
                )
                for entry in scored[-MAX_BY_PROMPT:]
                if entry.weights == message.weights
            )
        return message

    @contextmanager
    def _judge(self) -> Iterator[Judging]:
        found = judging.of_config(
            self._cfg,
            levels=len(self.levels),
            seed=self._options.seed,
            address=self._triton,
            turn=self._turn,
        )
        try:
            yield found
        finally:
            found.close()

    @contextmanager
    def _turn(self, stop: threading.Event) -> Iterator[None]:
        """A judge on the clients' own server waits for them as the answers do, and shares the slots
        of the answers."""
        schedule = self._cfg.evaluate.schedule
        traffic = self._judge_traffic()
        if traffic is None:
            yield
            return
        gate = Gate(traffic, schedule.max_client_requests, hold_s=schedule.hold_s)
        with self._slots.one(stop):
            _, why = gate.wait(lambda: self._slots.in_flight, stop)
            if stop.is_set():
                raise RequestCancelled("the evaluation was cancelled")
            if why:
                raise JudgeError(why)
            with self._slots.asking():
                yield

    def _judge_traffic(self) -> Traffic | None:
        """Of the clients who share the judge's server; None: that is not ours to spare."""
        url = self._cfg.evaluate.judge.url
        if not url:
            return LedgerTraffic(StackPaths.of(self._cfg).shm)
        return self._reported if url == self._cfg.evaluate.schedule.endpoint else None

    def _key(self, judge: Judging, sample: Sample) -> Key:
        return Key(
            pack_hash=f"{self._pack.hash:016x}",
            judge_version=judge.version,
            method=judge.method,
            prompts=sample.said,
            levels=self.levels,
            sampling=f"at most {self._cfg.evaluate.schedule.max_tokens} tokens, seed {asking.SEED}"
            # What a sampled prompt stands for follows from how many were drawn.
            + ("" if sample.own else f", {self._most} drawn"),
            engine=asking.engine(self._cfg),
            draw=self._options.seed,
        )

    def _status(self) -> pb.Status:
        """ControlError in whichever thread that is."""
        with translated("the control plane's status"):
            return self._control.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """EvaluationError while another evaluation of this stack runs."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EvaluationError(f"can't keep evaluations in {folder}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise EvaluationError("another evaluation of this stack is running") from None
        yield
    finally:
        os.close(descriptor)
