# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802 - the names of the .proto
"""The gRPC services of control.proto. Sizes are bounded and numbers checked before anything is."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc

from sprout import __version__
from sprout.carbon.intensity import MAX_G_PER_KWH
from sprout.control import inbox, messages
from sprout.control.loop import Loop
from sprout.control.store import Store
from sprout.errors import ControlError
from sprout.v1 import control_pb2 as pb
from sprout.v1 import control_pb2_grpc

LOG = logging.getLogger(__name__)

MAX_REASON = 500
MAX_NODES = 1000  # of which the last state is kept
DEFAULT_OVERRIDE_S = 3600.0
MAX_OVERRIDE_S = 7 * 86_400.0


class Service(control_pb2_grpc.ControlServicer):
    def __init__(self, zone: str, loop: Loop, store: Store) -> None:
        self._zone, self._loop, self._store = zone, loop, store
        self._nodes: dict[str, pb.NodeStatus] = {}  # in the order of their last report

    # --- agents ------------------------------------------------------------------------------

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: Any) -> pb.Policy:
        policy = self._loop.publisher.policy()
        if policy is None:
            await _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "no policy yet")
        return policy

    async def WatchPolicy(
        self, request: pb.WatchPolicyRequest, context: Any
    ) -> AsyncIterator[pb.Policy]:
        async for policy in self._loop.publisher.watch():
            yield policy
        await _refuse(context, grpc.StatusCode.UNAVAILABLE, "the control plane is stopping")

    async def ReportOutcomes(
        self, request: pb.ReportOutcomesRequest, context: Any
    ) -> pb.ReportOutcomesResponse:
        try:
            stored = await asyncio.to_thread(self._take, request)
        except ValueError as error:
            LOG.warning("refused a report of %.64r: %s", request.node, error)
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except ControlError as error:
            LOG.error("%s", error)
            # Not acknowledged: the agent keeps the batch and tries again.
            await _refuse(context, grpc.StatusCode.UNAVAILABLE, "the store failed")
        if request.HasField("node_status"):
            self._remember(request.node, request.node_status)
        return pb.ReportOutcomesResponse(stored=stored, duplicates=len(request.outcomes) - stored)

    def _take(self, request: pb.ReportOutcomesRequest) -> int:
        return self._store.add_outcomes(inbox.rows(request))

    def _remember(self, node: str, status: pb.NodeStatus) -> None:
        status.node = node
        self._nodes.pop(node, None)
        self._nodes[node] = status
        while len(self._nodes) > MAX_NODES:
            del self._nodes[next(iter(self._nodes))]

    # --- operators ---------------------------------------------------------------------------

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.Status:
        reasons = self._loop.reasons()
        try:
            totals = await asyncio.to_thread(self._store.totals)
        except ControlError as error:
            totals = []
            reasons["totals"] = f"totals can't be read: {error}"
        return pb.Status(
            zone=self._zone,
            degraded=bool(reasons),
            reasons=list(reasons.values()),
            policy=self._loop.publisher.policy(),
            outcomes=sum(row["outcomes"] for row in totals),
            nodes=[self._nodes[name] for name in sorted(self._nodes)],
            started_at=messages.timestamp(self._loop.started_at),
            version=__version__,
            arms=[pb.ArmTotals(**row) for row in totals],
        )

    async def Pause(self, request: pb.PauseRequest, context: Any) -> pb.Policy:
        if len(request.reason) > MAX_REASON:
            text = f"reason is longer than {MAX_REASON} characters"
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, text)
        LOG.warning("paused: %r", request.reason)
        return await self._loop.pause(request.reason)

    async def Resume(self, request: pb.ResumeRequest, context: Any) -> pb.Policy:
        LOG.warning("resumed")
        return await self._loop.resume()

    async def OverrideIntensity(
        self, request: pb.OverrideIntensityRequest, context: Any
    ) -> pb.Policy:
        if not request.HasField("g_per_kwh"):
            LOG.warning("intensity override ended")
            return await self._loop.override(None, 0.0)
        value = request.g_per_kwh
        if not (math.isfinite(value) and 0 <= value <= MAX_G_PER_KWH):
            text = f"g_per_kwh must be in 0 to {MAX_G_PER_KWH:g}: {value}"
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, text)
        ttl_s = DEFAULT_OVERRIDE_S
        if request.HasField("ttl"):
            ttl_s = request.ttl.seconds + request.ttl.nanos / 1e9
        if not 0 < ttl_s <= MAX_OVERRIDE_S:
            text = f"ttl must be in 0 to {MAX_OVERRIDE_S:g} s: {ttl_s:g}"
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, text)
        LOG.warning("intensity override: %g g/kWh for %g s", value, ttl_s)
        return await self._loop.override(value, ttl_s)


async def _refuse(context: Any, code: grpc.StatusCode, details: str) -> NoReturn:
    """Ends the call; grpc's `abort` raises, which its type does not tell."""
    await context.abort(code, details)
    raise AssertionError("abort returned")
