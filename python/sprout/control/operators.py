# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802 - the names of the .proto
"""What operators may call: wishes, and the record of what came of them.

Everything is checked before anything is changed, and each change is audited (loop.py does it, as it
makes the change).
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, NoReturn, TypeVar

import grpc

from sprout.carbon.intensity import MAX_G_PER_KWH
from sprout.control import messages, objective, pin
from sprout.control.loop import Loop
from sprout.control.overview import Overview
from sprout.control.peer import Caller, caller
from sprout.control.store import Store
from sprout.errors import ControlError
from sprout.v1 import control_pb2 as pb
from sprout.v1 import control_pb2_grpc

LOG = logging.getLogger(__name__)

MAX_REASON = 500
MAX_ACTOR = 128
DEFAULT_TTL_S = 3600.0  # of an override or a pin
MAX_TTL_S = 7 * 86_400.0
MAX_SHARES = 8  # levels of a policy board
MAX_STATUS_WATCHERS = 100
DECISIONS, MAX_DECISIONS = 50, 200  # a page; one is some 2 kB, with 16 classes 40 kB
EVALUATIONS, MAX_EVALUATIONS = 20, 200
MAX_PAGE_BYTES = 3 << 20  # gRPC takes 4 MiB; a page that would be larger is a shorter one
ENTRIES, MAX_ENTRIES = 50, 500
T = TypeVar("T")


class Operators(control_pb2_grpc.ControlServicer):
    def __init__(self, loop: Loop, store: Store, overview: Overview) -> None:
        self._loop, self._store, self._overview = loop, store, overview

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.Status:
        return await self._overview.status()

    async def WatchStatus(
        self, request: pb.WatchStatusRequest, context: Any
    ) -> AsyncIterator[pb.Status]:
        if self._overview.watchers >= MAX_STATUS_WATCHERS:
            text = f"{MAX_STATUS_WATCHERS} watch the status already"
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        async for status in self._overview.watch():
            yield status
        await refuse(context, grpc.StatusCode.UNAVAILABLE, "the control plane is stopping")

    # --- wishes ------------------------------------------------------------------------------

    async def Pause(self, request: pb.PauseRequest, context: Any) -> pb.Policy:
        await checked(context, _text, "reason", request.reason, MAX_REASON)
        by = await self._by(request, context)
        LOG.warning("%s: paused: %r", by.who, request.reason)
        return await self._loop.pause(request.reason, by)

    async def Resume(self, request: pb.ResumeRequest, context: Any) -> pb.Policy:
        by = await self._by(request, context)
        LOG.warning("%s: resumed", by.who)
        return await self._loop.resume(by)

    async def OverrideIntensity(
        self, request: pb.OverrideIntensityRequest, context: Any
    ) -> pb.Policy:
        value = request.g_per_kwh if request.HasField("g_per_kwh") else None
        ttl_s = await checked(context, _ttl_s, request)
        if value is not None and not (math.isfinite(value) and 0 <= value <= MAX_G_PER_KWH):
            text = f"g_per_kwh must be in 0 to {MAX_G_PER_KWH:g}: {value}"
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, text)
        by = await self._by(request, context)
        LOG.warning("%s: intensity override: %s g/kWh for %g s", by.who, value, ttl_s)
        return await self._loop.override(value, ttl_s, by)

    async def SetObjective(
        self, request: pb.SetObjectiveRequest, context: Any
    ) -> pb.SetObjectiveResponse:
        await checked(context, _text, "reason", request.reason, MAX_REASON)
        wanted = _wanted(request.objective)
        await checked(context, objective.checked, wanted, self._loop.levels)
        if not wanted and not request.reset:
            text = "nothing to set: name a field, or reset"
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, text)
        by = await self._by(request, context)
        LOG.warning("%s: objective: %s (%r)", by.who, wanted or "as configured", request.reason)
        policy = await self._loop.set_objective(
            wanted, by, reset=request.reset, reason=request.reason
        )
        now = messages.objective(self._loop.wishes.objective)
        return pb.SetObjectiveResponse(objective=now, policy=policy)

    async def Pin(self, request: pb.PinRequest, context: Any) -> pb.Policy:
        await checked(context, _text, "reason", request.reason, MAX_REASON)
        if not request.reason.strip():
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "a pin needs a reason")
        ttl_s = await checked(context, _ttl_s, request)
        if len(request.shares) > MAX_SHARES:
            text = f"{len(request.shares)} shares, at most {MAX_SHARES}"
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, text)
        shares = {share.level: share.share for share in request.shares}
        if len(shares) < len(request.shares):
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "a level is named twice")
        mix = await checked(context, pin.mix, shares, self._loop.levels)
        by = await self._by(request, context)
        LOG.warning("%s: pinned to %s for %g s: %r", by.who, shares, ttl_s, request.reason)
        return await self._loop.pin(mix, ttl_s, request.reason, by)

    async def Unpin(self, request: pb.UnpinRequest, context: Any) -> pb.Policy:
        by = await self._by(request, context)
        LOG.warning("%s: unpinned", by.who)
        return await self._loop.unpin(by)

    async def SetSchedule(self, request: pb.SetScheduleRequest, context: Any) -> pb.Policy:
        if len(request.windows) > pin.MAX_WINDOWS:
            text = f"{len(request.windows)} windows, at most {pin.MAX_WINDOWS}"
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, text)
        windows = [
            await checked(
                context,
                pin.checked,
                pin.Window(w.start, w.end, tuple(w.weekdays), w.level),
                self._loop.levels,
            )
            for w in request.windows
        ]
        by = await self._by(request, context)
        LOG.warning("%s: schedule of %d windows", by.who, len(windows))
        return await self._loop.set_schedule(windows, by)

    # --- what q rests on ---------------------------------------------------------------------

    async def ReportEvaluation(
        self, request: pb.ReportEvaluationRequest, context: Any
    ) -> pb.ReportEvaluationResponse:
        found = request.evaluation
        await checked(context, self._loop.evaluations.check, found, time.time())
        by = await self._by(request, context)
        LOG.warning("%s: evaluation %s by %s", by.who, found.id, found.judge)
        try:
            policy = await self._loop.evaluated(found, by)
        except ValueError as error:
            await refuse(context, grpc.StatusCode.ALREADY_EXISTS, str(error))
        except ControlError as error:
            LOG.error("%s", error)
            await refuse(context, grpc.StatusCode.UNAVAILABLE, "the store failed")
        return pb.ReportEvaluationResponse(policy=policy)

    async def ListEvaluations(
        self, request: pb.ListEvaluationsRequest, context: Any
    ) -> pb.ListEvaluationsResponse:
        size = await checked(context, _page, request.page_size, EVALUATIONS, MAX_EVALUATIONS)
        try:
            rows = await self._read(
                context, lambda: self._store.evaluations(size + 1, before=request.before_id)
            )
        except ValueError as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        some = rows[: _fitting(len(row) for row in rows[:size])]
        found = [pb.Evaluation.FromString(message) for message in some]
        for each in found:
            each.ClearField("by_prompt")
        more = found[-1].id if len(rows) > len(found) else ""
        return pb.ListEvaluationsResponse(evaluations=found, next_before_id=more)

    # --- the record --------------------------------------------------------------------------

    async def ListDecisions(
        self, request: pb.ListDecisionsRequest, context: Any
    ) -> pb.ListDecisionsResponse:
        size = await checked(context, _page, request.page_size, DECISIONS, MAX_DECISIONS)
        rows = await self._read(
            context,
            lambda: self._store.decisions(
                size + 1,
                before=request.before_version or None,
                version=request.version or None,
            ),
        )
        some = rows[: _fitting(len(row[1]) + len(row[2]) for row in rows[:size])]
        decisions = [
            pb.Decision(policy=pb.Policy.FromString(message), inputs_json=inputs)
            for _, message, inputs in some
        ]
        more = some[-1][0] if len(rows) > len(some) else 0
        return pb.ListDecisionsResponse(decisions=decisions, next_before_version=more)

    async def ListAudit(self, request: pb.ListAuditRequest, context: Any) -> pb.ListAuditResponse:
        size = await checked(context, _page, request.page_size, ENTRIES, MAX_ENTRIES)
        before = min(request.before_id, 2**63 - 1) or None
        rows = await self._read(context, lambda: self._store.audit(size + 1, before=before))
        entries = [messages.audit_entry(number, entry) for number, entry in rows[:size]]
        more = rows[size - 1][0] if len(rows) > size else 0
        return pb.ListAuditResponse(entries=entries, next_before_id=more)

    async def _read(self, context: Any, read: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(read)
        except ControlError as error:
            LOG.error("%s", error)
            await refuse(context, grpc.StatusCode.UNAVAILABLE, "the store failed")

    @staticmethod
    async def _by(request: Any, context: Any) -> Caller:
        await checked(context, _text, "actor", request.actor, MAX_ACTOR)
        return await asyncio.to_thread(caller, context, request.actor)


async def refuse(context: Any, code: grpc.StatusCode, details: str) -> NoReturn:
    """Ends the call; grpc's `abort` raises, which its type does not tell."""
    await context.abort(code, details)
    raise AssertionError("abort returned")


