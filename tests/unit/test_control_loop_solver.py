# SPDX-License-Identifier: Apache-2.0
"""The control loop and a solver that takes its time."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from control_grid import TTL_S, Grid, current, outcomes, started
from waiting import PATIENCE_S, wait_beside

from sprout.config import Config
from sprout.control import solved
from sprout.control.inputs import Group, Inputs, inputs_of
from sprout.control.loop import Loop
from sprout.control.plan import Plan
from sprout.control.store import Store
from sprout.optimize.floor import Range
from sprout.profile import LevelProfile
from sprout.v1 import control_pb2 as pb


@pytest.fixture
def grid() -> Grid:
    return Grid()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "c.sqlite")
    yield store
    store.close()


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
                    assert self.go.wait(PATIENCE_S)
            return real(inputs)

        monkeypatch.setattr(solved, "plan", plan)


async def override_in_hand(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> tuple[Slow, asyncio.Task[pb.Policy]]:
    """A solver that is at a wish, and the wish."""
    slow = Slow(monkeypatch)
    wish = asyncio.create_task(loop.override(150.0, 3600))
    assert await asyncio.to_thread(slow.began.wait, PATIENCE_S)
    return slow, wish


def test_a_pause_is_in_force_at_once_and_stays_though_a_solve_runs(
    grid: Grid, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        loop, _ = await started(grid, store)
        slow, wish = await override_in_hand(loop, monkeypatch)
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
        slow, first = await override_in_hand(loop, monkeypatch)
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
        slow, wish = await override_in_hand(loop, monkeypatch)
        wish.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wish
        slow.go.set()
        await wait_beside(lambda: current(loop).intensity.g_per_kwh == 150.0)
        await loop.step()
        assert store.setting("override")[0] == 150.0
        assert [entry.action for _, entry in store.audit(5)] == ["override"]

    asyncio.run(scenario())


def test_a_solver_that_hangs_holds_the_policy_up_for_one_time_to_live(
    grid: Grid, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        loop, _ = await started(grid, store)
        slow, wish = await override_in_hand(loop, monkeypatch)
        for _ in range(3):
            grid.now_s += TTL_S / 3
            loop.live_on()
            assert loop.publisher.since_issued_s() == 0
        assert current(loop).counter == 1
        grid.now_s += TTL_S / 3
        loop.live_on()
        assert loop.publisher.since_issued_s() == pytest.approx(TTL_S / 3)
        grid.now_s += TTL_S
        loop.live_on()
        assert loop.publisher.policy() is None, "readers fall back to L0"
        slow.go.set()
        assert (await wish).intensity.g_per_kwh == 150.0
        grid.now_s += TTL_S / 2
        loop.live_on()  # no solver is at work: this is the loop's to do
        assert loop.publisher.since_issued_s() == pytest.approx(TTL_S / 2)

    asyncio.run(scenario())


def test_the_policy_is_judged_while_a_solver_is_at_work(
    grid: Grid, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        loop, _ = await started(grid, store, interval_s=0.001)
        slow = Slow(monkeypatch)
        loop.wishes.set_objective({"xi": 0.05}, reset=False)
        running = asyncio.create_task(loop.run())
        assert await asyncio.to_thread(slow.began.wait, PATIENCE_S)  # a step waits for it
        monkeypatch.setattr(loop.guard, "look", lambda: "answers are worse")
        await wait_beside(lambda: current(loop).paused)
        assert loop.pause_reason == "answers are worse"
        slow.go.set()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert current(loop).paused

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
