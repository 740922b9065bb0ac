# SPDX-License-Identifier: Apache-2.0
"""What a running stack has counted, read where it keeps it: from ledger and database."""

import contextlib
import sqlite3
import time

import grpc
from waiting import wait_for

from sprout.channel import connect
from sprout.serve.background import BackgroundStack
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub
from sprout_ext.ledger import segments


def status(stack: BackgroundStack) -> pb.Status:
    with connect(stack.endpoint("control"), stack.cfg.control.tls) as channel:
        return ControlStub(channel).GetStatus(pb.GetStatusRequest(), timeout=60)


def open_flights(stack: BackgroundStack) -> int:
    return sum(len(segment.scan()) for segment in segments(stack.paths.shm))


def outcomes(stack: BackgroundStack) -> int:
    """Stored by the control plane, without Sprout's own probes."""
    with contextlib.closing(sqlite3.connect(stack.paths.state / "control.sqlite")) as db:
        return int(db.execute("select count(*) from outcomes where not flags & 64").fetchone()[0])


def settled(stack: BackgroundStack) -> int:
    """Outcomes, once those of all that was asked before have arrived.

    An outcome goes from the ledger into the agent's spool, and leaves that when it is stored: so
    the ledger must be empty, and a report made since must say that nothing was spooled.
    """
    wait_for(lambda: open_flights(stack) == 0, what="an empty ledger")
    since_ns = time.time_ns()

    def handed_over() -> bool:
        with contextlib.suppress(grpc.RpcError):  # it may be on its way up
            nodes = status(stack).nodes
            told = [node for node in nodes if node.time.ToNanoseconds() > since_ns]
            return bool(told) and all(node.spooled == 0 for node in told)
        return False

    wait_for(handed_over, what="a report with nothing spooled")
    return outcomes(stack)
