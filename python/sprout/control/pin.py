# SPDX-License-Identifier: Apache-2.0
"""A mix that somebody wants for everything, whatever the floor says: by hand, or by the hour."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MAX_WINDOWS = 50
_HH_MM = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True)
class Pin:
    shares: tuple[float, ...]  # (levels,), sums to 1
    until: float | None  # seconds since 1970; None: as long as the schedule says
    reason: str
    by: str  # who set it, or "schedule"


@dataclass(frozen=True)
class Window:
    """A part of the day in UTC; where it passes midnight, its weekday is that of the start."""

    start: str  # "HH:MM", in the window
    end: str  # "HH:MM", not in it
    weekdays: tuple[str, ...]  # of WEEKDAYS; (): every day
    level: str

    def holds(self, seconds: float) -> bool:
        """At this time, s since 1970."""
        now = datetime.fromtimestamp(seconds, UTC)
        clock = now.strftime("%H:%M")
        if self.start < self.end:
            return self.start <= clock < self.end and self._on(now)
        if clock >= self.start:
            return self._on(now)
        return clock < self.end and self._on(now - timedelta(days=1))

    def _on(self, day: datetime) -> bool:
        return not self.weekdays or WEEKDAYS[day.weekday()] in self.weekdays


def checked(window: Window, levels: Sequence[str]) -> Window:
    """The same window; ValueError says what is wrong with it."""
    for what, text in (("start", window.start), ("end", window.end)):
        if not _HH_MM.fullmatch(text):
            raise ValueError(f"{what} must be HH:MM: {text!r}")
    if window.start == window.end:
        raise ValueError(f"a window from {window.start} to {window.end} holds nothing")
    if len(set(window.weekdays)) < len(window.weekdays):
        raise ValueError("weekdays names a day twice")
    wrong = [day for day in window.weekdays if day not in WEEKDAYS]
    if wrong:
        raise ValueError(f"weekdays are {', '.join(WEEKDAYS)}: {wrong[0]!r}")
    if window.level not in levels:
        raise ValueError(f"no level {window.level!r} in the pack: it has {', '.join(levels)}")
    return window


def mix(shares: Mapping[str, float], levels: Sequence[str]) -> tuple[float, ...]:
    """(levels,) of shares by level; ValueError says what is wrong with them."""
    for level, share in shares.items():
        if level not in levels:
            raise ValueError(f"no level {level!r} in the pack: it has {', '.join(levels)}")
        if not (math.isfinite(share) and 0 <= share <= 1):
            raise ValueError(f"the share of {level} must be in 0 to 1: {share:g}")
    total = math.fsum(shares.values())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"shares must sum to 1: {total:g}")
    return tuple(shares.get(level, 0.0) / total for level in levels)


def scheduled(windows: Sequence[Window], levels: Sequence[str], seconds: float) -> Pin | None:
    """What the schedule wants at a time, s since 1970: the first window that holds.

    A window for a level that the pack has not (it had it when the window was set) rests.
    """
    for window in windows:
        if window.level in levels and window.holds(seconds):
            days = f", {' '.join(window.weekdays)}" if window.weekdays else ""
            reason = f"scheduled {window.start} to {window.end} UTC{days}"
            return Pin(mix({window.level: 1.0}, levels), None, reason, "schedule")
    return None
