# SPDX-License-Identifier: Apache-2.0
"""The whole stack on a GPU: started once, measured in parts, each with its own JSON.

    python benchmarks/gpu/live.py --model 13b --vllm-python PYTHON --bundle BUNDLE --out results

A part that fails says why in its result, prints the stack's logs, and the next one goes on.
"""

import argparse
import importlib
import json
import signal
import sys
import tempfile
import time
import traceback
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn

from _joules import agents, boards
from _live import Live, made
from _live import options as stack_options
from _meter import Joules
from _run import driver
from _stack import machine
from _turns import commit

PARTS = ("receipts", "prefix", "overhead")


def given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    stack_options(parser)
    parser.add_argument("--bundle", type=Path, help="folder with requests.csv.gz (docs/replay.md)")
    parser.add_argument("--longest", type=int, default=1024, help="tokens that an answer may have")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--commit", help="where the checkout can't tell it")
    parser.add_argument(
        "--part-limit", type=float, default=300.0, help="seconds, then it is broken off"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON")
    for name in PARTS:
        importlib.import_module(name).options(parser)
    return parser.parse_args()


def main() -> int:
    arguments = given()
    signal.signal(signal.SIGTERM, interrupted)
    arguments.out.mkdir(parents=True, exist_ok=True)
    failed, began = 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sprout-live-") as folder, ExitStack() as stack:
        parts = [importlib.import_module(name) for name in arguments.parts]
        repositories = [
            part.repository(Path(folder) / part.__name__, arguments)
            for part in parts
            if hasattr(part, "repository")
        ]
        live = stack.enter_context(
            made(arguments, Path(folder) / "stack", repositories=repositories)
        )
        print(f"the stack is up after {time.monotonic() - began:.1f} s", flush=True)
        joules = stack.enter_context(counter(live))
        about = head(arguments, live) | {"start_s": round(time.monotonic() - began, 1)}
        for part in parts:
            failed |= one(part, live, joules, arguments, about)
    return failed


def one(
    part: ModuleType,
    live: Live,
    joules: Joules,
    arguments: argparse.Namespace,
    about: dict[str, Any],
) -> int:
    """Measures a part and writes what it found, however it ends."""
    found: dict[str, Any] = {"measurement": part.__name__, **about}
    path = arguments.out / f"{part.__name__}-{about['name']}-{arguments.seed}.json"
    started = time.monotonic()
    try:
        with time_limit(arguments.part_limit):
            part.measure(live, joules, arguments, found)
    except BaseException as error:
        traceback.print_exc()
        found["failed"] = f"{type(error).__name__}: {error}"
        live.print_logs()
        if not isinstance(error, Exception | SystemExit):  # somebody wants it to end
            raise
    finally:
        found["took_s"] = round(time.monotonic() - started, 1)
        path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{path} after {found['took_s']} s\n\n{rendered(found)}\n", flush=True)
    return int("failed" in found)


def interrupted(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt("told to end")


def rendered(found: dict[str, Any]) -> str:
    """A table that can't be made is no reason to stop."""
    from table import render  # noqa: PLC0415 - it is nothing that measures

    try:
        return render([found])
    except Exception:
        return traceback.format_exc()


@contextmanager
def counter(live: Live) -> Iterator[Joules]:
    """NVML's, by a reader of its own; without one the agent's, which tries the scripts alone."""
    with agents([live]) if live.gpu is None else boards([live.gpu.uuid]) as joules:
        yield lambda since, until: joules(since, until)[0]


def head(arguments: argparse.Namespace, live: Live) -> dict[str, Any]:
    named = Path(str(arguments.model)).name
    shaped = live.cfg.engine.kind == "vllm" and named in ("7b", "13b")
    return {
        "commit": arguments.commit or commit(),
        "name": named if live.cfg.engine.kind == "vllm" else live.cfg.engine.kind,
        "model": f"Llama-2-{named}-shaped, random weights, bfloat16" if shaped else named,
        "gpu": live.gpu.name if live.gpu else f"none: joules of the meter {arguments.meter}",
        "driver": driver() if live.gpu else "none",
        "machine": machine(),
        "engine": f"{live.cfg.engine.kind}, {version(live)}",
        "vocabulary": vocabulary(live),
        "slots": live.cfg.engine.slots,
        "seed": arguments.seed,
    }


def vocabulary(live: Live) -> int | None:
    """The model's: it may be larger than the shape's own, for the tokenizer's sake."""
    if live.cfg.engine.kind != "vllm" or live.cfg.engine.model is None:
        return None
    return int(json.loads((live.cfg.engine.model / "config.json").read_text())["vocab_size"])


def version(live: Live) -> str:
    """Of the engine, if it says one, as vLLM does."""
    if live.cfg.engine.kind not in ("vllm", "openai"):
        return "no version"
    try:
        with urllib.request.urlopen(f"{live.engine_root}/version", timeout=10) as answer:
            return str(json.load(answer)["version"])
    except (OSError, ValueError, KeyError):
        return "version unknown"


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """TimeoutError on the main thread."""

    def over(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeoutError(f"broken off after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.exit(main())
