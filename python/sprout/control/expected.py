# SPDX-License-Identifier: Apache-2.0
"""What mixes are expected to cost and to be worth: a group's by itself, and those of all."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sprout.control.inputs import Group, Inputs
from sprout.control.plan import CLASS, MINIMUM, GroupPlan
from sprout.control.propensity import OPTED_OUT
from sprout.profile import LevelProfile, cost

Shares = tuple[float, ...]


@dataclass(frozen=True)
class Expected:
    """Means per request of those that take part; tenants that opted out do not."""

    g: float  # nan without an intensity
    l0_g: float
    preference: float  # normalised, against the L0 that the floor is against


def grams(inputs: Inputs, profile: Sequence[LevelProfile], k0: float | None) -> list[float]:
    """(levels,) per request; nan without an intensity."""
    if k0 is None:
        return [math.nan for _ in profile]
    return cost.grams(
        profile,
        intensity_g_per_kwh=k0,
        pue=inputs.pue,
        embodied_g_per_s=inputs.embodied_g_per_s,
    )


def of_groups(inputs: Inputs, mixes: Sequence[Shares], k0: float | None) -> tuple[GroupPlan, ...]:
    """mixes: (groups, levels), as in Inputs; fewer: the others are under the default mix."""
    return tuple(
        _of_group(inputs, group, shares, k0)
        for group, shares in zip(inputs.groups, mixes, strict=False)
    )


def _of_group(inputs: Inputs, group: Group, shares: Shares, k0: float | None) -> GroupPlan:
    profile = group.profile or inputs.profile
    c, q0 = grams(inputs, profile, k0), profile[0].preference
    return GroupPlan(
        tenant=group.tenant,
        task=group.task,
        shares=shares,
        minimum=group.minimum,
        expected_preference=_dot((p.preference for p in profile), shares) / q0 if q0 > 0 else 1.0,
        expected_g=_dot(c, shares),
        expected_l0_g=c[0],
        traffic=group.traffic,
        basis=OPTED_OUT if group.opted_out else MINIMUM if group.tenant else CLASS,
        profile=group.profile,
    )


def of_all(
    inputs: Inputs, shares: Shares, groups: Sequence[GroupPlan], k0: float | None
) -> Expected:
    """shares: (levels,) of the requests that are in no group."""
    rest = max(0.0, 1 - math.fsum(group.traffic for group in groups))
    parts = [(rest, shares, inputs.profile)]
    parts += [(g.traffic, g.shares, g.profile or inputs.profile) for g in groups if not g.opted_out]
    if math.fsum(weight for weight, _, _ in parts) <= 0:
        parts = [(1.0, shares, inputs.profile)]
    n = [weight for weight, _, _ in parts]
    total = math.fsum(n)
    c = [grams(inputs, profile, k0) for _, _, profile in parts]
    worth = [_dot((p.preference for p in profile), mix) for _, mix, profile in parts]
    q0 = [profile[0].preference for _, _, profile in parts]
    if inputs.against == "pooled":
        mean = _dot(n, q0)
        preference = _dot(n, worth) / mean if mean > 0 else 1.0
    else:
        relative = [w / q if q > 0 else 1.0 for w, q in zip(worth, q0, strict=True)]
        preference = _dot(n, relative) / total
    return Expected(
        _dot(n, [_dot(row, mix) for row, (_, mix, _) in zip(c, parts, strict=True)]) / total,
        _dot(n, [row[0] for row in c]) / total,
        preference,
    )


def _dot(a: Iterable[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))
