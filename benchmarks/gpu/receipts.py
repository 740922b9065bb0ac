# SPDX-License-Identifier: Apache-2.0
"""Do receipts add up? Their joules under a full load against NVML's own counter.

Real prompts with their recorded lengths, levels by the policy, 32 and then 128 in flight at all
times. Every request is waited for, so each has its receipt; the span is from the first that the
engine began to the last token of the last, and something was in the engine all that time. So three
sums should be one: the receipts that clients got, the outcomes in the control plane's store, and
the counter, which is read here by itself. A receipt is given before the agent's next tick, so its
last tenth of a second is at the rate before; an outcome waits for the tick.

Apart from it: the agent's totals from idle to idle. Settled on requests and idle make up what it
metered, and that is what the counter says for the same time.
"""

import argparse
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from _drive import Closed
from _figures import percentile
from _live import Live
from _meter import Joules
from _send import Ask, Sent, asks, drive
from _work import read, texts

CONCURRENCY = (32, 128)
IDLE_S = 4.0
SETTLED_S = 3.0  # in which the last outcomes are drained, reported and stored
LONGEST_CHARACTERS = 6000  # of a prompt: with its answer it must fit the engine


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--receipts-seconds", type=float, default=30.0, help="of sending, in all")


def measure(live: Live, joules: Joules, given: argparse.Namespace, found: dict[str, Any]) -> None:
    if given.bundle is None:
        raise SystemExit("name the bundle that gives prompts and lengths: --bundle")
    pool = prompts(given.bundle, given.longest)
    found["cells"] = []
    for number, concurrency in enumerate(CONCURRENCY):
        rng = np.random.default_rng((given.seed, number))
        feed = Closed(concurrency, drawn(pool, rng))
        seconds = given.receipts_seconds / len(CONCURRENCY)
        found["cells"].append(cell(live, joules, feed, seconds))


def prompts(bundle: Path, longest: int) -> list[Ask]:
    made = asks(texts(bundle), read(bundle, longest).output.tolist())
    return [ask for ask in made if 0 < len(ask.text) <= LONGEST_CHARACTERS]


def drawn(pool: Sequence[Ask], rng: np.random.Generator) -> Iterator[Ask]:
    """Without end."""
    while True:
        for index in rng.integers(0, len(pool), 1024):
            yield pool[index]


def cell(live: Live, joules: Joules, feed: Closed[Ask], seconds: float) -> dict[str, Any]:
    time.sleep(IDLE_S)
    before, opened_from = live.clock(), time.time()
    log = drive(live.grpc, feed, seconds)
    opened_until = time.time()
    time.sleep(max(SETTLED_S, IDLE_S))
    after = live.clock()
    done = [r for r in log.done() if r.level >= 0]
    if not done:
        raise SystemExit(f"nothing was answered: {log.errors()}")
    since, until = min(r.scheduled for r in done), max(r.last for r in done)
    return {
        "concurrency": feed.concurrency,
        "seconds": until - since,
        "requests": len(log.requests),
        "errors": log.errors(),
        "tokens": sum(r.tokens for r in done),
        "counter_joules": joules(since, until),
        "receipts": receipts(done),
        "outcomes": outcomes(live.state / "control.sqlite", opened_from, opened_until),
        "agent": agent(before, after, joules),
        "latency_s": [percentile([r.latency_s for r in done], q) for q in (50, 99)],
        "levels": by_level(done),
    }


def receipts(done: Sequence[Sent]) -> dict[str, Any]:
    """nan is no joule: how many had none is told."""
    joules = np.array([r.joules for r in done])
    return {
        "requests": len(done),
        "joules": float(np.nansum(joules)),
        "without_joules": int(np.isnan(joules).sum()),
        "grams": float(np.nansum([r.grams for r in done])),
    }


def by_level(done: Sequence[Sent]) -> dict[str, Any]:
    found = {}
    for level in sorted({r.level for r in done}):
        own = [r for r in done if r.level == level]
        found[f"L{level}"] = {
            "requests": len(own),
            "mean_tokens": float(np.mean([r.tokens for r in own])),
            "mean_joules": float(np.nanmean([r.joules for r in own])),
        }
    return found


def outcomes(store: Path, since: float, until: float) -> dict[str, Any]:
    """Of requests opened between (seconds since 1970), the stack's own probes among them: what
    was settled on each."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=10)) as db:
        requests, joules, receipt_joules = db.execute(
            "SELECT count(*), total(energy_joules), total(receipt_joules) FROM outcomes "
            "WHERE opened_at >= ? AND opened_at < ?",
            (since, until),
        ).fetchone()
    return {"requests": requests, "joules": joules, "receipt_joules": receipt_joules}


def agent(before: Any, after: Any, joules: Joules) -> dict[str, float]:
    """The agent's totals between two of its ticks, and the counter between the same."""
    seconds = (after.t_ns - before.t_ns) / 1e9
    return {
        "seconds": seconds,
        "metered_joules": after.metered - before.metered,
        "settled_joules": after.settled - before.settled,
        "idle_joules": after.idle - before.idle,
        "counter_joules": joules(before.t_ns / 1e9, after.t_ns / 1e9),
    }
