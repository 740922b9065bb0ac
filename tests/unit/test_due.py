# SPDX-License-Identifier: Apache-2.0
"""Whether the control plane wants an evaluation, on grids and clocks that tests make."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from some_evaluation import evaluation

from sprout.carbon.feed import Feed
from sprout.carbon.intensity import Intensity
from sprout.config import Config, EvaluateConfig
from sprout.control.due import NEVER, NO_GRID, Due
from sprout.control.evaluations import Evaluations
from sprout.control.store import Store
from sprout.directives import pack
from sprout.evaluate.statistics import drift
from sprout.v1 import control_pb2 as pb

HOUR_S = 3600
T0 = datetime(2026, 5, 4, tzinfo=UTC).timestamp()


class Grid:
    """A feed that says what it is told; one value an hour from T0 - 168 h on."""

    def __init__(self, store: Store, values: list[float]) -> None:
        self.store, self.at = store, T0
        start = T0 - 168 * HOUR_S
        self.values = {start + i * HOUR_S: v for i, v in enumerate(values)}
        store.add_intensities([self._intensity(t) for t in self.values])

    def _intensity(self, t: float) -> Intensity:
        when = datetime.fromtimestamp(t, UTC)
        return Intensity(self.values[t], "GB", "trace", "direct", "average", when, False)

    def last(self) -> Intensity | None:
        return self._intensity(self.at // HOUR_S * HOUR_S) if self.values else None

    def now(self) -> datetime | None:
        return datetime.fromtimestamp(self.at, UTC) if self.values else None

    def forecast(self, hours: float) -> list[Intensity]:
        return []


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "control.sqlite")
    yield made
    made.close()


def config(rule: str, **schedule: Any) -> Config:
    evaluate = EvaluateConfig(
        prompts_file="x", judge={"kind": "exact"}, schedule={"rule": rule, **schedule}
    )
    return Config(evaluate=evaluate)


def waves(hours: int) -> list[float]:
    """Cleanest at 4 o'clock each day."""
    return [300 - 100 * np.cos(2 * np.pi * (h % 24 - 4) / 24) for h in range(hours)]


def make(store: Store, grid: Grid, cfg: Config) -> tuple[Due, Evaluations]:
    found = Evaluations(store, pack(cfg.request.pack))
    feed: Feed = grid  # type: ignore[assignment]
    return Due(cfg, feed, store, found, lambda: grid.at), found


def taken(found: Evaluations, at: float, id_: str = "e1", **given: Any) -> None:
    message = evaluation(id_, given.pop("q", (0.40, 0.34, 0.26)))
    message.started_at.FromSeconds(int(at))
    message.finished_at.FromSeconds(int(at) + 60)
    for name, value in given.items():
        setattr(message, name, value)
    found.take(message, at + 60)


def told(due: Due) -> pb.EvaluationStatus:
    status = pb.EvaluationStatus()
    due.tell(status)
    return status


def test_without_a_rule_only_operators_start_one(store: Store) -> None:
    due, _ = make(store, Grid(store, waves(200)), Config())
    due.look(0)
    assert (due.standing.due, due.standing.why) == (False, NEVER)


def test_the_first_is_due_at_once(store: Store) -> None:
    due, _ = make(store, Grid(store, waves(200)), config("opportunistic"))
    due.look(0)
    assert told(due).due
    assert "never" in told(due).why


def test_the_next_is_due_behind_the_minimum_of_the_night(store: Store) -> None:
    grid = Grid(store, waves(400))
    due, found = make(store, grid, config("opportunistic"))
    taken(found, T0 + 8 * HOUR_S)
    hours = []
    for hour in range(9, 40):
        grid.at = T0 + hour * HOUR_S + 60
        due.look(0)
        if due.standing.due:
            hours.append(hour)
    # An urgency of 0.029 an hour moves the minimum of k0' a little before that of k0.
    assert hours
    assert 26 <= hours[0] <= 29


def test_one_that_has_just_ended_is_not_followed_by_another(store: Store) -> None:
    grid = Grid(store, waves(400))
    due, found = make(store, grid, config("opportunistic"))
    due.look(0)
    assert told(due).due
    taken(found, T0)
    assert not told(due).due  # before the next look
    due.look(0)
    assert not told(due).due


def test_the_cleanest_start_ahead_is_told(store: Store) -> None:
    grid = Grid(store, waves(400))
    due, found = make(store, grid, config("forecast"))
    grid.at = T0 + 14 * HOUR_S
    taken(found, T0 + 2 * HOUR_S)
    due.look(0)
    status = told(due)
    assert not status.due
    assert T0 + 26 * HOUR_S <= status.expected_at.seconds <= T0 + 30 * HOUR_S


def test_a_dead_feed_holds_none_back_for_ever(store: Store) -> None:
    grid = Grid(store, waves(400))
    due, found = make(store, grid, config("opportunistic"))
    taken(found, T0)
    grid.values = {}
    grid.at = T0 + 71 * HOUR_S
    due.look(0)
    assert not due.standing.due
    assert NO_GRID in due.standing.why
    grid.at = T0 + 72 * HOUR_S
    due.look(0)
    assert due.standing.due


