# SPDX-License-Identifier: Apache-2.0
"""`sprout evaluate`: what each level costs in quality, measured now, or whenever it is due."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from sprout.channel import as_dict
from sprout.config import Config
from sprout.console import evaluate_view, operator, tracked
from sprout.console.ask import grpc_address
from sprout.console.output import emit_json, err
from sprout.directives import pack
from sprout.errors import ConfigError, ControlError, EvaluationError
from sprout.evaluate import journal
from sprout.evaluate.journal import Journal
from sprout.evaluate.run import Evaluation
from sprout.evaluate.run import Progress as Step
from sprout.evaluate.session import Options, Session
from sprout.evaluate.watch import Watch
from sprout.evaluate.watch import seed as watch_seed
from sprout.v1 import control_pb2 as pb

log = logging.getLogger(__name__)

MOST_UNMETERED = 0.01  # of an arm's requests; of more the mean would be that of the shorter ones


def run(cfg: Config, options: Options, *, dry_run: bool, json: bool) -> None:
    """One evaluation, now. Ctrl-C keeps what was judged: the next run goes on with it."""
    options = replace(options, actor=operator.myself())
    with operator.control(cfg) as control:
        session = Session(cfg, control, grpc_address(cfg), options)
        sample = session.sample()
        expected = session.expected(sample)
        if dry_run:
            if json:
                emit_json(asdict(expected))
            else:
                evaluate_view.expected(expected)
            return
        with tracked.beside(cfg) as span, _bar(json=json) as step, _cancelling() as started:
            found = session.run(sample, progress=step, started=started)
        policy = operator.status(cfg).policy
    if found is None:
        raise EvaluationError("cancelled: what was judged is kept, run it again to go on")
    _, shown = _finished(cfg, found.id)  # with its notes, which no message has
    if json:
        emit_json(
            {
                "evaluation": shown,
                "policy": as_dict(policy),
                "carbontracker": tracked.document(span),
            }
        )
        return
    evaluate_view.show(shown)
    if span is not None:
        print(tracked.line(span))
    print(f"policy      {operator.mix(policy)}")


def watch(cfg: Config) -> None:
    """Until SIGTERM or SIGINT."""
    current: list[Evaluation] = []

    def started(evaluation: Evaluation, _: Journal) -> None:
        current.append(evaluation)
        if watching.stopped:  # before there was anything to cancel
            evaluation.cancel()

    def evaluate(standing: pb.EvaluationStatus) -> pb.Evaluation | None:
        options = Options(
            trigger=standing.why, actor="evaluator", seed=watch_seed(standing.latest.id)
        )
        span = None
        try:
            with operator.control(cfg) as control, tracked.beside(cfg) as span:
                session = Session(cfg, control, grpc_address(cfg), options)
                return session.run(session.sample(), started=started)
        finally:
            current.clear()
            if span is not None:  # of one that failed, too
                log.info("%s", tracked.line(span))

    watching = Watch(lambda: operator.status(cfg), evaluate)

    def stop(number: int, frame: FrameType | None) -> None:
        watching.stop()
        for evaluation in current:
            evaluation.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    log.info("waiting for the control plane to say that an evaluation is due")
    watching.run()


def report(cfg: Config, *, id_: str, other: str, picture: Path | None, json: bool) -> None:
    """The newest evaluation, or that of an id, from this machine's journal."""
    found, evaluation = _finished(cfg, id_)
    agreement = None
    if other:
        second, _ = _finished(cfg, other)
        if second.key.levels != found.key.levels:
            raise ConfigError(f"{other} is of other levels: {', '.join(second.key.levels)}")
        agreement = evaluate_view.agreement(found, second)
    took = saved(cfg)
    if picture is not None:
        from sprout.console.evaluate_plots import draw

        draw(evaluation, picture)
    if json:
        emit_json(
            {
                "evaluation": evaluation,
                "entries": [asdict(entry) for entry in found.entries],
                "agreement": None if agreement is None else evaluate_view.interval(agreement),
                "saved": took,
            }
        )
        return
    evaluate_view.show(evaluation)
    evaluate_view.unusable(found)
    if agreement is not None:
        evaluate_view.show_agreement(agreement, other)
    evaluate_view.show_share(took)
    evaluate_view.disagreements(found)


