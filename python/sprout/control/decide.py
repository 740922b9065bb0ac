# SPDX-License-Identifier: Apache-2.0
"""From what is known to what is served: pure, so that `sprout plan` can ask "what if"."""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sprout.config import Config
from sprout.control.inputs import NO_RANGE, Horizon, Inputs, inputs_of, priors
from sprout.control.plan import Budget, Plan
from sprout.directives import pack
from sprout.errors import ConfigError, InfeasibleError
from sprout.optimize import lp
from sprout.optimize.bank import BankModel
from sprout.optimize.caps import Caps
from sprout.optimize.floor import Range, place
from sprout.optimize.problem import Problem
from sprout.units import request_g

T = TypeVar("T")

SAME_G_PER_KWH = 0.5  # no grid is known better than that


def plan(inputs: Inputs) -> Plan:
    """Solve; L0 alone where that can't be done, with the reason in `degraded`."""
    k0, profile = inputs.intensity_g_per_kwh, inputs.profile
    active, shares = "no intensity", _all_l0(len(profile))
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
        would_be, shares = shares, _all_l0(len(profile))
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


def _all_l0(levels: int) -> tuple[float, ...]:
    return (1.0, *[0.0] * (levels - 1))


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
        return "infeasible", _all_l0(levels), None, None
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
    shares = _evenly(inputs, np.array(intensities), problem.requests[:, 0], found.shares[:, 0])
    return active, shares, price if math.isfinite(price) else None, budget


def _evenly(
    inputs: Inputs,
    intensities: NDArray[np.float64],  # (hours,)
    requests: NDArray[np.float64],  # (hours,)
    shares: NDArray[np.float64],  # (hours, levels)
) -> tuple[float, ...]:
    """This hour's mix: the mean over the hours that are as clean as it is.

    Which of them spend is all the same to the program. Were it always the present one, then while
    the grid stands still a debt would grow that each new horizon puts off again.
    """
    same = np.abs(intensities - intensities[0]) <= SAME_G_PER_KWH
    weights = requests[same] if requests[same].sum() > 0 else None
    mean: NDArray[np.float64] = np.average(shares[same], axis=0, weights=weights)
    lower, upper = inputs.caps.bounds(len(mean), inputs.previous)
    within = (mean >= np.array(lower) - 1e-9).all() and (mean <= np.array(upper) + 1e-9).all()
    return tuple(map(float, mean if within else shares[0]))


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
        return "infeasible", _all_l0(len(preferences)), None
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
