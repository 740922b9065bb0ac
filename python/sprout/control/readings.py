# SPDX-License-Identifier: Apache-2.0
"""Nodes' energy counters over time: of each node as many as a report needs, not one a second."""

import time
from collections.abc import Callable
from threading import Lock

from sprout.control.rows import Reading
from sprout.control.store import Store
from sprout.v1 import control_pb2 as pb

EVERY_S = 60.0
PER_BLOCK = 60  # with a switchback: so many a block, or more
MAX_NODES = 1000  # remembered


def interval_s(block_s: float | None) -> float:
    """Between two readings of a node. block_s: of the switchback, None = none runs."""
    return EVERY_S if block_s is None else min(EVERY_S, block_s / PER_BLOCK)


class Readings:
    """Safe to call from several threads."""

    def __init__(self, store: Store, every_s: float, wall: Callable[[], float] = time.time) -> None:
        self._store, self._every_s, self._wall = store, every_s, wall
        self._last: dict[str, tuple[float, int]] = {}  # node -> (time, policy on its board)
        self._one = Lock()

    def take(self, node: str, status: pb.NodeStatus) -> bool:
        """Store a reading if it is time for one, or another policy is on the node's board.

        While a meter stands still there is none: what was used meanwhile comes at once when it is
        back, and a report must not lay it into the minute in which it came.

        Returns whether it did. Raises ControlError where the store fails.
        """
        if status.meter_problem:
            return False
        now, held = self._wall(), status.policy_version
        with self._one:
            last_at, last_held = self._last.get(node, (-float("inf"), held))
            if 0 <= now - last_at < self._every_s and held == last_held:
                return False
            self._last.pop(node, None)
            self._last[node] = (now, held)
            while len(self._last) > MAX_NODES:
                del self._last[next(iter(self._last))]
        row = Reading(
            node=node,
            time=now,
            metered_joules=status.metered_joules,
            settled_joules=status.settled_joules,
            idle_joules=status.idle_joules,
            energy_estimated=status.energy_estimated,
            active=status.active,
            policy_version=0 if status.policy_expired else held,
        )
        self._store.add_readings([row])
        return True
