# SPDX-License-Identifier: Apache-2.0
"""The schedule on the clock: a feed's intensities in, whether an evaluation is due and when out."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from sprout.carbon import forecast
from sprout.carbon.forecast import HOUR_S, Values
from sprout.carbon.intensity import Intensity
from sprout.config import ScheduleConfig
from sprout.errors import FeedError
from sprout.evaluate.schedule import NOTHING, Basis, Rule, decide


@dataclass(frozen=True, slots=True)
class Outlook:
    """A `schedule.Verdict` on the clock."""

    due: bool
    why: str
    adjusted_g_per_kwh: float
    expected_at: datetime
    basis: Basis


def configured(cfg: ScheduleConfig) -> Rule | None:
    """The rule in force; None: evaluations run only when an operator says so."""
    if cfg.rule == "off":
        return None
    return Rule(
        kind=cfg.rule,
        beta_per_hour=cfg.beta_per_hour,
        grace_hours=cfg.grace_hours,
        max_idle_hours=cfg.max_idle_hours,
        mean_hours=cfg.mean_hours,
        every_hours=cfg.fixed_hours,
        duration_hours=cfg.duration_hours,
    )


def consider(
    rule: Rule,
    history: Sequence[Intensity],
    now: datetime,
    last: datetime | None,
    ahead: Sequence[Intensity] = (),
) -> Outlook:
    """`decide` on the clock of the source that the intensities are of.

    history: of one series, in any order. ahead: what the source says of later hours, of the same
    series; where it says nothing, the seasonal forecast from the history stands in.
    Raises FeedError where the history is empty or mixes series.
    """
    known = [value for value in history if value.time <= now]
    first, values = forecast.hourly(known)
    hour = math.floor(now.timestamp() / HOUR_S) - first
    told = _told(ahead, first + hour + 1)
    if not len(told):
        with suppress(FeedError):  # then nothing is known of this hour either, which is said
            told = forecast.predict(known, forecast.MAX_HOURS, now=now).g_per_kwh
    values = np.concatenate([values, np.full(max(0, hour + 1 - len(values)), np.nan)])
    since = None if last is None else last.timestamp() / HOUR_S - first
    verdict = decide(rule, values, now.timestamp() / HOUR_S - first, since, told)
    expected = datetime.fromtimestamp((first + verdict.expected) * HOUR_S, UTC)
    return Outlook(verdict.due, verdict.why, verdict.adjusted_g_per_kwh, expected, verdict.basis)


def _told(ahead: Sequence[Intensity], begin: int) -> Values:
    """By hour from hour `begin` since 1970 on; empty: nothing of it is told."""
    later = [value for value in ahead if value.time.timestamp() >= begin * HOUR_S]
    if not later:
        return NOTHING
    first, values = forecast.hourly(later)
    return np.concatenate([np.full(first - begin, np.nan), values])
