# SPDX-License-Identifier: Apache-2.0
"""From what is known to what is served: pure, so that `sprout plan` can ask "what if"."""

import math
from dataclasses import replace

from sprout.config import Config
from sprout.control import expected, joint
from sprout.control.inputs import NO_RANGE, Group, Inputs, inputs_of, priors
from sprout.control.joint import Decided
from sprout.control.plan import Plan
from sprout.directives import pack
from sprout.errors import ConfigError, InfeasibleError
from sprout.optimize import lp
from sprout.optimize.floor import Range, place


def plan(inputs: Inputs) -> Plan:
    """Solve; L0 alone where that can't be done, with the reason in `degraded`."""
    k0, profile = inputs.intensity_g_per_kwh, inputs.profile
    degraded: dict[str, str] = {}
    comparable = profile[0].preference > 0
    banked = inputs.mode == "bank" and inputs.horizon is not None and comparable
    if k0 is None:
        fraction, relative, basis = 0.0, 1.0, inputs.within.basis
    else:
        floor = place(k0, inputs.within, inputs.xi, inputs.configured_fraction)
        fraction, relative, basis = floor.fraction, floor.relative, floor.basis
        if banked:
            relative = 1 - inputs.xi  # in no hour less than this
    if inputs.paused:  # the kill switch depends on no solver
        made = joint.nothing_but_l0(inputs, "paused")
    elif inputs.pinned is not None:
        made = Decided("pinned", inputs.pinned)
        inputs = _promised(inputs)
        made = replace(made, groups=tuple(_kept(inputs, g) for g in inputs.groups))
    elif k0 is None:
        made = joint.nothing_but_l0(inputs, "no intensity")
    else:
        if inputs.mode == "bank" and not banked:
            why = inputs.no_horizon or "L0 has no preference to compare with"
            degraded["bank"] = f"no quality budget, deciding by the hour: {why}"
            inputs = replace(inputs, mode="paper")
        if banked or (joint.wanted(inputs) and comparable):
            made = joint.solve(inputs, k0, relative, degraded)
        else:
            made = _solve(k0, inputs, relative, degraded)
    decided = expected.of_groups(inputs, made.groups, k0)
    shares, groups, active = made.shares, decided, made.active
    would_be: tuple[float, ...] = ()
    told = shares, decided  # what is expected is of these
    # L0 for everybody; but whom nothing is drawn for stays named, for whoever measures by it.
    apart = tuple(group for group in decided if group.opted_out)
    if inputs.paused:
        groups = apart
    elif inputs.held:
        would_be, shares, groups = made.shares, joint.all_l0(len(profile)), apart
        active = inputs.held
        told = told if inputs.held == "shadow" else (shares, ())
    means = expected.of_all(inputs, *told, k0)
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
        expected_g=means.g,
        expected_l0_g=means.l0_g,
        expected_preference=means.preference,
        control_share=inputs.control_share,
        canary_share=inputs.canary_share,
        degraded=degraded,
        block=inputs.block,
        would_be=would_be,
        price_g_per_point=made.price_g_per_point,
        budget=made.budget,
        confidence=made.confidence,
        evaluation=inputs.evaluation,
        groups=groups,
        decided=decided,
        prompts=inputs.prompts,
    )


def _promised(inputs: Inputs) -> Inputs:
    """Under a pin: without task classes, which are under it; a promise to a tenant stands."""
    return replace(inputs, groups=tuple(g for g in inputs.groups if g.tenant))


def _kept(inputs: Inputs, group: Group) -> tuple[float, ...]:
    """A tenant's mix under a pin: as pinned, with as much more L0 as its minimum takes."""
    pinned, l0 = inputs.pinned, joint.all_l0(len(inputs.profile))
    if group.opted_out or pinned is None:
        return l0
    q = [p.preference for p in group.profile or inputs.profile]
    if q[0] <= 0:
        return l0 if group.minimum > 0 else pinned
    worth = math.fsum(a * b for a, b in zip(q, pinned, strict=True)) / q[0]
    if worth >= group.minimum:
        return pinned
    more = (group.minimum - worth) / (1 - worth)
    return tuple((1 - more) * x + more * y for x, y in zip(pinned, l0, strict=True))


def _solve(k0: float, inputs: Inputs, relative_floor: float, degraded: dict[str, str]) -> Decided:
    """The published program of one hour."""
    costs = expected.grams(inputs, inputs.profile, k0)
    preferences = [p.preference for p in inputs.profile]
    floor = relative_floor * preferences[0]
    try:
        solution = joint.explored(
            inputs, lambda caps: lp.solve(costs, preferences, floor, caps, inputs.previous)
        )
    except InfeasibleError as error:
        degraded["infeasible"] = f"no feasible policy, serving L0: {error}"
        return joint.nothing_but_l0(inputs, "infeasible")
    if solution.mismatch is not None:
        degraded["solver"] = f"solver and closed form differ: {solution.mismatch}"
    l0 = joint.all_l0(len(preferences))
    mixes = [l0 if g.opted_out or g.minimum > 0 else solution.shares for g in inputs.groups]
    return Decided(solution.active, solution.shares, tuple(mixes), solution.price_g_per_point)


def offline(
    config: Config,
    intensity_g_per_kwh: float,
    low: float | None = None,
    high: float | None = None,
) -> Inputs:
    """Inputs for a given intensity and range (g/kWh), from the declared priors alone."""
    own = (low, high)
    if (low is None) != (high is None) or (low is not None and high is not None and low > high):
        raise ConfigError(f"a range needs both ends, the lower one first: {own}")
    within = NO_RANGE if low is None or high is None else Range(low, high, "as given")
    levels = pack(config.request.pack).levels
    return inputs_of(config, intensity_g_per_kwh, within, priors(config, levels))
