# SPDX-License-Identifier: Apache-2.0
"""The same traffic on two GPUs at L0, and on one under the policy with the other released.

Two whole stacks, one for each GPU. A: both serve L0, requests in turn. B: one serves all of it
under the policy (levels by prompt at a set floor), the other idles with its model loaded; which of
the two it is changes from pair to pair. Both blocks of a pair have the same arrivals and prompts;
the order is A B B A. What a GPU without a model draws is measured before the engines start, so that
"released to somebody else" and "off" can be told from "idle".

    python benchmarks/gpu/release.py --gpus 0 1 --bundle BUNDLE --trace TRACE.csv.gz --out results
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from _arms import L0, PROMPT
from _blocks import Block, Traffic, figures, play
from _joules import AllJoules, agents, boards, idle
from _judged import Served, served
from _live import Gpu, Live, made
from _policies import Decision, Policies, settings
from _stretch import read, stretch
from _whole import carried, head, save, shared_options

A, B = "two at L0", "one under the policy"
IDLE_S = 6.0
SLACK_S = 1.0  # that a policy takes to be in force
MOST_PAIRS = 8


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpus", nargs=2, default=["0", "1"], help="indices or UUIDs")
    parser.add_argument("--load", type=float, default=0.7, help="of what two GPUs carry at L0")
    parser.add_argument("--floor", type=float, default=0.95, help="of preference, against L0's")
    parser.add_argument("--g-per-kwh", type=float, default=300.0, help="that it is decided on")
    parser.add_argument("--washout", type=float, default=9.0, help="seconds of a block")
    parser.add_argument("--window", type=float, default=24.0, help="measured seconds of a block")
    parser.add_argument("--seconds", type=float, default=180.0, help="once the engines are up")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    shared_options(parser)
    options(parser)
    given = parser.parse_args()
    pool = served(given.bundle, given.longest, given.predictor)
    bare = None
    if given.meter == "nvml":
        with boards([Gpu.named(gpu).uuid for gpu in given.gpus]) as joules:
            bare = idle(joules, IDLE_S)
    with tempfile.TemporaryDirectory() as folder, stacks(given, Path(folder)) as lives:
        print("both stacks are up", flush=True)
        gpus = [live.gpu.uuid for live in lives if live.gpu is not None]
        with boards(gpus) if gpus else agents(lives) as joules:
            Run(given, lives, pool, joules, bare).all()
    return 0


@contextmanager
def stacks(given: argparse.Namespace, folder: Path) -> Iterator[list[Live]]:
    """Both start at once."""
    with ExitStack() as until:
        lives = []
        for i, gpu in enumerate(given.gpus):
            own = gpu if given.meter == "nvml" else None
            live = made(given, folder / str(i), gpu=own, **settings(given.predictor))
            until.callback(live.stop)
            live.start()
            lives.append(live)
        for live in lives:
            live.wait()
        yield lives


def order(pairs: int) -> list[str]:
    """A B B A A B …: a drift that goes on evenly meets both alike."""
    return [arm for pair in range(pairs) for arm in ((A, B) if pair % 2 == 0 else (B, A))]


class Run:
    def __init__(
        self,
        given: argparse.Namespace,
        lives: Sequence[Live],
        pool: Served,
        joules: AllJoules,
        bare: list[float] | None,
    ) -> None:
        self._given, self._lives, self._pool, self._joules = given, lives, pool, joules
        self._policies = [Policies(live.cfg) for live in lives]
        self._began = time.monotonic()
        self._blocks: list[tuple[dict[str, Any], Block]] = []
        self._found: dict[str, Any] = {
            "measurement": "release",
            **head(given, lives),
            "washout_s": given.washout,
            "load": given.load,
            "floor": given.floor,
            "bare_watts": bare,
            "blocks": [],
        }

    def all(self) -> None:
        given, found = self._given, self._found
        found["idle_watts"] = [idle(self._joules, IDLE_S)]
        found["carried_per_s"] = given.carried or carried(self._lives[0].grpc, self._pool, given)
        found["carried_is"] = "given" if given.carried else "measured"
        found["per_s"] = given.load * len(self._lives) * found["carried_per_s"]
        block_s = given.washout + given.window
        left = given.seconds - (time.monotonic() - self._began) - IDLE_S
        pairs = min(MOST_PAIRS, int(left / (2 * (block_s + SLACK_S))))
        if pairs < 1:
            raise SystemExit(f"{left:.0f} s are left, a pair of blocks takes {2 * block_s:.0f}")
        recorded = stretch(read(given.trace), given.trace_start, pairs, block_s, found["per_s"])
        found["trace"] = {
            "name": given.trace.name,
            "start_s": recorded.start_s,
            "seconds": recorded.trace_s,
            "speed": recorded.speed,
        }
        decided = [each.decide(given.g_per_kwh, given.floor) for each in self._policies]
        found["decision"] = decided[0].plain()
        found["preference"] = self._pool.expected(decided[0])
        with Traffic([live.grpc for live in self._lives], given.seconds + 600) as traffic:
            for turn, arm in enumerate(order(pairs)):
                self._block(traffic, turn // 2, arm, decided, recorded.blocks[turn // 2])
                self._write(traffic)
        self._write(traffic)
        found["idle_watts"].append(idle(self._joules, IDLE_S))
        found["seconds"] = time.monotonic() - self._began
        print(save(given, found, self._name()), flush=True)

    def _block(
        self,
        traffic: Traffic,
        pair: int,
        arm: str,
        decided: Sequence[Decision],
        times: np.ndarray[Any, np.dtype[np.float64]],
    ) -> None:
        given = self._given
        rng = np.random.default_rng((given.seed, pair))
        asks = self._pool.asks(len(times), rng, stream=given.stream)
        serving = [0, 1] if arm == A else [pair % 2]
        versions = [
            each.apply(PROMPT if arm == B and i in serving else L0, decided[i])
            for i, each in enumerate(self._policies)
        ]
        turn = np.arange(len(times)) % len(serving)
        parts = []
        for i in range(len(self._lives)):
            own = np.flatnonzero(turn == serving.index(i)) if i in serving else np.array([], int)
            parts.append((times[own], [asks[j] for j in own]))
        block = play(traffic.streams, parts, given.washout, given.window, versions)
        cell = {"pair": pair, "arm": arm, "serving": serving}
        self._found["blocks"].append(cell)
        self._blocks.append((cell, block))
        print(f"pair {pair}: {arm}", flush=True)

    def _write(self, traffic: Traffic) -> None:
        """What is known so far; the last block's requests may still be on their way."""
        ended = traffic.ended
        for cell, block in self._blocks:
            block.joules = block.joules or self._joules(block.since, block.until)
            cell.update(figures(block, ended, self._pool.levels, self._pool.won))
        save(self._given, self._found, self._name())

    def _name(self) -> str:
        return f"release-{self._given.seed}"


if __name__ == "__main__":
    sys.exit(main())
