# SPDX-License-Identifier: Apache-2.0
"""What the measurements of whole stacks have in common: options, head, capacity."""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _drive import Closed
from _engine import TOGETHER
from _judged import Served
from _live import Live
from _live import options as live_options
from _send import Ask, drive
from _work import CHARACTERS_PER_TOKEN, JOULES_PER_TOKEN
from live import head as head_of_one

WARM_S = 8.0  # of the capacity's measurement …
CAPACITY_S = 8.0  # … and what is counted
CUT_OFF = "not ended in time"  # as `_send` has it: of what was in flight at the end


def shared_options(parser: argparse.ArgumentParser) -> None:
    live_options(parser)
    parser.add_argument("--bundle", type=Path, required=True, help="docs/replay.md")
    parser.add_argument("--trace", type=Path, required=True, help="CSV, gzipped: timestamp_s")
    parser.add_argument("--trace-start", type=float, default=60.0, help="second of the trace")
    parser.add_argument(
        "--predictor",
        type=Path,
        required=True,
        help="of half of the judged prompts; made if absent",
    )
    parser.add_argument(
        "--carried", type=float, help="requests/s of L0 on a GPU; default: measured"
    )
    parser.add_argument("--longest", type=int, default=1024, help="tokens that an answer may have")
    parser.add_argument("--stream", action="store_true", help="clients that stream")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--commit", help="where the checkout can't tell it")
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON")


def part(text: str) -> tuple[int, int]:
    """Of "2/3": (1, 3)."""
    which, _, of = text.partition("/")
    if not (which.isdigit() and of.isdigit() and 1 <= int(which) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is no part: write 1/2")
    return int(which) - 1, int(of)


def head(given: argparse.Namespace, lives: Sequence[Live]) -> dict[str, Any]:
    gpus = [live.gpu for live in lives if live.gpu is not None]
    return {
        **head_of_one(given, lives[0]),
        "gpus": [f"{gpu.name} {gpu.uuid}" for gpu in gpus],
        "lengths": {
            "joules_per_token": JOULES_PER_TOKEN,
            "characters_per_token": CHARACTERS_PER_TOKEN,
            "longest_answer": given.longest,
        },
        "streamed": given.stream,
    }


def carried(address: str, pool: Served, given: argparse.Namespace) -> float:
    """Requests of mean length per second at L0, as many in flight as the engine runs at once."""
    rng = np.random.default_rng((given.seed, 10**6))  # prompts of their own

    def requests() -> Iterator[Ask]:
        while True:
            for ask in pool.asks(TOGETHER, rng, stream=given.stream):
                yield Ask(ask.text, ask.max_tokens, ask.lengths, level="L0", stream=given.stream)

    log = drive(address, Closed(given.slots, requests()), WARM_S + CAPACITY_S, drain_s=0.0)
    failed = [r.error for r in log.requests if r.error and r.error != CUT_OFF]
    if failed:
        raise SystemExit(f"at full load {len(failed)} requests failed: {failed[0]}")
    since = log.started + WARM_S
    tokens = sum(r.tokens for r in log.done(since, since + CAPACITY_S))
    return tokens / float(pool.lengths.output[:, 0].mean()) / CAPACITY_S


def save(given: argparse.Namespace, found: dict[str, Any], name: str) -> Path:
    """Whole or not at all: what was there stays until it is written."""
    given.out.mkdir(parents=True, exist_ok=True)
    path: Path = given.out / f"{name}.json"
    new = path.with_suffix(".new")
    new.write_text(json.dumps(found, indent=1) + "\n")
    os.replace(new, path)
    return path
