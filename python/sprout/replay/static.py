# SPDX-License-Identifier: Apache-2.0
"""The best static mix in hindsight, at a preference that a scheme ended with: STATIC_EQ.

One mix for all hours, chosen knowing the whole window: its intensities, its requests and its
assessments. What a scheme saves beyond it is what its hourly decisions earned; the rest is the
directives' own doing.
"""

from sprout.errors import InfeasibleError
from sprout.replay.window import Solver, Window


def static_eq(window: Window, preference: float) -> float | None:
    """The fraction saved by the cheapest mix of the levels whose mean normalised preference, as
    scored, is at least `preference`. None where no static mix has that much."""
    costs = window.costs_g[:, : window.levels].mean(axis=0)
    try:
        shares = Solver(window.levels).mix(costs, window.ratios, preference)
    except InfeasibleError:
        return None
    return 1 - float(costs @ shares / costs[0])
