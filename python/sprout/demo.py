# SPDX-License-Identifier: Apache-2.0
"""`make demo`: the whole stack on this machine, a dozen prompts four times, and what came of it.

Each level pinned once; then every prompt under the policy at a low and at a high intensity (an
operator's override, so that two minutes show what a day would); then every prompt with Sprout
switched off. Everything is real: Triton, llama.cpp, the policy from the linear program, receipts.
The intensities are the ends of an invented day, and it says so.
"""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sprout import policy_version
from sprout.channel import as_dict
from sprout.config import Config, load
from sprout.console import demo_checks, demo_view, operator
from sprout.console.demo_result import Result, Shot
from sprout.console.output import emit_json, err
from sprout.directives import pack
from sprout.errors import ControlError, StackError
from sprout.serve.background import BackgroundStack
from sprout.serve.client import Client
from sprout.v1 import control_pb2 as pb

PROMPTS = (
    ("everyday", "How does a bicycle stay upright?"),
    ("fact", "What is the capital of France?"),
    ("maths", "Anna reads 15 pages each day. How many pages does she read in 4 days?"),
    ("science", "Why is the sky blue?"),
    ("how-to", "How do I make a good cup of tea?"),
    ("health", "What are the benefits of regular exercise?"),
    ("history", "Who was Julius Caesar?"),
    ("definition", "What is photosynthesis?"),
    ("advice", "How can I sleep better at night?"),
    ("list", "Name some animals that live in the ocean."),
    ("comparison", "What is the difference between a virus and a bacterium?"),
    ("computing", "What does a compiler do?"),
)
MAX_TOKENS = 96
IN_FLIGHT = 4  # the same in every arm: energy per request depends on it
ANSWER_TIMEOUT_S = 120.0
BOARD_TIMEOUT_S = 15.0
OVERRIDE_TTL_S = 600.0


def trace() -> Path:
    """The invented day: beside the package where it is installed, else in the checkout."""
    package = Path(__file__).parent
    for folder in (package / "examples", package.parents[1] / "examples"):
        if (folder / "synthetic-day.csv").is_file():
            return folder / "synthetic-day.csv"
    raise StackError(f"examples/synthetic-day.csv is missing beside {package}")


def configuration(folder: Path, **settings: Any) -> Config:
    """A stack of its own: any free ports, state in `folder`, nothing from the user's settings.

    settings: more of them, as `section__key=value`.
    """
    more = {key.replace("__", "."): value for key, value in settings.items()}
    return load(
        environ={},
        flags={
            "stack.name": f"demo-{folder.name[-8:].lower().replace('_', '-').strip('-')}",
            "stack.state_dir": folder / "state",
            "triton.http_port": 0,
            "triton.grpc_port": 0,
            "triton.metrics_port": 0,
            "control.port": 0,
            "control.range_mode": "trace",
            "control.control_share": 0,  # the demo has a comparison of its own
            "carbon.sources": "trace",
            "carbon.trace": trace(),
            "carbon.zone": "EXAMPLE",
            "engine.slots": IN_FLIGHT,
            # llama.cpp's threads wait for each other by spinning: where one must share its core,
            # all crawl. One core is left to Triton, the agent and whatever else runs here.
            "engine.threads": max(1, len(os.sched_getaffinity(0)) - 1),
            **more,
        },
    )


def run(picture: Path, *, json: bool) -> bool:
    """True if all of it really happened."""
    folder = Path(tempfile.mkdtemp(prefix="sprout-demo-"))
    good = False
    try:
        cfg = configuration(folder)
        with _progress() as step:
            result = _play(cfg, step)
        checks = demo_checks.examine(result)
        good = all(check.ok for check in checks)
    finally:
        if good:
            shutil.rmtree(folder)
        else:
            err.print(f"what the processes said: {folder / 'state' / 'logs'}")
    demo_view.draw(result, cfg, picture)
    if json:
        emit_json(_document(result, checks, picture))
    else:
        demo_view.show(result, cfg, checks, picture)
    return good