def test_an_accelerated_trace_has_its_own_hours(store: Store) -> None:
    """At 3,600 times the speed a day of the grid is 24 s of ours."""
    grid = Grid(store, waves(400))
    cfg = config("fixed", fixed_hours=24).model_copy(
        update={
            "carbon": Config().carbon.model_copy(
                update={"sources": ("trace",), "trace_speed": 3600.0}
            )
        }
    )
    found = Evaluations(store, pack(cfg.request.pack))
    wall = [T0]
    feed: Feed = grid  # type: ignore[assignment]
    due = Due(cfg, feed, store, found, lambda: wall[0])
    taken(found, T0)
    wall[0], grid.at = T0 + 20, T0 + 20 * HOUR_S
    due.look(0)
    assert not due.standing.due
    wall[0], grid.at = T0 + 24, T0 + 24 * HOUR_S
    due.look(0)
    assert due.standing.due


def test_too_few_sampled_prompts_are_waited_for(store: Store) -> None:
    cfg = Config(
        evaluate=EvaluateConfig(
            sampling={"share": 0.1},
            judge={"kind": "exact"},
            schedule={"rule": "fixed", "least_prompts": 50},
        )
    )
    due, _ = make(store, Grid(store, waves(200)), cfg)
    due.look(49)
    assert not due.standing.due
    assert "49 prompts" in due.standing.why
    due.look(50)
    assert due.standing.due


# --- drift ---------------------------------------------------------------------------------------


def test_what_moved_is_said_until_the_next_one(store: Store) -> None:
    due, found = make(store, Grid(store, waves(400)), config("opportunistic"))
    taken(found, T0 - 9000, "a", q=(0.38, 0.37, 0.25))
    due.look(0)
    assert due.standing.drift == ""
    taken(found, T0 - 6000, "b", q=(0.55, 0.20, 0.25))
    due.look(0)
    assert "quality moved" in due.standing.drift
    assert "L1" in told(due).drift
    taken(found, T0 - 3000, "c", q=(0.55, 0.20, 0.25))
    due.look(0)
    assert due.standing.drift == ""


@pytest.mark.parametrize("other", [{"judge_version": "other"}, {"prompts": "b.jsonl (3, 00)"}])
def test_other_judges_and_prompts_are_not_compared(store: Store, other: dict[str, str]) -> None:
    due, found = make(store, Grid(store, waves(400)), config("opportunistic"))
    taken(found, T0 - 9000, "a", q=(0.38, 0.37, 0.25))
    taken(found, T0 - 6000, "b", q=(0.55, 0.20, 0.25), **other)
    due.look(0)
    assert due.standing.drift == ""


def numbers(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of the tests made from now on, as each was told to be."""
    made: list[int] = []
    real = drift.drift

    def counted(*given: Any, test: int) -> drift.Drift:
        made.append(test)
        return real(*given, test=test)

    monkeypatch.setattr(drift, "drift", counted)
    return made


def test_a_test_has_its_number_though_evaluations_are_pruned(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = numbers(store, monkeypatch)
    due, found = make(store, Grid(store, waves(400)), config("opportunistic"))
    for day in range(6):
        taken(found, T0 + 86400 * day, f"e{day}")
        due.look(0)
        store.prune(T0 + 86400 * (day - 1), 1000)
    assert made == [1, 2, 3, 4, 5]
    # A restart makes the last test again, and that is no other one.
    due, found = make(store, Grid(store, waves(400)), config("opportunistic"))
    due.look(0)
    taken(found, T0 + 86400 * 6, "e6")
    due.look(0)
    assert made == [1, 2, 3, 4, 5, 5, 6]


def test_each_series_has_numbers_of_its_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = numbers(store, monkeypatch)
    due, found = make(store, Grid(store, waves(400)), config("opportunistic"))
    at = T0
    for judge, count in (("one", 3), ("two", 2), ("one", 2)):
        for _ in range(count):
            at += 3600
            taken(found, at, f"e{at:.0f}", judge_version=judge)
            due.look(0)
    # Between two judges nothing is tested.
    assert made == [1, 2, 1, 3]


@pytest.mark.parametrize(
    ("speed", "interval_s", "expected_s"),
    [(1, 5, 10), (3600, 0.5, 0.5), (60, 0.1, 1 / 6), (9, 60, 10)],
)
def test_looks_keep_up_with_a_trace_that_is_played_faster(
    store: Store, speed: float, interval_s: float, expected_s: float
) -> None:
    cfg = Config(
        carbon={"sources": ["trace"], "trace": "x.csv", "trace_speed": speed},  # type: ignore[arg-type]
        control={"interval_s": interval_s},  # type: ignore[arg-type]
    )
    due, _ = make(store, Grid(store, waves(400)), cfg)
    assert due.every_s == pytest.approx(expected_s)
