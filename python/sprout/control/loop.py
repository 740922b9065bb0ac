# SPDX-License-Identifier: Apache-2.0
"""The control loop: looks at the inputs, decides, publishes, renews.

The kill switch never queues behind a slow database: operators' wishes are published first and
stored second. What can't be stored is a stated reason, and is tried again at each look.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sprout.carbon import Feed, Intensity
from sprout.config import Config
from sprout.control import publisher
from sprout.control.plan import NO_RANGE, Plan, inputs_of, plan, priors
from sprout.control.publisher import Publisher
from sprout.control.store import Store
from sprout.control.trigger import trigger
from sprout.directives import pack
from sprout.errors import ControlError, SproutError
from sprout.optimize.floor import Range
from sprout.policy_version import version
from sprout.profile import LevelProfile, build
from sprout.v1 import control_pb2 as pb

LOG = logging.getLogger(__name__)

RENEWALS_PER_TTL = 3
PRUNE_S = 600.0
RETRY_S = 15.0  # a remote source that failed is asked again after this, or `poll_s` if shorter
DAY_S = 86_400.0
MAX_UNSAVED = 1000  # policies, about 1 MB


@dataclass(frozen=True)
class Facts:
    """What was last looked at."""

    intensity: Intensity | None
    within: Range
    profile: tuple[LevelProfile, ...]
    reasons: dict[str, str]  # kind -> what is wrong with the above


@dataclass(frozen=True)
class Override:
    g_per_kwh: float
    until: float  # seconds since 1970


class Loop:
    """ConfigError where the priors don't fit the pack, ControlError where the store fails."""

    def __init__(
        self,
        config: Config,
        store: Store,
        feed: Feed,
        *,
        wall: Callable[[], float] = time.time,
        uptime: Callable[[], float] = publisher.uptime,
    ) -> None:
        self._config, self._store, self._feed, self._wall = config, store, feed, wall
        self._pack = pack(config.request.pack)
        self._facts = Facts(None, NO_RANGE, priors(config, self._pack.levels), {})
        self._profiled = -1  # the store's revision that the profile was made from
        self._pause: str | None = store.setting("pause")
        stored = store.setting("override")
        self._override = None if stored is None else Override(*stored)
        self._unstored: dict[str, tuple[Callable[[], Any], str]] = {}
        # Published, not stored yet, by version. Their outcomes come late, and need them to count.
        self._unsaved: dict[int, tuple[int, int, int, float, bytes]] = {}
        self._failures: dict[str, str] = {}  # by task
        self._plan: Plan | None = None  # what the policy in force was made from
        self.started_at = wall()
        # Above every epoch before it, even if the clock was set back in between.
        epoch = max(int(self.started_at), store.last_epoch() + 1)
        self.publisher = Publisher(config, self._pack, epoch, wall=wall, uptime=uptime)

    def reasons(self) -> dict[str, str]:
        """What is wrong now, by kind; {} = everything is as it should be."""
        found = {**self._feed.reasons(), **self._facts.reasons}
        if self._plan is not None:
            kinds = ("infeasible", "solver")
            found.update({k: self._plan.degraded[k] for k in kinds if k in self._plan.degraded})
        found.update({what: reason for what, (_, reason) in self._unstored.items()})
        return found | self._failures

    # --- operators ---------------------------------------------------------------------------

    async def pause(self, reason: str) -> pb.Policy:
        self._pause = reason or "no reason given"
        return await self._wish("pause", "pause", self._store_pause)

    async def resume(self) -> pb.Policy:
        self._pause = None
        return await self._wish("resume", "pause", self._store_pause)

    async def override(self, g_per_kwh: float | None, ttl_s: float) -> pb.Policy:
        """Decide on this intensity for a while; None ends it."""
        wish = None if g_per_kwh is None else Override(g_per_kwh, self._wall() + ttl_s)
        self._override = wish
        return await self._wish("override", "override", self._store_override)

    async def _wish(self, why: str, key: str, write: Callable[[], None]) -> pb.Policy:
        policy = self._publish(why)
        await self._keep(key, write)
        await self._keep("policy", self._store_policies)
        return self.publisher.policy() or policy

    # They write what is wished when they run, so a late retry can't undo a newer wish.

    def _store_pause(self) -> None:
        self._store.set_setting("pause", self._pause)

    def _store_override(self) -> None:
        wish = self._override
        self._store.set_setting("override", wish and [wish.g_per_kwh, wish.until])

    # --- the loop ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. A failure is a reason, never the end."""
        await self._guarded("poll", asyncio.to_thread(self._feed.restore))
        if self._pause is not None:
            self._publish("start")
        remote = self._feed.source.remote
        # It may take its time-out; what was stored will do until it has answered.
        if remote and self._feed.last() is None:
            await self._guarded("poll", self._feed.poll())
        control = self._config.control
        pause_s = min(control.interval_s, control.ttl_s / (2 * RENEWALS_PER_TTL))
        async with asyncio.TaskGroup() as tasks:
            if remote:
                tasks.create_task(self._poll_forever())
            tasks.create_task(self._prune_forever())
            while True:
                await self._guarded("loop", self.step())
                await asyncio.sleep(pause_s)

    async def step(self) -> None:
        """Look once; publish or renew if it is time to."""
        for what, (write, _) in list(self._unstored.items()):
            await self._keep(what, write)
        if self._unsaved and "policy" not in self._unstored:
            await self._keep("policy", self._store_policies)
        if not self._feed.source.remote:  # else `_poll_forever` does
            await self._guarded("poll", self._feed.poll())
        self._facts = await asyncio.to_thread(self._look)
        control = self._config.control
        why = trigger(
            self._plan,
            self._decide(),
            intensity_g_per_kwh=control.republish_intensity_g_per_kwh,
            profile_ratio=control.republish_profile_ratio,
        )
        if self._override is not None and self._override.until <= self._wall():
            self._override = None
            await self._keep("override", self._store_override)
            why = "override"
        if why is None and self.publisher.since_published_s() >= control.republish_s:
            why = "time"
        if why is not None:
            self._publish(why)
            await self._keep("policy", self._store_policies)
        elif self.publisher.since_issued_s() >= control.ttl_s / RENEWALS_PER_TTL:
            self.publisher.renew()

    async def _poll_forever(self) -> None:
        poll_s = self._config.carbon.poll_s
        while True:
            failing = self._feed.last() is None or "feed" in self._feed.reasons()
            await asyncio.sleep(min(RETRY_S, poll_s) if failing else poll_s)
            await self._guarded("poll", self._feed.poll())

    async def _prune_forever(self) -> None:
        while True:
            await self._keep("prune", self._prune)
            await asyncio.sleep(PRUNE_S)

    def _prune(self) -> None:
        control = self._config.control
        older = self._wall() - control.retention_days * DAY_S
        self._store.prune(older, control.retention_outcomes)

    async def _guarded(self, task: str, work: Awaitable[None]) -> None:
        try:
            await work
            self._failures.pop(task, None)
        except SproutError as error:
            LOG.error("control loop, %s: %s", task, error)
            self._failures[task] = f"the control loop fails ({task}): {error}"
        except Exception as error:
            LOG.exception("control loop, %s", task)
            self._failures[task] = f"the control loop fails ({task}): {type(error).__name__}"

    # --- decide ------------------------------------------------------------------------------

    def _look(self) -> Facts:
        """Reads feed and store; in a thread of its own."""
        control, levels = self._config.control, self._pack.levels
        reasons: dict[str, str] = {}
        profile = self._facts.profile
        try:
            revision = self._store.revision  # before what it stands for is read
            if revision != self._profiled:
                profile = build(
                    levels,
                    self._store.measured(len(levels), self._pack.hash, control.profile_outcomes),
                    prior_energy_joules=control.prior_energy_joules,
                    prior_device_s=control.prior_device_s,
                    prior_preference=control.prior_preference,
                    min_outcomes=control.min_outcomes,
                )
                self._profiled = revision
        except ControlError as error:
            reasons["profile"] = f"outcomes can't be read: {error}"
        return Facts(self._feed.last(), self._feed.range(), profile, reasons)

    def _intensity(self) -> tuple[Intensity | None, bool]:
        """What to decide on, and whether an operator set it."""
        if self._override is None or self._override.until <= self._wall():
            return self._facts.intensity, False
        zone, _, factor_type, signal = self._feed.source.series
        now = datetime.fromtimestamp(self._wall(), UTC)
        value = self._override.g_per_kwh
        return Intensity(value, zone, "override", factor_type, signal, now, True), True

    def _decide(self) -> Plan:
        value, overridden = self._intensity()
        made = plan(
            inputs_of(
                self._config,
                None if value is None else value.g_per_kwh,
                self._facts.within,
                self._facts.profile,
                paused=self._pause is not None,
            )
        )
        reasons = self.reasons()
        reasons.pop("infeasible", None)
        reasons.pop("solver", None)  # those of the plan before
        if overridden:
            reasons.pop("intensity", None)
            reasons.pop("stale", None)
        return replace(made, degraded={**made.degraded, **reasons})

    def _publish(self, why: str) -> pb.Policy:
        made = self._decide()
        if "solver" in made.degraded:
            LOG.error("%s", made.degraded["solver"])
        value, overridden = self._intensity()
        self._plan = made
        policy = self.publisher.publish(
            made, value, overridden=overridden, pause_reason=self._pause, trigger=why
        )
        number, body = version(policy), policy.SerializeToString()
        self._unsaved[number] = (policy.epoch, number, policy.pack_hash, self._wall(), body)
        while len(self._unsaved) > MAX_UNSAVED:
            del self._unsaved[next(iter(self._unsaved))]
        return policy

    def _store_policies(self) -> None:
        for number, row in list(self._unsaved.items()):
            self._store.add_policy(*row)
            self._unsaved.pop(number, None)

    async def _keep(self, what: str, write: Callable[[], Any]) -> None:
        """Write to the store; where that fails, say so and try again at the next look."""
        try:
            await asyncio.to_thread(write)
            self._unstored.pop(what, None)
        except ControlError as error:
            LOG.error("%s", error)
            self._unstored[what] = (write, f"{what} can't be stored: {error}")
        except asyncio.CancelledError:  # whoever asked for it is gone; the wish stands
            self._unstored[what] = (write, f"{what} may not be stored")
            raise
