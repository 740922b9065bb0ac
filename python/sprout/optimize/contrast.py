# SPDX-License-Identifier: Apache-2.0
"""How sure it is that a mix meets the floor, given how few judgments q rests on.

Bounding each level's q by its own interval would make even all-L0 miss a floor that is relative to
q0, since q0 stands on both sides. What counts is the *contrast* between the mix and the floor,

    D(x) = sum_i x_i q_i - tau q_0 = y . q          y_i = x_i - tau [i = 0]

which the floor needs to be >= 0. With S the covariance of the estimates q, it is so with confidence
Phi(z) (normal approximation) if

    y . q >= z sqrt(y' S y)

Here y and q are (classes, levels) and S (classes, levels, levels) where classes are judged apart,
so that their variances add up, or (classes, levels, classes, levels) where their estimates have
judgments in common; and
y = sum_t g_tc (x_tci - tau [i = 0]) with g the weight of class c in hour t over the preference that
it is measured against (see `bank`). The left side is linear and the right side convex in x, so the
constraint is a second-order cone: it is the intersection of its tangents

    sum_ci y_ci (q_ci - z (S y')_ci / sqrt(y'' S y')) >= 0      for every y'

of which `cone` finds those that are needed. That is for a mix that was set beforehand; the z that
holds for the one that is chosen by the same estimates is `choice`'s.

All-L0 has y = (1 - tau) (g_c, 0, ...), so both sides shrink alike and it meets the constraint,
whatever tau, if and only if

    sum_c g_c q_c0 >= z sd(sum_c g_c q_c0)      with one class: q_0 >= z sd(q_0)

that is, if q_0 itself is told from 0 at this confidence. Where it is not (a handful of judgments),
`reachable_z` gives the largest z for which all-L0 does, and that is used instead, and said.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sprout.optimize.choice import z_of_choice

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Certainty:
    """The floor is to hold with `confidence`, in [0.5, 1); 0.5 is the plain floor."""

    confidence: float
    covariance: Array  # (classes, levels, levels) of the preferences, or classes with each other
    of: Literal["mix", "choice"] = "mix"  # set beforehand, or chosen by these estimates: `choice`

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"confidence must be in [0.5, 1): {self.confidence}")

    def z(self, preferences: Array | None) -> float:
        """preferences: (classes, levels) q; None: against a pooled L0."""
        if self.of == "choice" and self.confidence > 0.5:
            return z_of_choice(self.covariance, self.confidence, preferences)
        return NormalDist().inv_cdf(self.confidence)

    def check(self, classes: int, levels: int) -> None:
        """ValueError unless the covariance is one: shape, symmetric, no negative variance."""
        s = self.covariance
        apart, joint = (classes, levels, levels), (classes, levels) * 2
        if s.shape not in (apart, joint):
            raise ValueError(f"covariance is {s.shape}, not {apart} or {joint}")
        if s.shape == joint:
            s = s.reshape(1, classes * levels, classes * levels)
        if not np.isfinite(s).all() or not np.allclose(s, np.swapaxes(s, 1, 2)):
            raise ValueError("covariance must be finite and symmetric")
        least = float(np.linalg.eigvalsh(s).min())
        if least < -1e-9 * max(1e-9, float(np.abs(s).max())):
            raise ValueError(f"covariance has a negative eigenvalue: {least:g}")


def multinomial(preferences: Array, judgments: int) -> Array:
    """Covariance (levels, levels) of shares q (levels,) among n judgments: (diag q - q q') / n.

    Levels win at each other's expense, hence the minus: a mix of L0 and L1 is surer than either.
    The shares may add up to less than 1 (ties, no answer). ValueError if there is no judgment.
    """
    q = np.asarray(preferences, dtype=np.float64)
    if judgments < 1:
        raise ValueError(f"a share needs judgments: {judgments}")
    if q.min() < 0 or q.sum() > 1 + 1e-9:
        raise ValueError(f"not shares of the same judgments: {q.tolist()}")
    return np.asarray((np.diag(q) - np.outer(q, q)) / judgments)


def deviation(y: Array, covariance: Array) -> float:
    """sqrt(y' S y) for y (classes, levels)."""
    return math.sqrt(max(0.0, float((y * _times(covariance, y)).sum())))


def _times(covariance: Array, y: Array) -> Array:
    """S y, (classes, levels)."""
    if covariance.ndim == 3:
        return np.asarray(np.einsum("cij,cj->ci", covariance, y))
    return np.asarray(np.tensordot(covariance, y, 2))


def margin(y: Array, preferences: Array, covariance: Array, z: float) -> float:
    """y . q - z sqrt(y' S y): what the constraint has left; negative: what it lacks."""
    return float((y * preferences).sum()) - z * deviation(y, covariance)


def factor(covariance: Array) -> Array:
    """R (k, classes * levels) with R'R = S, k its rank."""
    if covariance.ndim == 3:
        blocks = list(covariance)
    else:
        size = covariance.shape[0] * covariance.shape[1]
        blocks = [covariance.reshape(size, size)]
    width = len(blocks) * len(blocks[0])
    rows = []
    most = max(float(np.abs(block).max()) for block in blocks)
    for number, block in enumerate(blocks):
        values, vectors = np.linalg.eigh(block)
        for value, vector in zip(values, vectors.T, strict=True):
            if value > 1e-14 * most:
                row = np.zeros(width)
                row[number * len(block) : (number + 1) * len(block)] = math.sqrt(value) * vector
                rows.append(row)
    return np.array(rows).reshape(-1, width)


def reachable_z(weights: Array, preferences: Array, covariance: Array, z: float) -> float:
    """The largest z, at most the wanted one, with which all-L0 meets any floor.

    `weights` (classes,) = g_c.
    """
    all_l0 = np.zeros_like(preferences)
    all_l0[:, 0] = weights
    sd = deviation(all_l0, covariance)
    mean = float((weights * preferences[:, 0]).sum())
    return z if z * sd <= mean else mean / sd
