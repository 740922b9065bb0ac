# SPDX-License-Identifier: Apache-2.0
"""Joules of an answer by its tokens, 16 to 1024, and of a prompt by its tokens: one size of model.

Cells are whole batches of equal requests, repeated for a few seconds each; a round runs every cell
once in random order, and rounds follow each other while the time lasts (the first always ends). An
answer of one token is prefill alone; decode is what more tokens add.

    python benchmarks/gpu/energy_tokens.py --model 13b --out results [--energy-seconds 110]
"""

import argparse
import random
import sys
import time
from typing import Any

from _drive import Batches, drive
from _run import Bench, main
from _work import Request

PROMPT = 128  # tokens, where the answer's length is varied
OUTPUTS = (1, 16, 64, 256, 1024)
PROMPTS = (512, 2048)  # with an answer of one token
BATCHES = (1, 32)
CELL_S = 1.5


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--energy-seconds", type=float, default=110.0)


def cells() -> list[tuple[int, Request]]:
    """Batch size, and the request that fills it."""
    kinds = [Request(PROMPT, n) for n in OUTPUTS] + [Request(n, 1) for n in PROMPTS]
    return [(size, request) for size in BATCHES for request in kinds]


def measure(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(given.seed)
    began, took = time.monotonic(), 0.0
    idle = [bench.idle()]
    measured: list[dict[str, Any]] = []
    turn = 0
    drive(bench.engine, Batches(32, Request(PROMPT, 32), 1.0), 10.0)  # warm
    while turn == 0 or time.monotonic() - began + took < given.energy_seconds:
        started = time.monotonic()
        for size, request in rng.sample(cells(), len(cells())):
            if given.quick and request.output_tokens > 256:
                continue
            measured.append({"round": turn, **cell(bench, size, request)})
        turn, took = turn + 1, time.monotonic() - started
        if given.quick:
            break
    idle.append(bench.idle())
    return {"idle": idle, "cells": measured}


def cell(bench: Bench, size: int, request: Request) -> dict[str, Any]:
    feed = Batches(size, request, CELL_S)
    trace = drive(bench.engine, feed, 300.0)
    joules = bench.joules(trace.started, trace.ended)
    requests = len(trace.latencies(trace.started, float("inf")))
    if requests != size * feed.whole:
        raise SystemExit(f"{requests} of {size * feed.whole} requests ended")
    seconds = trace.ended - trace.started
    return {
        "batch": size,
        "prompt_tokens": request.prompt_tokens,
        "output_tokens": request.output_tokens,
        "requests": requests,
        "seconds": seconds,
        "joules": joules,
        "watts": joules / seconds,
        "joules_per_request": joules / requests,
        "device_seconds_per_request": seconds / requests,
        "latency_s": seconds / feed.whole,
    }


if __name__ == "__main__":
    sys.exit(main("energy_tokens", __doc__, options, measure))
