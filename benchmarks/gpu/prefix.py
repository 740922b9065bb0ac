# SPDX-License-Identifier: Apache-2.0
"""What the engine's reuse of equal prompt beginnings saves of a directive's prefill.

A directive stands at the beginning of every prompt of its level, so an engine that keeps the KV
cache of beginnings (vLLM does, in blocks of 16 tokens) reads it once. Measured on the engine's own
API, in token ids, with answers of one token: prompts that begin with a level's tokens, by the real
template and tokenizer, against prompts of the same length that begin with others each time. What
follows is random in both. Two batches of 32 are in flight at all times, so that no gap of the
client's is measured. Orders are random; rounds go on while the time lasts, and the first always
ends. How many tokens came from the cache is the engine's own count.
"""

import argparse
import asyncio
import random
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from _alone import ids, served
from _live import Live
from _meter import Joules

from sprout import directives
from sprout.config import Config
from sprout.errors import EngineError
from sprout.request.prompts import Prompter
from sprout.request.tokenizer import load

BATCH = 32
IN_FLIGHT = 2  # batches
SYSTEM_TOKENS = 256  # of an operator's own system prompt, the same for all
WARM_S = 0.4
_COUNTER = re.compile(r"^vllm:prefix_cache_(queries|hits)(?:_total)?(?:\{[^}]*\})? (\S+)$", re.M)


@dataclass(frozen=True)
class Case:
    level: int
    system_tokens: int  # before the level's
    tail_tokens: int  # behind it


CASES = (
    *(Case(1, 0, tail) for tail in (64, 128, 512)),
    Case(2, 0, 128),
    *(Case(1, SYSTEM_TOKENS, tail) for tail in (64, 128, 512)),
)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prefix-seconds", type=float, default=60.0)


def measure(live: Live, joules: Joules, given: argparse.Namespace, found: dict[str, Any]) -> None:
    if live.cfg.engine.kind == "echo":
        raise SystemExit("the echo engine has no API of its own")
    rng, order = np.random.default_rng(given.seed), random.Random(given.seed)
    beginnings = {level: beginning(live.cfg, live.tokenizer_dir, level) for level in (1, 2)}
    system = ids(rng, SYSTEM_TOKENS)
    found |= {"batch": BATCH, "in_flight": BATCH * IN_FLIGHT, "cells": []}
    found["directive_tokens"] = {f"L{n}": len(own) for n, own in beginnings.items()}
    grid = [(case, shared) for case in CASES for shared in (True, False)]
    # Two rounds; a third of the time goes into what is in flight when a window ends.
    seconds = max(1.0, given.prefix_seconds / (3 * len(grid)) - WARM_S)
    asker = Asker(live.engine_root)
    began, took, turn = time.monotonic(), 0.0, 0
    while turn == 0 or time.monotonic() - began + took <= given.prefix_seconds:
        started = time.monotonic()
        for case, shared in order.sample(grid, len(grid)):
            start = [*system[: case.system_tokens], *beginnings[case.level]]
            prompts = made(start, case.tail_tokens, shared, rng)
            cell = asker.cell(prompts, seconds, joules)
            found["cells"].append(
                {"round": turn, **asdict(case), "shared": shared, "prefix_tokens": len(start)}
                | cell
            )
        turn, took = turn + 1, time.monotonic() - started


def beginning(cfg: Config, tokenizer_dir: Path, level: int) -> list[int]:
    """What all prompts of a level begin with, in tokens."""
    tokenizer = load(tokenizer_dir)
    prompter = Prompter(
        tokenizer, directives.pack(cfg.request.pack), chat_template=cfg.request.chat_template
    )
    one, other = tokenizer.encode([prompter.pieces(text, level) for text in ("Why?", "How so?")])
    same = np.flatnonzero(one[: len(other)] != other[: len(one)])
    return [int(i) for i in one[: int(same[0])]]


def made(
    start: list[int], tail: int, shared: bool, rng: np.random.Generator
) -> Callable[[], list[list[int]]]:
    """Makes batches; equally long either way."""
    return lambda: [
        [*(start if shared else ids(rng, len(start))), *ids(rng, tail)] for _ in range(BATCH)
    ]


class Asker:
    """The engine's completions, several batches at a time."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._model = served(root)

    def cell(
        self, batch: Callable[[], list[list[int]]], seconds: float, joules: Joules
    ) -> dict[str, Any]:
        return asyncio.run(self._cell(batch, seconds, joules))

    async def _cell(
        self, batch: Callable[[], list[list[int]]], seconds: float, joules: Joules
    ) -> dict[str, Any]:
        ended: list[float] = []
        lengths = {len(prompt) for prompt in batch()}
        async with httpx.AsyncClient(base_url=self._root, trust_env=False, timeout=60) as http:
            until = time.monotonic() + WARM_S + seconds

            async def worker() -> None:
                while time.monotonic() < until:
                    await self._ask(http, batch())
                    ended.append(time.monotonic())

            workers = [asyncio.create_task(worker()) for _ in range(IN_FLIGHT)]
            try:
                await asyncio.sleep(WARM_S)
                before = await self._counts(http)
                since = time.monotonic()
                await asyncio.gather(*workers)
            finally:
                for task in workers:
                    task.cancel()
            after = await self._counts(http)
        # Whole batches: from the end of one to the end of the last that had a neighbour in flight.
        inside = sorted(at for at in ended if at >= since)[: -IN_FLIGHT + 1 or None]
        if len(inside) < 2:
            raise EngineError(f"{len(inside)} batches in {seconds:.1f} s: too few to measure")
        used = await asyncio.to_thread(joules, inside[0], inside[-1])
        requests = BATCH * (len(inside) - 1)
        return {
            "prompt_tokens": lengths.pop(),
            "seconds": inside[-1] - inside[0],
            "requests": requests,
            "joules_per_request": used / requests,
            "requests_per_s": requests / (inside[-1] - inside[0]),
            "from_cache": share(before, after),
        }

    async def _ask(self, http: httpx.AsyncClient, prompts: list[list[int]]) -> None:
        asked = {"model": self._model, "prompt": prompts, "max_tokens": 1, "temperature": 0.0}
        answer = await http.post("/v1/completions", json=asked)
        if not answer.is_success:
            raise EngineError(f"the engine answers {answer.status_code}: {answer.text[:500]}")

    @staticmethod
    async def _counts(http: httpx.AsyncClient) -> dict[str, float]:
        return counts((await http.get("/metrics")).text)


def counts(text: str) -> dict[str, float]:
    """Tokens looked up in the prefix cache and found there, added up over engines; {} of a server
    that does not say."""
    found: dict[str, float] = {}
    for name, value in _COUNTER.findall(text):
        found[name] = found.get(name, 0.0) + float(value)
    return found


def share(before: dict[str, float], after: dict[str, float]) -> float | None:
    """Of the tokens that were looked up meanwhile."""
    if not {"queries", "hits"} <= before.keys() & after.keys():
        return None
    queries = after["queries"] - before["queries"]
    return (after["hits"] - before["hits"]) / queries if queries > 0 else None
