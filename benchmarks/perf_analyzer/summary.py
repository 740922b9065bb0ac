#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What perf_analyzer's --profile-export-file says, request by request.

Times are of the requests themselves, so they don't depend on perf_analyzer's windows. Sprout's
receipt (level, joules) and the engine's token counts are read where the answers have them. Needs
nothing but Python, so it runs in NVIDIA's SDK container.

    summary.py closed.json open.json          # a line for each
    summary.py --a a1.json a2.json --b b1.json b2.json     # B / A, pair by pair
"""

import argparse
import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TAIL_NEEDS = 100  # requests behind a 99th percentile


class ExportError(Exception):
    """Why a file is no export that can be read."""


@dataclass(frozen=True)
class Request:
    sent_ns: int
    answered_ns: tuple[int, ...]  # of each response; of a unary model there is one
    tokens: int | None  # generated, where the answer says it
    level: int | None  # of the receipt, as the three below
    joules: float | None  # attributed to it
    grams: float | None


@dataclass(frozen=True)
class Run:
    """One experiment of an export."""

    name: str
    load: str  # "c=8" or "5/s"
    requests: tuple[Request, ...]  # those with an answer
    unanswered: int


@dataclass(frozen=True)
class Figures:
    """None is what could not be known: too few requests, or nothing in the answers."""

    requests: int
    in_flight: float  # on average
    sent_per_s: float | None
    done_per_s: float
    chunks_per_s: float
    first_p50_ms: float
    first_p99_ms: float | None
    whole_p50_ms: float
    whole_p99_ms: float | None
    tokens: float | None  # of a request, on average
    joules: float | None  # of a request with a receipt, on average
    milligrams: float | None
    levels: dict[int, float]  # share of the requests with a receipt
    receipts: float  # share of all


def read(path: Path) -> list[Run]:
    """The experiments of an export.

    Raises:
        ExportError: names the file.
    """
    try:
        # A chunk may end within a character, and perf_analyzer writes what it gets.
        document = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        return [_run(path.stem, experiment) for experiment in document["experiments"]]
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(f"{path} is no export of perf_analyzer: {error!r}") from None


def _run(name: str, experiment: dict[str, Any]) -> Run:
    mode, value = experiment["experiment"]["mode"], experiment["experiment"]["value"]
    requests = [request for request in experiment["requests"] if request["response_timestamps"]]
    return Run(
        name,
        f"{value:g}/s" if mode == "request_rate" else f"c={value:g}",
        tuple(sorted(map(_request, requests), key=lambda request: request.sent_ns)),
        len(experiment["requests"]) - len(requests),
    )


def _request(request: dict[str, Any]) -> Request:
    outputs = request.get("response_outputs", [])
    # Sprout's slots count on the last response, the C++ backend on each what that one has.
    tokens = [n for output in outputs if (n := _number(output, "num_output_tokens")) is not None]
    level = _last(outputs, "directive_level")
    return Request(
        sent_ns=request["timestamp"],
        answered_ns=tuple(request["response_timestamps"]),
        tokens=int(sum(tokens)) if tokens else None,
        level=None if level is None else int(level),
        joules=_last(outputs, "energy_joules"),
        grams=_last(outputs, "carbon_grams"),
    )


def _last(outputs: Sequence[dict[str, Any]], name: str) -> float | None:
    return _number(outputs[-1], name) if outputs else None


def _number(output: dict[str, Any], name: str) -> float | None:
    """An output that a response doesn't have is written as empty text."""
    value = output.get(name, "")
    return None if value == "" else float(value)


def figures(run: Run) -> Figures:
    """
    Raises:
        ExportError: no request was answered.
    """
    requests = run.requests
    if not requests:
        raise ExportError(f"{run.name}: no request was answered")
    first = [(r.answered_ns[0] - r.sent_ns) / 1e6 for r in requests]
    whole = [(r.answered_ns[-1] - r.sent_ns) / 1e6 for r in requests]
    span_s = (max(r.answered_ns[-1] for r in requests) - requests[0].sent_ns) / 1e9
    sending_s = (requests[-1].sent_ns - requests[0].sent_ns) / 1e9
    levels = Counter(r.level for r in requests if r.level is not None)
    grams = _mean([r.grams for r in requests])
    return Figures(
        requests=len(requests),
        in_flight=sum(whole) / 1e3 / span_s,
        sent_per_s=(len(requests) - 1) / sending_s if sending_s else None,
        done_per_s=len(requests) / span_s,
        chunks_per_s=sum(len(r.answered_ns) for r in requests) / span_s,
        first_p50_ms=statistics.median(first),
        first_p99_ms=tail(first),
        whole_p50_ms=statistics.median(whole),
        whole_p99_ms=tail(whole),
        tokens=_mean([r.tokens for r in requests]),
        joules=_mean([r.joules for r in requests]),
        milligrams=None if grams is None else 1e3 * grams,
        levels={level: n / levels.total() for level, n in sorted(levels.items())},
        receipts=levels.total() / len(requests),
    )


