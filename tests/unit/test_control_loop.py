# SPDX-License-Identifier: Apache-2.0
"""The control loop on clocks of its own: what it publishes, when, and what it keeps."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from control_grid import SERIES, TTL_S, Grid, current, make, outcomes, shares, started
from waiting import PATIENCE_S, wait_beside

from sprout.carbon import Intensity
from sprout.control.store import Store
from sprout.policy_version import version
from sprout.v1 import control_pb2 as pb


@pytest.fixture
def grid() -> Grid:
    return Grid()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "c.sqlite")
    yield store
    store.close()


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