def _play(cfg: Config, step: Callable[[str], None]) -> Result:
    result = Result()
    started = time.monotonic()
    stack = BackgroundStack(cfg)
    pids: list[int] = []
    try:
        with stack:
            result.seconds_to_ready = time.monotonic() - started
            step("stack is up")
            pids = demo_checks.processes(stack)
            _arms(stack, result, step)
            result.status = settled(cfg, len(result.shots))
            result.exit_status = stack.stop()
    finally:
        result.left_behind = demo_checks.left_behind(stack.paths, pids)
    step("stopped")
    return result


def _arms(stack: BackgroundStack, result: Result, step: Callable[[str], None]) -> None:
    cfg, levels = stack.cfg, pack(stack.cfg.request.pack).levels
    low, high = _ends(trace())

    def ask(arm: str, kind: str, prompt: str, level: str | None = None, off: bool = False) -> Shot:
        with Client(stack.endpoint("grpc")) as client:
            answer = client.ask(
                prompt,
                level=level,
                off=off,
                task=kind,
                max_tokens=MAX_TOKENS,
                options={"seed": 1},
                timeout_s=ANSWER_TIMEOUT_S,
            )
        served = levels[answer.receipt.level] if answer.receipt else "none"
        step(arm)
        return Shot(arm, kind, prompt, level, served, answer)

    def all_prompts(arm: str, **hints: Any) -> None:
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            result.shots += pool.map(lambda p: ask(arm, *p, **hints), PROMPTS)

    for level in levels:
        result.shots.append(ask("pinned", *PROMPTS[0], level=level))
    for arm, intensity in (("low", low), ("high", high)):
        policy = operator.override(cfg, intensity, OVERRIDE_TTL_S)
        result.policies[arm] = policy
        result.on_board[arm] = _await_board(cfg, policy_version.version(policy))
        all_prompts(arm)
    all_prompts("off", off=True)


def _ends(path: Path) -> tuple[float, float]:
    """The least and the greatest lifecycle intensity of the invented day."""
    values = [float(line.split(",")[2]) for line in path.read_text().splitlines()[1:]]
    return min(values), max(values)


def _await_board(cfg: Config, version: int) -> int:
    """The version on the board once it is `version`, or what it is when time is up."""
    from sprout_ext.board import BoardReader

    reader = BoardReader(cfg.stack.shm / "policy.board", pack(cfg.request.pack).hash, 0, 0, 0)
    deadline = time.monotonic() + BOARD_TIMEOUT_S
    while True:
        policy = reader.policy()
        found = policy.version if policy is not None and reader.state() == "ok" else 0
        if found == version or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def settled(cfg: Config, requests: int, timeout_s: float = 15.0) -> pb.Status:
    """The control plane's status once every outcome is in, or as it is when time is up."""
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(ControlError):
            status = operator.status(cfg)
            if demo_checks.stored(status) >= requests or time.monotonic() > deadline:
                return status
        if time.monotonic() > deadline + timeout_s:
            raise ControlError("the control plane does not answer")
        time.sleep(0.2)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """One step for the start, each request, and the stop."""
    total = 2 + len(pack("explicit").levels) + 3 * len(PROMPTS)
    names = {"low": "policy, low intensity", "high": "policy, high intensity", "off": "without"}
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=err) as bar:
        task = bar.add_task("starting the stack", total=total)
        yield lambda what: bar.update(task, advance=1, description=names.get(what, what))


def _document(result: Result, checks: list[demo_checks.Check], picture: Path) -> dict[str, Any]:
    return {
        "ok": all(check.ok for check in checks),
        "checks": [asdict(check) for check in checks],
        "energy_estimated": result.estimated,
        "seconds_to_ready": result.seconds_to_ready,
        "policies": {arm: as_dict(policy) for arm, policy in result.policies.items()},
        "arms": demo_view.totals(result),
        "requests": [asdict(shot) for shot in result.shots],
        "status": None if result.status is None else as_dict(result.status),
        "picture": str(picture),
    }
