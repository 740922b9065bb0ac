# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802 - the names of the .proto
"""The gRPC services of control.proto. Sizes are bounded and numbers checked before anything is.

What agents call stands here and in prompts.py, what operators call in operators.py.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from sprout.control import feedback, inbox
from sprout.control.loop import Loop
from sprout.control.metrics import Counted
from sprout.control.operators import refuse
from sprout.control.overview import Overview
from sprout.control.prompts import PromptCalls
from sprout.control.readings import Readings
from sprout.control.reservoir import Reservoir
from sprout.control.store import Store
from sprout.errors import ControlError
from sprout.v1 import control_pb2 as pb

LOG = logging.getLogger(__name__)


class Service(PromptCalls):
    def __init__(
        self,
        loop: Loop,
        store: Store,
        overview: Overview,
        counted: Counted,
        reservoir: Reservoir | None = None,
    ) -> None:
        """reservoir: of sampled prompts; None: sampling is off."""
        super().__init__(loop, store, overview, reservoir)
        self._counted = counted
        self._readings = Readings(store, loop.blocks.reading_s)
        # Threads of their own: reports that wait for a slow store must not hold up an operator.
        self._takers = ThreadPoolExecutor(2, thread_name_prefix="reports")

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: Any) -> pb.Policy:
        policy = self._loop.publisher.policy()
        if policy is None:
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "no policy yet")
        return policy

    async def GetWeights(
        self, request: pb.GetWeightsRequest, context: Any
    ) -> pb.GetWeightsResponse:
        found = self._loop.weights.get(request.sha256)
        if found is None:
            text = "no policy of late names these weights"
            await refuse(context, grpc.StatusCode.NOT_FOUND, text)
        return pb.GetWeightsResponse(weights=found)

    async def WatchPolicy(
        self, request: pb.WatchPolicyRequest, context: Any
    ) -> AsyncIterator[pb.Policy]:
        async for policy in self._loop.publisher.watch():
            yield policy
        await refuse(context, grpc.StatusCode.UNAVAILABLE, "the control plane is stopping")

    async def ReportOutcomes(
        self, request: pb.ReportOutcomesRequest, context: Any
    ) -> pb.ReportOutcomesResponse:
        try:
            loop = asyncio.get_running_loop()
            stored = await loop.run_in_executor(self._takers, self._take, request)
        except ValueError as error:
            LOG.warning("refused a report of %.64r: %s", request.node, error)
            self._counted.refused.labels("invalid").inc()
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except ControlError as error:
            LOG.error("%s", error)
            self._counted.refused.labels("store").inc()
            # Not acknowledged: the agent keeps the batch and tries again.
            await refuse(context, grpc.StatusCode.UNAVAILABLE, "the store failed")
        duplicates = len(request.outcomes) - stored
        self._counted.duplicates.inc(duplicates)
        if request.HasField("node_status"):
            self._overview.remember(request.node, request.node_status)
        return pb.ReportOutcomesResponse(stored=stored, duplicates=duplicates)

    def _take(self, request: pb.ReportOutcomesRequest) -> int:
        rows = inbox.rows(request)
        with self._counted.store_s.labels("add_outcomes").time():
            stored = self._store.add_outcomes(rows)
        if request.HasField("node_status"):
            self._readings.take(request.node, request.node_status)
        return stored

    async def ReportFeedback(
        self, request: pb.ReportFeedbackRequest, context: Any
    ) -> pb.ReportFeedbackResponse:
        try:
            now = time.time()
            rows = feedback.rows(request, now)
            fresh = await asyncio.to_thread(
                self._store.add_feedback, rows, report_id=request.report_id, now=now
            )
        except ValueError as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except ControlError as error:
            LOG.error("%s", error)
            await refuse(context, grpc.StatusCode.UNAVAILABLE, "the store failed")
        if not fresh:  # sent again
            return pb.ReportFeedbackResponse(duplicate=True)
        for row in rows:
            self._counted.feedback.labels(row.kind).inc(row.count)
        return pb.ReportFeedbackResponse(stored=len(rows))
