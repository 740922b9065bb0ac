# SPDX-License-Identifier: Apache-2.0
"""The control loop: looks at the inputs, decides, publishes, renews.

The kill switch never queues behind a slow database: operators' wishes are published first and
stored second. What can't be stored is a stated reason, and is tried again at each look.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sprout.carbon import Feed, Intensity
from sprout.config import Config
from sprout.control import evaluations, history, publisher
from sprout.control.audit import Audit
from sprout.control.blocks import Blocks
from sprout.control.capacity import EVERY_S, Capacity
from sprout.control.due import Due
from sprout.control.evaluations import Evaluations
from sprout.control.facts import Look
from sprout.control.guard import Guard
from sprout.control.inputs import Inputs, inputs_of
from sprout.control.peer import ITSELF, Caller
from sprout.control.pin import Pin, Window
from sprout.control.plan import Plan
from sprout.control.prompted import Prompted, Shelf
from sprout.control.publisher import Publisher
from sprout.control.solved import Solved, same
from sprout.control.store import Store
from sprout.control.trigger import trigger
from sprout.control.unstored import Unstored
from sprout.control.wishes import Change, Override, Wishes
from sprout.directives import pack
from sprout.errors import SproutError
from sprout.proof.switchback import L0, Block
from sprout.v1 import control_pb2 as pb

LOG = logging.getLogger(__name__)

RENEWALS_PER_TTL = 3
PRUNE_S = 600.0
RETRY_S = 15.0  # a remote source that failed is asked again after this, or `poll_s` if shorter
DAY_S = 86_400.0
OF_A_PLAN = ("infeasible", "solver", "minima")  # reasons that a new plan brings anew


def _stored() -> None:
    """An evaluation is in the store before it is followed."""


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
        self._prompted = Prompted()
        self.weights = Shelf()
        self.evaluations = Evaluations(store, self._pack)
        self.due = Due(config, feed, store, self.evaluations, wall)
        self.evaluations.tellers.append(self.due.tell)
        self._looking = asyncio.Lock()
        self.wishes = Wishes(config.control, self._pack.levels, store)
        self._look = Look(config, self._pack, store, feed, wall)
        self._facts = self._look.first()
        self.audit = Audit(store)
        self.blocks = Blocks(config.control.switchback, store, wall)
        self.guard = Guard(config.control.guard, store, wall)
        self.capacity = Capacity(store.path, wall)
        self._pin: Pin | None = None  # what made the policy in force; None: the solver
        self._restored = history.last_shares(store, self._pack.levels)
        self._unstored = Unstored(store)
        self._failures: dict[str, str] = {}  # by task
        self._plan: Plan | None = None  # what the policy in force was made from
        self._made_from: Inputs | None = None  # and the plan from
        self._publications = 0
        self._solved = Solved()
        self._solving = asyncio.Lock()
        self._uptime = uptime
        self._solving_since: float | None = None  # on `uptime`; None: no solver is at work
        self._judging = asyncio.Lock()
        self._deciding: set[asyncio.Task[pb.Policy]] = set()  # held, so that they run to their end
        self._taking: set[asyncio.Task[pb.Policy | None]] = set()  # likewise
        self.started_at = wall()
        # Above every epoch before it, even if the clock was set back in between.
        epoch = max(int(self.started_at), store.last_epoch() + 1)
        self.publisher = Publisher(config, self._pack, epoch, wall=wall, uptime=uptime)

    def reasons(self) -> dict[str, str]:
        """What is wrong now, by kind; {} = everything is as it should be."""
        found = {**self._feed.reasons(), **self._facts.reasons}
        if self._plan is not None:
            degraded = self._plan.degraded
            found.update({kind: degraded[kind] for kind in OF_A_PLAN if kind in degraded})
        if self._facts.prompts is not None and self._prompted.problem:
            found["prompt"] = self._prompted.problem
        found.update(self.wishes.problems)
        if self.due.standing.drift:
            found["drift"] = self.due.standing.drift
        if self.audit.dropped:
            found["audit"] = f"{self.audit.dropped} audit entries are lost: the store failed"
        found.update(self._unstored.reasons())
        return found | self._failures

    @property
    def levels(self) -> tuple[str, ...]:
        return self._pack.levels

    @property
    def pause_reason(self) -> str | None:
        """None: not paused."""
        return self.wishes.pause_reason

    def pinned(self) -> Pin | None:
        """What made the policy in force; None: the solver."""
        return self._pin

    def intensity_age_s(self) -> float | None:
        """Of the feed's newest value, overridden or not; None without one."""
        return self._feed.age_s()

    # --- operators ---------------------------------------------------------------------------

    async def pause(self, reason: str, by: Caller = ITSELF) -> pb.Policy:
        change = self.wishes.set_pause(reason or "no reason given")
        return await self._wish("pause", "pause", self.wishes.store_pause, by, change)

    async def resume(self, by: Caller = ITSELF) -> pb.Policy:
        change = self.wishes.set_pause(None)
        self.guard.restart()
        return await self._wish("resume", "pause", self.wishes.store_pause, by, change)

    async def override(
        self, g_per_kwh: float | None, ttl_s: float, by: Caller = ITSELF
    ) -> pb.Policy:
        """Decide on this intensity for a while; None ends it."""
        wish = None if g_per_kwh is None else Override(g_per_kwh, self._wall() + ttl_s)
        change = self.wishes.set_override(wish)
        return await self._wish("override", "override", self.wishes.store_override, by, change)

    async def set_objective(
        self,
        wanted: Mapping[str, Any],
        by: Caller = ITSELF,
        *,
        reset: bool = False,
        reason: str = "",
    ) -> pb.Policy:
        """wanted: as `objective.checked` let it pass. reason: for the audit."""
        before, after = self.wishes.set_objective(wanted, reset=reset)
        change = before, {**after, "reason": reason}
        return await self._wish("objective", "objective", self.wishes.store_objective, by, change)

    async def pin(
        self, shares: tuple[float, ...], ttl_s: float, reason: str, by: Caller = ITSELF
    ) -> pb.Policy:
        """One mix, (levels,), for everything for a while."""
        change = self.wishes.set_pin(Pin(shares, self._wall() + ttl_s, reason, by.who))
        return await self._wish("pin", "pin", self.wishes.store_pin, by, change)

    async def unpin(self, by: Caller = ITSELF) -> pb.Policy:
        change = self.wishes.set_pin(None)
        return await self._wish("unpin", "pin", self.wishes.store_pin, by, change)

    async def set_schedule(self, windows: Sequence[Window], by: Caller = ITSELF) -> pb.Policy:
        change = self.wishes.set_schedule(windows)
        return await self._wish("schedule", "schedule", self.wishes.store_schedule, by, change)

    async def evaluated(self, message: pb.Evaluation, by: Caller = ITSELF) -> pb.Policy | None:
        """Rest q on an evaluation, as `evaluations.check` let it pass; the policy in force then.

        Stored before it is followed: whoever found it out forgets it when told so. None where there
        is no policy yet. ControlError where the store fails; ValueError as in `Evaluations.take`.
        """
        taking = asyncio.create_task(self._take(message, by))
        self._taking.add(taking)  # whoever reports it may be gone before it is taken in
        taking.add_done_callback(self._taking.discard)
        return await asyncio.shield(taking)

    async def _take(self, message: pb.Evaluation, by: Caller) -> pb.Policy | None:
        async with self._looking:
            before = self.evaluations.latest
            if await asyncio.to_thread(self.evaluations.take, message, self._wall()):
                now = self.evaluations.latest
                await self._look_again()
                change = evaluations.as_json(before), evaluations.as_json(now)
                return await self._wish("evaluation", "evaluation", _stored, by, change)
        return self.publisher.policy()

    async def _wish(
        self, why: str, key: str, write: Callable[[], None], by: Caller, change: Change
    ) -> pb.Policy:
        self.audit.note(self._wall(), by, why, *change)
        deciding = asyncio.create_task(self._decide(why))
        self._deciding.add(deciding)
        deciding.add_done_callback(self._deciding.discard)
        try:
            policy = await asyncio.shield(deciding)
        except asyncio.CancelledError:  # whoever asked for it is gone; the wish stands
            self._unstored.later(key, write)
            raise
        await self._unstored.keep(key, write)
        await self._unstored.keep_policies()
        await self._unstored.keep("audit", self.audit.flush)
        return self.publisher.policy() or policy

    async def _end_what_is_over(self) -> str | None:
        """What ran out of time: "override", "unpin" or, of the schedule, "schedule"; else None."""
        now, why = self._wall(), None
        if self.wishes.override_is_over(now):
            self.audit.note(now, ITSELF, "override", *self.wishes.set_override(None))
            why = "override"
            await self._unstored.keep("override", self.wishes.store_override)
        if self.wishes.pin_is_over(now):
            self.audit.note(now, ITSELF, "unpin", *self.wishes.set_pin(None))
            why = "unpin"
            await self._unstored.keep("pin", self.wishes.store_pin)
        if why is None and self._plan is not None and self.wishes.pin_at(now) != self._pin:
            why = "schedule"
        if self.audit.pending:
            await self._unstored.keep("audit", self.audit.flush)
        return why

    # --- the loop ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. A failure is a reason, never the end."""
        await self._guarded("poll", asyncio.to_thread(self._feed.restore))
        if self.pause_reason is not None:
            await self._decide("start")
        remote = self._feed.remote
        # It may take its time-out; what was stored will do until it has answered.
        if remote and self._feed.last() is None:
            await self._guarded("poll", self._feed.poll())
        control = self._config.control
        pause_s = min(control.interval_s, control.ttl_s / (2 * RENEWALS_PER_TTL))
        async with asyncio.TaskGroup() as tasks:
            if remote:
                tasks.create_task(self._poll_forever())
            tasks.create_task(self._prune_forever())
            tasks.create_task(self._capacity_forever())
            tasks.create_task(self._due_forever())
            tasks.create_task(self._live_on_forever(pause_s))
            tasks.create_task(self._judge_forever(pause_s))
            while True:
                await self._guarded("loop", self.step())
                await asyncio.sleep(pause_s)

    async def step(self) -> None:
        """Look once; publish or renew if it is time to."""
        await self._unstored.again()
        if not self._feed.remote:  # else `_poll_forever` does
            await self._guarded("poll", self._feed.poll())
        async with self._looking:
            await self._look_again()
        await self._guarded("guard", self._judge())
        control = self._config.control
        async with self._solving:
            _, _, made = await self._solve()
        why = trigger(
            self._plan,
            self._with_reasons(made),
            intensity_g_per_kwh=control.republish_intensity_g_per_kwh,
            profile_ratio=control.republish_profile_ratio,
        )
        why = await self._end_what_is_over() or why
        if why is None and self.publisher.since_published_s() >= control.republish_s:
            why = "time"
        if why is not None:
            await self._decide(why)
            await self._unstored.keep_policies()
        else:
            self._renew_in_time()
        if self.blocks.pending:
            await self._unstored.keep("blocks", self.blocks.flush)

    def _renew_in_time(self) -> None:
        if self.publisher.since_issued_s() >= self._config.control.ttl_s / RENEWALS_PER_TTL:
            self.publisher.renew()

    def live_on(self) -> None:
        """Renew the policy in time while a solver is at work, which `step` waits for.

        For one time to live: a solver that takes longer hangs, and readers fall back to L0.
        """
        since = self._solving_since
        if since is not None and self._uptime() - since <= self._config.control.ttl_s:
            self._renew_in_time()

    async def _live_on_forever(self, pause_s: float) -> None:
        while True:
            await asyncio.sleep(pause_s)
            self.live_on()

    async def _judge_forever(self, pause_s: float) -> None:
        """While a solver is at work: else `step` does."""
        while True:
            await asyncio.sleep(pause_s)
            if self._solving_since is not None:
                await self._guarded("guard", self._judge())

    async def _judge(self) -> None:
        """A policy that makes answers worse is paused, until an operator resumes."""
        if self.pause_reason is not None:
            return
        async with self._judging:
            reason = await asyncio.to_thread(self.guard.look)
        if reason is None or self.pause_reason is not None:  # an operator was faster
            return
        LOG.error("rolled back: %s", reason)
        change = self.wishes.set_pause(reason)
        await self._wish("guard", "pause", self.wishes.store_pause, ITSELF, change)

    async def _poll_forever(self) -> None:
        poll_s = self._config.carbon.poll_s
        while True:
            failing = self._feed.last() is None or "feed" in self._feed.reasons()
            await asyncio.sleep(min(RETRY_S, poll_s) if failing else poll_s)
            await self._guarded("poll", self._feed.poll())

    async def _prune_forever(self) -> None:
        while True:
            await self._unstored.keep("prune", self._prune)
            await asyncio.sleep(PRUNE_S)

    async def _capacity_forever(self) -> None:
        while True:
            await self._guarded("capacity", asyncio.to_thread(self.capacity.look))
            await asyncio.sleep(EVERY_S)

    async def _due_forever(self) -> None:
        while True:
            await self._guarded("evaluations", self._look_due())
            known = self._feed.last() is not None  # else a source that is slow to answer
            await asyncio.sleep(self.due.every_s if known else self._config.control.interval_s)

    async def _look_due(self) -> None:
        kept = self.due.prompts()  # here, on the loop's thread, which alone may touch them
        await asyncio.to_thread(self.due.look, kept)

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

    async def _look_again(self) -> None:
        """Under `_looking`."""
        found, mode = self.evaluations.quality, self.wishes.objective.mode
        self._facts = await asyncio.to_thread(self._look.again, self._facts, found, mode)

    def _held(self, block: Block | None) -> str:
        """Why the decision is not applied: "shadow" or "block"; "" = it is."""
        if self._config.control.shadow:
            return "shadow"
        return "block" if block is not None and block.arm == L0 else ""

    def _intensity(self) -> tuple[Intensity | None, bool]:
        """What to decide on, and whether an operator set it."""
        override = self.wishes.override_at(self._wall())
        if override is None:
            return self._facts.intensity, False
        zone, _, factor_type, signal = self._feed.series
        now = datetime.fromtimestamp(self._wall(), UTC)
        made = Intensity(override.g_per_kwh, zone, "override", factor_type, signal, now, True)
        return made, True

    def _inputs(self) -> tuple[Inputs, Pin | None]:
        """Everything to decide on, and what stands in for a decision."""
        value, _ = self._intensity()
        made = inputs_of(
            self._config,
            None if value is None else value.g_per_kwh,
            self._facts.within,
            self._facts.profile,
            paused=self.pause_reason is not None,
        )
        before = self._before()
        made = self.wishes.objective.applied(made, self._pack.levels, before.get(("", "")))
        found = self._facts.quality
        if found is not None:
            of_all = found.classes[""]
            made = replace(
                made, evaluation=found.id, covariance=of_all.covariance, judged=of_all.judged
            )
        pin = self.wishes.pin_at(self._wall())
        pinned = None if pin is None else pin.shares
        block = self.blocks.now()
        made = replace(
            made,
            pinned=pinned,
            block=block.name if block else "",
            held=self._held(None if pinned is not None else block),  # a pin stands above blocks
            horizon=self._facts.horizon,
            no_horizon=self._facts.no_horizon,
            prompts=self._facts.prompts,
            groups=tuple(
                replace(group, previous=before.get(group.key) if made.previous else None)
                for group in self._facts.groups
            ),
        )
        return made, pin

    def _before(self) -> history.Mixes:
        """What was decided last, not what a block of L0 served in its place."""
        last = self._plan
        if last is None:
            return self._restored
        mixes = {group.key: group.shares for group in last.decided}
        return {("", ""): last.would_be or last.shares, **mixes}

    def _with_reasons(self, made: Plan) -> Plan:
        _, overridden = self._intensity()
        reasons = self.reasons()
        for kind in OF_A_PLAN:  # those of the plan before
            reasons.pop(kind, None)
        if overridden:
            for kind in ("intensity", "stale", "fallback"):
                reasons.pop(kind, None)
        return replace(made, degraded={**made.degraded, **reasons})

    async def _decide(self, why: str) -> pb.Policy:
        """Solve what is wanted now and put it in force.

        What takes no solver (a pause, a pin) is in force at once, though a solve may run; that one
        then is of inputs that are not the present ones, and is not published over it. The newest
        wish wins: one that another's policy already follows needs none of its own.
        """
        inputs, pin = self._inputs()
        made = self._known(inputs)
        if made is not None:
            return self._publish(why, inputs, pin, made)
        before = self._publications
        async with self._solving:
            inputs, pin, made = await self._solve(prompts=True)
            policy = self.publisher.policy()
            if policy is not None and self._publications > before and same(self._made_from, inputs):
                return policy
            return self._publish(why, inputs, pin, made)

    def _known(self, inputs: Inputs) -> Plan | None:
        """The plan with its part for prompts, where it takes no solver or was made."""
        made = self._solved.known(inputs)
        return None if made is None else self._prompted.known(inputs, made, self._facts.no_prompt)

    async def _solve(self, *, prompts: bool = False) -> tuple[Inputs, Pin | None, Plan]:
        """The plan for the inputs as they are when it is done. Under `_solving`.

        In a thread: a budget for many classes takes seconds, and operators are heard meanwhile.
        prompts: with its part for prompts, which is set for what is published and no more.
        """
        while True:
            inputs, pin = self._inputs()
            made = self._solved.known(inputs)
            if made is None:
                await self._at_work(self._solved.solve, inputs)
                continue
            whole = self._known(inputs) if prompts else made
            if whole is not None:
                return inputs, pin, whole
            predicted = self._facts.predicted
            assert predicted is not None  # the inputs name it
            found = self._facts.quality
            today = None if found is None else found.judgments
            await self._at_work(self._prompted.solve, inputs, made, predicted, today)

    async def _at_work(self, solve: Callable[..., None], *args: object) -> None:
        """In a thread. Under `_solving`."""
        self._solving_since = self._uptime()
        try:
            await asyncio.to_thread(solve, *args)
        finally:
            self._solving_since = None

    def _publish(self, why: str, inputs: Inputs, pin: Pin | None, made: Plan) -> pb.Policy:
        """inputs: the present ones. Without a pause of the event loop since they were read."""
        made = self._with_reasons(made)
        if "solver" in made.degraded:
            LOG.error("%s", made.degraded["solver"])
        value, overridden = self._intensity()
        self._plan, self._made_from, self._pin = made, inputs, pin
        if made.prompt is not None and self._facts.predicted is not None:
            self.weights.put(self._facts.predicted)
        self._publications += 1
        policy = self.publisher.publish(
            made,
            value,
            overridden=overridden,
            pause_reason=self.pause_reason,
            trigger=why,
            pin=self._pin,
        )
        spoilt = {
            "it was paused": self.pause_reason is not None,
            "the mix was pinned": self._pin is not None,
            "an operator overrode the intensity": overridden,
        }
        self.blocks.published(inputs.block, next((why for why, so in spoilt.items() if so), ""))
        self._unstored.published(policy, self._wall(), history.dump(inputs))
        return policy
