# SPDX-License-Identifier: Apache-2.0
"""Whether an evaluation should run now, and whether the last one says something else than the one
before it. What runs is a process of its own; it reads this in the status."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from sprout.carbon.feed import Feed
from sprout.carbon.forecast import MAX_HOURS
from sprout.carbon.intensity import Intensity
from sprout.config import Config
from sprout.control.evaluations import Evaluations
from sprout.control.store import Store
from sprout.errors import FeedError
from sprout.evaluate import outlook
from sprout.evaluate.statistics import drift
from sprout.v1 import control_pb2 as pb

LOG = logging.getLogger(__name__)

EVERY_S = 10.0  # a look; the rules are of hours, but prompts arrive in seconds
TESTS = "drift_tests"  # a setting of the store
MOST_SERIES = 100  # of tests; the one tested longest ago is forgotten
PAST = timedelta(days=28)  # of intensities, for means and forecasts
NEVER = "evaluations run only when an operator starts one (evaluate.schedule.rule)"
NO_GRID = "no carbon intensity is known"


@dataclass(frozen=True)
class Standing:
    """As of the last look."""

    due: bool = False
    why: str = "not looked at yet"
    expected_at: datetime | None = None  # None: not known
    drift: str = ""


class Due:
    """`look` in one thread at a time; `prompts` and `tell` on the event loop's."""

    def __init__(
        self,
        config: Config,
        feed: Feed,
        store: Store,
        evaluations: Evaluations,
        wall: Callable[[], float],
    ) -> None:
        self._schedule = config.evaluate.schedule
        self._rule = outlook.configured(config.evaluate.schedule)
        self._feed, self._store, self._evaluations = feed, store, evaluations
        self._wall = wall
        # A trace that is played faster has its own clock; evaluations are dated by ours.
        replayed = config.carbon.sources[0] == "trace"
        self._speed = config.carbon.trace_speed if replayed else 1.0
        # Of a trace that is played faster no hour is skipped, unless the loop itself skips it.
        self.every_s = min(EVERY_S, max(config.control.interval_s, EVERY_S / self._speed))
        self._least = None if config.evaluate.prompts_file else self._schedule.least_prompts
        # That are kept for evaluations; their owner is the event loop's thread.
        self.prompts: Callable[[], int] = lambda: 0
        self._compared: tuple[str, str] = ("", "")  # the latest evaluation, and what drifted
        self.standing = Standing()

    def look(self, kept: int) -> None:
        """With so many prompts kept. ControlError where the store fails; the last standing stays
        then."""
        found = self._with_prompts(self._due(), kept)
        self.standing = Standing(found.due, found.why, found.expected_at, self._drift())

    def tell(self, status: pb.EvaluationStatus) -> None:
        latest, standing = self._evaluations.latest, self.standing
        status.due, status.why, status.drift = standing.due, standing.why, standing.drift
        if standing.expected_at is not None:
            status.expected_at.FromDatetime(standing.expected_at)
        if latest is not None and standing.due and latest.id != self._compared[0]:
            # It ended since the last look: two in a row would be one too many.
            status.due, status.why = False, "an evaluation has just ended"

    def _with_prompts(self, found: Standing, kept: int) -> Standing:
        """With too few to say anything it waits for more."""
        if not found.due or self._least is None or kept >= self._least:
            return found
        return replace(
            found, due=False, why=f"{kept} prompts are sampled, {self._least} needed; {found.why}"
        )

    def _due(self) -> Standing:
        if self._rule is None:
            return Standing(why=NEVER)
        wall = self._wall()
        latest = self._evaluations.latest
        elapsed_s = None if latest is None else max(0.0, wall - latest.started_at.seconds)
        value, now = self._feed.last(), self._feed.now()
        if value is None or now is None:
            return self._without_grid(elapsed_s)
        last = None if elapsed_s is None else now - timedelta(seconds=elapsed_s * self._speed)
        history = self._history(value, now)
        try:
            found = outlook.consider(self._rule, history, now, last, self._feed.forecast(MAX_HOURS))
        except FeedError:
            return self._without_grid(elapsed_s)
        ahead_s = (found.expected_at - now).total_seconds() / self._speed
        expected = datetime.fromtimestamp(wall + max(0.0, ahead_s), UTC)
        return Standing(found.due, found.why, expected)

    def _history(self, value: Intensity, now: datetime) -> list[Intensity]:
        """Hours that have passed; the present one is the value that is decided on."""
        stored = self._store.intensities(value.series, now - PAST, now)
        hour = now.replace(minute=0, second=0, microsecond=0)
        if stored and stored[-1].time >= hour:
            return stored
        return [*stored, value]

    def _without_grid(self, elapsed_s: float | None) -> Standing:
        """A dead feed holds no evaluation back for ever."""
        if elapsed_s is None:
            return Standing(due=True, why=f"never evaluated; {NO_GRID}")
        idle = elapsed_s * self._speed / 3600
        most = self._schedule.max_idle_hours
        if self._rule is not None and self._rule.kind == "fixed":
            most = self._schedule.fixed_hours
        why = f"{idle:.3g} h since the last evaluation, {most:g} h is the most; {NO_GRID}"
        return Standing(due=idle >= most, why=why)

    def _drift(self) -> str:
        """Said until the next evaluation; "": nothing moved, or there is nothing to compare."""
        new, old = self._evaluations.latest, self._evaluations.before
        if new is None:
            return ""
        if self._compared[0] != new.id:
            said = ""
            if old is not None and _comparable(old, new):
                said = self._tested(old, new)
            self._compared = new.id, said
        return self._compared[1]

    def _tested(self, old: pb.Evaluation, new: pb.Evaluation) -> str:
        tests: dict[str, list[Any]] = self._store.setting(TESTS) or {}
        series = _series(new)
        number, last = tests.pop(series, [0, ""])
        if last != new.id:  # else a restart repeats the test
            number += 1
        try:
            found = drift.drift(_measured(old), _measured(new), test=number)
        except ValueError as error:
            LOG.warning("two evaluations can't be compared: %s", error)
            return ""
        # Before anything is said of it: a number that was lost would be used twice. Evaluations are
        # pruned; their number is not.
        tests[series] = [number, new.id]
        self._store.set_setting(TESTS, dict(list(tests.items())[-MOST_SERIES:]))
        if found.alert:
            LOG.warning("evaluation %s: %s", new.id, found.what)
            return found.what
        return ""


def _comparable(old: pb.Evaluation, new: pb.Evaluation) -> bool:
    """Judged alike, so that what differs is not the judge."""
    known = all(any(c.covariance for c in e.classes) for e in (old, new))
    return known and _series(old) == _series(new)


def _series(e: pb.Evaluation) -> str:
    """Of evaluations that can be compared: pack, method, where prompts come from, judge."""
    return f"{e.pack_hash:016x} {e.method} {e.prompts.split(' ')[0]} {e.judge_version}"


def _measured(message: pb.Evaluation) -> drift.Measured:
    of_all = next(c for c in message.classes if not c.task)
    levels = len(message.levels)
    return drift.Measured(
        tuple(message.levels),
        np.array(of_all.preference),
        np.array(of_all.covariance).reshape(levels, levels),
    )