def tail(values: Sequence[float]) -> float | None:
    """The 99th percentile, linear between ranks; None of fewer than TAIL_NEEDS."""
    if len(values) < TAIL_NEEDS:
        return None
    ordered, rank = sorted(values), 0.99 * (len(values) - 1)
    low = ordered[math.floor(rank)]
    return low + (ordered[math.ceil(rank)] - low) * (rank - math.floor(rank))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


COLUMNS: tuple[tuple[str, Callable[[Figures], float | None], str], ...] = (
    ("requests", lambda f: f.requests, ".0f"),
    ("in flight", lambda f: f.in_flight, ".1f"),
    ("sent/s", lambda f: f.sent_per_s, ".2f"),
    ("done/s", lambda f: f.done_per_s, ".2f"),
    ("chunks/s", lambda f: f.chunks_per_s, ".1f"),
    ("first p50 ms", lambda f: f.first_p50_ms, ".1f"),
    ("first p99", lambda f: f.first_p99_ms, ".1f"),
    ("whole p50 ms", lambda f: f.whole_p50_ms, ".1f"),
    ("whole p99", lambda f: f.whole_p99_ms, ".1f"),
    ("tokens", lambda f: f.tokens, ".1f"),
    ("J", lambda f: f.joules, ".4g"),
    ("mg CO2e", lambda f: f.milligrams, ".3g"),
)


def mix(found: Figures) -> str:
    """Shares of level indices, of the answers that have a receipt."""
    if not found.levels:
        return "no receipts"
    shares = " ".join(f"{level}: {share:.0%}" for level, share in found.levels.items())
    return shares if found.receipts == 1 else f"{shares} ({1 - found.receipts:.0%} without)"


def table(runs: Sequence[Run]) -> str:
    head = ["run", "load", *(name for name, _, _ in COLUMNS), "levels"]
    lines = [head]
    for run in runs:
        found = figures(run)
        cells = [_cell(value(found), form) for _, value, form in COLUMNS]
        lines.append([run.name, run.load, *cells, mix(found)])
    notes = [f"{r.name}: {r.unanswered} requests without an answer" for r in runs if r.unanswered]
    return "\n".join([_aligned(lines), *notes])


def comparison(first: Sequence[Run], second: Sequence[Run]) -> str:
    """Medians of both arms over rounds; of B / A, taken round by round, also the range.

    Raises:
        ExportError: the arms don't pair up.
    """
    loads = {run.load for run in (*first, *second)}
    if len(first) != len(second) or len(loads) != 1:
        raise ExportError(
            f"{len(first)} runs of A and {len(second)} of B at {', '.join(sorted(loads))}: "
            "to be compared they need as many of each, all at one load"
        )
    pairs = [(figures(a), figures(b)) for a, b in zip(first, second, strict=True)]
    lines = [[f"{len(pairs)} rounds, {loads.pop()}", "A", "B", "B / A", "range"]]
    for name, value, form in COLUMNS:
        known = [
            (x, y) for a, b in pairs if (x := value(a)) is not None and (y := value(b)) is not None
        ]
        if len(known) < len(pairs):
            lines.append([name, "-", "-", "-", "-"])
            continue
        mine, other = zip(*known, strict=True)
        ratios = [y / x for x, y in known if x]
        row = [_cell(statistics.median(mine), form), _cell(statistics.median(other), form)]
        if ratios:
            row += [f"{statistics.median(ratios):.3f}", f"{min(ratios):.3f}-{max(ratios):.3f}"]
        lines.append([name, *row])
    notes = [
        f"levels of {arm}: {'; '.join(dict.fromkeys(mix(figures(run)) for run in runs))}"
        for arm, runs in (("A", first), ("B", second))
    ]
    notes += [
        f"{r.name}: {r.unanswered} requests without an answer"
        for r in (*first, *second)
        if r.unanswered
    ]
    return "\n".join([_aligned(lines), *notes])


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """The first column to the left, the others to the right; the last may be any length."""
    count = max(map(len, lines))
    padded = [[*line, *[""] * (count - len(line))] for line in lines]
    widths = [max(len(line[column]) for line in padded) for column in range(count)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, count - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in padded
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("exports", nargs="*", type=Path)
    parser.add_argument("--a", nargs="+", type=Path, default=[], help="rounds of A, in order")
    parser.add_argument("--b", nargs="+", type=Path, default=[], help="rounds of B, in order")
    args = parser.parse_args()
    if bool(args.exports) == bool(args.a or args.b):
        parser.error("either exports, or --a and --b")
    try:
        if args.exports:
            print(table([run for path in args.exports for run in read(path)]))
        else:
            first, second = (
                [r for path in paths for r in read(path)] for paths in (args.a, args.b)
            )
            print(comparison(first, second))
    except ExportError as error:
        sys.exit(f"summary.py: {error}")


if __name__ == "__main__":
    main()
