# SPDX-License-Identifier: Apache-2.0
"""What a quality budget is decided from: the hours ahead, their traffic, and what the past spent.

A budget needs a horizon as long as the weather, and no forecast reaches that far: behind its end
the hours are expected to be as the same hours of the past weeks were.

The carry is kept by counting: every outcome whose level was drawn adds its level's preference less
the target, in request-points; one whose prompt chose its level adds what its policy expects of them
on the mean, for such a level is not worth what the level is. It is stored with the number of the
last outcome counted, so that a restart counts none twice and leaves none out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import fmean
from typing import Any, Literal

import numpy as np

from sprout.carbon import Feed, Intensity
from sprout.carbon.forecast import DAY, MAX_HOURS, WEEK, hourly, predict
from sprout.config import BankConfig
from sprout.control.inbox import PROMPT
from sprout.control.inputs import Group, Horizon
from sprout.control.notes import notes
from sprout.control.store import Store
from sprout.errors import FeedError
from sprout.optimize.bank import carry_on
from sprout.optimize.problem import POINT
from sprout.profile import LevelProfile

HOUR_S = 3600
TRAFFIC_DAYS = 7
LEAST_HOURS = 6  # of a source's forecast, to be used instead of our own
OWN_HOURS = 24  # of our own: further ahead it is worth no more than the past weeks
WINDOW = timedelta(weeks=8)  # of history that is looked at
DIGITS = 2  # of g/kWh and requests: a decision is stored with its whole horizon
SETTING = "bank"


@dataclass(frozen=True)
class Worth:
    """What an answer counts: its level's normalised preference, by the mix that it was under."""

    profile: Sequence[LevelProfile]  # of all requests
    groups: Sequence[Group] = ()
    against: Literal["own", "pooled"] = "own"  # as in Inputs

    @property
    def known(self) -> bool:
        return self.profile[0].preference > 0

    def of(self, tenant: str, task: str, level: int) -> float | None:
        """None: there is no such level. A tenant with a mix of its own has the q of all requests,
        as it was decided with."""
        tenants = {group.tenant for group in self.groups if group.tenant}
        profile = self.profile
        if tenant not in tenants:
            own = (g.profile for g in self.groups if task and g.task == task and g.profile)
            profile = next(own, self.profile)
        if level >= len(profile):
            return None
        norm = self._pooled() if self.against == "pooled" else profile[0].preference
        return profile[level].preference / norm

    def _pooled(self) -> float:
        """The mean L0 of the requests that take part."""
        part = [(g.traffic, g.profile or self.profile) for g in self.groups if not g.opted_out]
        rest = max(0.0, 1 - math.fsum(g.traffic for g in self.groups))
        total = rest + math.fsum(weight for weight, _ in part)
        if total <= 0:
            return self.profile[0].preference
        return (
            math.fsum(weight * rows[0].preference for weight, rows in [(rest, self.profile), *part])
            / total
        )


