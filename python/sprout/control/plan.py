# SPDX-License-Identifier: Apache-2.0
"""What was decided, and why, for people and for the wire."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sprout.control.inputs import Prompts
from sprout.control.propensity import OPTED_OUT
from sprout.optimize.floor import Range
from sprout.profile import LevelProfile

CLASS = "class"
MINIMUM = "tenant's minimum"
LIMITS = {
    "shadow": "shadow mode: decided, not applied; everybody gets L0",
    "block": "a block of L0, for comparison",
    "quality": "quality: the floor costs carbon",
    "budget": "the quality budget: a point costs the same in every hour ahead",
    "none": "nothing: the cheapest level alone meets the floor",
    "caps": "the caps on shares: the floor costs nothing more",
    "minima": "what tenants or classes get at least: the floor costs nothing more",
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
class Confidence:
    """How sure it is that the floor holds."""

    wanted: float  # 0.5 … 1
    z: float  # what it holds with; see optimize/contrast.py
    z_wanted: float  # larger where so few judgments are not that sure of L0 itself


@dataclass(frozen=True)
class GroupPlan:
    """The mix of one tenant or of one task class."""

    tenant: str  # one of the two is set
    task: str
    shares: tuple[float, ...]  # (levels,)
    minimum: float  # normalised preference asked of it alone; 0: none
    expected_preference: float  # q . x / q0, its own q
    expected_g: float  # per request; nan without an intensity
    expected_l0_g: float
    traffic: float  # share of the requests under the policy, as expected
    basis: str  # CLASS, MINIMUM or OPTED_OUT
    profile: tuple[LevelProfile, ...] = ()  # (): that of all requests

    @property
    def key(self) -> tuple[str, str]:
        return self.tenant, self.task

    @property
    def opted_out(self) -> bool:
        return self.basis == OPTED_OUT

    def line(self, profile: tuple[LevelProfile, ...]) -> str:
        """All that its row of the program says. profile: of all requests."""
        own = self.profile or profile
        name, mix = _name(*self.key), _mix([p.level for p in own], self.shares)
        q = " ".join(f"{p.preference:.4g}" for p in own)
        least = f", at least {100 * self.minimum:g} %" if self.minimum > 0 else ""
        grams = (
            ""
            if math.isnan(self.expected_g)
            else f"; {1e3 * self.expected_g:.3g} mg, {1e3 * self.expected_l0_g:.3g} mg at L0"
        )
        return (
            f"{name:<11} {mix}; {100 * self.traffic:.1f} % of requests; q {q}: "
            f"{100 * self.expected_preference:.1f} % of its L0{least}{grams} ({self.basis})"
        )


@dataclass(frozen=True)
class PromptPoint:
    """As PricePoint in control.proto."""

    fraction: float
    g_per_preference: float
    g: tuple[float, ...]  # (levels,)


@dataclass(frozen=True)
class PromptGroup:
    """As PromptPlan, of one tenant or task class with a mix of its own."""

    tenant: str  # one of the two is set
    task: str
    g_per_joule: tuple[float, ...]  # (levels,)
    points: tuple[PromptPoint, ...]
    expected_preference: float  # normalised, its own q
    expected_g: float  # per request
    shares: tuple[float, ...]  # (levels,) expected
    least: float  # normalised preference, as predicted, that it alone was held to; 0: none

    @property
    def key(self) -> tuple[str, str]:
        return self.tenant, self.task


@dataclass(frozen=True)
class PromptPlan:
    """Prices that make a level of a prompt; see prices.py. Expectations are predictions."""

    weights: str  # SHA-256 of the scorer's
    share: float  # of the requests of mixes with prices, the default's among them
    g_per_joule: tuple[float, ...]  # (levels,)
    points: tuple[PromptPoint, ...]
    expected_preference: float  # normalised
    expected_g: float  # per request
    shares: tuple[float, ...]  # (levels,) expected
    # Normalised preference, as predicted, that the prices were set for: of all, with `groups` and
    # those that keep their mix.
    least: float
    basis: str
    mix_g: float  # per request of the mix in its place
    groups: tuple[PromptGroup, ...] = ()
    kept: tuple[tuple[str, str, str], ...] = ()  # (tenant, task, why) that have a mix and no prices

    def of(self, key: tuple[str, str]) -> PromptGroup | None:
        """Of a tenant or task class."""
        return next((group for group in self.groups if group.key == key), None)

    def why_kept(self, key: tuple[str, str]) -> str:
        """Why a tenant or task class has no prices; "": it has, or opted out."""
        return next((why for *whose, why in self.kept if tuple(whose) == key), "")

    def lines(self, levels: Sequence[str]) -> list[str]:
        saved = 100 * (1 - self.expected_g / self.mix_g) if self.mix_g > 0 else 0.0
        out = [
            f"by prompt   {100 * self.share:g} % of those without a mix of their own: "
            f"{_mix(levels, self.shares)}",
            f"            {1e3 * self.expected_g:.3g} mg per request, {saved:.1f} % less than the "
            f"mix's {1e3 * self.mix_g:.3g} mg, at {100 * self.expected_preference:.1f} % of L0's "
            f"preference as the predictor's sample was judged ({100 * self.least:.1f} % predicted"
            f"{' of all' if self.groups or self.kept else ''})",
            f"            prices: {_prices(self.points)} mg per unit of preference; {self.basis}",
        ]
        for group in self.groups:
            guard = f", at least {100 * group.least:.1f} % predicted" if group.least > 0 else ""
            out.append(
                f"            {_name(*group.key)} by prompt: {_mix(levels, group.shares)}; "
                f"{1e3 * group.expected_g:.3g} mg at {100 * group.expected_preference:.1f} % of "
                f"its L0{guard}; prices: {_prices(group.points)}"
            )
        out += [f"            {_name(*whose)} keeps its mix: {why}" for *whose, why in self.kept]
        return out


def _mix(levels: Sequence[str], shares: Sequence[float]) -> str:
    return "  ".join(f"{level} {100 * x:.1f} %" for level, x in zip(levels, shares, strict=True))


def _prices(points: Sequence[PromptPoint]) -> str:
    return ", ".join(f"{100 * p.fraction:.1f} % at {1e3 * p.g_per_preference:.3g}" for p in points)


def _name(tenant: str, task: str) -> str:
    return f"tenant {tenant}" if tenant else f"class {task}"


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
    confidence: Confidence | None = None  # None: the plain floor, or nothing was solved
    evaluation: str = ""  # as in Inputs
    # What is served to those who are not under `shares`; () while everybody gets L0 (paused, held).
    groups: tuple[GroupPlan, ...] = ()
    # The same as decided, applied or not: what the step limit counts from.
    decided: tuple[GroupPlan, ...] = ()
    prompts: Prompts | None = None  # as in Inputs
    prompt: PromptPlan | None = None  # None: every level is drawn
    no_prompt: str = ""  # why, where a predictor is configured

    @property
    def apart(self) -> float:
        """Share of all requests that chance or their tenant keeps at L0, whatever the mix is."""
        out = math.fsum(g.traffic for g in self.groups if g.opted_out)
        return 1 - (1 - self.control_share) * self.canary_share * (1 - out)

    @property
    def overall_preference(self) -> float:
        """As `expected_preference`, of all requests: those that are kept at L0 count 1."""
        return self.apart + (1 - self.apart) * self.expected_preference

    @property
    def overall_g(self) -> float:
        return self.apart * self.expected_l0_g + (1 - self.apart) * self.expected_g

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
        if self.confidence is not None:
            out.append(self._confidence(self.confidence))
        if self.budget is not None:
            out.extend(self._budget(self.budget))
        out.extend(group.line(self.profile) for group in self.groups)
        if self.groups:
            rest = max(0.0, 1 - math.fsum(group.traffic for group in self.groups))
            out.append(f"the others  {100 * rest:.1f} % of requests, under the mix above")
        if self.prompt is not None:
            out.extend(self.prompt.lines([p.level for p in self.profile]))
        elif self.no_prompt:
            out.append(f"by prompt   none: {self.no_prompt}")
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
            if self.apart > 0 and self.active_constraint != "shadow":
                out.append(
                    f"of all      {1e3 * self.overall_g:.3g} mg at "
                    f"{100 * self.overall_preference:.1f} %, with the {100 * self.apart:.3g} % "
                    "kept at L0"
                )
        for p in self.profile:
            meter = ", estimated" if p.energy_estimated else ""
            error = "" if p.preference_se is None else f" ± {p.preference_se:.2g}"
            out.append(
                f"{p.level:<11} {p.energy_joules:.3g} J, {p.device_seconds:.3g} s "
                f"({p.energy_basis}{meter}; {p.outcomes} outcomes{_age(p.age_s)}), "
                f"preference {p.preference:.3g}{error} ({p.preference_basis})"
            )
        out.append(
            f"apart       {100 * self.control_share:g} % of all requests get L0 for comparison"
        )
        if self.canary_share < 1:
            out.append(f"canary      {100 * self.canary_share:g} % are under the policy, rest L0")
        out.extend(f"degraded    {reason}" for reason in self.degraded.values())
        return out

    def _mix(self, shares: tuple[float, ...]) -> str:
        return _mix([p.level for p in self.profile], shares)

    @staticmethod
    def _confidence(c: Confidence) -> str:
        text = f"confidence  {100 * c.wanted:g} % that the floor holds"
        if c.z < c.z_wanted:
            return f"{text} can't be had: z {c.z:.3g}, not {c.z_wanted:.3g}, for want of judgments"
        return f"{text} (z {c.z:.3g})"

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
