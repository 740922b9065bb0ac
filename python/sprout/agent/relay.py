# SPDX-License-Identifier: Apache-2.0
"""Between the node and the control plane: policies to the board, outcomes from the spool.

A quiet control plane and a dead one look alike to a watcher. They are told apart twice: a policy
that is not sent again in good time before it runs out means that the stream is dead, and so do
reports that get no answer, which is sooner. Either way the watch is opened anew.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from sprout.agent.policy import board_policy, boottime_ns
from sprout.agent.spool import Spool
from sprout.directives import Pack
from sprout.errors import PolicyError, SpoolError
from sprout.policy_version import version
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub
from sprout_ext.board import BoardPolicy, BoardWriter

if TYPE_CHECKING:
    from sprout.agent.weights import Weights

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 5.0
REPORT_TIMEOUT_S = 5.0
# Of a policy's time to live: heard nothing for longer, the stream is taken for dead.
SILENCE_FRACTION = 0.8
# Reports in a row without an answer, after which the watch is opened anew too.
UNANSWERED = 2
# Of what the node's status says of a policy: the control plane refuses texts over 1,024 characters.
LONGEST_ERROR = 1000
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def backoff_s(attempt: int, longest_s: float = LONGEST_BACKOFF_S) -> float:
    """Seconds before try `attempt` (0, 1, …): doubling, with jitter so that nodes don't march."""
    longest = min(FIRST_BACKOFF_S * 2.0 ** min(attempt, 30), longest_s)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311