def _finished(cfg: Config, id_: str) -> tuple[Journal, dict[str, Any]]:
    """The journal of that id, "" the newest, and the evaluation that it ends with."""
    folder = journal.place(cfg)
    for one in journal.finished(folder):
        if one.evaluation is not None and id_ in ("", one.id):
            return one, one.evaluation
    what = f"no evaluation {id_}" if id_ else "no evaluation has ended yet"
    raise ConfigError(f"{what} in {folder}")


def saved(cfg: Config) -> dict[str, Any]:
    """What all evaluations took, and what receipts of the policy say less than those of the control
    group, of all outcomes ever stored; or why that is not known."""
    try:
        arms = {arm.arm: arm for arm in operator.status(cfg).arms}
        costs = [one.cost for one in operator.evaluations(cfg)]
    except ControlError as error:
        return {"not_known": str(error)}
    control, levels = arms.get("control"), pack(cfg.request.pack).levels
    drawn = [arm for name, arm in arms.items() if name in (*levels, "prompt", "unscored")]
    if control is None or control.outcomes == control.unmetered:
        return {"not_known": "no request of the control group yet"}
    if all(arm.outcomes == arm.unmetered for arm in drawn):
        return {"not_known": "no request under the policy yet"}
    series = sorted({name for arm in (control, *drawn) for name in arm.carbon_g_by_series})
    if len(series) > 1:
        why = f"grams of several carbon series don't add up ({'; '.join(series)})"
        return {"not_known": f"{why}: `sprout report` has what was saved in each"}
    if any(arm.unmetered > MOST_UNMETERED * arm.outcomes for arm in (control, *drawn)):
        why = f"over {100 * MOST_UNMETERED:g} % of an arm were not metered, long answers above all"
        return {"not_known": f"{why}: `sprout report` reckons with their seconds"}
    n = sum(arm.outcomes - arm.unmetered for arm in drawn)
    per_request = control.carbon_g / (control.outcomes - control.unmetered)
    return {
        "requests": n,
        "attributed_g": n * per_request - sum(arm.carbon_g for arm in drawn),
        "estimated": any(arm.energy_estimated for arm in drawn),
        "answers_g": arms["evaluation"].carbon_g if "evaluation" in arms else 0.0,
        "judge_g": sum(cost.judge_g for cost in costs),
        "judge_known": not any(cost.judge_joules_unknown for cost in costs),
        "carbon_unknown": any(cost.carbon_unknown for cost in costs),
    }


@contextlib.contextmanager
def _bar(*, json: bool) -> Iterator[Callable[[Step, Journal], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, disable=json) as bar:
        task = bar.add_task("answering", total=None)

        def step(now: Step, of: Journal) -> None:
            said = "" if now.verdict is None else f" · {now.verdict.why}"
            unusable = now.done - now.judged
            left_out = f", {unusable} unusable" if unusable else ""
            left_out += f", {now.left_out} left out" if now.left_out else ""
            left_out += f", held back {now.held} times" if now.held else ""
            bar.update(
                task,
                total=now.of,
                completed=now.done,
                description=f"{now.judged} judged{left_out}{said}",
            )

        yield step


@contextlib.contextmanager
def _cancelling() -> Iterator[Callable[[Evaluation, Journal], None]]:
    """Ctrl-C and SIGTERM end the evaluation in order, once it runs."""
    before: dict[int, Any] = {}

    def started(evaluation: Evaluation, of: Journal) -> None:
        if of.resumed:
            err.print(f"going on with {of.id}: {len(of.entries)} prompts are done")
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda *_: evaluation.cancel())

    try:
        yield started
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
