# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802 - the names of the .proto
"""Sampled prompts on the wire: agents report them, evaluations draw from them.

They are other people's texts: kept in memory alone, never logged, and each draw is audited.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import grpc

from sprout.control.inbox import MAX_LEVELS, MAX_NAME, MAX_TASK_BYTES
from sprout.control.loop import Loop
from sprout.control.operators import Operators, checked, refuse
from sprout.control.overview import Overview
from sprout.control.reservoir import Reservoir
from sprout.control.store import Store
from sprout.errors import ControlError
from sprout.evaluate.limits import MAX_DRAW
from sprout.v1 import control_pb2 as pb

LOG = logging.getLogger(__name__)

MAX_PROMPTS = 256  # of a report
MAX_PROMPT_BYTES = 65_536  # the most that `evaluate.sampling.prompt_bytes` allows
MAX_WITHOUT = 20_000  # the most that `evaluate.sampling.reservoir_prompts` allows
DRAW_BYTES = 4 << 20  # of an answer; half of what a message may have
FORGET_S = 60.0
WRONG: dict[str, Callable[[pb.SampledPrompt], bool]] = {
    "id must not be 0": lambda p: p.id == 0,
    f"text is longer than {MAX_PROMPT_BYTES} bytes": lambda p: (
        len(p.text.encode()) > MAX_PROMPT_BYTES
    ),
    f"task is longer than {MAX_TASK_BYTES} bytes": lambda p: len(p.task.encode()) > MAX_TASK_BYTES,
    f"tenant is longer than {MAX_TASK_BYTES} bytes": lambda p: (
        len(p.tenant.encode()) > MAX_TASK_BYTES
    ),
    f"level is over {MAX_LEVELS - 1}": lambda p: p.level >= MAX_LEVELS,
    # Nor is NaN in there.
    "propensity must be over 0 and at most 1": lambda p: not 0 < p.propensity <= 1,
    "sampled_at is missing": lambda p: p.sampled_at.seconds <= 0,
}
OFF = "sampling is off: set evaluate.sampling.share"


class PromptCalls(Operators):
    """reservoir None: sampling is off."""

    def __init__(
        self, loop: Loop, store: Store, overview: Overview, reservoir: Reservoir | None
    ) -> None:
        super().__init__(loop, store, overview)
        self._reservoir = reservoir

    async def ReportPrompts(
        self, request: pb.ReportPromptsRequest, context: Any
    ) -> pb.ReportPromptsResponse:
        if self._reservoir is None:
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, OFF)
        await checked(context, check_report, request)
        return pb.ReportPromptsResponse(kept=self._reservoir.add(request.prompts))

    async def DrawPrompts(
        self, request: pb.DrawPromptsRequest, context: Any
    ) -> pb.DrawPromptsResponse:
        if self._reservoir is None:
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, OFF)
        await checked(context, check_draw, request)
        by = await self._by(request, context)
        # Looking through all of them takes a while: in a thread, so that nobody waits.
        found = await asyncio.to_thread(
            self._reservoir.stock().draw,
            request.count,
            request.seed,
            frozenset(request.without),
            request.total,
        )
        prompts = within(found, DRAW_BYTES)
        LOG.info("%s: drew %d prompts", by.who, len(prompts))
        drawn = {"count": len(prompts), "seed": request.seed}
        self._loop.audit.note(time.time(), by, "draw-prompts", None, drawn)
        try:
            await asyncio.to_thread(self._loop.audit.flush)
        except ControlError as error:  # the entry is kept, and the loop tries again
            LOG.error("%s", error)
        return pb.DrawPromptsResponse(prompts=prompts)


async def forget_in_time(reservoir: Reservoir | None) -> None:
    """Until cancelled: what is past its retention goes, whether or not anybody asks."""
    while reservoir is not None:
        reservoir.forget()
        await asyncio.sleep(FORGET_S)


def check_report(request: pb.ReportPromptsRequest) -> None:
    """ValueError says what is wrong with which prompt, and nothing of its text."""
    if not 0 < len(request.node) <= MAX_NAME:
        raise ValueError(f"node must be 1 to {MAX_NAME} characters")
    if len(request.prompts) > MAX_PROMPTS:
        raise ValueError(f"{len(request.prompts)} prompts, at most {MAX_PROMPTS} a report")
    for i, prompt in enumerate(request.prompts):
        problem = next((what for what, wrong in WRONG.items() if wrong(prompt)), None)
        if problem is not None:
            raise ValueError(f"prompts[{i}]: {problem}")


def check_draw(request: pb.DrawPromptsRequest) -> None:
    """ValueError says what is out of range."""
    if not 0 < request.count <= MAX_DRAW:
        raise ValueError(f"count must be in 1 to {MAX_DRAW}: {request.count}")
    if len(request.without) > MAX_WITHOUT:
        raise ValueError(f"{len(request.without)} ids to leave out, at most {MAX_WITHOUT}")


def within(prompts: list[pb.SampledPrompt], most: int) -> list[pb.SampledPrompt]:
    """The first of them, as many as fit in so many bytes; they come in random order."""
    size = 0
    for i, prompt in enumerate(prompts):
        size += prompt.ByteSize()
        if size > most:
            return prompts[:i]
    return prompts
