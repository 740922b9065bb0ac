# SPDX-License-Identifier: Apache-2.0
"""`sprout demo --day`: 24 hours of a real grid in two minutes, served by the real stack.

The trace is replayed some hundred times faster than it happened; the control plane solves at each
new hour, against the week before it, and a steady stream of prompts goes through Triton meanwhile.
Every fourth request is sent with Sprout switched off: the comparison that the saving is estimated
from. Nothing knows the trace's future.
"""

import contextlib
import itertools
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from sprout import policy_version
from sprout.channel import as_dict
from sprout.config import Config
from sprout.console import demo_checks, demo_day_checks, demo_day_view, operator
from sprout.console.demo_day_grid import Grid, find, rows
from sprout.console.demo_day_result import HOURS, Day, Served, quarters, saving
from sprout.console.output import emit_json, err
from sprout.demo import (
    ANSWER_TIMEOUT_S,
    IN_FLIGHT,
    MAX_TOKENS,
    PROMPTS,
    configuration,
    settled,
    trace,
)
from sprout.directives import pack
from sprout.errors import ControlError, SproutError, StackError
from sprout.serve.background import BackgroundStack
from sprout.serve.client import Client
from sprout.v1 import control_pb2 as pb

XI = 0.2  # twice the default: the day's worst hours then reach the third level
HELD_OUT_EVERY = 4
LOAD = 0.8  # of what this machine serves at L0: the stream must stay steady when answers are long
MIN_REQUESTS = 40  # in the day, both arms; a slow machine gets there with shorter answers
MIN_TOKENS = 24
LEAD_S = 30.0  # from the start of the control plane to the day, about; the trace runs meanwhile
POLICY_TIMEOUT_S = 15.0

Step = Callable[[str, float], None]  # what is going on, part of the day that is done


def run(picture: Path, *, zone: str | None, seconds: float, json: bool) -> bool:
    """True if all of it really happened. `seconds`: how long 24 hours take."""
    folder = Path(tempfile.mkdtemp(prefix="sprout-day-"))
    good = False
    try:
        grid = find(zone, folder, trace())
        cfg = _configuration(folder, grid, HOURS * 3600 / seconds)
        with _progress() as step:
            day = _play(cfg, grid, step)
        checks = demo_day_checks.examine(day)
        good = all(check.ok for check in checks)
    finally:
        logs = folder / "state" / "logs"
        if good or not logs.exists():
            shutil.rmtree(folder)
        else:
            err.print(f"what the processes said: {logs}")
    if day.served and day.policies:
        demo_day_view.draw(day, picture, good=good)
    if json:
        emit_json(_document(day, checks, picture))
    else:
        demo_day_view.show(day, checks, picture)
    return good


def _configuration(folder: Path, grid: Grid, speed: float) -> Config:
    lead = timedelta(seconds=LEAD_S * speed)
    return configuration(
        folder,
        control__range_mode="trailing",
        control__xi=XI,
        # A trace's hour takes seconds: look often, and follow each move.
        control__interval_s=min(0.25, 900 / speed),
        control__republish_intensity_g_per_kwh=0,
        carbon__trace=grid.trace,
        carbon__zone=grid.zone,
        carbon__factor_type=grid.factor_type,
        carbon__trace_start=(grid.day - lead).isoformat(),
        carbon__trace_speed=speed,
    )


def _play(cfg: Config, grid: Grid, step: Step) -> Day:
    day = Day(
        grid=grid,
        trace=rows(grid.trace, grid.zone, grid.factor_type),
        levels=pack(cfg.request.pack).levels,
        xi=cfg.control.xi,
        trace_start=datetime.fromisoformat(str(cfg.carbon.trace_start)),
        speed=cfg.carbon.trace_speed,
    )
    started = time.monotonic()
    stack = BackgroundStack(cfg)
    pids: list[int] = []
    try:
        with stack:
            day.seconds_to_ready = time.monotonic() - started
            pids = demo_checks.processes(stack)
            _watch(cfg, day)
            address = stack.endpoint("grpc")
            step("how fast this machine is", 0)
            _warm_up(address, day)
            _await_policy(day)
            day.begin = _next_hour(day.moment(time.time()))
            _stream(address, day, step)
            day.status = settled(cfg, day.warm_up + len(day.served))
            day.estimated = any(node.energy_estimated for node in day.status.nodes)
            day.exit_status = stack.stop()
    finally:
        day.left_behind = demo_checks.left_behind(stack.paths, pids)
    step("stopped", 1)
    return day


def _watch(cfg: Config, day: Day) -> None:
    """Collects policies until the control plane stops."""

    def watch() -> None:
        with contextlib.suppress(ControlError), operator.control(cfg) as stub:
            for policy in stub.WatchPolicy(pb.WatchPolicyRequest(node="demo")):
                # A renewal has a later time; when it was first in force is what counts.
                day.policies.setdefault(policy_version.version(policy), policy)

    threading.Thread(target=watch, name="policies", daemon=True).start()


