# SPDX-License-Identifier: Apache-2.0
"""How much a judge prefers what is shown first, and q without it. Pairwise judgments.

Every pair is judged in both orders, so the mean of the two is free of a bias that *adds to the
probability* of the first: p - b and p + b average to p, whatever b is, and this is what
`Judged.scores` holds. A bias that adds to the *log-odds* instead

    P(level preferred) = 1 / (1 + exp(-(theta_i + gamma z)))        z = +1 level first, -1 L0 first

pulls the mean towards one half, the more the further p is from it. `without` takes it out by
regression, gamma being common to all levels, ties being halves.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sprout.evaluate.statistics.logistic import Fit, fit, logistic
from sprout.evaluate.statistics.quality import LEAST_DEGREES, MOST_SCORE
from sprout.proof.interval import CONFIDENCE, Absent, Interval, student_t

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Position:
    """The judge's leaning, over all levels."""

    first: Interval  # share in which the answer shown first won, ties half; 0.5: no leaning
    consistent: float  # share of pairs with one verdict in both orders
    prompts: int

    @property
    def points(self) -> float:
        """Too often, in percentage points: > 0 the first, < 0 the second."""
        return 100 * (self.first.value - 0.5)


@dataclass(frozen=True, eq=False)
class Corrected:
    preferences: Array  # (levels,) q, q_0 = 1
    covariance: Array  # (levels, levels)
    coefficient: Interval  # what was taken out: log-odds
    # (levels,) what q is off by where the coefficient is off by one standard error: the part of the
    # error that all q at this coefficient have in common, shared shared' in their covariances.
    shared: Array


def measure(orders: ArrayLike, *, confidence: float = CONFIDENCE) -> Position | Absent:
    """Of `Judged.orders` of all prompts, (n, levels - 1, 2). ValueError if they can't be that."""
    verdicts = checked(orders)
    n = len(verdicts)
    if n < 2:
        return Absent(f"{n} prompts judged in both orders: 2 are needed")
    first = ((1 - verdicts[..., 0] + verdicts[..., 1]) / 2).mean(axis=1)
    value = float(first.mean())
    # Half a judgment that went either way: n alike judgments are not sure of anything.
    error = float(np.sqrt(first.var(ddof=1) / n + 0.25 / n**2))
    half = student_t((1 + confidence) / 2, max(n - 1, LEAST_DEGREES)) * error
    return Position(
        Interval(value, max(0.0, value - half), min(1.0, value + half), confidence),
        float((verdicts[..., 0] == verdicts[..., 1]).mean()),
        n,
    )


def without(
    orders: ArrayLike, *, weights: ArrayLike | None = None, confidence: float = CONFIDENCE
) -> Corrected:
    """q with the leaning taken out on the log-odds. Orders (n, levels - 1, 2), weights (n,)."""
    verdicts = checked(orders)
    n, others, _ = verdicts.shape
    level, order = np.tile(np.repeat(np.arange(others), 2), n), np.tile([-1.0, 1.0], n * others)
    x = np.column_stack([np.eye(others)[level], order])
    prompts = np.repeat(np.arange(n), 2 * others)
    w = None if weights is None else np.asarray(weights, dtype=np.float64)[prompts]
    return corrected(verdicts.ravel(), x, prompts, w, confidence=confidence)


def corrected(
    y: Array,
    x: Array,
    prompts: NDArray[np.int64],
    weights: Array | None,
    *,
    confidence: float,
) -> Corrected:
    """Of a regression with one column per level but L0, and last what is taken out."""
    found = fit(y, x, prompts, weights)
    return at_zero(found, len(np.unique(prompts)), confidence=confidence)


def at_zero(found: Fit, prompts: int, *, confidence: float, mix: Array | None = None) -> Corrected:
    """q where the last column is 0. The coefficients before it are one per level but L0; or, with
    `mix` (levels - 1, columns - 1), of cells whose q are averaged to those."""
    p = logistic(found.coefficients[:-1])
    average = np.eye(len(p)) if mix is None else mix
    slope = np.zeros((len(average) + 1, len(p) + 1))
    slope[1:, :-1] = average * (2 * p * (1 - p))
    taken, error = found.coefficients[-1], float(np.sqrt(found.covariance[-1, -1]))
    degrees = max(prompts - 1, LEAST_DEGREES)
    half = student_t((1 + confidence) / 2, degrees) * error
    return Corrected(
        np.concatenate([[1.0], np.minimum(2 * average @ p, MOST_SCORE["pairwise"])]),
        slope @ found.covariance @ slope.T,
        Interval(float(taken), float(taken) - half, float(taken) + half, confidence),
        slope @ found.covariance[:, -1] / error if error > 0 else np.zeros(len(slope)),
    )


def checked(orders: ArrayLike) -> Array:
    verdicts = np.asarray(orders, dtype=np.float64)
    if verdicts.ndim != 3 or verdicts.shape[1] == 0 or verdicts.shape[2] != 2:
        raise ValueError(f"orders are {verdicts.shape}, not (prompts, levels - 1, 2)")
    if not ((verdicts >= 0) & (verdicts <= 1)).all():  # nan is neither
        raise ValueError("verdicts must be in [0, 1]")
    return verdicts
