# SPDX-License-Identifier: Apache-2.0
"""How many requests of clients are in flight, and the gate that holds an evaluation's back.

On the node itself the flight ledger tells, exactly and at once: an evaluation's requests carry a
flag of their own there, as do the stack's probes, and neither counts. Of a Triton elsewhere the
control plane knows what agents reported: a second old, and without those that wait for the engine.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import BoundedSemaphore, Event, Lock
from typing import Protocol

from sprout.agent.segments import Segments
from sprout.errors import ControlError, RequestCancelled
from sprout.v1 import control_pb2 as pb
from sprout_ext.board import Flag
from sprout_ext.ledger import Phase, Role, SegmentReader

OURS = int(Flag.PROBE | Flag.EVALUATION)
STALE_S = 10.0  # a node's report that is older says nothing of now
ASK_S = 1.0  # agents report no more often
POLL_S = 0.05  # how soon a wait for a slot notices that it is to end


class Traffic(Protocol):
    """Called from several threads, but by one at a time of each gate."""

    def clients(self, own: int) -> int | None:
        """Requests of clients in flight, `own` ones of the evaluation beside them; None: not
        known."""


class LedgerTraffic:
    """From the flight ledger of this node's stack."""

    def __init__(self, directory: Path) -> None:
        """directory: the stack's shared memory."""
        self._segments = Segments(directory)

    def clients(self, own: int) -> int | None:
        stubs = [
            reader
            for reader in self._segments.refresh()
            if reader.role == Role.PREPROCESSING and reader.alive
        ]
        return sum(map(_of_clients, stubs)) if stubs else None


def _of_clients(reader: SegmentReader) -> int:
    flights = reader.scan()
    running = (flights["phase"] < Phase.FINISHED) & ~flights["closed"]
    return int((running & (flights["flags"] & OURS == 0)).sum())


class ReportedTraffic:
    """From the agents' reports, as the control plane has them. Any thread may call."""

    def __init__(
        self,
        nodes: Callable[[], Sequence[pb.NodeStatus]],
        names: Collection[str] = (),
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """nodes: asks the control plane for all that it has heard of; ControlError: it does not
        answer. It is asked once in ASK_S at most, however many look. names: of those that the
        endpoint stands for; none = all."""
        self._nodes, self._names, self._clock = nodes, frozenset(names), clock
        self._monotonic, self._lock = monotonic, Lock()
        self._asked: tuple[float, Sequence[pb.NodeStatus]] | None = None

    def clients(self, own: int) -> int | None:
        """The control plane remembers nodes that were taken down: they say nothing of now, and who
        is left is asked. None where nobody is."""
        now = self._clock()
        active = [
            node.active
            for node in self._known()
            if now - node.time.seconds <= STALE_S and (not self._names or node.node in self._names)
        ]
        return max(0, sum(active) - own) if active else None

    def _known(self) -> Sequence[pb.NodeStatus]:
        with self._lock:
            now = self._monotonic()
            if self._asked is None or now - self._asked[0] >= ASK_S:
                try:
                    self._asked = now, self._nodes()
                except ControlError:
                    self._asked = now, ()
            return self._asked[1]


class Slots:
    """How many requests of an evaluation are in flight at once, its judge's among them where that
    is the clients' own server. Any thread may call."""

    def __init__(self, most: int) -> None:
        self._free = BoundedSemaphore(most)
        self._lock = Lock()
        self.in_flight = 0  # that have started

    @contextmanager
    def asking(self) -> Iterator[None]:
        """While a request is in flight."""
        with self._lock:
            self.in_flight += 1
        try:
            yield
        finally:
            with self._lock:
                self.in_flight -= 1

    @contextmanager
    def one(self, stop: Event) -> Iterator[None]:
        """RequestCancelled once `stop` is set."""
        while not self._free.acquire(timeout=POLL_S):
            if stop.is_set():
                raise RequestCancelled("the evaluation was cancelled")
        try:
            yield
        finally:
            self._free.release()


class Gate:
    """Lets a request of an evaluation start while fewer than `bound` of clients are in flight."""

    def __init__(
        self, traffic: Traffic, bound: int, *, hold_s: float, poll_s: float = 0.02
    ) -> None:
        """hold_s: the longest that one is held back; poll_s: how often it is looked then."""
        self._traffic, self._bound = traffic, bound
        self._hold_s, self._poll_s = hold_s, poll_s
        self._lock = Lock()

    def wait(self, own: Callable[[], int], stop: Event) -> tuple[float, str]:
        """Comes back when a request may start, when `stop` is set, or after `hold_s`.

        (seconds that it was held back; why it may not start, "" = it may)
        """
        began, looks, held_s = time.monotonic(), 0, 0.0
        while True:
            if stop.is_set():
                return held_s, "stopped"
            with self._lock:
                clients = self._traffic.clients(own())
            held_s = time.monotonic() - began if looks else 0.0
            looks += 1
            if clients is not None and clients < self._bound:
                return held_s, ""
            if held_s >= self._hold_s:
                return held_s, self._why(clients)
            stop.wait(self._poll_s)

    def _why(self, clients: int | None) -> str:
        if clients is None:
            return (
                f"the load was not known for {self._hold_s:g} s: no stub of this stack is alive "
                "here, or no node reports"
            )
        return (
            f"{clients} requests of clients were in flight and fewer than {self._bound} "
            f"(evaluate.schedule.max_client_requests) are wanted, for {self._hold_s:g} s"
        )
