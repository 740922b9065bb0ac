# SPDX-License-Identifier: Apache-2.0
"""The control loop on clocks of its own: what it publishes, when, and what it keeps."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from round_priors import ROUND_PRIORS
from some_evaluation import evaluation
from waiting import PATIENCE_S, wait_beside

from sprout.carbon import Chain, Feed, Intensity
from sprout.carbon.intensity import Series
from sprout.config import Config, ControlConfig
from sprout.control import inbox, solved
from sprout.control.inputs import Group, Inputs, inputs_of
from sprout.control.loop import Loop
from sprout.control.plan import Plan
from sprout.control.store import Store
from sprout.errors import ControlError, FeedError
from sprout.optimize.floor import Range
from sprout.policy_version import version
from sprout.profile import LevelProfile
from sprout.v1 import control_pb2 as pb

SERIES: Series = ("NL", "test", "direct", "average")
TTL_S = 90.0


class Grid:
    """A source and both clocks."""

    name = "grid"
    remote = True
    live = True
    step_s = 0.0
    forecast_basis = ""
    series: Series = SERIES

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0
        self.g: float | None = 200.0

    def wall(self) -> float:
        return self.now_s

    def clock(self) -> datetime:
        return datetime.fromtimestamp(self.now_s, UTC)

    async def now(self) -> Intensity:
        if self.g is None:
            raise FeedError("down")
        hour = self.clock().replace(minute=0, second=0, microsecond=0)
        return Intensity(self.g, *SERIES, hour)

    async def history(self, hours: float) -> list[Intensity]:
        top = self.clock().replace(minute=0, second=0, microsecond=0)
        values = [100.0 + (h % 21) * 10 for h in range(int(hours), 0, -1)]  # 100 ... 300
        return [
            Intensity(g, *SERIES, top - timedelta(hours=h))
            for h, g in zip(range(int(hours), 0, -1), values, strict=True)
        ]

    async def forecast(self, hours: float) -> list[Intensity]:
        return []


@pytest.fixture
def grid() -> Grid:
    return Grid()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "c.sqlite")
    yield store
    store.close()


def make(grid: Grid, store: Store, **control: Any) -> tuple[Loop, Feed]:
    config = Config(
        control=ControlConfig(**{"ttl_s": TTL_S, "min_outcomes": 3, **ROUND_PRIORS, **control})
    )
    feed = Feed(
        Chain([grid], poll_s=0, max_age_s=7200, monotonic=grid.wall),
        store,
        range_mode="trailing",
        range_hours=168,
        range_min_hours=24,
    )
    return Loop(config, store, feed, wall=grid.wall, uptime=grid.wall), feed


def current(loop: Loop) -> pb.Policy:
    policy = loop.publisher.policy()
    assert policy is not None
    return policy


def shares(policy: pb.Policy) -> list[float]:
    return [s.share for s in policy.shares]


def outcomes(loop: Loop, level: int, joules: float, first: int, count: int) -> list[Any]:
    held = version(current(loop))
    return [
        inbox.row(
            "n",
            pb.Outcome(
                segment_uid=5,
                ticket=first + i,
                level=level,
                policy_version=held,
                ending=pb.ENDING_DELIVERED,
                energy_joules=joules,
                device_seconds=1.0,
            ),
        )
        for i in range(count)
    ]


async def started(grid: Grid, store: Store, **control: Any) -> tuple[Loop, Feed]:
    loop, feed = make(grid, store, **control)
    await feed.poll()
    await loop.step()
    return loop, feed


def test_first_policy(grid: Grid, store: Store) -> None:
    async def scenario() -> None:
        loop, feed = make(grid, store)
        assert loop.publisher.policy() is None
        await feed.poll()
        await loop.step()
        policy = current(loop)
        assert (policy.epoch, policy.counter) == (1_800_000_000, 1)
        assert shares(policy) == pytest.approx([2 / 3, 1 / 3, 0])
        assert policy.explanation.trigger == "start"
        assert policy.explanation.range_basis == "trailing 168 h"
        assert policy.explanation.k0_min_g_per_kwh == 100
        assert policy.explanation.k0_max_g_per_kwh == 300
        assert policy.intensity.g_per_kwh == 200
        assert policy.intensity.factor_type == pb.FACTOR_TYPE_DIRECT
        assert policy.ttl.seconds == TTL_S
        assert not policy.paused
        assert list(policy.explanation.degraded) == []
        assert loop.reasons() == {}

    asyncio.run(scenario())


def test_never_any_intensity_is_l0_and_said(grid: Grid, store: Store) -> None:
    async def scenario() -> None:
        grid.g = None
        loop, _ = await started(grid, store)
        policy = current(loop)
        assert shares(policy) == [1, 0, 0]
        assert not policy.paused
        assert not policy.HasField("intensity")
        assert list(policy.explanation.degraded) == ["no carbon intensity yet: down"]
        assert policy.explanation.active_constraint == "no intensity"

    asyncio.run(scenario())


def test_moves_are_published_and_small_ones_are_not(grid: Grid, store: Store) -> None:
    async def scenario() -> None:
        loop, feed = await started(grid, store)
        seed = current(loop).seed
        grid.g = 204
        await feed.poll()
        await loop.step()
        assert current(loop).counter == 1
        grid.g = 206
        await feed.poll()
        await loop.step()
        policy = current(loop)
        assert (policy.counter, policy.explanation.trigger) == (2, "intensity")
        assert policy.seed != seed

    asyncio.run(scenario())


def test_at_least_hourly(grid: Grid, store: Store) -> None:
    async def scenario() -> None:
        loop, feed = await started(grid, store)
        for _ in range(59):
            grid.now_s += 60
            await feed.poll()
            await loop.step()
        assert current(loop).counter == 1
        grid.now_s += 60
        await feed.poll()
        await loop.step()
        assert (current(loop).counter, current(loop).explanation.trigger) == (2, "time")

    asyncio.run(scenario())


def test_renewal_keeps_the_version_and_comes_before_half_the_ttl(grid: Grid, store: Store) -> None:
    async def scenario() -> None:
        loop, _ = await started(grid, store)
        first = current(loop)
        grid.now_s += 29
        await loop.step()
        assert current(loop).issued_at == first.issued_at
        assert current(loop).ttl.seconds == TTL_S - 29
        grid.now_s += 1
        await loop.step()
        again = current(loop)
        assert version(again) == version(first)
        assert again.seed == first.seed
        assert again.issued_at.seconds == first.issued_at.seconds + 30
        assert again.ttl.seconds == TTL_S

    asyncio.run(scenario())


def test_a_loop_that_hangs_lets_its_policy_expire(grid: Grid, store: Store) -> None:
    async def scenario() -> None:
        loop, _ = await started(grid, store)
        grid.now_s += TTL_S - 1
        assert current(loop).ttl.seconds == 1
        grid.now_s += 1
        assert loop.publisher.policy() is None

    asyncio.run(scenario())


def test_measured_profile_takes_over(grid: Grid, store: Store) -> None:
    async def scenario() -> None:
        loop, _ = await started(grid, store)
        store.add_outcomes(outcomes(loop, 0, 6.0, 1, 2))
        await loop.step()
        assert current(loop).counter == 1  # two of three
        store.add_outcomes(outcomes(loop, 0, 6.0, 10, 1))
        await loop.step()
        policy = current(loop)
        assert policy.explanation.trigger == "profile"
        rows = policy.explanation.profile
        assert rows[0].energy_basis == "measured"
        assert rows[1].energy_basis.startswith("prior, scaled")
        assert [r.energy_joules for r in rows] == pytest.approx([6, 2, 1.2])
        assert rows[0].outcomes == 3
        assert {r.preference_basis for r in rows} == {"prior, not this model"}

    asyncio.run(scenario())


def test_stale_intensity_is_still_used_and_said(grid: Grid, store: Store) -> None:
    async def scenario() -> None:
        loop, feed = await started(grid, store)
        before = shares(current(loop))
        grid.g = None
        grid.now_s += 7200 + 60
        await feed.poll()
        await loop.step()
        policy = current(loop)
        assert shares(policy) == pytest.approx(before)
        assert sorted(policy.explanation.degraded) == [
            "the carbon intensity is older than 7200 s",
            "the carbon source fails: down",
        ]
        assert set(loop.reasons()) == {"feed", "stale"}
        grid.g = 200
        await feed.poll()
        await loop.step()
        assert list(current(loop).explanation.degraded) == []

    asyncio.run(scenario())


def test_pause_and_resume(grid: Grid, store: Store) -> None:
    async def scenario() -> None:
        loop, _ = await started(grid, store)
        paused = await loop.pause("drill")
        assert (paused.paused, shares(paused), paused.counter) == (True, [1, 0, 0], 2)
        assert paused.explanation.pause_reason == "drill"
        assert paused.explanation.active_constraint == "paused"
        await loop.step()
        assert current(loop).counter == 2
        resumed = await loop.resume()
        assert (resumed.paused, resumed.counter) == (False, 3)
        assert shares(resumed) == pytest.approx([2 / 3, 1 / 3, 0])

    asyncio.run(scenario())


def test_pause_before_the_first_look(grid: Grid, store: Store) -> None:
    async def scenario() -> None:
        loop, _ = make(grid, store)
        assert (await loop.pause("")).paused

    asyncio.run(scenario())


def test_pause_holds_over_a_restart_and_epochs_rise(grid: Grid, store: Store) -> None:
    async def scenario() -> None:
        loop, _ = await started(grid, store)
        await loop.pause("drill")
        grid.now_s -= 5000  # even if the clock was set back
        again, _ = await started(grid, store)
        policy = current(again)
        assert policy.paused
        assert policy.explanation.pause_reason == "drill"
        assert policy.epoch == 1_800_000_001
        await again.resume()
        third, _ = await started(grid, store)
        assert not current(third).paused
        assert current(third).epoch == 1_800_000_002

    asyncio.run(scenario())


def test_pause_reaches_watchers_though_the_store_fails(
    grid: Grid, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ControlError("disk full")

    async def scenario() -> None:
        loop, _ = await started(grid, store)
        with monkeypatch.context() as patch:
            patch.setattr(store, "keep_setting", fail)
            assert (await loop.pause("fire")).paused
            assert loop.reasons() == {"pause": "pause can't be stored: disk full"}
            assert store.setting("pause") is None
        await loop.step()  # tried again
        assert loop.reasons() == {}
        assert store.setting("pause") == "fire"

    asyncio.run(scenario())


def test_policies_are_stored_when_the_store_is_back(
    grid: Grid, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them: outcomes of each are spooled by agents meanwhile, and count once they come."""

    def fail(*_: object, **__: object) -> None:
        raise ControlError("disk full")

    async def scenario() -> None:
        loop, _ = await started(grid, store)
        rows = []
        with monkeypatch.context() as patch:
            patch.setattr(store, "add_policy", fail)
            for g in (100.0, 300.0):
                await loop.override(g, 600)
                rows += outcomes(loop, 0, 7.0, int(g), 3)
            assert loop.reasons() == {"policy": "policy can't be stored: disk full"}
        await loop.step()
        assert loop.reasons() == {}
        store.add_outcomes(rows)
        assert store.measured(1, loop._pack.hash, 100)[0].outcomes == 6

    asyncio.run(scenario())


