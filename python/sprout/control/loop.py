# SPDX-License-Identifier: Apache-2.0
"""The control loop: looks at the inputs, decides, publishes, renews.

The kill switch never queues behind a slow database: operators' wishes are published first and
stored second. What can't be stored is a stated reason, and is tried again at each look.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sprout.carbon import Feed, Intensity
from sprout.config import Config
from sprout.control import history, publisher
from sprout.control.audit import Audit
from sprout.control.blocks import Blocks
from sprout.control.budget import Budget, Worth
from sprout.control.capacity import EVERY_S, Capacity
from sprout.control.classes import Classes
from sprout.control.due import Due
from sprout.control.evaluations import Evaluations
from sprout.control.guard import Guard
from sprout.control.inputs import (
    NO_RANGE,
    Group,
    Horizon,
    Inputs,
    Prompts,
    inputs_of,
    priors,
)
from sprout.control.live import Live
from sprout.control.peer import ITSELF, Caller
from sprout.control.pin import Pin, Window
from sprout.control.plan import Plan
from sprout.control.predicted import Predicted, PredictorFile
from sprout.control.prompted import Prompted, Shelf
from sprout.control.publisher import Publisher
from sprout.control.quality import Quality
from sprout.control.solved import Solved, same
from sprout.control.store import Store
from sprout.control.trigger import trigger
from sprout.control.wishes import Change, Wishes
from sprout.directives import pack
from sprout.errors import ControlError, SproutError
from sprout.optimize.floor import Range
from sprout.policy_version import version
from sprout.profile import LevelProfile
from sprout.proof.switchback import L0, Block
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
    profile: tuple[LevelProfile, ...]  # with the q of `quality`, where there is one
    reasons: dict[str, str]  # kind -> what is wrong with the above
    horizon: Horizon | None = None  # in the mode "bank"
    no_horizon: str = "not looked at yet"  # why there is none
    quality: Quality | None = None  # None: q is that of the priors
    groups: tuple[Group, ...] = ()
    predicted: Predicted | None = None  # None: no level is chosen by its prompt
    prompts: Prompts | None = None  # the same
    no_prompt: str = ""  # what is wrong with the predictor that is configured


@dataclass(frozen=True)
class Override:
    g_per_kwh: float
    until: float  # seconds since 1970


def _as_json(override: Override | None) -> dict[str, float] | None:
    return None if override is None else asdict(override)


def evaluation_as_json(message: pb.Evaluation | None) -> dict[str, Any] | None:
    """What the audit keeps of one; the rest is stored under its id."""
    if message is None:
        return None
    of_all = next(c for c in message.classes if not c.task)
    q = dict(zip(message.levels, of_all.preference, strict=True))
    return {"id": message.id, "judge": message.judge, "judged": of_all.judged, "preference": q}


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
        self._facts = Facts(None, NO_RANGE, priors(config, self._pack.levels), {})
        self._live = Live(config, self._pack, self._facts.profile)
        self._classes = Classes(config.control, self._pack)
        self._predictor = PredictorFile(config.control, self._pack)
        self._prompted = Prompted()
        self.weights = Shelf()
        self.evaluations = Evaluations(store, self._pack)
        self.due = Due(config, feed, store, self.evaluations, wall)
        self.evaluations.tellers.append(self.due.tell)
        self._looking = asyncio.Lock()
        self._budget = Budget(config.control.bank, store, self._pack.hash)
        self._pause: str | None = store.setting("pause")
        stored = store.setting("override")
        self._override = None if stored is None else Override(*stored)
        self.wishes = Wishes(config.control, self._pack.levels, store)
        self.audit = Audit(store)
        self.blocks = Blocks(config.control.switchback, store, wall)
        self.guard = Guard(config.control.guard, store, wall)
        self.capacity = Capacity(store.path, wall)
        self._pin: Pin | None = None  # what made the policy in force; None: the solver
        self._restored = history.last_shares(store, self._pack.levels)
        self._unstored: dict[str, tuple[Callable[[], Any], str]] = {}
        # Published, not stored yet, by version. Their outcomes come late, and need them to count.
        self._unsaved: dict[int, tuple[int, int, int, float, bytes, str]] = {}
        self._failures: dict[str, str] = {}  # by task
        self._plan: Plan | None = None  # what the policy in force was made from
        self._made_from: Inputs | None = None  # and the plan from
        self._publications = 0
        self._solved = Solved()
        self._solving = asyncio.Lock()
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
            kinds = ("infeasible", "solver", "minima")
            found.update({k: self._plan.degraded[k] for k in kinds if k in self._plan.degraded})
        if self._facts.prompts is not None and self._prompted.problem:
            found["prompt"] = self._prompted.problem
        found.update(self.wishes.problems)
        if self.due.standing.drift:
            found["drift"] = self.due.standing.drift
        if self.audit.dropped:
            found["audit"] = f"{self.audit.dropped} audit entries are lost: the store failed"
        found.update({what: reason for what, (_, reason) in self._unstored.items()})
        return found | self._failures

    @property
    def levels(self) -> tuple[str, ...]:
        return self._pack.levels

    @property
    def pause_reason(self) -> str | None:
        """None: not paused."""
        return self._pause

    def pinned(self) -> Pin | None:
        """What made the policy in force; None: the solver."""
        return self._pin

    def intensity_age_s(self) -> float | None:
        """Of the feed's newest value, overridden or not; None without one."""
        return self._feed.age_s()

    # --- operators ---------------------------------------------------------------------------

    async def pause(self, reason: str, by: Caller = ITSELF) -> pb.Policy:
        before, self._pause = self._pause, reason or "no reason given"
        return await self._wish("pause", "pause", self._store_pause, by, (before, self._pause))

    async def resume(self, by: Caller = ITSELF) -> pb.Policy:
        before, self._pause = self._pause, None
        self.guard.restart()
        return await self._wish("resume", "pause", self._store_pause, by, (before, None))

    async def override(
        self, g_per_kwh: float | None, ttl_s: float, by: Caller = ITSELF
    ) -> pb.Policy:
        """Decide on this intensity for a while; None ends it."""
        wish = None if g_per_kwh is None else Override(g_per_kwh, self._wall() + ttl_s)
        change = _as_json(self._override), _as_json(wish)
        self._override = wish
        return await self._wish("override", "override", self._store_override, by, change)

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
                self._facts = await asyncio.to_thread(self._look)
                change = evaluation_as_json(before), evaluation_as_json(now)
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
            self._unstored[key] = (write, f"{key} may not be stored")
            raise
        await self._keep(key, write)
        await self._keep("policy", self._store_policies)
        await self._keep("audit", self.audit.flush)
        return self.publisher.policy() or policy

    # They write what is wished when they run, so a late retry can't undo a newer wish.

    def _store_pause(self) -> None:
        self._store.keep_setting("pause", lambda: self._pause)

    def _store_override(self) -> None:
        def wished() -> list[float] | None:
            wish = self._override
            return None if wish is None else [wish.g_per_kwh, wish.until]

        self._store.keep_setting("override", wished)

    async def _end_what_is_over(self) -> str | None:
        """What ran out of time: "override", "unpin" or, of the schedule, "schedule"; else None."""
        now, why = self._wall(), None
        if self._override is not None and self._override.until <= now:
            self.audit.note(now, ITSELF, "override", _as_json(self._override), None)
            self._override, why = None, "override"
            await self._keep("override", self._store_override)
        if self.wishes.pin_is_over(now):
            self.audit.note(now, ITSELF, "unpin", *self.wishes.set_pin(None))
            why = "unpin"
            await self._keep("pin", self.wishes.store_pin)
        if why is None and self._plan is not None and self.wishes.pin_at(now) != self._pin:
            why = "schedule"
        if self.audit.pending:
            await self._keep("audit", self.audit.flush)
        return why

    # --- the loop ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. A failure is a reason, never the end."""
        await self._guarded("poll", asyncio.to_thread(self._feed.restore))
        if self._pause is not None:
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
            while True:
                await self._guarded("loop", self.step())
                await asyncio.sleep(pause_s)

    async def step(self) -> None:
        """Look once; publish or renew if it is time to."""
        for what, (write, _) in list(self._unstored.items()):
            await self._keep(what, write)
        if self._unsaved and "policy" not in self._unstored:
            await self._keep("policy", self._store_policies)
        if not self._feed.remote:  # else `_poll_forever` does
            await self._guarded("poll", self._feed.poll())
        async with self._looking:
            self._facts = await asyncio.to_thread(self._look)
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
            await self._keep("policy", self._store_policies)
        elif self.publisher.since_issued_s() >= control.ttl_s / RENEWALS_PER_TTL:
            self.publisher.renew()
        if self.blocks.pending:
            await self._keep("blocks", self.blocks.flush)

    async def _judge(self) -> None:
        """A policy that makes answers worse is paused, until an operator resumes."""
        if self._pause is not None:
            return
        reason = await asyncio.to_thread(self.guard.look)
        if reason is None or self._pause is not None:  # an operator was faster
            return
        LOG.error("rolled back: %s", reason)
        self._pause = reason
        await self._wish("guard", "pause", self._store_pause, ITSELF, (None, reason))

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

    def _look(self) -> Facts:
        """Reads feed and store; in a thread of its own."""
        profile = self._facts.profile
        reasons: dict[str, str] = {}
        try:
            profile, reasons = self._live.look(self._store, self._wall())
        except ControlError as error:
            reasons["profile"] = f"outcomes can't be read: {error}"
        except Exception as error:  # one input that fails must not stop the others, nor the policy
            LOG.exception("profile")
            reasons["profile"] = f"the profile is not kept up: {type(error).__name__}"
        found, groups = self.evaluations.quality, self._facts.groups
        if found is not None:
            profile = found.on(profile)
        try:
            groups = self._classes.look(
                self._store, found, self._live.attributed, profile, self._wall()
            )
        except ControlError as error:
            reasons["classes"] = f"outcomes by class can't be read: {error}"
        except Exception as error:
            LOG.exception("classes")
            reasons["classes"] = f"classes and tenants are not kept up: {type(error).__name__}"
        horizon, why_none = self._facts.horizon, self._facts.no_horizon
        try:
            worth = Worth(profile, groups, self._config.control.class_against)
            horizon, why_none = self._look_ahead(worth)
        except ControlError as error:
            reasons["budget"] = f"the quality budget is not kept up: {error}"
        except Exception as error:
            LOG.exception("budget")
            reasons["budget"] = f"the quality budget is not kept up: {type(error).__name__}"
        predicted, prompts, no_prompt = self._look_at_prompts(groups, reasons)
        seen = self._feed.last(), self._feed.range()
        return Facts(
            *(*seen, profile, reasons, horizon, why_none, found, groups),
            predicted=predicted,
            prompts=prompts,
            no_prompt=no_prompt,
        )

    def _look_at_prompts(
        self, groups: tuple[Group, ...], reasons: dict[str, str]
    ) -> tuple[Predicted | None, Prompts | None, str]:
        predicted, prompts = None, None
        try:
            predicted, prompts, problem = self._predictor.look(self._store, groups)
        except ControlError as error:
            problem = f"the traffic can't be read: {error}"
        except Exception as error:
            LOG.exception("predictor")
            problem = f"the predictor is not kept up: {type(error).__name__}"
        if problem:
            reasons["prompt"] = f"no level is chosen by its prompt: {problem}"
        return predicted, prompts, problem

    def _look_ahead(self, worth: Worth) -> tuple[Horizon | None, str]:
        """(what the mode "bank" looks ahead at, why it can't)"""
        if self.wishes.objective.mode != "bank":
            self._budget.end()
            return None, "not looked at yet"
        return self._budget.look(self._feed, worth, self._wall())

    def _held(self, block: Block | None) -> str:
        """Why the decision is not applied: "shadow" or "block"; "" = it is."""
        if self._config.control.shadow:
            return "shadow"
        return "block" if block is not None and block.arm == L0 else ""

    def _intensity(self) -> tuple[Intensity | None, bool]:
        """What to decide on, and whether an operator set it."""
        if self._override is None or self._override.until <= self._wall():
            return self._facts.intensity, False
        zone, _, factor_type, signal = self._feed.series
        now = datetime.fromtimestamp(self._wall(), UTC)
        value = self._override.g_per_kwh
        return Intensity(value, zone, "override", factor_type, signal, now, True), True

    def _inputs(self) -> tuple[Inputs, Pin | None]:
        """Everything to decide on, and what stands in for a decision."""
        value, _ = self._intensity()
        made = inputs_of(
            self._config,
            None if value is None else value.g_per_kwh,
            self._facts.within,
            self._facts.profile,
            paused=self._pause is not None,
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
        for kind in ("infeasible", "solver", "minima"):  # those of the plan before
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
                await asyncio.to_thread(self._solved.solve, inputs)
                continue
            whole = self._known(inputs) if prompts else made
            if whole is not None:
                return inputs, pin, whole
            predicted = self._facts.predicted
            assert predicted is not None  # the inputs name it
            await asyncio.to_thread(self._prompted.solve, inputs, made, predicted)

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
            pause_reason=self._pause,
            trigger=why,
            pin=self._pin,
        )
        spoilt = {
            "it was paused": self._pause is not None,
            "the mix was pinned": self._pin is not None,
            "an operator overrode the intensity": overridden,
        }
        self.blocks.published(inputs.block, next((why for why, so in spoilt.items() if so), ""))
        number, body = version(policy), policy.SerializeToString()
        self._unsaved[number] = (
            *(policy.epoch, number, policy.pack_hash, self._wall(), body),
            history.dump(inputs),
        )
        while len(self._unsaved) > MAX_UNSAVED:
            del self._unsaved[next(iter(self._unsaved))]
        return policy

    def _store_policies(self) -> None:
        for number, row in list(self._unsaved.items()):
            self._store.add_policy(*row[:-1], inputs=row[-1])
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
