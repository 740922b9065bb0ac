# SPDX-License-Identifier: Apache-2.0
"""What clients feel of an evaluation: their p99 with one running over their p99 without.

A whole stack with the echo engine, clients as Poisson arrivals, blocks of equal length in turn
(A B A B …: A without, B with an evaluation), a pause between them. Reported: the median over pairs
of the ratio of p99, and of p50, with the range; and how many clients' requests were in flight when
each of the evaluation's started, which must be fewer than the bound. Clients' hints are switched
off, as an operator may have them: the evaluation pins its levels by its token.

The echo engine has slots but no work to do, so this shows what slots, queues and the ensemble cost.
An engine whose requests slow each other down has more to lose: start with the bound at 1.

    python benchmarks/bench_evaluation_load.py [--pairs 6] [--block-s 30] [--json FILE]
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _stack import Stack, commit, machine

from sprout.evaluate.answering import Answering, Tally
from sprout.evaluate.answers import Question
from sprout.evaluate.asking import TritonAsker
from sprout.evaluate.traffic import Gate, LedgerTraffic
from sprout.serve.client import Client
from sprout.serve.load import Load, Reply
from sprout.serve.state import StackPaths, evaluate_token_file

LEVELS = ("L0", "L1", "L2")
SLOTS = 4
TOKENS_PER_S = 150
PROMPTS = [
    f"Tell me what you know about the number {n}, and then about {2 * n}." for n in range(50)
]


class Clients:
    """Requests without hints, from many threads."""

    def __init__(self, address: str, max_tokens: int) -> None:
        self._address, self._max_tokens = address, max_tokens
        self._own = threading.local()

    def ask(self, prompt: str, level: str) -> Reply:
        if not hasattr(self._own, "client"):
            self._own.client = Client(self._address)
        answer = self._own.client.ask(prompt, max_tokens=self._max_tokens)
        return Reply(0, answer.input_tokens, answer.output_tokens, answer.first_chunk_s, 0.0)

    def close(self) -> None:
        """Connections end with their threads."""


class Watched:
    """The ledger, keeping what it said last: a request starts right after a look."""

    def __init__(self, directory: Path) -> None:
        self._traffic = LedgerTraffic(directory)
        self.last: int | None = None

    def clients(self, own: int) -> int | None:
        self.last = self._traffic.clients(own)
        return self.last


class Asker(TritonAsker):
    def __init__(self, traffic: Watched, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._traffic = traffic
        self.at_start: list[int | None] = []

    def ask(self, *args: Any, **options: Any) -> Any:
        self.at_start.append(self._traffic.last)
        return super().ask(*args, **options)


def questions() -> Iterator[Question]:
    for n in itertools.count():
        yield Question(f"q{n}", PROMPTS[n % len(PROMPTS)])


class Evaluation:
    """One that runs until the block is over."""

    def __init__(self, stack: Stack, args: argparse.Namespace) -> None:
        paths = StackPaths.of(stack.cfg)
        traffic = Watched(paths.shm)
        self.asker = Asker(
            traffic,
            stack.endpoint("grpc"),
            token_file=evaluate_token_file(stack.cfg),
            timeout_s=60,
        )
        self._answering = Answering(
            self.asker,
            Gate(traffic, args.bound, hold_s=600),
            LEVELS,
            concurrency=1,  # so that the last look is that of the request that starts
            max_tokens=args.tokens,
            retries=2,
            energy_estimated=True,
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.error: Exception | None = None

    def _run(self) -> None:
        try:
            for _ in self._answering.answers(questions()):
                pass
        except Exception as error:
            self.error = error

    def __enter__(self) -> "Evaluation":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._answering.cancel()
        self._thread.join()
        self.asker.close()
        if self.error is not None:
            raise self.error

    @property
    def tally(self) -> Tally:
        return self._answering.tally


def block(stack: Stack, args: argparse.Namespace, seed: int, evaluate: bool) -> dict[str, Any]:
    target = Clients(stack.endpoint("grpc"), args.tokens)
    load = Load(target, PROMPTS, "L0", 0, seed=seed)
    found: dict[str, Any] = {"evaluation": evaluate}
    with load.open(args.rate):
        if evaluate:
            with Evaluation(stack, args) as running:
                time.sleep(args.block_s)
            found |= {
                "requests": running.tally.requests,
                "answered": running.tally.answered,
                "left_out": running.tally.left_out,
                "held": running.tally.held,
                "held_s": running.tally.held_s,
                "clients_at_start": running.asker.at_start,
            }
        else:
            time.sleep(args.block_s)
    took = sorted(shot.end_s - shot.start_s for shot in load.shots)
    return found | {
        "clients": len(took),
        "shed": load.shed,
        "p50_ms": 1e3 * statistics.median(took),
        "p99_ms": 1e3 * took[int(0.99 * (len(took) - 1))],
    }


def ratios(blocks: list[dict[str, Any]], key: str) -> tuple[float, float, float]:
    """Median, least, largest over pairs of with over without."""
    pairs = [b[key] / a[key] for a, b in zip(blocks[::2], blocks[1::2], strict=True)]
    return statistics.median(pairs), min(pairs), max(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--block-s", type=float, default=30)
    parser.add_argument("--rate", type=float, default=8, help="clients' requests a second")
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument(
        "--bound", type=int, default=1, help="evaluate.schedule.max_client_requests"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ["SPROUT_REQUEST__HINTS"] = ""
    blocks: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(
            Path(folder), engine="echo", name="bench-eval", slots=SLOTS,
            echo_tokens_per_s=TOKENS_PER_S,
        ) as stack,
    ):  # fmt: skip
        block(stack, argparse.Namespace(**vars(args) | {"block_s": 5}), 0, evaluate=True)  # warm-up
        for number in range(2 * args.pairs):
            blocks.append(block(stack, args, number // 2 + 1, evaluate=number % 2 == 1))
            shown = {k: v for k, v in blocks[-1].items() if k != "clients_at_start"}
            print(json.dumps(shown), file=sys.stderr, flush=True)
            time.sleep(1)
    starts = [n for b in blocks for n in b.get("clients_at_start", ())]
    print(
        f"{machine()}, commit {commit()}; {SLOTS} slots, {args.tokens} tokens at {TOKENS_PER_S}/s, "
        f"{args.rate:g} clients' requests/s, {args.pairs} pairs of blocks of {args.block_s:g} s"
    )
    print(f"load at the start: {os.getloadavg()[2]:.1f} (15 min)")
    for key in ("p50_ms", "p99_ms"):
        middle, low, high = ratios(blocks, key)
        a = statistics.median(b[key] for b in blocks[::2])
        b = statistics.median(b[key] for b in blocks[1::2])
        print(f"{key}: {a:.0f} without, {b:.0f} with, ratio {middle:.3f} ({low:.2f}-{high:.2f})")
    over = sum(n is None or n >= args.bound for n in starts)
    print(
        f"evaluation: {len(starts)} requests started, {over} of them with {args.bound} or more of "
        f"clients in flight; {sum(b.get('held', 0) for b in blocks)} were held back"
    )
    if args.json:
        result = {"machine": machine(), "commit": commit(), "blocks": blocks}
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    if over:
        sys.exit("requests started over the bound")


if __name__ == "__main__":
    main()
