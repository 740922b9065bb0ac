# SPDX-License-Identifier: Apache-2.0
"""Logistic regression of shares in [0, 1], ties being halves, with errors that hold per prompt.

    E[y] = 1 / (1 + exp(-X b))       (fractional logit: Papke and Wooldridge 1996)

Newton's method on the Bernoulli log-likelihood, which is right for any y in [0, 1] whose mean the
model gives. A weak prior, b ~ Normal(0, 10^2), keeps b finite where the outcomes are separated. The
covariance is the sandwich H^-1 (sum_g s_g s_g') H^-1 with s_g the score of all rows of prompt g
(Liang and Zeger 1986), so rows of one prompt may depend on each other, times G / (G - 1).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PRIOR_PRECISION = 0.01
_STEPS, _TOLERANCE = 60, 1e-10


@dataclass(frozen=True, eq=False)
class Fit:
    coefficients: Array  # (columns,)
    covariance: Array  # (columns, columns)


def fit(y: Array, x: Array, groups: NDArray[np.int64], weights: Array | None = None) -> Fit:
    """y (rows,) in [0, 1], x (rows, columns), groups (rows,) 0 … G-1: the prompt of each row.

    ValueError for shapes that don't fit, or under 2 prompts.
    """
    rows, columns = x.shape
    w = np.ones(rows) if weights is None else weights
    if y.shape != (rows,) or groups.shape != (rows,) or w.shape != (rows,):
        raise ValueError(f"outcomes {y.shape}, groups {groups.shape}, weights {w.shape}: {rows}")
    count = len(np.unique(groups))
    if count < 2:
        raise ValueError(f"{count} prompts: 2 are needed")
    w = w / w.mean()
    b = np.zeros(columns)
    objective = -np.inf
    for _ in range(_STEPS):
        p = logistic(x @ b)
        slope = x.T @ (w * (y - p)) - PRIOR_PRECISION * b
        hessian = (x * (w * p * (1 - p))[:, None]).T @ x + PRIOR_PRECISION * np.eye(columns)
        step = np.linalg.solve(hessian, slope)
        # Halved until it goes up: the likelihood is concave, but full steps can overshoot.
        scale = 1.0
        now = _objective(y, x, w, b) if objective == -np.inf else objective
        while scale > 1e-6 and _objective(y, x, w, b + scale * step) < now:
            scale /= 2
        b = b + scale * step
        objective = _objective(y, x, w, b)
        if float(np.abs(scale * step).max()) < _TOLERANCE:
            break
    p = logistic(x @ b)
    hessian = (x * (w * p * (1 - p))[:, None]).T @ x + PRIOR_PRECISION * np.eye(columns)
    scores = np.zeros((int(groups.max()) + 1, columns))
    np.add.at(scores, groups, x * (w * (y - p))[:, None])
    inverse = np.linalg.inv(hessian)
    meat = scores.T @ scores * count / (count - 1)
    return Fit(b, inverse @ meat @ inverse)


def logistic(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


def _objective(y: Array, x: Array, w: Array, b: Array) -> float:
    eta = x @ b
    likelihood = w * (y * eta - np.logaddexp(0, eta))
    return float(likelihood.sum()) - PRIOR_PRECISION * float(b @ b) / 2
