# SPDX-License-Identifier: Apache-2.0
"""Whether a plan differs enough from the one in force to be published."""

import math

from sprout.control.plan import Plan
from sprout.profile import MARGINAL, moved

SAME_SHARE = 0.01


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
        "degraded": set(old.degraded) != set(new.degraded),
        "intensity": _apart(old.intensity_g_per_kwh, new.intensity_g_per_kwh, reach),
        "range": any(_apart(_known(a), _known(b), reach) for a, b in ends),
        "profile": moved(old.profile, new.profile, profile_ratio) and _matters(old, new),
    }
    return next((name for name, changed in what.items() if changed), None)


def _matters(old: Plan, new: Plan) -> bool:
    """Marginal energy moves with each minute's traffic; it is news where the mix moves with it."""
    if any(p.energy_basis != MARGINAL for p in (*old.profile, *new.profile)):
        return True
    before, after = old.would_be or old.shares, new.would_be or new.shares
    return any(abs(a - b) > SAME_SHARE for a, b in zip(before, after, strict=True))


def _apart(old: float | None, new: float | None, reach: float) -> bool:
    if old is None or new is None:
        return old is not new
    return abs(new - old) > reach


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
