# SPDX-License-Identifier: Apache-2.0
"""What the loop decides by: the configuration, and what operators set in its place."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sprout.config import ControlConfig
from sprout.control.inputs import Inputs

MODES = ("paper", "bank")
FRACTIONS = ("xi", "control_share", "canary_share", "max_increase")


@dataclass(frozen=True)
class Objective:
    xi: float  # the most normalised preference that may be given up
    mode: Literal["paper", "bank"]  # a floor each hour, or a budget over a horizon
    control_share: float
    canary_share: float
    max_shares: Mapping[str, float] = field(default_factory=dict)  # by level; the others have none
    # The most that another level's share may grow, and L0's shrink, from policy to policy.
    max_increase: float = 1.0

    def applied(
        self, inputs: Inputs, levels: Sequence[str], previous: Sequence[float] | None
    ) -> Inputs:
        """The inputs under this objective.

        previous: (levels,) shares of the policy in force; None: there is none, so L0 alone.
        """
        changes: dict[str, Any] = {
            "xi": self.xi,
            "control_share": self.control_share,
            "canary_share": self.canary_share,
            "mode": self.mode,
        }
        if self.max_shares:
            most = tuple(self.max_shares.get(level, 1.0) for level in levels)
            changes["caps"] = replace(inputs.caps, most=most)
        if self.max_increase < 1:
            caps = changes.get("caps", inputs.caps)
            changes["caps"] = replace(caps, step=self.max_increase)
            changes["previous"] = tuple(previous or (1.0, *(0.0 for _ in levels[1:])))
        return replace(inputs, **changes)


def in_force(control: ControlConfig, set_: Mapping[str, Any], levels: Sequence[str]) -> Objective:
    """The configuration's objective with what operators set. Caps of other packs' levels rest."""
    base = Objective(control.xi, control.mode, control.control_share, control.canary_share)
    known = dict(set_)
    if "max_shares" in known:
        known["max_shares"] = {k: v for k, v in known["max_shares"].items() if k in levels}
    return replace(base, **known)


def checked(wanted: Mapping[str, Any], levels: Sequence[str]) -> None:
    """ValueError says what is wrong with wanted fields."""
    for name in FRACTIONS:
        if name in wanted:
            _check_fraction(name, wanted[name])
    mode = wanted.get("mode", "paper")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}: {mode!r}")
    for level, share in wanted.get("max_shares", {}).items():
        if level not in levels:
            raise ValueError(f"no level {level!r} in the pack: it has {', '.join(levels)}")
        if level == levels[0]:
            raise ValueError(f"{level} can't be capped: everything falls back to it")
        _check_fraction(f"max_shares[{level}]", share)


def _check_fraction(name: str, value: float) -> None:
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise ValueError(f"{name} must be in 0 to 1: {value:g}")
