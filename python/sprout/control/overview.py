# SPDX-License-Identifier: Apache-2.0
"""The status, for whoever asks, and for whoever watches it.

All watchers share one look at the store. What moves by itself (the time that a policy has left to
live) is no change.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from sprout import __version__
from sprout.control import messages
from sprout.control.loop import Loop
from sprout.control.store import Store
from sprout.errors import ControlError
from sprout.v1 import control_pb2 as pb

MAX_NODES = 1000  # of which the last state is kept
GAP_S = 1.0  # from one status of a watch to the next
FRESH_S = 0.5  # a look that watchers share is at most this old


class Overview:
    """Touched on the event loop's thread alone."""

    def __init__(self, zone: str, loop: Loop, store: Store) -> None:
        self._zone, self._loop, self._store = zone, loop, store
        self.nodes: dict[str, pb.NodeStatus] = {}  # in the order of their last report
        self._heard: dict[str, float] = {}  # when that was, on the monotonic clock
        self.metrics_address = ""
        self.watchers = 0
        self._look = asyncio.Lock()
        self._looked: tuple[float, pb.Status, bytes] | None = None

    def remember(self, node: str, status: pb.NodeStatus) -> None:
        status.node = node
        self.nodes.pop(node, None)
        self.nodes[node] = status
        self._heard[node] = time.monotonic()
        while len(self.nodes) > MAX_NODES:
            oldest = next(iter(self.nodes))
            del self.nodes[oldest], self._heard[oldest]

    def heard_within(self, seconds: float) -> list[pb.NodeStatus]:
        """Of the nodes that reported in so long; others may be gone for good."""
        since = time.monotonic() - seconds
        return [status for node, status in self.nodes.items() if self._heard[node] >= since]

    async def status(self) -> pb.Status:
        loop = self._loop
        reasons = loop.reasons()
        try:
            totals = await asyncio.to_thread(self._store.totals)
        except ControlError as error:
            totals = []
            reasons["totals"] = f"totals can't be read: {error}"
        wishes = loop.wishes
        pin = loop.pinned()
        return pb.Status(
            zone=self._zone,
            degraded=bool(reasons),
            reasons=list(reasons.values()),
            policy=loop.publisher.policy(),
            outcomes=sum(row["outcomes"] for row in totals),
            nodes=[self.nodes[name] for name in sorted(self.nodes)],
            started_at=messages.timestamp(loop.started_at),
            version=__version__,
            arms=[pb.ArmTotals(**row) for row in totals],
            objective=messages.objective(wishes.objective),
            objective_set=sorted(wishes.objective_set),
            pin=None if pin is None else messages.pin(pin, loop.levels),
            schedule=[messages.window(window) for window in wishes.schedule],
            metrics_address=self.metrics_address,
            evaluation=loop.evaluations.status(),
        )

    async def watch(self) -> AsyncIterator[pb.Status]:
        """The status, then whenever it has changed, at most one in GAP_S; ends with the loop."""
        closed = self._loop.publisher.closed
        seen = None
        self.watchers += 1
        try:
            while not closed.is_set():
                status, lasting = await self._recent()
                if lasting != seen:
                    seen = lasting
                    yield status
                with suppress(TimeoutError):
                    await asyncio.wait_for(closed.wait(), GAP_S)
        finally:
            self.watchers -= 1

    async def _recent(self) -> tuple[pb.Status, bytes]:
        """(a status at most FRESH_S old, what of it does not move by itself)"""
        async with self._look:
            now = asyncio.get_running_loop().time()
            if self._looked is None or now - self._looked[0] > FRESH_S:
                status = await self.status()
                self._looked = (now, status, _lasting(status))
            return self._looked[1:]


def _lasting(status: pb.Status) -> bytes:
    kept = pb.Status()
    kept.CopyFrom(status)
    if kept.HasField("policy"):
        kept.policy.ClearField("ttl")
        kept.policy.ClearField("issued_at")
    kept.evaluation.ClearField("why")  # it counts the hours
    for node in kept.nodes:
        node.ClearField("time")
    return kept.SerializeToString(deterministic=True)
