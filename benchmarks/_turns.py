# SPDX-License-Identifier: Apache-2.0
"""Cases that take turns in each round, so that a drift of the machine hits them alike; and how the
figures are shown and judged. A case's name ends with its unit: `_ns`, `_us` or `_ms`."""

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Case = Callable[[], float]  # seconds for one call
UNITS_PER_S = {"ns": 1e9, "us": 1e6, "ms": 1e3}


def looped(call: Callable[[], object], count: int) -> Case:
    """Mean over a loop, with the loop's own cost in it."""

    def run() -> float:
        started = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - started) / count

    return run


def take_turns(cases: Mapping[str, Case], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, by case; one round before them warms up."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, case in cases.items():
            seconds = case()
            if turn > 0:
                times[name].append(seconds)
    return times


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median and range."""
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "min": ordered[0], "max": ordered[-1]}


def summary(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """In the unit that the name ends with."""
    scale = UNITS_PER_S[name.rsplit("_", 1)[1]]
    return spread(second * scale for second in seconds)


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Round by round, so that both saw the same machine."""
    return spread(a / b for a, b in zip(over, under, strict=True))


def made_on(rounds: int) -> dict[str, Any]:
    """What every result says of itself."""
    return {
        "commit": commit(),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "rounds": rounds,
    }


def commit() -> str:
    """The commit that was measured, "+" behind it where files differ from it."""
    root = Path(__file__).parents[1]

    def git(*args: str) -> str:
        done = subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    found = git("rev-parse", "--short", "HEAD")
    return found + ("+" if git("status", "--porcelain", "-uno") else "") if found else "unknown"


def table(first: str, found: Mapping[str, Any]) -> str:
    """What was found: results, how many times one is `_over_` another, targets."""
    rows = found["results"] | {name: found[name] for name in found if "_over_" in name}
    width = max(map(len, rows)) + 2
    lines = [first, "", f"{'':{width}}{'median':>10}{'min':>10}{'max':>10}"]
    for name, values in rows.items():
        numbers = "".join(f"{values[kind]:10.2f}" for kind in ("median", "min", "max"))
        lines.append(f"{name:{width}}{numbers}")
    lines.append("")
    lines += [f"{'met' if met else 'MISSED'}: {what}" for what, met in found["targets"].items()]
    return "\n".join(lines)


def main(
    about: str | None,
    rounds: int,
    measure: Callable[[int], dict[str, Any]],
    show: Callable[[dict[str, Any]], str],
) -> int:
    """Measure, print, write `--json`; 1 where a target was missed. rounds: the default."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0] if about else None)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    found = measure(arguments.rounds)
    print(show(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if all(found["targets"].values()) else 1