class Watcher:
    """Puts each policy that the control plane sends on the board."""

    def __init__(
        self, stub: ControlStub, board: BoardWriter, node: str, pack: Pack, weights: "Weights"
    ) -> None:
        self._stub = stub
        self._board = board
        self._node = node
        self._pack = pack
        self._weights = weights
        self._putting = threading.Lock()  # guards the board and the next two
        self._entry: BoardPolicy | None = None  # the last that could be applied, whole
        self._lacking = ""  # why it is on the board without its prompt part; "" = it is whole
        self._call: Any = None
        self._silent_after = float("inf")  # time.monotonic(): nothing heard by then, stream dead
        self.refused = 0  # policies that could not be applied
        self._error = ""  # why the last one could not; "" = it was

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop`; a stream that ends is opened again."""
        attempt = 0
        while not stop.is_set():
            self._silent_after = float("inf")
            self._call = self._stub.WatchPolicy(pb.WatchPolicyRequest(node=self._node))
            if stop.is_set():  # set before there was a call to cancel
                self._call.cancel()
            why = "ended by the control plane"
            try:
                for policy in self._call:
                    if attempt:
                        log.info("watching the control plane again")
                    attempt = 0
                    self.apply(policy)
            except grpc.RpcError as error:
                why = describe(error)
            if not stop.is_set():
                level = logging.WARNING if attempt == 0 else logging.DEBUG
                log.log(level, "watch: %s; trying again", why)
                stop.wait(backoff_s(attempt))
                attempt += 1

    @property
    def error(self) -> str:
        """Why the last policy was not applied, or not all of it; "" = it was."""
        with self._putting:
            if self._error or self._entry is None or not self._lacking:
                return self._error
            # Asked anew: the reason of a fetch that fails changes.
            lacking = self._weights.lacking(self._entry) or self._lacking
            said = f"policy {self._entry.version}: no level by prompt: {lacking}"
        return said[:LONGEST_ERROR]

    def apply(self, policy: pb.Policy) -> None:
        """Publish one policy; a wrong one is refused, and the one on the board stays."""
        try:
            entry = board_policy(policy, self._pack, boottime_ns())
            with self._putting:
                self._put(entry)
        except (PolicyError, ValueError) as error:  # ValueError: the board's own checks
            self.refused += 1
            self._error = f"policy {version(policy)}: {error}"[:LONGEST_ERROR]
            log.error("refused: %s", self._error)
            return
        self._silent_after = time.monotonic() + SILENCE_FRACTION * policy.ttl.ToNanoseconds() / 1e9
        self._error = ""
        if policy.pack_hash != self._pack.hash:
            self._error = f"policy {entry.version} is for pack {policy.pack!r}: L0 is served"
            log.warning("%s (this node has %r)", self._error, self._pack.name)

    def complete(self) -> None:
        """Weights have come: a policy that is on the board without them gets them."""
        with self._putting:
            if self._entry is not None and self._lacking:
                self._put(self._entry)

    def _put(self, entry: BoardPolicy) -> None:
        """On the board, whole or, while its weights are not here, without them."""
        lacking = self._weights.lacking(entry)
        self._board.publish(entry.without_weights() if lacking else entry)
        self._entry, self._lacking = entry, lacking

    def check(self) -> None:
        """Open the watch anew if the stream has been silent for too long."""
        if time.monotonic() > self._silent_after:
            log.warning("watch: silent for most of the policy's time to live")
            self.reset()

    def reset(self) -> None:
        """End the present stream; `run` opens another, or returns if it was told to stop."""
        if self._call is not None:
            self._call.cancel()


class Reporter:
    """Sends the spool and the node's status; an outcome leaves the spool when it is stored."""

    def __init__(
        self,
        stub: ControlStub,
        spool: Spool,
        watcher: Watcher,
        status: Callable[[], pb.NodeStatus],
        *,
        node: str,
        batch: int,
        interval_s: float,
    ) -> None:
        self._stub = stub
        self._spool = spool
        self._watcher = watcher
        self._status = status
        self._node = node
        self._batch = batch
        self._size = batch  # of the next report; smaller after a refusal
        self._interval_s = interval_s
        self._unanswered = 0
        self.refused = 0  # outcomes that the control plane would not take

    def run(self, stop: threading.Event) -> None:
        """Report once per interval until `stop`."""
        while not stop.wait(self._interval_s * random.uniform(0.9, 1.1)):  # noqa: S311
            self._watcher.check()
            self.report(stop)

    def report(self, stop: threading.Event, until: float = float("inf")) -> None:
        """Send what is spooled, at least the status, until it is empty or nobody answers.

        until: time.monotonic() by which to be back.
        """
        while True:
            timeout_s = min(REPORT_TIMEOUT_S, until - time.monotonic())
            try:
                rows = self._spool.peek(self._size)
            except SpoolError as error:
                log.error("%s", error)
                rows = []
            full = len(rows) == self._size
            ids, request = self._report(rows)
            try:
                self._stub.ReportOutcomes(request, timeout=timeout_s)
            except grpc.RpcError as error:
                if not self._failed(error, ids):
                    return
            else:
                self._answered()
                self._ack(ids)
                if not full:
                    return
            if stop.is_set() or time.monotonic() >= until:
                return

    def _report(self, rows: list[tuple[int, bytes]]) -> tuple[list[int], pb.ReportOutcomesRequest]:
        """A report, and the ids of the outcomes in it.

        What can't be read is dropped, lest it end every agent to come.
        """
        request = pb.ReportOutcomesRequest(node=self._node, node_status=self._status())
        ids: list[int] = []
        unread: list[int] = []
        for i, body in rows:
            try:
                request.outcomes.add().MergeFromString(body)  # in place: no copy
                ids.append(i)
            except DecodeError:
                del request.outcomes[-1]
                unread.append(i)
        if unread:
            log.error("%d spooled outcomes can't be read and are dropped", len(unread))
            self._ack(unread, dropped=True)
        request.batch = ids[0] if ids else 0
        return ids, request

    def _answered(self) -> None:
        if self._unanswered:
            log.info("the control plane takes reports again, %d outcomes wait", len(self._spool))
        self._unanswered = 0
        self._size = min(2 * self._size, self._batch)

    def _failed(self, error: grpc.RpcError, ids: list[int]) -> bool:
        """Whether to try again at once."""
        code = error.code()
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            if len(ids) > 1:  # look for the one that is wrong
                self._size = len(ids) // 2
                return True
            if ids and self._status_is_taken():
                self.refused += 1
                log.error("an outcome was refused and is dropped: %s", describe(error))
                self._ack(ids, dropped=True)
                return True
        elif code is grpc.StatusCode.RESOURCE_EXHAUSTED and ids:
            # A message too large, or too many calls at once; it does not say which. Less the next
            # time, but not at once, and nothing is dropped: neither is the outcomes' fault.
            self._size = max(1, len(ids) // 2)
        if self._unanswered == 0:
            log.warning("report: %s; outcomes wait in the spool", describe(error))
        self._unanswered += 1
        if code in _AWAY and self._unanswered == UNANSWERED:
            self._watcher.reset()
        return False

    def _status_is_taken(self) -> bool:
        """Whether it was the outcome that was refused, and not the status that went with it."""
        request = pb.ReportOutcomesRequest(node=self._node, node_status=self._status())
        try:
            self._stub.ReportOutcomes(request, timeout=REPORT_TIMEOUT_S)
        except grpc.RpcError:
            return False
        return True

    def _ack(self, ids: list[int], *, dropped: bool = False) -> None:
        try:
            self._spool.ack(ids, dropped=dropped)
        except SpoolError as error:  # they will be sent again, as duplicates
            log.error("%s", error)


def describe(error: grpc.RpcError) -> str:
    """Code and details, for logs."""
    return f"{error.code().name}: {error.details()}"
