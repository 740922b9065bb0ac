# SPDX-License-Identifier: Apache-2.0
"""The contrast (see `contrast`) of one problem of the bank, as a cone that is cut by tangents.

With X = w x the columns and norm_tc what class c's preference is relative to in hour t,

    g_tc = w_tc / norm_tc / sum w        y_ci = sum_t g_tc (x_tci - target [i = 0])

so that y . q is the mean normalised preference less the target, in the bank's own terms.

Tangents of the whole cone are too flat in many dimensions: 16 classes took hundreds. So it is taken
apart (Vielma et al. 2017): with S = R'R and v = R y,

    |v| <= t    if and only if    v_k^2 / t <= s_k for each k,   sum_k s_k <= t

and each of the small cones is cut by its own tangents, s_k >= 2 a v_k - a^2 t. Those at
a = v' / |v'| add up to the tangent of the whole one. Columns y, v, s, t and the rows that tie them
to X are the program's; v, s and t are `SCALE` times as large in it, and all are sums over the
weights.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprout.optimize.contrast import deviation, factor, margin, reachable_z
from sprout.optimize.problem import Problem

Array = NDArray[np.float64]

VIOLATION = 1e-9  # what the contrast may lack, in normalised preference
# HiGHS takes a row as met within 1e-9: larger numbers make that less than VIOLATION.
SCALE = 100.0


class Cone:
    """The contrast of one problem: weights g, the z that can be had, and what a mix violates."""

    def __init__(self, problem: Problem) -> None:
        assert problem.certainty is not None
        self._problem = problem
        self._covariance = problem.certainty.covariance
        self._g = problem.weights / problem.norms / problem.total
        self._carry = problem.target - problem.need / problem.total
        self.z = reachable_z(
            self._g.sum(0), problem.preferences, self._covariance, problem.z_wanted
        )
        self._factor = factor(self._covariance)  # (k, classes * levels)
        _, classes, levels = problem.shape
        self._y, self._v = classes * levels, len(self._factor)
        self.columns = self._y + 2 * self._v + 1
        self.rows = self._y + self._v + 2

    @property
    def certain(self) -> bool:
        """Whether nothing is uncertain."""
        return self._v == 0

    def margin(self, shares: Array) -> float:
        """What the contrast has left for mixes (T, C, L); negative: what it lacks."""
        q = self._problem.preferences
        return margin(self._deviation(shares), q, self._covariance, self.z) + self._carry

    def violated(self, shares: Array, lack: float) -> bool:
        """Whether more tangents are needed. Where nothing uncertain is left the budget's own row
        has it."""
        if self.margin(shares) + lack >= -VIOLATION:
            return False
        return deviation(self._deviation(shares), self._covariance) > 0

    # --- in the program ----------------------------------------------------------------------

    def matrix(self, first: int) -> tuple[Array, NDArray[np.int32], NDArray[np.int32]]:
        """Rows as (values, indices, ends); `first` is the first of the cone's columns.

        y = sum_t X / norm - target [i = 0];  v = SCALE R y;  z t <= SCALE (y . q + lack + carry);
        sum s <= t. `lack` is the column before the first.
        """
        p, (hours, classes, levels) = self._problem, self._problem.shape
        y, v = first, first + self._y
        s, t = v + self._v, v + 2 * self._v
        values: list[Array] = []
        indices: list[NDArray[np.signedinteger[Any]]] = []
        per_hour = classes * levels * np.arange(hours)
        for c in range(classes):
            for i in range(levels):
                row = c * levels + i
                values += [-1 / p.norms[:, c], np.ones(1)]
                indices += [per_hour + row, np.array([y + row])]
        for k, line in enumerate(self._factor):
            values += [-SCALE * line, np.ones(1)]
            indices += [np.arange(y, v), np.array([v + k])]
        values += [np.full(1, SCALE), SCALE * p.preferences.ravel(), np.full(1, -self.z)]
        indices += [np.array([first - 1]), np.arange(y, v), np.array([t])]
        values += [-np.ones(self._v), np.ones(1)]
        indices += [np.arange(s, t), np.array([t])]
        each = [hours + 1] * self._y + [self._y + 1] * self._v + [self._y + 2, self._v + 1]
        return np.concatenate(values), np.concatenate(indices).astype(np.int32), np.cumsum(each)

    @property
    def bounds(self) -> tuple[Array, Array]:
        """Of its columns."""
        free = np.full(self._y + self._v, np.inf)
        least = np.zeros(self._v + 1)  # of s and t
        return np.append(-free, least), np.append(free, least + np.inf)

    @property
    def right_sides(self) -> tuple[Array, Array]:
        """Lower and upper of its rows."""
        p = self._problem
        at_target = np.zeros((p.shape[1], p.shape[2]))
        at_target[:, 0] = -p.target * (p.weights / p.norms).sum(0)
        equal = np.append(at_target.ravel(), np.zeros(self._v))
        least = np.array([-SCALE * self._carry * p.total, 0.0])
        return np.append(equal, least), np.append(equal, [np.inf, np.inf])

    @property
    def basic(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which of its columns and rows a first basis has: y and v, which the first rows define."""
        tied = self._y + self._v
        columns, rows = np.zeros(self.columns, bool), np.zeros(self.rows, bool)
        columns[:tied], rows[tied:] = True, True
        return columns, rows

    @property
    def price_row(self) -> int:
        """Of its rows, the one whose price is that of the contrast, SCALE times as large."""
        return self._y + self._v

    def cuts(self, x: Array, first: int) -> list[tuple[NDArray[np.int32], Array]]:
        """Tangents (columns, values), each >= 0, that the program's x violates."""
        v0, s0, t0 = (first + self._y + n for n in (0, self._v, 2 * self._v))
        v, s, t = x[v0:s0], x[s0:t0], float(x[t0])
        a = v / np.linalg.norm(v)
        lacking = 2 * a * v - a**2 * t - s
        chosen = np.flatnonzero(lacking > 0)
        return [
            (np.array([s0 + k, v0 + k, t0], np.int32), np.array([1.0, -2 * a[k], a[k] ** 2]))
            for k in chosen
        ]

    def _deviation(self, shares: Array) -> Array:
        y = np.asarray((self._g[..., None] * shares).sum(0))
        y[:, 0] -= self._problem.target * self._g.sum(0)
        return y
