# SPDX-License-Identifier: Apache-2.0
"""What operators want: the kill switch, an intensity, an objective, a pin, a schedule. All of it is
stored.

Setters return what stood there before and what stands there now, as JSON, for the audit. Touched on
the event loop's thread; the `store_…` write what is wanted when it is their turn to write, so that
neither a late retry nor a slow writer can undo a newer wish. What they read is replaced whole and
never changed in place.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sprout.config import ControlConfig
from sprout.control import pin as pins
from sprout.control.objective import Objective, checked, in_force
from sprout.control.pin import Pin, Window
from sprout.control.store import Store

LOG = logging.getLogger(__name__)

Change = tuple[Any, Any]  # before, after


@dataclass(frozen=True)
class Override:
    g_per_kwh: float
    until: float  # seconds since 1970


class Wishes:
    """ControlError where the store fails."""

    def __init__(self, control: ControlConfig, levels: Sequence[str], store: Store) -> None:
        self._control, self._levels, self._store = control, tuple(levels), store
        self.problems: dict[str, str] = {}  # by kind: what was stored and can't be followed
        self.pause_reason: str | None = store.setting("pause")  # None: not paused
        stored = store.setting("override")
        self._override = None if stored is None else Override(*stored)
        self.objective_set = self._restored_objective()
        self.schedule = tuple(
            Window(w["start"], w["end"], tuple(w["weekdays"]), w["level"])
            for w in store.setting("schedule") or ()
        )
        for window in self.schedule:
            if window.level not in self._levels:
                self.problems["schedule"] = (
                    f"the schedule names {window.level}, which this pack has not: it rests"
                )
        self._pin = self._restored_pin()

    def _restored_objective(self) -> dict[str, Any]:
        stored: dict[str, Any] = self._store.setting("objective") or {}
        caps = stored.get("max_shares", {})
        strange = [level for level in caps if level not in self._levels]
        if strange:
            self.problems["objective"] = (
                f"the stored objective caps {strange[0]}, which this pack has not: the cap rests"
            )
        known = {level: share for level, share in caps.items() if level in self._levels}
        try:
            checked({**stored, "max_shares": known}, self._levels)
        except ValueError as error:
            self.problems["objective"] = f"the stored objective is not followed: {error}"
            LOG.error("%s", self.problems["objective"])
            return {}
        return stored

    def _restored_pin(self) -> Pin | None:
        stored = self._store.setting("pin")
        if stored is None:
            return None
        try:
            shares = pins.mix(stored["shares"], self._levels)
        except ValueError as error:
            self.problems["pin"] = f"the stored pin is not followed: {error}"
            LOG.error("%s", self.problems["pin"])
            return None
        return Pin(shares, stored["until"], stored["reason"], stored["by"])

    # --- kill switch and intensity -----------------------------------------------------------

    def set_pause(self, reason: str | None) -> Change:
        before, self.pause_reason = self.pause_reason, reason
        return before, reason

    def store_pause(self) -> None:
        self._store.keep_setting("pause", lambda: self.pause_reason)

    def override_at(self, seconds: float) -> Override | None:
        """The intensity to decide on at a time, s since 1970, in place of the feed's."""
        return None if self.override_is_over(seconds) else self._override

    def override_is_over(self, seconds: float) -> bool:
        """Whether there is one whose time has run out."""
        return self._override is not None and self._override.until <= seconds

    def set_override(self, override: Override | None) -> Change:
        before, self._override = self._override, override
        return _as_json(before), _as_json(override)

    def store_override(self) -> None:
        def wished() -> list[float] | None:
            wish = self._override
            return None if wish is None else [wish.g_per_kwh, wish.until]

        self._store.keep_setting("override", wished)

    # --- objective ---------------------------------------------------------------------------

    @property
    def objective(self) -> Objective:
        return in_force(self._control, self.objective_set, self._levels)

    def set_objective(self, wanted: Mapping[str, Any], *, reset: bool) -> Change:
        """Fields that are not named stay; `reset`: first back to the configuration."""
        before = asdict(self.objective)
        self.problems.pop("objective", None)
        kept = {} if reset else self.objective_set
        stood = {k: v for k, v in kept.get("max_shares", {}).items() if k in self._levels}
        caps = {**stood, **wanted.get("max_shares", {})}
        fields = {**kept, **wanted, "max_shares": caps}
        self.objective_set = {k: v for k, v in fields.items() if k != "max_shares" or caps}
        return before, asdict(self.objective)

    def store_objective(self) -> None:
        self._store.keep_setting("objective", lambda: self.objective_set or None)

    # --- pin and schedule --------------------------------------------------------------------

    def pin_at(self, seconds: float) -> Pin | None:
        """What is pinned at a time, s since 1970: by hand, else by the schedule."""
        if self._pin is not None and not self.pin_is_over(seconds):
            return self._pin
        return pins.scheduled(self.schedule, self._levels, seconds)

    def pin_is_over(self, seconds: float) -> bool:
        """Whether there is a pin whose time has run out."""
        until = None if self._pin is None else self._pin.until
        return until is not None and until <= seconds

    def set_pin(self, pin: Pin | None) -> Change:
        before, self._pin = self._pin_as_json(), pin
        self.problems.pop("pin", None)
        return before, self._pin_as_json()

    def store_pin(self) -> None:
        self._store.keep_setting("pin", self._pin_as_json)

    def _pin_as_json(self) -> dict[str, Any] | None:
        pin = self._pin
        if pin is None:
            return None
        shares = dict(zip(self._levels, pin.shares, strict=True))
        return {**asdict(pin), "shares": shares}

    def set_schedule(self, windows: Sequence[Window]) -> Change:
        before, self.schedule = self.schedule, tuple(windows)
        self.problems.pop("schedule", None)
        return [asdict(w) for w in before], [asdict(w) for w in self.schedule]

    def store_schedule(self) -> None:
        self._store.keep_setting("schedule", lambda: [asdict(w) for w in self.schedule] or None)


def _as_json(override: Override | None) -> dict[str, float] | None:
    return None if override is None else asdict(override)
