# SPDX-License-Identifier: Apache-2.0
"""What is in force and not stored yet: a reason, and tried again at each look."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from sprout.control.store import Store
from sprout.errors import ControlError
from sprout.policy_version import version
from sprout.v1 import control_pb2 as pb

LOG = logging.getLogger(__name__)

MAX_POLICIES = 1000  # about 1 MB


class Unstored:
    """On the event loop's thread; what writes runs in a thread of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writes: dict[str, tuple[Callable[[], Any], str]] = {}
        # Published, not stored yet, by version. Their outcomes come late, and need them to count.
        self._policies: dict[int, tuple[int, int, int, float, bytes, str]] = {}

    def reasons(self) -> dict[str, str]:
        return {what: reason for what, (_, reason) in self._writes.items()}

    async def keep(self, what: str, write: Callable[[], Any]) -> None:
        """Write to the store; where that fails, say so and try again at the next look."""
        try:
            await asyncio.to_thread(write)
            self._writes.pop(what, None)
        except ControlError as error:
            LOG.error("%s", error)
            self._writes[what] = (write, f"{what} can't be stored: {error}")
        except asyncio.CancelledError:  # whoever asked for it is gone; the wish stands
            self.later(what, write)
            raise

    def later(self, what: str, write: Callable[[], Any]) -> None:
        """At the next look."""
        self._writes[what] = (write, f"{what} may not be stored")

    def published(self, policy: pb.Policy, now: float, inputs: str) -> None:
        """Until `keep_policies` has stored it. inputs: JSON of what it was solved from."""
        number, body = version(policy), policy.SerializeToString()
        self._policies[number] = (policy.epoch, number, policy.pack_hash, now, body, inputs)
        while len(self._policies) > MAX_POLICIES:
            del self._policies[next(iter(self._policies))]

    async def keep_policies(self) -> None:
        await self.keep("policy", self._store_policies)

    async def again(self) -> None:
        for what, (write, _) in list(self._writes.items()):
            await self.keep(what, write)
        if self._policies and "policy" not in self._writes:
            await self.keep_policies()

    def _store_policies(self) -> None:
        for number, row in list(self._policies.items()):
            self._store.add_policy(*row[:-1], inputs=row[-1])
            self._policies.pop(number, None)
