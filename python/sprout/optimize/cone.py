# SPDX-License-Identifier: Apache-2.0
"""The contrast (see `contrast`) of one problem of the bank, as a cone that is cut by tangents.

With X = w x the columns and norm_tc what class c's preference is relative to in hour t,

    g_tc = w_tc / norm_tc / sum w        y_ci = sum_t g_tc (x_tci - target [i = 0])

so that y . q is the mean normalised preference less the target, in the bank's own terms.
"""

import numpy as np
from numpy.typing import NDArray

from sprout.optimize.contrast import margin, reachable_z, tangent
from sprout.optimize.problem import Problem

Array = NDArray[np.float64]

VIOLATION = 1e-9  # what the contrast may lack, in normalised preference


class Cone:
    """The contrast of one problem: weights g, the z that can be had, and what a mix violates."""

    def __init__(self, problem: Problem) -> None:
        assert problem.certainty is not None
        self._problem = problem
        self._covariance = problem.certainty.covariance
        self._g = problem.weights / problem.norms / problem.total
        self._carry = problem.target - problem.need / problem.total
        self.z = reachable_z(
            self._g.sum(0), problem.preferences, self._covariance, problem.certainty.z
        )

    def margin(self, shares: Array) -> float:
        """What the contrast has left for mixes (T, C, L); negative: what it lacks."""
        q = self._problem.preferences
        return margin(self._deviation(shares), q, self._covariance, self.z) + self._carry

    def violated(self, shares: Array, lack: float) -> tuple[Array, float] | None:
        """The tangent there, as row and right side for X = w x; None if it is not needed."""
        if self.margin(shares) + lack >= -VIOLATION:
            return None
        p = self._problem
        slope = tangent(self._deviation(shares), p.preferences, self._covariance, self.z)
        if slope is None:  # nothing uncertain is left: the budget's own row has it
            return None
        values = slope / p.norms[..., None]
        at_target = p.target * float((p.weights / p.norms * slope[:, 0]).sum())
        return values.ravel(), at_target - self._carry * p.total

    def _deviation(self, shares: Array) -> Array:
        y = np.asarray((self._g[..., None] * shares).sum(0))
        y[:, 0] -= self._problem.target * self._g.sum(0)
        return y
