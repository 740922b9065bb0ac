# SPDX-License-Identifier: Apache-2.0
"""`sprout profile`: e and p of the engine at hand, by level and load, with a power model."""

import contextlib
import hashlib
import json as _json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sprout import __version__
from sprout.config import Config
from sprout.console import operator, profile_view, tracked
from sprout.console.ask import grpc_address
from sprout.console.output import emit_json, err
from sprout.directives import pack
from sprout.errors import ConfigError, ControlError
from sprout.profile import document
from sprout.profile.document import Made, Profile
from sprout.serve.analysis import analyse, row
from sprout.serve.load import MOST_IN_FLIGHT, TritonTarget
from sprout.serve.node_energy import NodeEnergy, from_clock, from_nodes, settled_by
from sprout.serve.profiling import Condition, Measurement, Runner, Timing, conditions
from sprout.serve.state import write_private
from sprout.serve.weights import model_path
from sprout.v1 import control_pb2 as pb

OPEN_SHARES = (0.2, 0.5, 0.8)  # of L0's capacity, where no rates are given


@dataclass(frozen=True)
class Options:
    prompts: Path | None
    in_flight: tuple[int, ...]
    per_s: tuple[float, ...]  # () = OPEN_SHARES of what L0 can do
    timing: Timing
    max_tokens: int
    seed: int
    answer_timeout_s: float = 300.0


FULL = Timing(warm_s=5.0, window_s=10.0, windows=3, cool_s=5.0)
QUICK = Timing(warm_s=2.0, window_s=5.0, windows=1, cool_s=1.0)


def options(
    *,
    prompts: Path | None,
    concurrency: str | None,
    rates: str | None,
    window_s: float | None,
    windows: int | None,
    max_tokens: int,
    seed: int,
    quick: bool,
) -> Options:
    """From the command line; what is not given is as `--quick` or a full run wants it."""
    timing = QUICK if quick else FULL
    if window_s is not None:
        timing = replace(timing, window_s=window_s)
    if windows is not None:
        timing = replace(timing, windows=windows)
    in_flight = numbers(concurrency or ("1,4" if quick else "1,4,8"), "--concurrency", int)
    if not in_flight or max(in_flight) > MOST_IN_FLIGHT:
        raise ConfigError(f"--concurrency: from 1 to {MOST_IN_FLIGHT}, at least one")
    return Options(
        prompts,
        tuple(map(int, in_flight)),
        numbers(rates or "", "--rates", float),
        timing,
        max_tokens,
        seed,
    )


def run(cfg: Config, options: Options, path: Path, *, json: bool) -> None:
    """Measure, print, write. Raises ConfigError, StackError, EngineError or ControlError."""
    prompts = read_prompts(options.prompts)
    directives = pack(cfg.request.pack)
    nodes = list(operator.status(cfg).nodes)
    if not nodes:
        raise ControlError("no agent has reported yet: nothing meters the node")
    energy = NodeEnergy(_reader(cfg, nodes))
    settled = settled_by(_clock(cfg)) if _is_here(cfg, nodes) else None
    target = TritonTarget(
        grpc_address(cfg),
        max_tokens=options.max_tokens,
        timeout_s=options.answer_timeout_s,
        seed=options.seed,
    )
    try:
        with tracked.beside(cfg) as span, energy.recording():
            energy.wait_first()
            measurements = _measure(
                target, energy, prompts, directives.levels, options, settled=settled
            )
    finally:
        target.close()
    made = _made(cfg, nodes, prompts, options)
    profile, notes = analyse(measurements, made, directives.levels)
    write_private(path, document.dump(profile))
    rows = [row(m) for m in measurements]
    if json:
        emit_json(
            {
                "path": str(path),
                "rows": [asdict(r) for r in rows],
                "notes": notes,
                "carbontracker": tracked.document(span),
                **_plain(profile),
            }
        )
    else:
        profile_view.show(profile, rows, notes)
        if span is not None:
            print(tracked.line(span))
        err.print(f"written to {path}; the control plane reads it as control.profile_file")