def test_a_pause_is_stored_though_its_caller_gave_up(
    grid: Grid, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        entered.set()
        release.wait(PATIENCE_S)
        raise ControlError("locked")

    async def scenario() -> None:
        loop, _ = await started(grid, store)
        with monkeypatch.context() as patch:
            patch.setattr(store, "keep_setting", slow)
            await give_up(loop.pause("fire"), entered)
            release.set()
        paused = current(loop)
        assert paused.paused
        await loop.step()
        assert store.setting("pause") == "fire"
        store.add_outcomes(outcomes(loop, 0, 7.0, 1, 1))  # of a policy that is stored too
        assert store.measured(1, loop._pack.hash, 1)[0].outcomes == 1
        assert loop.reasons() == {}

    asyncio.run(scenario())


def test_an_evaluation_is_taken_in_though_its_caller_gave_up(
    grid: Grid, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = threading.Event(), threading.Event()

    async def scenario() -> None:
        loop, _ = await started(grid, store)
        take = loop.evaluations.take

        def slow(*given: Any) -> bool:
            entered.set()
            release.wait(PATIENCE_S)
            return take(*given)

        monkeypatch.setattr(loop.evaluations, "take", slow)
        message = evaluation("e1")
        await give_up(loop.evaluated(message), entered)
        release.set()
        await loop.evaluated(message)  # sent again: nothing new
        assert current(loop).explanation.evaluation == "e1"
        assert [entry.action for _, entry in store.audit(10)].count("evaluation") == 1

    asyncio.run(scenario())


def test_one_tasks_success_does_not_hide_anothers_failure(grid: Grid, store: Store) -> None:
    async def fail() -> None:
        raise RuntimeError("surprise")

    async def scenario() -> None:
        loop, feed = make(grid, store)
        await loop._guarded("loop", fail())
        await loop._guarded("poll", feed.poll())
        assert list(loop.reasons()) == ["loop"]

    asyncio.run(scenario())


def test_a_late_retry_does_not_undo_a_newer_wish(
    grid: Grid, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ControlError("disk full")

    async def scenario() -> None:
        loop, _ = await started(grid, store)
        with monkeypatch.context() as patch:
            patch.setattr(store, "keep_setting", fail)
            await loop.pause("fire")
            await loop.resume()
        await loop.step()
        assert store.setting("pause") is None

    asyncio.run(scenario())


def test_override_decides_ends_and_leaves_no_trace_in_the_history(grid: Grid, store: Store) -> None:
    async def scenario() -> None:
        loop, _ = await started(grid, store)
        clean = await loop.override(100, 60)
        assert shares(clean) == pytest.approx([1, 0, 0])
        assert (clean.intensity.g_per_kwh, clean.intensity.override) == (100, True)
        assert clean.explanation.trigger == "override"
        dirty = await loop.override(300, 60)
        assert dirty.explanation.expected_preference == pytest.approx(0.9)
        until = grid.clock() + timedelta(hours=1)
        stored = store.intensities(SERIES, until - timedelta(hours=2), until)
        assert [v.g_per_kwh for v in stored][-1] == 200
        grid.now_s += 61
        await loop.step()
        after = current(loop)
        assert (after.intensity.g_per_kwh, after.intensity.override) == (200, False)
        assert after.explanation.trigger == "override"
        assert store.setting("override") is None

    asyncio.run(scenario())


def test_override_by_hand_back_and_over_a_restart(grid: Grid, store: Store) -> None:
    async def scenario() -> None:
        loop, _ = await started(grid, store)
        await loop.override(300, 600)
        grid.now_s += 10
        again, _ = await started(grid, store)
        assert current(again).intensity.override
        back = await again.override(None, 0)
        assert not back.intensity.override
        assert store.setting("override") is None

    asyncio.run(scenario())


def test_override_stands_in_for_a_feed_without_a_value(grid: Grid, store: Store) -> None:
    async def scenario() -> None:
        grid.g = None
        loop, _ = await started(grid, store)
        policy = await loop.override(300, 60)
        assert shares(policy)[0] < 1
        assert list(policy.explanation.degraded) == []
        assert set(loop.reasons()) == {"intensity"}  # the status still tells of the feed

    asyncio.run(scenario())


def test_canary_and_control_shares_are_passed_on(grid: Grid, store: Store) -> None:
    async def scenario() -> None:
        loop, _ = await started(grid, store, canary_share=0.25, control_share=0.1)
        assert current(loop).canary_share == 0.25
        assert current(loop).control_share == 0.1

    asyncio.run(scenario())


async def collect(watch: AsyncIterator[pb.Policy], into: list[pb.Policy]) -> None:
    async for policy in watch:
        into.append(policy)


async def give_up(wish: Coroutine[Any, Any, Any], entered: threading.Event) -> None:
    """As a caller whose time runs out while the wish is followed."""
    task = asyncio.create_task(wish)
    assert await asyncio.to_thread(entered.wait, PATIENCE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_watchers_get_the_policy_at_once_and_later_ones(grid: Grid, store: Store) -> None:
    async def scenario() -> None:
        loop, _ = make(grid, store)
        early: list[pb.Policy] = []
        tasks = [asyncio.create_task(collect(loop.publisher.watch(), early))]
        await asyncio.sleep(0)
        await loop._feed.poll()
        await loop.step()
        late: list[pb.Policy] = []
        tasks.append(asyncio.create_task(collect(loop.publisher.watch(), late)))
        await wait_beside(lambda: len(early) == len(late) == 1)
        await loop.pause("x")
        await wait_beside(lambda: len(early) == len(late) == 2)
        loop.publisher.renew()
        await wait_beside(lambda: len(early) == len(late) == 3)
        assert [p.counter for p in early] == [p.counter for p in late] == [1, 2, 2]
        loop.publisher.close()
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)

    asyncio.run(scenario())


def test_run_survives_whatever_a_look_raises(
    grid: Grid, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("surprise")

    async def scenario() -> None:
        loop, feed = make(grid, store, interval_s=0.01)
        with monkeypatch.context() as patch:
            patch.setattr(feed, "range", fail)
            task = asyncio.create_task(loop.run())
            await wait_beside(lambda: "loop" in loop.reasons())
            assert loop.reasons()["loop"] == "the control loop fails (loop): RuntimeError"
            assert loop.publisher.policy() is None
        await wait_beside(lambda: loop.publisher.policy() is not None)
        await wait_beside(lambda: loop.reasons() == {})
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_a_budget_is_kept_over_the_hours_ahead(grid: Grid, store: Store) -> None:
    """Its forecast is made from the grid's own past, which the source gives."""

    async def scenario() -> None:
        loop, feed = make(grid, store, mode="bank")
        await feed.poll()
        await loop.step()
        budget = current(loop).explanation.budget
        assert (budget.hours, budget.target, budget.carry_request_points) == (672, 0.95, 0)
        assert budget.expected_preference >= 0.95 - 1e-9
        assert "24 h of our own, hour of day, 7.0 days, then as in the last 7 d" in budget.basis
        assert not loop.reasons()
        await loop.set_objective({"mode": "paper"})
        assert not current(loop).explanation.HasField("budget")

    asyncio.run(scenario())


def test_a_budget_without_a_history_says_what_its_forecast_is(grid: Grid, store: Store) -> None:
    async def nothing(hours: float) -> list[Intensity]:
        return []

    async def scenario() -> None:
        grid.history = nothing  # type: ignore[method-assign]
        loop, feed = make(grid, store, mode="bank", range_min_hours=0)
        await feed.poll()
        await loop.step()
        assert "persistence, 1 h" in current(loop).explanation.budget.basis

    asyncio.run(scenario())


# --- a solver that takes its time ----------------------------------------------------------------


class Slow:
    """Stands in for the solver: holds the first solve until told, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        self.threads: list[int] = []
        real = solved.plan

        def plan(inputs: Inputs) -> Plan:
            if not (inputs.paused or inputs.pinned):
                self.threads.append(threading.get_ident())
                if not self.began.is_set():
                    self.began.set()
                    assert self.go.wait(30)
            return real(inputs)

        monkeypatch.setattr(solved, "plan", plan)


def test_a_pause_is_in_force_at_once_and_stays_though_a_solve_runs(
    grid: Grid, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        loop, _ = await started(grid, store)
        slow = Slow(monkeypatch)
        wish = asyncio.create_task(loop.override(150.0, 3600))
        await asyncio.to_thread(slow.began.wait, PATIENCE_S)
        paused = await loop.pause("fire")  # though the solver has the override in hand
        assert paused.paused
        slow.go.set()
        assert (await wish).counter == paused.counter, "nothing is published over a pause"
        assert current(loop).paused
        resumed = await loop.resume()
        assert resumed.intensity.g_per_kwh == 150.0
        assert threading.get_ident() not in slow.threads

    asyncio.run(scenario())


def test_of_two_wishes_the_newest_is_served_to_both(
    grid: Grid, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        loop, _ = await started(grid, store)
        slow = Slow(monkeypatch)
        first = asyncio.create_task(loop.override(150.0, 3600))
        await asyncio.to_thread(slow.began.wait, PATIENCE_S)
        second = asyncio.create_task(loop.override(250.0, 3600))
        await asyncio.sleep(0)  # it is wished now
        slow.go.set()
        for policy in await asyncio.gather(first, second):
            assert policy.intensity.g_per_kwh == 250.0
        assert current(loop).intensity.g_per_kwh == 250.0
        assert len(slow.threads) == 2, "each was solved once"

    asyncio.run(scenario())


def test_a_wish_is_followed_though_its_caller_is_gone_while_it_is_solved(
    grid: Grid, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        loop, _ = await started(grid, store)
        slow = Slow(monkeypatch)
        wish = asyncio.create_task(loop.override(150.0, 3600))
        await asyncio.to_thread(slow.began.wait, PATIENCE_S)
        wish.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wish
        slow.go.set()
        await wait_beside(lambda: current(loop).intensity.g_per_kwh == 150.0)
        await loop.step()
        assert store.setting("override")[0] == 150.0
        assert [entry.action for _, entry in store.audit(5)] == ["override"]

    asyncio.run(scenario())


def test_what_did_not_change_is_not_solved_again(
    grid: Grid, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        loop, _ = await started(grid, store, min_outcomes=1)
        store.add_outcomes(outcomes(loop, 0, 7.0, 1, 1))
        await loop.step()
        slow = Slow(monkeypatch)
        slow.go.set()
        for _ in range(5):
            grid.now_s += 1.0
            await loop.step()  # what was measured grows older, and that is all
        assert slow.threads == []
        await loop.override(150.0, 3600)
        assert len(slow.threads) == 1
        grid.now_s += 3600
        await loop.step()
        age = current(loop).explanation.profile[0].age_s
        assert age > 3600, "what is shown is of now"

    asyncio.run(scenario())


def test_inputs_without_a_range_are_the_same_inputs() -> None:
    def made(nan: float, age_s: float) -> Inputs:
        row = LevelProfile("L0", 1.0, 1.0, 0.4, "", "", 1, 1.0, False, age_s=age_s)
        return inputs_of(Config(), 200.0, Range(nan, nan, "none"), (row,))

    one = made(float("nan"), 1.0)
    assert solved.same(one, made(float("nan"), 2.0))
    assert not solved.same(one, made(100.0, 1.0))
    group = Group(task="code", traffic=0.5, profile=one.profile)
    other = replace(one, groups=(group,))
    older = replace(group, profile=made(0.0, 9.0).profile)
    assert solved.same(other, replace(other, groups=(older,)))
    assert not solved.same(other, replace(other, groups=(replace(group, traffic=0.6),)))
    assert not solved.same(other, one)
