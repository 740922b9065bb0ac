# SPDX-License-Identifier: Apache-2.0
"""From what is known to what is served, and why: pure, so that `sprout plan` can ask "what if"."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import numpy as np

from sprout.config import Config
from sprout.directives import pack
from sprout.errors import ConfigError, InfeasibleError
from sprout.optimize import lp
from sprout.optimize.bank import BankModel
from sprout.optimize.caps import NO_CAPS, Caps
from sprout.optimize.floor import Range, place
from sprout.optimize.problem import Problem
from sprout.profile import NOTHING, LevelProfile, build
from sprout.units import request_g

T = TypeVar("T")

NO_RANGE = Range(math.nan, math.nan, "no range")


@dataclass(frozen=True)
class Horizon:
    """What the mode "bank" looks ahead at, this hour first. See optimize/bank.py."""

    intensities_g_per_kwh: tuple[float, ...]  # (hours,); the first is that of the decision
    requests: tuple[float, ...]  # (hours,) expected
    target: float  # mean normalised preference over the horizon
    carry_request_points: float  # what the past earned (> 0) or overspent
    basis: str  # of forecast and traffic


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
class Inputs:
    intensity_g_per_kwh: float | None  # k0; None: not known
    within: Range
    profile: tuple[LevelProfile, ...]
    xi: float
    configured_fraction: float  # where there is no range
    pue: float
    embodied_g_per_s: float  # k1
    control_share: float = 0.0
    canary_share: float = 1.0
    paused: bool = False
    pinned: tuple[float, ...] | None = None  # (levels,) shares in place of a solution
    block: str = ""  # which block of the switchback this is; "" = none runs
    held: str = ""  # why the decision is not applied: "shadow" or "block"; "" = it is
    caps: Caps = NO_CAPS
    previous: tuple[float, ...] | None = None  # (levels,) the mix that `caps.step` counts from
    exploration_share: float = 0.0  # the least share of each level; yields to the floor
    mode: Literal["paper", "bank"] = "paper"  # a floor each hour, or a budget over a horizon
    horizon: Horizon | None = None  # for "bank"
    no_horizon: str = ""  # why there is none


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


def plan(inputs: Inputs) -> Plan:
    """Solve; L0 alone where that can't be done, with the reason in `degraded`."""
    k0, profile = inputs.intensity_g_per_kwh, inputs.profile
    active, shares = "no intensity", (1.0, *(0.0 for _ in profile[1:]))
    price, budget = None, None
    degraded: dict[str, str] = {}
    banked = inputs.mode == "bank" and inputs.horizon is not None and profile[0].preference > 0
    if k0 is None:
        fraction, relative, basis = 0.0, 1.0, inputs.within.basis
        costs = [math.nan for _ in profile]
    else:
        floor = place(k0, inputs.within, inputs.xi, inputs.configured_fraction)
        fraction, relative, basis = floor.fraction, floor.relative, floor.basis
        costs = _costs(inputs, k0)
        if banked:
            relative = 1 - inputs.xi  # in no hour less than this
    if inputs.paused:  # the kill switch depends on no solver
        active = "paused"
    elif inputs.pinned is not None:
        active, shares = "pinned", inputs.pinned
    elif k0 is not None and banked and inputs.horizon is not None:
        active, shares, price, budget = _spend(k0, inputs, inputs.horizon, relative, degraded)
    elif k0 is not None:
        if inputs.mode == "bank":
            why = inputs.no_horizon or "L0 has no preference to compare with"
            degraded["bank"] = f"no quality budget, deciding by the hour: {why}"
        active, shares, price = _solve(costs, inputs, relative, degraded)
    would_be: tuple[float, ...] = ()
    told = shares  # what is expected is of these
    if inputs.held and not inputs.paused:
        would_be, shares = shares, (1.0, *(0.0 for _ in profile[1:]))
        active, told = inputs.held, would_be if inputs.held == "shadow" else shares
    q0 = profile[0].preference
    preference = math.fsum(p.preference * x for p, x in zip(profile, told, strict=True))
    return Plan(
        shares=shares,
        profile=profile,
        intensity_g_per_kwh=k0,
        within=inputs.within,
        range_basis=basis,
        xi=inputs.xi,
        fraction=fraction,
        floor=relative,
        active_constraint=active,
        expected_g=math.fsum(c * x for c, x in zip(costs, told, strict=True)),
        expected_l0_g=costs[0],
        expected_preference=preference / q0 if q0 > 0 else 1.0,
        control_share=inputs.control_share,
        canary_share=inputs.canary_share,
        degraded=degraded,
        block=inputs.block,
        would_be=would_be,
        price_g_per_point=price,
        budget=budget,
    )


def _costs(inputs: Inputs, intensity_g_per_kwh: float) -> list[float]:
    """Grams per request, (levels,)."""
    return [
        request_g(
            p.energy_joules,
            p.device_seconds,
            intensity_g_per_kwh=intensity_g_per_kwh,
            pue=inputs.pue,
            embodied_g_per_s=inputs.embodied_g_per_s,
        )
        for p in inputs.profile
    ]