def read_prompts(path: Path | None) -> list[str]:
    """Of a JSON-lines file with `prompt` in each line; default: the demo's. ConfigError."""
    if path is None:
        from sprout.demo import PROMPTS

        return [prompt for _, prompt in PROMPTS]
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--prompts: can't read {path}: {error}") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            prompt = _json.loads(line)["prompt"]
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f'--prompts: {path}:{number}: not {{"prompt": …}}') from None
        if not isinstance(prompt, str) or not prompt:
            raise ConfigError(f"--prompts: {path}:{number}: `prompt` is no text")
        found.append(prompt)
    if not found:
        raise ConfigError(f"--prompts: {path} holds none")
    return found


def numbers(text: str, option: str, kind: Callable[[str], float]) -> tuple[float, ...]:
    """Comma-separated positive numbers. ConfigError names the option."""
    try:
        found = tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"{option}: {text!r} is no list of numbers") from None
    if any(not 0 < value < float("inf") for value in found):
        raise ConfigError(f"{option}: numbers must be above 0: {text}")
    return found


def _measure(
    target: TritonTarget,
    energy: NodeEnergy,
    prompts: Sequence[str],
    levels: Sequence[str],
    options: Options,
    *,
    settled: Callable[[int, int], float] | None,
) -> list[Measurement]:
    rates = len(options.per_s or OPEN_SHARES)
    # One condition more to find the capacity, where no rates are given; one is idle.
    count = 1 + len(levels) * (len(options.in_flight) + rates) + (not options.per_s)
    with _progress(count * options.timing.condition_s) as step:
        runner = Runner(
            target,
            energy,
            prompts,
            levels,
            options.timing,
            seed=options.seed,
            settled=settled,
            progress=step,
        )
        per_s = options.per_s
        if not per_s:
            most = runner.capacity(max(options.in_flight))
            if most == 0:
                raise ConfigError("no answer ended within the windows: make them longer (--window)")
            per_s = tuple(share * most for share in OPEN_SHARES)
        planned = conditions(levels, options.in_flight, per_s, seed=options.seed)
        measured = [runner.measure(condition) for condition in planned]
    return sorted(measured, key=lambda m: _place(m.condition))


def _place(condition: Condition) -> tuple[int, float, str]:
    return (
        ("idle", "closed", "open").index(condition.kind),
        condition.setting,
        condition.level,
    )


def _reader(cfg: Config, nodes: Sequence[pb.NodeStatus]) -> Any:
    """The energy clock where the one node is this machine, else what the agents report."""
    if _is_here(cfg, nodes):
        return from_clock(_clock(cfg))
    return from_nodes(lambda: list(operator.status(cfg).nodes))


def _is_here(cfg: Config, nodes: Sequence[pb.NodeStatus]) -> bool:
    """Whether the one node is this machine."""
    return len(nodes) == 1 and from_clock(_clock(cfg))() is not None


def _clock(cfg: Config) -> Path:
    return cfg.stack.shm / "energy.clock"


def _made(
    cfg: Config, nodes: Sequence[pb.NodeStatus], prompts: Sequence[str], options: Options
) -> Made:
    model = "prompt's own tokens" if cfg.engine.kind == "echo" else model_path(cfg).name
    directives = pack(cfg.request.pack)
    return Made(
        time=datetime.now(UTC),
        sprout_version=__version__,
        commit=_commit(),
        model=model,
        engine=cfg.engine.kind,
        pack=directives.name,
        pack_hash=f"{directives.hash:016x}",
        meter=", ".join(sorted({node.meter for node in nodes})),
        energy_estimated=any(node.energy_estimated for node in nodes),
        nodes=len(nodes),
        prompts=len(prompts),
        prompts_sha256=hashlib.sha256("\0".join(prompts).encode()).hexdigest(),
        max_tokens=options.max_tokens,
        seed=options.seed,
    )


def _commit() -> str:
    """Of the checkout that this runs from, "" where it is none."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        return done.stdout.strip()
    return ""


@contextlib.contextmanager
def _progress(total_s: float) -> Iterator[Callable[[float, str], None]]:
    columns = (TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=err) as bar:
        task = bar.add_task("starting", total=total_s)
        yield lambda seconds, what: bar.update(task, advance=seconds, description=what)


def _plain(profile: Profile) -> dict[str, Any]:
    found: dict[str, Any] = _json.loads(document.dump(profile))
    return found