async def checked(context: Any, check: Callable[..., T], *args: Any) -> T:
    """What `check` returns; its ValueError ends the call."""
    try:
        return check(*args)
    except ValueError as error:
        await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))


def _text(name: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise ValueError(f"{name} is longer than {longest} characters")


def _ttl_s(request: Any) -> float:
    if not request.HasField("ttl"):
        return DEFAULT_TTL_S
    ttl_s = request.ttl.seconds + request.ttl.nanos / 1e9
    if not 0 < ttl_s <= MAX_TTL_S:
        raise ValueError(f"ttl must be in 0 to {MAX_TTL_S:g} s: {ttl_s:g}")
    return float(ttl_s)


def _fitting(sizes: Iterable[int]) -> int:
    """How many of the first make a page that fits; at least one."""
    total = count = 0
    for size in sizes:
        total += size
        if count and total > MAX_PAGE_BYTES:
            break
        count += 1
    return count


def _page(size: int, default: int, longest: int) -> int:
    if size > longest:
        raise ValueError(f"page_size {size}, at most {longest}")
    return size or default


def _wanted(message: pb.Objective) -> dict[str, Any]:
    """The fields that are set."""
    names = ("xi", "mode", "control_share", "canary_share", "max_increase")
    wanted: dict[str, Any] = {n: getattr(message, n) for n in names if message.HasField(n)}
    if message.max_shares:
        wanted["max_shares"] = dict(message.max_shares)
    return wanted