def _warm_up(address: str, day: Day) -> None:
    """Every prompt at L0, as many at once as the day may have: what rate can be kept up."""

    def ask(prompt: tuple[str, str]) -> Served:
        with Client(address) as client:
            return _ask(client, *prompt, held_out=True, max_tokens=MAX_TOKENS)

    started = time.monotonic()
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        answers = list(pool.map(ask, PROMPTS))
    took_s = time.monotonic() - started
    day.warm_up, day.max_tokens = len(PROMPTS), MAX_TOKENS
    day.rate_per_s = LOAD * len(PROMPTS) / took_s
    wanted_per_s = MIN_REQUESTS * day.speed / (HOURS * 3600)
    if day.rate_per_s < wanted_per_s:
        tokens_per_s = sum(served.answer.output_tokens for served in answers) / took_s
        day.max_tokens = max(MIN_TOKENS, int(LOAD * tokens_per_s / wanted_per_s))
        day.rate_per_s = wanted_per_s


def _ask(client: Client, kind: str, prompt: str, *, held_out: bool, max_tokens: int) -> Served:
    """EngineError where the request fails."""
    sent_s = time.time()
    answer = client.ask(
        prompt,
        off=held_out,
        task=kind,
        max_tokens=max_tokens,
        options={"seed": 1},
        timeout_s=ANSWER_TIMEOUT_S,
    )
    level = answer.receipt.level if answer.receipt else -1
    return Served(sent_s, held_out, kind, prompt, level, answer)


def _await_policy(day: Day) -> None:
    """StackError if none comes: without one there is no clock to go by."""
    deadline = time.monotonic() + POLICY_TIMEOUT_S
    while not any(p.HasField("intensity") for p in list(day.policies.values())):
        if time.monotonic() > deadline:
            raise StackError(f"no policy with an intensity within {POLICY_TIMEOUT_S:g} s")
        time.sleep(0.05)


def _next_hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)


def _stream(address: str, day: Day, step: Step) -> None:
    """Requests at a steady rate for 24 hours of the trace. Where the engine falls behind, the next
    ones are sent later, never all at once."""
    begin_s, end_s = day.wall_s(day.first_hour), day.wall_s(day.end)
    tickets, lock = _tickets(begin_s, 1 / day.rate_per_s), threading.Lock()

    def work() -> None:
        with Client(address) as client:
            while True:
                with lock:
                    at_s, held_out, (kind, prompt) = next(tickets)
                if at_s >= end_s:
                    return
                time.sleep(max(0.0, at_s - time.time()))
                try:
                    served = _ask(
                        client, kind, prompt, held_out=held_out, max_tokens=day.max_tokens
                    )
                except SproutError as error:
                    served = Served(time.time(), held_out, kind, prompt, error=str(error))
                day.served.append(served)

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        workers = [pool.submit(work) for _ in range(IN_FLIGHT)]
        while not all(worker.done() for worker in workers):
            now = day.moment(time.time())
            done = (now - day.first_hour) / timedelta(hours=HOURS)
            step(_says(day, min(now, day.end)), done)
            time.sleep(0.2)
        for worker in workers:
            worker.result()
    day.served.sort(key=lambda served: served.sent_s)


def _tickets(begin_s: float, interval_s: float) -> Iterator[tuple[float, bool, tuple[str, str]]]:
    """(when, held out?, prompt) of each request. Both arms go through all prompts in turn, in an
    order of their own, so that they are asked the same things."""
    order = random.Random(0)  # noqa: S311 - an order, no secret
    arms = {arm: itertools.cycle(order.sample(PROMPTS, len(PROMPTS))) for arm in (False, True)}
    at_s = begin_s
    for number in itertools.count():
        held_out = number % HELD_OUT_EVERY == HELD_OUT_EVERY // 2
        at_s = max(at_s, time.time())
        yield at_s, held_out, next(arms[held_out])
        at_s += interval_s


def _says(day: Day, now: datetime) -> str:
    newest = day.policies[max(list(day.policies))]
    clock = now.astimezone(day.grid.clock)
    return f"{clock:%H:%M} {newest.intensity.g_per_kwh:4.0f} g/kWh: {operator.mix(newest)}"


@contextlib.contextmanager
def _progress() -> Iterator[Step]:
    columns = (TextColumn("{task.description:<52}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as bar:
        task = bar.add_task("starting the stack", total=1.0)
        yield lambda what, done: bar.update(task, completed=done, description=what)


def _document(day: Day, checks: list[demo_checks.Check], picture: Path) -> dict[str, Any]:
    found = saving(day)
    return {
        "ok": all(check.ok for check in checks),
        "checks": [asdict(check) for check in checks],
        "energy_estimated": day.estimated,
        "zone": day.grid.zone,
        "data": day.grid.kind,
        "credit": day.grid.credit,
        "factor_type": day.grid.factor_type,
        "begin": day.first_hour.isoformat(),
        "speed": day.speed,
        "xi": day.xi,
        "seconds_to_ready": day.seconds_to_ready,
        "requests_per_s": day.rate_per_s,
        "max_tokens": day.max_tokens,
        "saving": asdict(found) | {"fraction": found.fraction, "estimated": True},
        "quarters": quarters(day),
        "steps": [asdict(step) for step in day.steps()],
        "requests": [asdict(s) | {"time": day.moment(s.sent_s).isoformat()} for s in day.served],
        "status": None if day.status is None else as_dict(day.status),
        "picture": str(picture),
    }
