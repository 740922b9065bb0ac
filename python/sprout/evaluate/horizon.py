# SPDX-License-Identifier: Apache-2.0
"""What q is needed for: the decisions that will rest on it, until it is measured again."""

import math

from sprout.evaluate import in_force
from sprout.evaluate.statistics.sequential import Hour
from sprout.optimize.floor import Range, place
from sprout.v1 import control_pb2 as pb

POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)  # in the range that intensities have lately stood in


def hours(policy: pb.Policy) -> list[Hour]:
    """As the present decision would be at each of a few intensities; [] where none is known.

    An evaluation runs when the grid is clean, where the floor is high and little is decided by q.
    What is decided by it are the other hours. Each is the published program: all requests under one
    mix, the plain floor of that hour. A budget over hours, classes, tenants, caps and the
    confidence that is asked of the floor are not looked at, so a regret is of that program's mix.
    """
    why = policy.explanation
    if not policy.HasField("intensity") or not why.profile:
        return []
    low, high = why.k0_min_g_per_kwh, why.k0_max_g_per_kwh
    now = policy.intensity.g_per_kwh
    known = math.isfinite(low) and math.isfinite(high) and 0 <= low < high
    within = Range(low, high, why.range_basis) if known else Range(now, now, "no range")
    grid = [low + at * (high - low) for at in POSITIONS] if known else [now]
    found = []
    for intensity in grid:
        costs = in_force.grams(policy, intensity)
        if min(costs) > 0:
            floor = place(intensity, within, why.xi, why.fraction).relative
            found.append(Hour(tuple(costs), min(1.0, max(0.0, floor))))
    return found
