# SPDX-License-Identifier: Apache-2.0
"""One program for the default mix, task classes and tenants together: its rows, and what it found.

Where neither an evaluation with a covariance, nor classes, nor tenants are there, and no budget, it
is the published program of one hour, and `decide` solves that one as published.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sprout.control.inputs import Group, Horizon, Inputs
from sprout.control.limit import limit
from sprout.control.plan import Budget, Confidence
from sprout.errors import InfeasibleError
from sprout.optimize.bank import BankModel
from sprout.optimize.caps import Caps
from sprout.optimize.closed_form import dot, most_preferred
from sprout.optimize.contrast import Certainty
from sprout.optimize.problem import POINT, Problem, Solution
from sprout.profile import LevelProfile
from sprout.units import request_g

Array = NDArray[np.float64]
T = TypeVar("T")

SAME_G_PER_KWH = 0.5  # no grid is known better than that
MISSING = 1e-7  # of normalised preference: less is rounding


@dataclass(frozen=True)
class Decided:
    active: str  # as in Plan
    shares: tuple[float, ...]  # (levels,) the default mix
    groups: tuple[tuple[float, ...], ...] = ()  # (groups, levels) as in Inputs
    price_g_per_point: float | None = None  # None: not known
    budget: Budget | None = None
    confidence: Confidence | None = None


def wanted(inputs: Inputs) -> bool:
    """Whether there is more to an hour than the published program decides."""
    return _sure(inputs) or any(not group.opted_out for group in inputs.groups)


def all_l0(levels: int) -> tuple[float, ...]:
    return (1.0, *[0.0] * (levels - 1))


def nothing_but_l0(inputs: Inputs, active: str) -> Decided:
    l0 = all_l0(len(inputs.profile))
    return Decided(active, l0, (l0,) * len(inputs.groups))


def costs(
    inputs: Inputs, profiles: Sequence[Sequence[LevelProfile]], g_per_kwh: Sequence[float]
) -> Array:
    """(hours, profiles, levels) grams per request."""
    joules = np.array([[p.energy_joules for p in profile] for profile in profiles])
    seconds = np.array([[p.device_seconds for p in profile] for profile in profiles])
    return request_g(
        joules,
        seconds,
        intensity_g_per_kwh=np.array(g_per_kwh, np.float64)[:, None, None],
        pue=np.float64(inputs.pue),  # type: ignore[arg-type]
        embodied_g_per_s=np.float64(inputs.embodied_g_per_s),  # type: ignore[arg-type]
    )


def explored(inputs: Inputs, solve: Callable[[Caps], T]) -> T:
    """With the exploration share of each level, or without it where that leaves no mix."""
    caps = _exploring(inputs)
    if caps is not inputs.caps:
        with suppress(InfeasibleError):
            return solve(caps)
    return solve(inputs.caps)


def solve(inputs: Inputs, k0: float, floor: float, degraded: dict[str, str]) -> Decided:
    """floor: of the hour. What stands in the way goes into `degraded`."""
    inputs, left_out = _without_impossible(inputs, degraded)
    horizon = inputs.horizon if inputs.mode == "bank" else None
    rows = [default(inputs), *(g for g in inputs.groups if not g.opted_out)]
    intensities = (k0, *(horizon.intensities_g_per_kwh[1:] if horizon else ()))
    problem = _problem(inputs, horizon, rows, intensities, floor)
    model = BankModel(*problem.shape)

    def attempt(caps: Caps) -> tuple[Problem, Solution]:
        within = replace(problem, caps=tuple(_fitting(inputs, row, caps) for row in rows))
        found = model.solve(within)
        # A budget may be short: the past overspent. The floor of an hour may not.
        missing = found.short_request_points * POINT / float(problem.requests.sum())
        if horizon is None and missing > MISSING:
            sure = f" with {100 * inputs.confidence:g} % confidence" if found.z > 0 else ""
            raise InfeasibleError(f"quality floor {floor:.4f}{sure} is {missing:.4f} out of reach")
        return within, found

    try:
        problem, found = explored(inputs, attempt)
    except InfeasibleError as error:
        degraded["infeasible"] = f"no feasible policy, serving L0: {error}"
        return nothing_but_l0(inputs, "infeasible")
    hourly = float(found.hourly_price_g_per_point[0])
    price = found.price_g_per_point + hourly
    mixes = [
        _evenly(inputs, row, np.array(intensities), problem.requests[:, i], found.shares[:, i])
        for i, row in enumerate(rows)
    ]
    if horizon is None:
        active = limit(problem, found, price)
    else:
        active = "quality" if hourly > 0 else "budget" if price > 0 else "none"
    by_key = {row.key: mix for row, mix in zip(rows, mixes, strict=True)}
    l0 = all_l0(len(inputs.profile))
    return Decided(
        active,
        mixes[0],
        tuple(l0 if g.opted_out or g.key in left_out else by_key[g.key] for g in inputs.groups),
        price if math.isfinite(price) else None,
        _budget(horizon, found),
        Confidence(inputs.confidence, found.z, found.z_wanted) if found.z_wanted > 0 else None,
    )


def _budget(horizon: Horizon | None, found: Solution) -> Budget | None:
    if horizon is None:
        return None
    return Budget(
        horizon.target,
        len(horizon.requests),
        horizon.carry_request_points,
        found.expected_preference,
        found.short_request_points,
        horizon.basis,
    )


def default(inputs: Inputs) -> Group:
    """The rest of the requests. Where nobody takes part, all of them: somebody may yet."""
    others = math.fsum(g.traffic for g in inputs.groups)
    taking_part = math.fsum(g.traffic for g in inputs.groups if not g.opted_out)
    rest = max(0.0, 1 - others)
    return Group(
        traffic=rest if rest + taking_part > 0 else 1.0,
        covariance=inputs.covariance,
        judged=inputs.judged,
        previous=inputs.previous,
    )


def _problem(
    inputs: Inputs,
    horizon: Horizon | None,
    rows: Sequence[Group],
    intensities: Sequence[float],
    floor: float,
) -> Problem:
    profiles = [row.profile or inputs.profile for row in rows]
    minima = np.array([row.minimum for row in rows])
    traffic = np.array([row.traffic for row in rows])
    previous = None
    if inputs.previous is not None:
        previous = np.array([row.previous or inputs.previous for row in rows])
    return Problem(
        costs_g=costs(inputs, profiles, intensities),
        requests=np.outer(horizon.requests if horizon else (1.0,), traffic),
        preferences=np.array([[p.preference for p in profile] for profile in profiles]),
        target=horizon.target if horizon else floor,
        hourly_minimum=floor if horizon else 0.0,
        class_minimum=minima if minima.any() else None,
        carry_request_points=horizon.carry_request_points if horizon else 0.0,
        against=inputs.against,
        previous=previous,
        certainty=(
            Certainty(inputs.confidence, covariance(rows), inputs.confidence_of)
            if _sure(inputs)
            else None
        ),
    )


def _sure(inputs: Inputs) -> bool:
    return inputs.confidence > 0.5 and bool(inputs.covariance)


def covariance(rows: Sequence[Group]) -> Array:
    """(rows, levels, rows, levels) of their q; the first row is the default.

    Rows without a q of their own (tenants) have the default's, judgment for judgment. That of a
    class is (1 - s) its own + s the default's, s = `shrunk`; classes are judged apart, but the
    default's q is the mean of all judgments, weighted by the requests that they stand for, and the
    share f of the weight is a class's (of its prompts where no weights are told):

        cov(class, default) = (1 - s) f S_class + s S_default        cov(c, d) = s_c s_d S_default

    What rounding, weights or shrinkage leave of it that is no covariance (a negative eigenvalue) is
    cut off at 0, which makes no variance smaller.
    """
    own = [i for i, row in enumerate(rows) if i == 0 or row.covariance]
    of = [own.index(i) if i in own else 0 for i in range(len(rows))]
    whole = np.array(rows[0].covariance)
    levels = len(whole)
    s = np.zeros((len(own), levels, len(own), levels))
    for a, i in enumerate(own):
        for b, j in enumerate(own[: a + 1]):
            s[a, :, b, :] = s[b, :, a, :] = _block(rows, i, j, whole)
    values, vectors = np.linalg.eigh(s.reshape(len(own) * levels, -1))
    if values[0] < 0:
        s = ((vectors * np.maximum(values, 0.0)) @ vectors.T).reshape(s.shape)
    return s[of][:, :, of]


def _block(rows: Sequence[Group], i: int, j: int, whole: Array) -> Array:
    """(levels, levels) between the estimates of two rows, i >= j."""
    a, b = rows[i], rows[j]
    if i == j:
        return np.array(a.covariance)
    if j > 0:
        return np.asarray(a.shrunk * b.shrunk * whole)
    share = a.weight_share or min(1.0, a.judged / max(b.judged, 1))
    return np.asarray((1 - a.shrunk) * share * np.array(a.covariance) + a.shrunk * whole)


def _exploring(inputs: Inputs) -> Caps:
    """The caps with an exploration share; the same object where there is none."""
    levels = len(inputs.profile)
    if inputs.exploration_share == 0 or levels == 1:
        return inputs.caps
    share = min(inputs.exploration_share, 1 / levels)
    most = inputs.caps.most or (1.0,) * levels
    return replace(inputs.caps, least=tuple(min(share, cap) for cap in most))


def _fitting(inputs: Inputs, row: Group, caps: Caps) -> Caps:
    """The caps, or without exploration where that leaves no mix for the row's own minimum."""
    return caps if highest(inputs, row, caps) >= row.minimum else inputs.caps


