# SPDX-License-Identifier: Apache-2.0
"""Joules per request by level with 1, 8, 32 and 128 requests in flight at all times.

Lengths are the bundle's. Every level of a round sees the same prompts in the same order; the order
of the levels and loads is random, and rounds follow each other while the time lasts. A window cuts
requests at both ends, so joules per request are joules per output token times the level's mean
answer: what a window happened to draw of long and short ones cancels.

    python benchmarks/gpu/closed_loop.py --model 13b --bundle BUNDLE --out results
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from _drive import Closed, drive
from _run import Bench, main
from _work import Lengths, Request

LEVELS = (0, 1, 2)
CONCURRENCY = (1, 8, 32, 128)
WARM_S = 2.0
WINDOW_S = 5.0


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--closed-seconds", type=float, default=240.0)


def requests(lengths: Lengths, level: int, concurrency: int, seed: Any) -> Iterator[Request]:
    """Without end. The first ones are begun at a random point of their answers, as if the load had
    been there before: else they would all end, and begin anew, together."""
    rng = np.random.default_rng(seed)
    for index, begun in zip(lengths.drawn(concurrency, rng), rng.random(concurrency), strict=True):
        whole = lengths.request(int(index), level)
        yield Request(whole.prompt_tokens, max(1, round(begun * whole.output_tokens)))
    while True:
        for index in lengths.drawn(1024, rng):
            yield lengths.request(int(index), level)


def measure(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    if bench.lengths is None:
        raise SystemExit("name the bundle that gives the lengths: --bundle")
    rng = random.Random(given.seed)
    began, took, turn = time.monotonic(), 0.0, 0
    idle = [bench.idle()]
    measured: list[dict[str, Any]] = []
    grid = [(level, n) for level in LEVELS for n in CONCURRENCY]
    while turn == 0 or time.monotonic() - began + took < given.closed_seconds:
        started = time.monotonic()
        for level, n in rng.sample(grid, len(grid)):
            block = len(measured)
            measured.append({"round": turn, **cell(bench, bench.lengths, level, n, turn, block)})
        turn, took = turn + 1, time.monotonic() - started
        if given.quick:
            break
    idle.append(bench.idle())
    return {"idle": idle, "cells": measured}


def cell(
    bench: Bench, lengths: Lengths, level: int, concurrency: int, turn: int, block: int
) -> dict[str, Any]:
    feed = Closed(concurrency, requests(lengths, level, concurrency, (bench.seed, turn)))
    trace = drive(bench.engine, feed, WARM_S + WINDOW_S)
    since, until = trace.started + WARM_S, trace.ended
    joules = bench.joules(since, until)
    window = trace.window(
        joules, since, until, block=block, level=f"L{level}", kind="closed", setting=concurrency
    )
    mean_output = float(lengths.output[:, level].mean())
    tokens = trace.tokens(since, until)
    return {
        "concurrency": concurrency,
        "level": level,
        "tokens": tokens,
        "watts": window.watts,
        "joules_per_token": joules / tokens,
        "joules_per_request": joules / tokens * mean_output,
        "requests_per_s": tokens / mean_output / window.seconds,
        "latencies_s": [round(s, 3) for s in trace.latencies(since, until)],
        "window": asdict(window),
    }


if __name__ == "__main__":
    sys.exit(main("closed_loop", __doc__, options, measure))