def _spend(
    k0: float, inputs: Inputs, horizon: Horizon, hourly_minimum: float, degraded: dict[str, str]
) -> tuple[str, tuple[float, ...], float | None, Budget | None]:
    """(active constraint, shares of this hour, price of quality, how the budget stands)

    The price is not known (None) where the horizon can't make up for what was overspent.
    """
    intensities = (k0, *horizon.intensities_g_per_kwh[1:])
    hours, levels = len(intensities), len(inputs.profile)
    problem = Problem(
        costs_g=np.array([_costs(inputs, k) for k in intensities])[:, None, :],
        requests=np.array(horizon.requests)[:, None],
        preferences=np.array([[p.preference for p in inputs.profile]]),
        target=horizon.target,
        hourly_minimum=hourly_minimum,
        carry_request_points=horizon.carry_request_points,
        previous=None if inputs.previous is None else np.array([inputs.previous]),
    )
    model = BankModel(hours, 1, levels)
    try:
        found = _explored(inputs, lambda caps: model.solve(replace(problem, caps=caps)))
    except InfeasibleError as error:
        degraded["infeasible"] = f"no feasible policy, serving L0: {error}"
        return "infeasible", (1.0, *(0.0 for _ in range(levels - 1))), None, None
    budget = Budget(
        horizon.target,
        hours,
        horizon.carry_request_points,
        found.expected_preference,
        found.short_request_points,
        horizon.basis,
    )
    hourly = float(found.hourly_price_g_per_point[0])
    price = found.price_g_per_point + hourly
    active = "quality" if hourly > 0 else "budget" if price > 0 else "none"
    shares = tuple(map(float, found.shares[0, 0]))
    return active, shares, price if math.isfinite(price) else None, budget


def _explored(inputs: Inputs, solve: Callable[[Caps], T]) -> T:
    """With the exploration share of each level, or without it where that leaves no mix."""
    levels = len(inputs.profile)
    if inputs.exploration_share > 0 and levels > 1:
        share = min(inputs.exploration_share, 1 / levels)
        most = inputs.caps.most or (1.0,) * levels
        least = tuple(min(share, cap) for cap in most)
        with suppress(InfeasibleError):
            return solve(replace(inputs.caps, least=least))
    return solve(inputs.caps)


def _solve(
    costs: list[float], inputs: Inputs, relative_floor: float, degraded: dict[str, str]
) -> tuple[str, tuple[float, ...], float | None]:
    """(active constraint, shares, price of quality)"""
    preferences = [p.preference for p in inputs.profile]
    floor = relative_floor * preferences[0]
    try:
        solution = _explored(
            inputs, lambda caps: lp.solve(costs, preferences, floor, caps, inputs.previous)
        )
    except InfeasibleError as error:
        degraded["infeasible"] = f"no feasible policy, serving L0: {error}"
        return "infeasible", (1.0, *(0.0 for _ in preferences[1:])), None
    if solution.mismatch is not None:
        degraded["solver"] = f"solver and closed form differ: {solution.mismatch}"
    return solution.active, solution.shares, solution.price_g_per_point


def offline(
    config: Config,
    intensity_g_per_kwh: float,
    low: float | None = None,
    high: float | None = None,
) -> Plan:
    """The plan for a given intensity and range (g/kWh), from the declared priors alone."""
    own = (low, high)
    if (low is None) != (high is None) or (low is not None and high is not None and low > high):
        raise ConfigError(f"a range needs both ends, the lower one first: {own}")
    within = NO_RANGE if low is None or high is None else Range(low, high, "as given")
    levels = pack(config.request.pack).levels
    return plan(inputs_of(config, intensity_g_per_kwh, within, priors(config, levels)))


def priors(config: Config, levels: tuple[str, ...]) -> tuple[LevelProfile, ...]:
    """The declared profile. ConfigError if it has not one prior per level, or an impossible one."""
    c = config.control
    columns = {
        "prior_energy_joules": c.prior_energy_joules,
        "prior_device_s": c.prior_device_s,
        "prior_preference": c.prior_preference,
    }
    for key, values in columns.items():
        if len(values) != len(levels):
            raise ConfigError(
                f"control.{key} has {len(values)} values, the pack {config.request.pack!r} has "
                f"{len(levels)} levels ({', '.join(levels)})"
            )
        if any(v < 0 for v in values):
            raise ConfigError(f"control.{key} must not be negative: {values}")
    return build(
        levels,
        [NOTHING] * len(levels),
        prior_energy_joules=c.prior_energy_joules,
        prior_device_s=c.prior_device_s,
        prior_preference=c.prior_preference,
        min_outcomes=c.min_outcomes,
    )


def inputs_of(
    config: Config,
    intensity_g_per_kwh: float | None,
    within: Range,
    profile: tuple[LevelProfile, ...],
    *,
    paused: bool = False,
) -> Inputs:
    """Inputs with everything else from the configuration."""
    return Inputs(
        intensity_g_per_kwh=intensity_g_per_kwh,
        within=within,
        profile=profile,
        xi=config.control.xi,
        configured_fraction=config.control.range_fraction,
        pue=config.energy.pue,
        embodied_g_per_s=config.energy.embodied_g_per_s,
        control_share=config.control.control_share,
        canary_share=config.control.canary_share,
        paused=paused,
        exploration_share=config.control.exploration_share,
        mode=config.control.mode,
    )
