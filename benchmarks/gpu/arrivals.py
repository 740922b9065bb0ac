# SPDX-License-Identifier: Apache-2.0
"""Recorded arrivals through the whole stack: L0, the paper's policy, and levels by prompt.

The arrivals are a stretch of a real trace, as much faster as makes them 65 % of what the GPU
carries at L0. Each zone's month is stood for by a few of its hours, clean to dirty; in each the
control plane decides on the hour's recorded intensity and on the floor that the published rule has
for it. Both policies so aim at the same preference: one draws from the published program's mix, the
other has nine of ten requests choose by their prompt. The arms of an hour are blocks in random
order with the same arrivals and prompts, and traffic goes on between them. Energy is the GPU's
whole, by NVML, idle included.

Measured: joules, latency, levels, receipts. Grams are those joules at the recorded intensities.
With several GPUs run one of these for each at the same time: `--part 1/2`, `--part 2/2`.

    python benchmarks/gpu/arrivals.py --bundle BUNDLE --trace TRACE.csv.gz --out results
"""

import argparse
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from _arms import ARMS
from _blocks import Block, Traffic, figures, play
from _hours import Hour, in_turn, read_hours
from _joules import AllJoules, agents, boards, idle
from _judged import Served, served
from _live import Live, made
from _policies import Policies, settings
from _stretch import Stretch, read, stretch
from _whole import carried, head, part, save, shared_options

ZONES = ("US-TEX-ERCO", "US-CAL-CISO", "AU-SA", "NL", "GB")
START_H = 800  # of the year: 3 February, the first of the published windows
XI = 0.1  # as published
IDLE_S = 5.0
SLACK_S = 1.0  # that a policy takes to be in force


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--zones", nargs="+", default=list(ZONES))
    parser.add_argument("--hours", type=int, default=3, help="of each zone")
    parser.add_argument("--load", type=float, default=0.65, help="of what L0 carries")
    parser.add_argument("--washout", type=float, default=8.0, help="seconds of a block")
    parser.add_argument("--window", type=float, default=7.0, help="measured seconds of a block")
    parser.add_argument(
        "--seconds", type=float, default=400.0, help="no hour begins that would end later"
    )
    parser.add_argument("--part", type=part, default=(0, 1), metavar="I/N", help="of the hours")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    shared_options(parser)
    options(parser)
    given = parser.parse_args()
    pool = served(given.bundle, given.longest, given.predictor)
    rng = np.random.default_rng(given.seed)
    by_zone = read_hours(given.bundle, given.zones, START_H, given.hours, XI)
    hours = in_turn(by_zone, rng)
    with (
        tempfile.TemporaryDirectory() as folder,
        made(given, Path(folder) / "stack", **settings(given.predictor)) as live,
        meter(live) as joules,
    ):
        print(f"the stack is up: {live.grpc}", flush=True)
        Run(given, live, pool, hours, joules).all()
    return 0


def meter(live: Live) -> AbstractContextManager[AllJoules]:
    return agents([live]) if live.gpu is None else boards([live.gpu.uuid])


class Run:
    def __init__(
        self,
        given: argparse.Namespace,
        live: Live,
        pool: Served,
        hours: list[Hour],
        joules: AllJoules,
    ) -> None:
        self._given, self._live, self._pool, self._joules = given, live, pool, joules
        self._policies = Policies(live.cfg)
        self._began = time.monotonic()
        which, of = given.part
        self._mine = [(i, hour) for i, hour in enumerate(hours) if i % of == which]
        self._hours = len(hours)
        self._blocks: list[tuple[dict[str, Any], str, Block]] = []
        self._found: dict[str, Any] = {
            "measurement": "arrivals",
            **head(given, [live]),
            "part": [which + 1, of],
            "washout_s": given.washout,
            "load": given.load,
            "hours": [],
        }

    def all(self) -> None:
        given, found = self._given, self._found
        found["idle_watts"] = [idle(self._joules, IDLE_S)]
        found["carried_per_s"] = given.carried or carried(self._live.grpc, self._pool, given)
        found["carried_is"] = "given" if given.carried else "measured"
        recorded = self._stretch(given.load * found["carried_per_s"])
        found["trace"] = {
            "name": given.trace.name,
            "start_s": recorded.start_s,
            "seconds": recorded.trace_s,
            "speed": recorded.speed,
        }
        with Traffic([self._live.grpc], given.seconds + 600) as traffic:
            for number, hour in self._mine:
                needed = len(ARMS) * (given.washout + given.window + SLACK_S)
                if time.monotonic() - self._began + needed > given.seconds:
                    found["left_out"] = [h.plain() for n, h in self._mine if n >= number]
                    print(f"{len(found['left_out'])} hours are left out: no time", flush=True)
                    break
                self._hour(traffic, number, hour, recorded)
                self._write(traffic)
        self._write(traffic)
        found["idle_watts"].append(idle(self._joules, IDLE_S))
        found["seconds"] = time.monotonic() - self._began
        print(save(given, found, self._name()), flush=True)

    def _stretch(self, per_s: float) -> Stretch:
        given = self._given
        block_s = given.washout + given.window
        return stretch(read(given.trace), given.trace_start, self._hours, block_s, per_s)

    def _hour(self, traffic: Traffic, number: int, hour: Hour, recorded: Stretch) -> None:
        given = self._given
        rng = np.random.default_rng((given.seed, number))
        times = recorded.blocks[number]
        asks = self._pool.asks(len(times), rng, stream=given.stream)
        decided = self._policies.decide(hour.g_per_kwh, hour.floor)
        cell: dict[str, Any] = {
            **hour.plain(),
            "number": number,
            "per_s": len(times) / (given.washout + given.window),
            "decision": decided.plain(),
            "preference": self._pool.expected(decided),
            "order": [ARMS[i] for i in rng.permutation(len(ARMS))],
            "arms": {},
        }
        self._found["hours"].append(cell)
        for arm in cell["order"]:
            version = self._policies.apply(arm, decided)
            parts = [(times, asks)]
            block = play(traffic.streams, parts, given.washout, given.window, [version])
            self._blocks.append((cell, arm, block))
        said = ", ".join(f"{name} {share:.0%}" for name, share in decided.shares.items())
        print(f"{hour.zone} {hour.at} {hour.g_per_kwh:.0f} g/kWh: {said}", flush=True)

    def _write(self, traffic: Traffic) -> None:
        """What is known so far; the last block's requests may still be on their way."""
        ended = traffic.ended
        for cell, arm, block in self._blocks:
            block.joules = block.joules or self._joules(block.since, block.until)
            cell["arms"][arm] = figures(block, ended, self._pool.levels, self._pool.won)
        save(self._given, self._found, self._name())

    def _name(self) -> str:
        which, of = self._given.part
        return f"arrivals-{self._given.seed}-{which + 1}of{of}"


if __name__ == "__main__":
    sys.exit(main())