class Budget:
    """Used from the thread that looks. ControlError where the store fails."""

    def __init__(self, config: BankConfig, store: Store, pack_hash: int) -> None:
        self._config, self._store, self._pack_hash = config, store, pack_hash
        stored = store.setting(SETTING) or {}
        ours = stored.get("pack") == pack_hash  # else its levels are other ones
        self._after: int | None = stored["after"] if ours else None  # None: nothing counted yet
        self._carry = float(stored["carry_request_points"]) if ours else 0.0
        self._traffic: tuple[int, tuple[float, ...], str] = (-1, (), "")  # of which hour
        self._foreseen: tuple[Any, tuple[float, ...], str] = (None, (), "")  # from what

    def look(
        self,
        feed: Feed,
        worth: Worth,
        now: float,
    ) -> tuple[Horizon | None, str]:
        """(the horizon, "") or (None, why there is none). now: seconds since 1970."""
        target = self._config.target
        value, now_there = feed.last(), feed.now()
        if value is None or now_there is None:
            self._count(worth, target, math.inf, counting=True)
            return None, "no carbon intensity"
        ahead, basis = self._ahead(feed, value, now_there)
        live = abs(now_there.timestamp() - now) < HOUR_S
        requests, traffic = self._requests(now) if live else self._replayed()
        # A surplus is worth at most one horizon at the target's distance from L0.
        most = sum(requests) * (1 - target) / POINT
        self._count(worth, target, most, counting=live)
        basis = f"{basis}; traffic: {traffic}"
        return Horizon((value.g_per_kwh, *ahead), requests, target, self._carry, basis), ""

    def end(self) -> None:
        """Another mode decides: what was earned or overspent is forgotten."""
        if self._after is not None:
            self._store.set_setting(SETTING, None)
            self._after, self._carry = None, 0.0

    def _ahead(self, feed: Feed, value: Intensity, now: datetime) -> tuple[tuple[float, ...], str]:
        """(g/kWh of each hour behind the present one, what that rests on)"""
        theirs = feed.forecast_basis()
        key = (value.series, value.g_per_kwh, math.floor(now.timestamp() / HOUR_S), theirs)
        if self._foreseen[0] != key:
            self._foreseen = (key, *self._foresee(feed, value, now))
        return self._foreseen[1], self._foreseen[2]

    def _foresee(
        self, feed: Feed, value: Intensity, now: datetime
    ) -> tuple[tuple[float, ...], str]:
        """The source's forecast, else our own; behind its end, what the same hours had before."""
        wanted = self._config.hours - 1
        soon = by_hour(feed.forecast(min(wanted, MAX_HOURS)), now)[:wanted]
        basis = f"forecast: {len(soon)} h of {feed.forecast_basis()}"
        stored = self._store.intensities(value.series, now - WINDOW, now)
        past = [*stored, value]
        if len(soon) < min(wanted, LEAST_HOURS):
            try:
                made = predict(past, min(wanted, OWN_HOURS), now=now)
            except FeedError as error:
                soon, basis = [], f"no forecast ({error})"
            else:
                soon = np.round(made.g_per_kwh, DIGITS).tolist()
                basis = f"forecast: {len(soon)} h of our own, {made.basis}"
        if len(soon) == wanted:
            return tuple(soon), basis
        cycle, days = as_before(past, now)
        later = (cycle[h % len(cycle)] for h in range(len(soon) + 1, wanted + 1))
        return (*soon, *later), f"{basis}, then as in the last {days}"

    def _replayed(self) -> tuple[tuple[float, ...], str]:
        """As `_requests`: an hour of the source has another length than one of the requests'."""
        return (1.0,) * self._config.hours, "even, nothing is carried on (not the wall's clock)"

    def _requests(self, now: float) -> tuple[tuple[float, ...], str]:
        """(expected in each hour, this one first; what that rests on)"""
        hour = int(now // HOUR_S)
        if self._traffic[0] != hour:
            hours = self._config.hours
            counted = self._store.hourly_requests(hour - 24 * TRAFFIC_DAYS, hour)
            if not counted:
                begun = self._store.hourly_requests(hour, hour + 1).get(hour, 0)
                elapsed = max(now / HOUR_S - hour, 1 / 60)
                return (max(1.0, begun / elapsed),) * hours, "as in this hour so far"
            self._traffic = (hour, *expected(counted, hour, hours))
        return self._traffic[1], self._traffic[2]

    def _count(self, worth: Worth, target: float, most: float, *, counting: bool) -> None:
        """Takes what came since the last look.

        Outcomes of policies that were not what was decided (shadow, a block of L0, a pause) neither
        earn nor spend, whenever they come; nor do those of tenants that have no part in it.
        """
        last, _ = self._store.last_ids()
        if self._after is None or not worth.known:
            self._keep(last, self._carry)
            return
        if last == self._after:
            return
        carry = self._carry
        served = self._store.served(self._after, last, self._pack_hash) if counting else []
        versions = sorted({version for version, *_ in served})
        known = notes(self._store.policy_messages(versions))
        applied = {version: made for version, made in known.items() if made.standing == "policy"}
        for version, arm, level, tenant, task, requests in served:
            note, preference = applied.get(version), worth.of(tenant, task, level)
            if note is not None and arm == PROMPT:
                # Relative to the L0 of its own; the others may be to that of all classes together.
                by_prompt = note.preference_by_prompt(tenant, task) or 0.0
                preference = by_prompt * (worth.of(tenant, task, 0) or 1.0)
            if note is not None and tenant not in note.opted_out and preference is not None:
                carry = carry_on(carry, requests, preference, target, math.inf)
        self._keep(last, min(carry, most))

    def _keep(self, after: int, carry: float) -> None:
        state = {"after": after, "carry_request_points": carry, "pack": self._pack_hash}
        self._store.set_setting(SETTING, state)
        self._after, self._carry = after, carry


def by_hour(values: Sequence[Intensity], now: datetime) -> list[float]:
    """The mean of each hour behind that of `now`, up to the first hour without a value."""
    this = math.floor(now.timestamp() / HOUR_S)
    found: dict[int, list[float]] = {}
    for value in values:
        found.setdefault(math.floor(value.time.timestamp() / HOUR_S), []).append(value.g_per_kwh)
    made: list[float] = []
    while this + len(made) + 1 in found:
        made.append(round(fmean(found[this + len(made) + 1]), DIGITS))
    return made


def as_before(past: Sequence[Intensity], now: datetime) -> tuple[list[float], str]:
    """(a cycle whose entry h % length is expected h hours from now, how long it is).

    The last whole weeks, else days; a gap has their mean. Not a forecast, but the spread of clean
    and dirty hours that a budget can reckon with: see docs/optimizer.md, "How far ahead".
    """
    first, values = hourly(past)
    values = np.where(np.isfinite(values), values, np.nanmean(values))
    this = math.floor(now.timestamp() / HOUR_S)
    known = this - first  # hours behind us
    length = known // WEEK * WEEK or known // DAY * DAY
    if length == 0:
        return [round(float(values.mean()), DIGITS)], f"{known} h on average"
    cycle = np.resize(values[known - length : known], length)
    days = length // DAY
    return np.round(cycle, DIGITS).tolist(), f"{days} d"


def expected(counted: Mapping[int, int], hour: int, hours: int) -> tuple[tuple[float, ...], str]:
    """(requests expected in `hours` from `hour` on, what that rests on).

    counted: requests by hour since 1970, hours without any left out, at least one with; `hour`
    itself is not over. The mean of the same hour of the day, once a whole day has been seen;
    before, the mean of all.
    """
    first = min(counted)
    mean = sum(counted.values()) / (hour - first)
    if hour - first < 24:
        return (mean,) * hours, f"mean of {hour - first} h"
    made = []
    for ahead in range(hour, hour + hours):
        same = [counted.get(h, 0) for h in range(first, hour) if (ahead - h) % 24 == 0]
        made.append(fmean(same))
    if sum(made) == 0:
        return (mean,) * hours, f"mean of {hour - first} h"
    return tuple(round(n, DIGITS) for n in made), f"hour of the day, {(hour - first) // 24} d"