def highest(inputs: Inputs, row: Group, caps: Caps) -> float:
    """The highest normalised preference that a row can have by itself."""
    q = [p.preference for p in row.profile or inputs.profile]
    if q[0] <= 0:
        return 0.0
    bounds = caps.bounds(len(q), row.previous or inputs.previous)
    return dot(q, most_preferred(q, q, *bounds)) / q[0] + 1e-12


def _without_impossible(
    inputs: Inputs, degraded: dict[str, str]
) -> tuple[Inputs, set[tuple[str, str]]]:
    """(inputs without the groups whose minimum the caps rule out, the keys of those)"""
    impossible: dict[tuple[str, str], str] = {}
    for group in inputs.groups:
        most = 1.0 if group.minimum == 0 else highest(inputs, group, inputs.caps)
        if most < group.minimum:
            name = f"tenant {group.tenant}" if group.tenant else f"class {group.task}"
            impossible[group.key] = (
                f"minimum {group.minimum:.4f} of {name} is {group.minimum - most:.4f} above the "
                "most that the caps allow"
            )
    if impossible:
        degraded["minima"] = f"serving L0 to them: {'; '.join(impossible.values())}"
    out = tuple(replace(g, opted_out=g.opted_out or g.key in impossible) for g in inputs.groups)
    return replace(inputs, groups=out), set(impossible)


def _evenly(
    inputs: Inputs,
    row: Group,
    intensities: Array,  # (hours,)
    requests: Array,  # (hours,)
    shares: Array,  # (hours, levels)
) -> tuple[float, ...]:
    """This hour's mix: the mean over the hours that are as clean as it is.

    Which of them spend is all the same to the program. Were it always the present one, then while
    the grid stands still a debt would grow that each new horizon puts off again.
    """
    same = np.abs(intensities - intensities[0]) <= SAME_G_PER_KWH
    weights = requests[same] if requests[same].sum() > 0 else None
    mean: Array = np.average(shares[same], axis=0, weights=weights)
    lower, upper = inputs.caps.bounds(len(mean), row.previous or inputs.previous)
    within = (mean >= np.array(lower) - 1e-9).all() and (mean <= np.array(upper) + 1e-9).all()
    return tuple(map(float, mean if within else shares[0]))
