# SPDX-License-Identifier: Apache-2.0
"""Joules of several GPUs between any two moments, and what they draw with nothing to do."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from _live import Live
from _meter import Sampled

from sprout.energy.nvml import NvmlMeter

AllJoules = Callable[[float, float], list[float]]  # of each GPU, on time.monotonic
SETTLE_S = 1.0  # clocks and power, once nothing is to do


@contextmanager
def boards(gpus: Sequence[str]) -> Iterator[AllJoules]:
    """By NVML's counters; gpus: UUIDs. Needs no engine and makes no context on a GPU."""
    with ExitStack() as stack:
        meters = [NvmlMeter([gpu]) for gpu in gpus]
        for meter in meters:
            stack.callback(meter.close)
        sampled = [stack.enter_context(Sampled(meter.read)) for meter in meters]

        def joules(since: float, until: float) -> list[float]:
            for meter in meters:
                if meter.problem:
                    raise SystemExit(f"the meter stands still: {meter.problem}")
            return [one.joules(since, until) for one in sampled]

        yield joules


@contextmanager
def agents(lives: Sequence[Live]) -> Iterator[AllJoules]:
    """By the stacks' own clocks, whatever meter they have: for trials without a GPU."""
    with ExitStack() as stack:
        reads = [lambda live=live: float(live.clock().metered) for live in lives]
        sampled = [stack.enter_context(Sampled(read)) for read in reads]
        yield lambda since, until: [one.joules(since, until) for one in sampled]


def idle(joules: AllJoules, seconds: float) -> list[float]:
    """Watts of each."""
    time.sleep(SETTLE_S)
    since = time.monotonic()
    time.sleep(seconds)
    until = time.monotonic()
    return [each / (until - since) for each in joules(since, until)]
