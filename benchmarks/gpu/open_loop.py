# SPDX-License-Identifier: Apache-2.0
"""Node joules by level at equal arrival rates, 10 to 90 % of what L0 can carry.

Requests arrive as a Poisson process, at the same moments and with the same prompts for every level
of a round; the order is random. Energy is the GPU's whole, idle included. What L0 carries, and each
level, is measured first: so many requests in flight as the engine runs at once. Beside the equal
rates each level is run at 70 % of its own: how full a GPU is that takes the traffic of several.

    python benchmarks/gpu/open_loop.py --model 13b --bundle BUNDLE --out results
"""

import argparse
import random
import sys
import time
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
from _drive import Closed, Open, drive
from _engine import TOGETHER
from _figures import power_fit
from _run import Bench, main
from _work import Lengths, poisson
from closed_loop import LEVELS, requests

from sprout.profile.power import Window

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
OWN_SHARE = 0.7
WINDOW_S = 12.0
WARM_S = 8.0  # for L0 …
LEAST_WARM_S = 3.0  # … and the shortest: a load is steady once its longest requests have come round
CAPACITY_S = 5.0
FAR = 10**6  # a round that there never is: prompts of their own
PARTS = 3  # that a window is cut into for the fit


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--open-seconds", type=float, default=470.0)


def measure(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    if bench.lengths is None:
        raise SystemExit("name the bundle that gives the lengths: --bundle")
    rng = random.Random(given.seed)
    began, turn = time.monotonic(), 0
    idle = [bench.idle()]
    carried = [capacity(bench, bench.lengths, level) for level in LEVELS]
    shares = SHARES[::2] if given.quick else SHARES
    grid = [("equal", share, level, share * carried[0]) for share in shares for level in LEVELS]
    grid += [("own", OWN_SHARE, level, OWN_SHARE * carried[level]) for level in LEVELS[1:]]
    measured: list[dict[str, Any]] = []
    over = False
    while not over:
        order = rng.sample(grid, len(grid))
        if turn > 0:  # what is cut off by the time must not be the same rates' levels in part
            order = sorted(order, key=lambda cell: _turn(given.seed, turn, cell[:2]))
        for kind, share, level, per_s in order:
            needed = warm_s(bench.lengths, level) + WINDOW_S + 1
            over = turn > 0 and time.monotonic() - began + needed > given.open_seconds
            if over:
                break
            seed, block = (turn, round(share * 100)), len(measured)
            found = cell(bench, bench.lengths, level, per_s, seed, block)
            measured.append({"round": turn, "kind": kind, "share": share, **found})
        turn += 1
        over = over or given.quick
    idle.append(bench.idle())
    windows = [Window(**part) for found in measured for part in found["windows"]] + idle_windows(
        idle, len(measured)
    )
    return {
        "idle": idle,
        "carried_per_s": carried,
        "cells": measured,
        "fit": power_fit(windows, given.seed),
    }


def _turn(seed: int, turn: int, name: object) -> float:
    return random.Random(f"{seed} {turn} {name}").random()


def idle_windows(idle: list[dict[str, float]], first: int) -> list[Window]:
    """Each a block of its own."""
    return [
        Window(first + i, "", "idle", 0.0, w["seconds"], w["joules"], 0.0, 0.0, 0.0, 0.0, 0)
        for i, w in enumerate(idle)
    ]


def warm_s(lengths: Lengths, level: int) -> float:
    long = np.percentile(lengths.output, 99, axis=0)
    return max(LEAST_WARM_S, WARM_S * float(long[level] / long[0]))


def capacity(bench: Bench, lengths: Lengths, level: int) -> float:
    """Requests per second of mean length, with as many in flight as the engine runs at once."""
    feed = Closed(TOGETHER, requests(lengths, level, TOGETHER, (bench.seed, FAR)))
    trace = drive(bench.engine, feed, 3.0 + CAPACITY_S)
    since = trace.started + 3.0
    mean_output = float(lengths.output[:, level].mean())
    return trace.tokens(since, trace.ended) / mean_output / (trace.ended - since)


def cell(
    bench: Bench, lengths: Lengths, level: int, per_s: float, seed: tuple[int, int], block: int
) -> dict[str, Any]:
    warm = warm_s(lengths, level)
    rng = np.random.default_rng((bench.seed, *seed))
    # As long a warm-up for all levels would waste time: shorter ones join the arrivals later.
    times = poisson(per_s, WARM_S + WINDOW_S, rng)
    drawn = lengths.drawn(len(times), rng)
    late = WARM_S - warm
    kept = times >= late
    feed = Open(times[kept] - late, [lengths.request(int(i), level) for i in drawn[kept]])
    trace = drive(bench.engine, feed, warm + WINDOW_S)
    since, until = trace.started + warm, trace.started + warm + WINDOW_S
    marks = np.linspace(since, until, PARTS + 1).tolist()
    windows = [
        trace.window(
            *(bench.joules(a, b), a, b),
            **{"block": block, "level": f"L{level}", "kind": "open", "setting": per_s},
        )
        for a, b in pairwise(marks)
    ]
    joules = sum(w.joules for w in windows)
    return {
        "level": level,
        "per_s": per_s,
        "arrived": int(((times >= WARM_S) & (times < WARM_S + WINDOW_S)).sum()),
        "seconds": WINDOW_S,
        "joules": joules,
        "watts": joules / WINDOW_S,
        "in_flight": sum(w.active_seconds for w in windows) / WINDOW_S,
        "busy": sum(w.busy_seconds for w in windows) / WINDOW_S,
        "latencies_s": [round(s, 3) for s in trace.latencies(since, until)],
        "windows": [asdict(w) for w in windows],
    }


if __name__ == "__main__":
    sys.exit(main("open_loop", __doc__, options, measure))
