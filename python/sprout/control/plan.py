# SPDX-License-Identifier: Apache-2.0
"""From what is known to what is served, and why: pure, so that `sprout plan` can ask "what if"."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from sprout.config import Config
from sprout.directives import pack
from sprout.errors import ConfigError, InfeasibleError
from sprout.optimize import lp
from sprout.optimize.floor import Range, place
from sprout.profile import NOTHING, LevelProfile, build
from sprout.units import request_g

NO_RANGE = Range(math.nan, math.nan, "no range")


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
        mix = "  ".join(
            f"{p.level} {100 * share:.1f} %"
            for p, share in zip(self.profile, self.shares, strict=True)
        )
        k0 = self.intensity_g_per_kwh
        out = [
            f"mix         {mix}",
            f"intensity   {'unknown' if k0 is None else f'{k0:.1f} g/kWh'}",
            f"range       {self._range()}",
            f"floor       {100 * self.floor:.1f} % of L0's preference "
            f"({self.preference_basis}; xi {self.xi:g})",
            f"limited by  {LIMITS.get(self.active_constraint, self.active_constraint)}",
        ]
        if not math.isnan(self.expected_g):
            out.append(
                f"expected    {1e3 * self.expected_g:.3g} mg per request, "
                f"{1e3 * self.expected_l0_g:.3g} mg at L0: saves {self.saving_percent:.1f} % "
                f"({1e3 * self.saving_g:.3g} mg) at {100 * self.expected_preference:.1f} % of "
                f"L0's preference ({self.preference_basis})"
            )
        for p in self.profile:
            meter = ", estimated" if p.energy_estimated else ""
            out.append(
                f"{p.level:<11} {p.energy_joules:.3g} J, {p.device_seconds:.3g} s "
                f"({p.energy_basis}{meter}; {p.outcomes} outcomes), "
                f"preference {p.preference:.3g} ({p.preference_basis})"
            )
        out.append(
            f"apart       {100 * self.control_share:g} % of all requests get L0 for comparison"
        )
        if self.canary_share < 1:
            out.append(f"canary      {100 * self.canary_share:g} % are under the policy, rest L0")
        out.extend(f"degraded    {reason}" for reason in self.degraded.values())
        return out

    def _range(self) -> str:
        if math.isnan(self.within.low):
            return f"{self.range_basis}; position {self.fraction:.2f}"
        ends = f"{self.within.low:.1f} to {self.within.high:.1f} g/kWh"
        return f"{ends}, {self.range_basis}; position {self.fraction:.2f}"


LIMITS = {
    "quality": "quality: the floor costs carbon",
    "none": "nothing: the cheapest level alone meets the floor",
    "paused": "the kill switch",
}


def plan(inputs: Inputs) -> Plan:
    """Solve; L0 alone where that can't be done, with the reason in `degraded`."""
    k0, profile = inputs.intensity_g_per_kwh, inputs.profile
    active, shares = "no intensity", (1.0, *(0.0 for _ in profile[1:]))
    degraded: dict[str, str] = {}
    if k0 is None:
        fraction, relative, basis = 0.0, 1.0, inputs.within.basis
        costs = [math.nan for _ in profile]
    else:
        floor = place(k0, inputs.within, inputs.xi, inputs.configured_fraction)
        fraction, relative, basis = floor.fraction, floor.relative, floor.basis
        costs = [
            request_g(
                p.energy_joules,
                p.device_seconds,
                intensity_g_per_kwh=k0,
                pue=inputs.pue,
                embodied_g_per_s=inputs.embodied_g_per_s,
            )
            for p in profile
        ]
    if inputs.paused:  # the kill switch depends on no solver
        active = "paused"
    elif k0 is not None:
        active, shares = _solve(costs, profile, relative, degraded)
    q0 = profile[0].preference
    preference = math.fsum(p.preference * x for p, x in zip(profile, shares, strict=True))
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
        expected_g=math.fsum(c * x for c, x in zip(costs, shares, strict=True)),
        expected_l0_g=costs[0],
        expected_preference=preference / q0 if q0 > 0 else 1.0,
        control_share=inputs.control_share,
        canary_share=inputs.canary_share,
        degraded=degraded,
    )


def _solve(
    costs: list[float],
    profile: tuple[LevelProfile, ...],
    relative_floor: float,
    degraded: dict[str, str],
) -> tuple[str, tuple[float, ...]]:
    preferences = [p.preference for p in profile]
    try:
        solution = lp.solve(costs, preferences, relative_floor * preferences[0])
    except InfeasibleError as error:
        degraded["infeasible"] = f"no feasible policy, serving L0: {error}"
        return "infeasible", (1.0, *(0.0 for _ in profile[1:]))
    if solution.mismatch is not None:
        degraded["solver"] = f"solver and closed form differ: {solution.mismatch}"
    return solution.active, solution.shares


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
    )
