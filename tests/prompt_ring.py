# SPDX-License-Identifier: Apache-2.0
"""A stub's sampled prompts, for tests."""

import threading
import time
from typing import Any

from sprout.agent.prompts import Prompts
from sprout.config import SamplingConfig
from sprout_ext.board import Flag
from sprout_ext.ring import Ring

FACTS: dict[str, Any] = {
    "level": 1,
    "flags": int(Flag.PINNED),
    "policy_version": 3,
    "propensity": 0.5,
    "max_tokens": 9,
    "task": b"maths",
    "tenant": b"shop",
}

ON = SamplingConfig(share=0.5)


def put(ring: Ring, *texts: str, **changes: Any) -> None:
    for text in texts:
        facts = {**FACTS, "opened_ns": time.monotonic_ns()} | changes
        assert ring.write(text.encode(), **facts)


def look(prompts: Prompts) -> None:
    prompts.look(threading.Event())
