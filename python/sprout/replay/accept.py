# SPDX-License-Identifier: Apache-2.0
"""How near a replay comes to the published figures of its bundle, by stated tolerances."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sprout.replay.published import Published
from sprout.replay.run import Runs

BASE_PERCENT = 1.5  # of grams per request
POINTS = {"CO2_OPT": 0.7, "MODEL_OPT": 2.0, "SPROUT_STA": 4.0, "ORACLE": 4.0}  # of saving
SPROUT_POINTS = (5.0, 2.5)  # of saving, of preference; else inside the replay's own interval
MOST_MISSES = 2 / 15  # of SPROUT's points


@dataclass(frozen=True)
class Point:
    """One published figure beside the replay's."""

    where: str  # "GB 800, xi 0.1"
    published: float
    replayed: float
    good: bool
    note: str = ""


@dataclass(frozen=True)
class Check:
    name: str
    points: tuple[Point, ...]
    allowed_misses: int

    @property
    def missed(self) -> tuple[Point, ...]:
        return tuple(point for point in self.points if not point.good)

    @property
    def good(self) -> bool:
        return len(self.missed) <= self.allowed_misses

    @property
    def worst(self) -> float:
        """The largest difference."""
        return max(abs(point.replayed - point.published) for point in self.points)


def check(
    runs: Sequence[Runs], rows: Sequence[dict[str, Any]], published: Iterable[Published], xi: float
) -> list[Check]:
    """rows: of `tables.results`, one a run. xi: the bundle's own; others are a sweep.

    What the bundle has no published figure for is not checked; nothing at all: an empty list.
    """
    known = {each.key: each for each in published}
    by_scheme: dict[str, list[tuple[Runs, dict[str, Any], Published]]] = {}
    for each, row in zip(runs, rows, strict=True):
        there = known.get(each.case.key)
        if there is None or (there.scheme == "BASE" and math.isnan(there.base_mg)):
            continue
        if math.isnan(each.case.target):
            name = each.case.scheme if math.isclose(each.case.xi, xi) else f"{each.case.scheme}, xi"
            by_scheme.setdefault(name, []).append((each, row, there))
    checks = []
    for name, group in by_scheme.items():
        if name == "BASE":
            label = f"BASE mg/request within {BASE_PERCENT} %"
            checks.append(_check(label, group, _base, 0))
        elif name in POINTS:
            label = f"{name} saving within {POINTS[name]} points"
            checks.append(_check(label, group, _saving, 0))
        elif name.startswith("SPROUT"):
            sweep = " (sweep of xi)" if name.endswith("xi") else ""
            label = f"SPROUT{sweep} inside its 95 % interval, or within {SPROUT_POINTS[0]:g} points"
            label += f" of saving and {SPROUT_POINTS[1]:g} of preference"
            checks.append(_check(label, group, _sprout, math.floor(MOST_MISSES * len(group))))
    return checks


Group = Sequence[tuple[Runs, dict[str, Any], Published]]


def _check(
    name: str, group: Group, judge: Callable[[Runs, dict[str, Any], Published], Point], misses: int
) -> Check:
    return Check(name, tuple(judge(*each) for each in group), misses)


def _base(runs: Runs, row: dict[str, Any], there: Published) -> Point:
    here = row["base_mg_per_request"]
    good = abs(here - there.base_mg) <= BASE_PERCENT / 100 * there.base_mg
    note = f"{100 * (here / there.base_mg - 1):+.2f} %" if there.base_mg else ""
    return Point(_where(there), there.base_mg, here, good, note)


def _saving(runs: Runs, row: dict[str, Any], there: Published) -> Point:
    here = row["carbon_saving_pct"]
    good = abs(here - there.saving_pct) <= POINTS[there.scheme]
    note = _at_published_mix(runs, there) if there.scheme == "SPROUT_STA" else ""
    return Point(_where(there), there.saving_pct, here, good, note)


def _at_published_mix(runs: Runs, there: Published) -> str:
    """Evidence for a miss of a static scheme: does the mix differ, or what a mix comes to?"""
    if runs.first is None:
        return ""
    window, _, _ = runs.first
    costs = window.costs_g[:, : window.levels].mean(axis=0)
    saving = 1 - float(costs @ there.mix) / float(costs[0] * sum(there.mix))
    preference = float(window.ratios @ there.mix) / sum(there.mix)
    return f"the published mix would come to {100 * saving:.2f} @ {100 * preference:.2f} here"


def _sprout(runs: Runs, row: dict[str, Any], there: Published) -> Point:
    saving, preference = there.saving_pct, there.preference_pct
    inside = (
        row["saving_low_pct"] <= saving <= row["saving_high_pct"]
        and row["preference_low_pct"] <= preference <= row["preference_high_pct"]
    )
    near = (
        abs(row["carbon_saving_pct"] - saving) <= SPROUT_POINTS[0]
        and abs(row["normalised_preference_pct"] - preference) <= SPROUT_POINTS[1]
    )
    note = f"preference {preference:.2f}, here {row['normalised_preference_pct']:.2f}; "
    note += "inside" if inside else "near" if near else "neither inside nor near"
    return Point(_where(there), saving, row["carbon_saving_pct"], inside or near, note)


def _where(there: Published) -> str:
    return f"{there.zone} {there.start_hour}, xi {there.xi:g}"
