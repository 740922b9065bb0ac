# SPDX-License-Identifier: Apache-2.0
"""What was decided, and why, for people and for the wire."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from sprout.optimize.floor import Range
from sprout.profile import LevelProfile

LIMITS = {
    "shadow": "shadow mode: decided, not applied; everybody gets L0",
    "block": "a block of L0, for comparison",
    "quality": "quality: the floor costs carbon",
    "budget": "the quality budget: a point costs the same in every hour ahead",
    "none": "nothing: the cheapest level alone meets the floor",
    "caps": "the caps on shares: the floor costs nothing more",
    "paused": "the kill switch",
    "pinned": "a pin: the floor is not enforced",
}


@dataclass(frozen=True)
class Budget:
    """How a decision under a budget stands."""

    target: float
    hours: int
    carry_request_points: float
    expected_preference: float  # over the horizon, normalised
    short_request_points: float  # what the horizon can't make up for; 0: nothing
    basis: str  # of forecast and traffic


@dataclass(frozen=True)
class Plan:
    shares: tuple[float, ...]  # (levels,), of the requests under the policy
    profile: tuple[LevelProfile, ...]
    intensity_g_per_kwh: float | None
    within: Range
    range_basis: str
    xi: float
    fraction: float
    floor: float  # q_lb / q0
    active_constraint: str  # see Explanation in control.proto
    expected_g: float  # per request; nan without an intensity
    expected_l0_g: float
    expected_preference: float  # q . x / q0
    control_share: float = 0.0
    canary_share: float = 1.0
    degraded: Mapping[str, str] = field(default_factory=dict)  # kind -> reason
    block: str = ""  # as in Inputs
    # (levels,) what was decided where it is not applied; () = it is. In shadow mode what is
    # expected is of these shares.
    would_be: tuple[float, ...] = ()
    # What the last point (0.01 q0) of the floor costs, grams per request; None: nothing was solved.
    price_g_per_point: float | None = None
    budget: Budget | None = None  # in the mode "bank"

    @property
    def saving_g(self) -> float:
        """Grams per request under the policy, against L0."""
        return self.expected_l0_g - self.expected_g

    @property
    def saving_percent(self) -> float:
        return 100 * self.saving_g / self.expected_l0_g if self.expected_l0_g > 0 else 0.0

    @property
    def preference_basis(self) -> str:
        """What q rests on, and with it floor, shares and expected preference."""
        return ", ".join(dict.fromkeys(p.preference_basis for p in self.profile))

    def lines(self) -> list[str]:
        """For people: what is served, what limits it, what it is expected to save."""
        mix = self._mix(self.shares)
        saves = "would save" if self.active_constraint == "shadow" else "saves"
        k0 = self.intensity_g_per_kwh
        out = [
            f"mix         {mix}",
            f"intensity   {'unknown' if k0 is None else f'{k0:.1f} g/kWh'}",
            f"range       {self._range()}",
            f"floor       {100 * self.floor:.1f} % of L0's preference "
            f"({self.preference_basis}; xi {self.xi:g})",
            f"limited by  {LIMITS.get(self.active_constraint, self.active_constraint)}",
        ]
        if self.budget is not None:
            out.extend(self._budget(self.budget))
        if self.would_be:
            out.append(f"not applied {self._mix(self.would_be)} ({self.active_constraint})")
        if self.block:
            out.append(f"experiment  {self.block}")
        if not math.isnan(self.expected_g):
            out.append(
                f"expected    {1e3 * self.expected_g:.3g} mg per request, "
                f"{1e3 * self.expected_l0_g:.3g} mg at L0: {saves} {self.saving_percent:.1f} % "
                f"({1e3 * self.saving_g:.3g} mg) at {100 * self.expected_preference:.1f} % of "
                f"L0's preference ({self.preference_basis})"
            )
        for p in self.profile:
            meter = ", estimated" if p.energy_estimated else ""
            out.append(
                f"{p.level:<11} {p.energy_joules:.3g} J, {p.device_seconds:.3g} s "
                f"({p.energy_basis}{meter}; {p.outcomes} outcomes{_age(p.age_s)}), "
                f"preference {p.preference:.3g} ({p.preference_basis})"
            )
        out.append(
            f"apart       {100 * self.control_share:g} % of all requests get L0 for comparison"
        )
        if self.canary_share < 1:
            out.append(f"canary      {100 * self.canary_share:g} % are under the policy, rest L0")
        out.extend(f"degraded    {reason}" for reason in self.degraded.values())
        return out

    def _mix(self, shares: tuple[float, ...]) -> str:
        return "  ".join(
            f"{p.level} {100 * share:.1f} %" for p, share in zip(self.profile, shares, strict=True)
        )

    @staticmethod
    def _budget(b: Budget) -> list[str]:
        text = (
            f"budget      {100 * b.target:.1f} % on average over {b.hours} h, "
            f"{100 * b.expected_preference:.1f} % expected; carried on "
            f"{b.carry_request_points:+.4g} request-points"
        )
        if b.short_request_points > 0:
            text += f"; {b.short_request_points:.4g} can't be made up for within it"
        return [text, f"            {b.basis}"]

    def _range(self) -> str:
        if math.isnan(self.within.low):
            return f"{self.range_basis}; position {self.fraction:.2f}"
        ends = f"{self.within.low:.1f} to {self.within.high:.1f} g/kWh"
        return f"{ends}, {self.range_basis}; position {self.fraction:.2f}"


def _age(age_s: float | None) -> str:
    """Of a level's newest outcome, where it is old enough to say so."""
    if age_s is None or age_s < 3600:
        return ""
    return f", the newest {age_s / 3600:.1f} h old"
