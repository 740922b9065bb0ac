# SPDX-License-Identifier: Apache-2.0
"""The engine without anything in front of it: its own API, answers whole, so many in flight."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np

from sprout.errors import EngineError

FIRST_ID, LAST_ID = 1000, 31_000  # random tokens: in every vocabulary, and none of them special


def ids(rng: np.random.Generator, count: int) -> list[int]:
    return [int(i) for i in rng.integers(FIRST_ID, LAST_ID, count)]


def served(root: str) -> str:
    """The name of what the engine serves."""
    listed = httpx.get(f"{root}/v1/models", trust_env=False, timeout=30).json()
    return str(listed["data"][0]["id"])


def alone(
    root: str, *, in_flight: int, requests: int, prompt: int, output: int, seed: int
) -> float:
    """Answer tokens/s, after a first `in_flight` requests that aren't counted. EngineError
    where the engine refuses, or answers are of another length."""
    return asyncio.run(_alone(root, in_flight, requests, prompt, output, seed))


async def _alone(
    root: str, in_flight: int, requests: int, prompt: int, output: int, seed: int
) -> float:
    rng = np.random.default_rng(seed)
    asked: dict[str, Any] = {"model": served(root), "temperature": 0.0, "ignore_eos": True}
    asked |= {"max_tokens": output, "min_tokens": output}
    ended: list[float] = []
    todo = iter(range(in_flight + requests))
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=root, trust_env=False, timeout=60, limits=limits) as http:
        await asyncio.gather(
            *(_worker(http, asked, todo, rng, prompt, ended) for _ in range(in_flight))
        )
    counted = sorted(ended)[in_flight - 1 :]
    return (len(counted) - 1) * output / (counted[-1] - counted[0])


async def _worker(
    http: httpx.AsyncClient, asked: dict[str, Any], todo: Iterator[int],
    rng: np.random.Generator, prompt: int, ended: list[float],
) -> None:  # fmt: skip
    for _ in todo:
        answer = await http.post("/v1/completions", json=asked | {"prompt": ids(rng, prompt)})
        if not answer.is_success:
            raise EngineError(f"the engine answers {answer.status_code}: {answer.text[:300]}")
        used = answer.json().get("usage") or {}
        if used.get("completion_tokens") != asked["max_tokens"]:
            raise EngineError(f"asked for {asked['max_tokens']} tokens: {answer.text[:300]}")
        ended.append(time.monotonic())
