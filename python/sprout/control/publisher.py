# SPDX-License-Identifier: Apache-2.0
"""The policy in force: numbered, kept alive, handed to whoever watches.

All state is touched on the event loop's thread alone, so a publication is atomic. A renewal has the
same version and a new time. Should the control loop hang, nothing renews the policy (a solver at
work has one time to live); what it still has to live shrinks for late watchers as well, and every
reader falls back to L0.
"""

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

from sprout.carbon import Intensity
from sprout.config import Config
from sprout.control import messages
from sprout.control.pin import Pin
from sprout.control.plan import Plan
from sprout.directives import Pack
from sprout.v1 import control_pb2 as pb

LOG = logging.getLogger(__name__)


def uptime() -> float:
    """Seconds that go on while the machine sleeps, like the deadline that agents stamp."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Publisher:
    def __init__(
        self,
        config: Config,
        pack: Pack,
        epoch: int,
        *,
        wall: Callable[[], float],
        uptime: Callable[[], float],
    ) -> None:
        self._config, self._pack = config, pack
        self._wall, self._uptime = wall, uptime
        self._epoch, self._counter = epoch, 0
        self._policy: pb.Policy | None = None
        self._published_at = self._issued_at = 0.0  # on `uptime`
        self._sent = 0
        self._wake = asyncio.Event()
        self.closed = asyncio.Event()  # nothing more will be published
        self.watchers = 0  # now
        self.published: Counter[str] = Counter()  # policies of this process, by trigger

    def policy(self) -> pb.Policy | None:
        """The policy in force with what it still has to live; None before the first one."""
        if self._policy is None:
            return None
        left = self._config.control.ttl_s - self.since_issued_s()
        if left <= 0:
            return None
        current = pb.Policy()
        current.CopyFrom(self._policy)
        current.ttl.FromTimedelta(messages.duration(left))
        return current

    def since_published_s(self) -> float:
        return self._uptime() - self._published_at

    def since_issued_s(self) -> float:
        """Since it was published or renewed."""
        return self._uptime() - self._issued_at

    async def watch(self) -> AsyncIterator[pb.Policy]:
        """The policy in force, then each that is sent. A slow watcher skips to the newest."""
        seen = 0
        self.watchers += 1
        try:
            while not self.closed.is_set():
                wake = self._wake
                if self._sent != seen and (current := self.policy()) is not None:
                    seen = self._sent
                    yield current
                else:
                    await wake.wait()
        finally:
            self.watchers -= 1

    def close(self) -> None:
        """End every watch."""
        self.closed.set()
        self._wake.set()

    def publish(
        self,
        plan: Plan,
        intensity: Intensity | None,
        *,
        overridden: bool,
        pause_reason: str | None,
        trigger: str,
        pin: Pin | None = None,
    ) -> pb.Policy:
        """Number a plan and put it in force at once.

        pause_reason: None = not paused. pin: what made the shares, None = the solver.
        """
        self._counter += 1
        self.published[trigger] += 1
        policy = pb.Policy(
            epoch=self._epoch,
            counter=self._counter,
            seed=secrets.randbits(64),
            ttl=messages.duration(self._config.control.ttl_s),
            pack=self._pack.name,
            pack_hash=self._pack.hash,
            shares=[
                pb.LevelShare(level=level, share=share)
                for level, share in zip(self._pack.levels, plan.shares, strict=True)
            ],
            control_share=plan.control_share,
            canary_share=plan.canary_share,
            paused=pause_reason is not None,
            pue=self._config.energy.pue,
            embodied_g_per_s=self._config.energy.embodied_g_per_s,
            explanation=messages.explanation(plan, trigger, pause_reason or ""),
            mixes=[messages.mix(group, self._pack.levels, plan.prompt) for group in plan.groups],
            prompt=None if plan.prompt is None else messages.prompt(plan.prompt),
        )
        if pin is not None:
            policy.explanation.pin.CopyFrom(messages.pin(pin, self._pack.levels))
        if intensity is not None:
            policy.intensity.CopyFrom(messages.intensity(intensity, override=overridden))
        self._policy = policy
        self._published_at = self._uptime()
        self.renew()
        LOG.info(
            "policy %d.%d (%s): %s, limited by %s, %d mixes beside it%s",
            policy.epoch,
            policy.counter,
            trigger,
            " ".join(f"{s.level} {s.share:.3f}" for s in policy.shares),
            plan.active_constraint,
            len(plan.groups),
            "" if plan.prompt is None else f", {plan.prompt.share:g} of them by prompt",
        )
        return policy

    def renew(self) -> None:
        """Send the policy in force again, for another time to live."""
        if self._policy is not None:
            self._policy.issued_at.CopyFrom(messages.timestamp(self._wall()))
        self._issued_at = self._uptime()
        self._sent += 1
        self._wake.set()
        self._wake = asyncio.Event()
