# SPDX-License-Identifier: Apache-2.0
"""The control loop and its store: what outlives a restart, and wishes while the store fails."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from control_grid import Grid, current, make, outcomes, started
from some_evaluation import evaluation
from waiting import PATIENCE_S

from sprout.control.store import Store
from sprout.errors import ControlError


@pytest.fixture
def grid() -> Grid:
    return Grid()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "c.sqlite")
    yield store
    store.close()


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


async def give_up(wish: Coroutine[Any, Any, Any], entered: threading.Event) -> None:
    """As a caller whose time runs out while the wish is followed."""
    task = asyncio.create_task(wish)
    assert await asyncio.to_thread(entered.wait, PATIENCE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
