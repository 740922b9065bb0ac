# SPDX-License-Identifier: Apache-2.0
"""Whether a plan differs enough from the one in force to be published."""

import math

from sprout.control.plan import Plan
from sprout.profile import MARGINAL, moved

SAME_SHARE = 0.01
SAME_TRAFFIC = 0.05  # of the requests


def trigger(
    old: Plan | None, new: Plan, *, intensity_g_per_kwh: float, profile_ratio: float
) -> str | None:
    """What moved, in a word; None if nothing did by more than its set amount."""
    if old is None:
        return "start"
    reach = intensity_g_per_kwh
    ends = ((old.within.low, new.within.low), (old.within.high, new.within.high))
    what = {
        "pause": (old.active_constraint == "paused") != (new.active_constraint == "paused"),
        "shadow": (old.active_constraint == "shadow") != (new.active_constraint == "shadow"),
        "block": old.block != new.block,
        "evaluation": old.evaluation != new.evaluation,
        "mixes": _kinds(old) != _kinds(new),
        "prompts": old.prompts != new.prompts,
        "degraded": set(old.degraded) != set(new.degraded),
        "intensity": _apart(old.intensity_g_per_kwh, new.intensity_g_per_kwh, reach),
        "range": any(_apart(_known(a), _known(b), reach) for a, b in ends),
        "profile": (moved(old.profile, new.profile, profile_ratio) and _matters(old, new))
        or (_groups_moved(old, new, profile_ratio) and _mixes_moved(old, new)),
    }
    return next((name for name, changed in what.items() if changed), None)


def _matters(old: Plan, new: Plan) -> bool:
    """Marginal energy moves with each minute's traffic; it is news where the mix moves with it."""
    if any(p.energy_basis != MARGINAL for p in (*old.profile, *new.profile)):
        return True
    return _mixes_moved(old, new)


def _mixes_moved(old: Plan, new: Plan) -> bool:
    """As decided, applied or not."""
    mixes = [(old.would_be or old.shares, new.would_be or new.shares)]
    now = {group.key: group.shares for group in new.decided}
    mixes += [(group.shares, now.get(group.key, group.shares)) for group in old.decided]
    return any(abs(a - b) > SAME_SHARE for one, two in mixes for a, b in zip(one, two, strict=True))


def _kinds(plan: Plan) -> set[tuple[str, str, str, float]]:
    return {(*group.key, group.basis, group.minimum) for group in plan.decided}


def _groups_moved(old: Plan, new: Plan, ratio: float) -> bool:
    """Whether the profile or the traffic of a tenant or class did."""
    now = {group.key: group for group in new.decided}
    return any(
        abs(now[group.key].traffic - group.traffic) > SAME_TRAFFIC
        or moved(group.profile, now[group.key].profile, ratio)
        for group in old.decided
        if group.key in now
    )


def _apart(old: float | None, new: float | None, reach: float) -> bool:
    if old is None or new is None:
        return old is not new
    return abs(new - old) > reach


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
