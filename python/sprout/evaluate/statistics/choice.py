# SPDX-License-Identifier: Apache-2.0
"""Position bias in choices among all levels: one judgment a prompt, its answers in random order.

`balanced` gives each position the same say: the mean over positions of the share that a level wins
there, which is an inverse-probability estimate with the orders' own frequencies. It is what a judge
of that leaning says on average, so a strong leaning still pulls q towards equality. The multinomial
logit (McFadden 1974)

    P(level i wins) = exp(theta_i + gamma_pos(i)) / sum_j exp(theta_j + gamma_pos(j))

takes the leaning out: q_i is P at gamma = 0. Same prior and sandwich errors as `logistic`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sprout.evaluate.statistics.logistic import PRIOR_PRECISION

Array = NDArray[np.float64]

_STEPS, _TOLERANCE = 60, 1e-10


@dataclass(frozen=True, eq=False)
class Choice:
    by_position: Array  # (levels,) share won by what stood first, second, …
    balanced: Array  # (levels,) q, every position counting alike
    preferences: Array  # (levels,) q with the leaning taken out
    covariance: Array  # (levels, levels) of these


def without(winners: ArrayLike, positions: ArrayLike) -> Choice:
    """Winners (n,) as level numbers, positions (n, levels): where each level stood, 0 first.

    ValueError if they can't be that, there are under 2, or a level never stood somewhere.
    """
    won, at = np.asarray(winners), np.asarray(positions)
    n, levels = at.shape if at.ndim == 2 else (0, 0)
    if won.shape != (n,) or n < 2 or levels < 2:
        raise ValueError(f"winners {won.shape}, positions {at.shape}: want (n >= 2, levels >= 2)")
    if not ((won >= 0) & (won < levels)).all() or (np.sort(at, axis=1) != np.arange(levels)).any():
        raise ValueError("winners are level numbers, positions an order of all levels each")
    hits = np.eye(levels)[won]  # (n, levels)
    stood = np.eye(levels)[at]  # (n, levels, positions)
    times = stood.sum(axis=0)
    if not times.all():
        raise ValueError("some level never stood in some position: orders must be balanced")
    balanced = ((hits[..., None] * stood).sum(axis=0) / times).mean(axis=1)
    by_position = (hits[..., None] * stood).sum(axis=(0, 1)) / n
    # Level 0 and position 0 are the reference.
    x = np.concatenate(
        [np.broadcast_to(np.eye(levels)[:, 1:], (n, levels, levels - 1)), stood[..., 1:]], axis=2
    )
    b, covariance = _fit(hits, x)
    q = _softmax(np.concatenate([[0.0], b[: levels - 1]]))
    slope = (np.diag(q) - np.outer(q, q))[:, 1:]
    own = covariance[: levels - 1, : levels - 1]
    return Choice(by_position, balanced / balanced.sum(), q, slope @ own @ slope.T)


def _fit(hits: Array, x: Array) -> tuple[Array, Array]:
    """Coefficients (columns,) and their sandwich of hits (n, levels), x (n, levels, columns)."""
    n, _, columns = x.shape
    prior = PRIOR_PRECISION * np.eye(columns)
    b = np.zeros(columns)
    for _ in range(_STEPS):
        scores, hessian = _slopes(hits, x, b)
        step = np.linalg.solve(hessian + prior, scores.sum(axis=0) - prior @ b)
        step *= min(1.0, 2.0 / float(np.abs(step).max() or 1.0))  # it may overshoot far from home
        b = b + step
        if float(np.abs(step).max()) < _TOLERANCE:
            break
    scores, hessian = _slopes(hits, x, b)
    inverse = np.linalg.inv(hessian + prior)
    return b, inverse @ (scores.T @ scores * n / (n - 1)) @ inverse


def _slopes(hits: Array, x: Array, b: Array) -> tuple[Array, Array]:
    """Score of each prompt (n, columns) and the Hessian (columns, columns)."""
    p = _softmax(x @ b)
    mean = np.einsum("nl,nlc->nc", p, x)
    hessian = np.einsum("nl,nlc,nld->cd", p, x, x) - mean.T @ mean
    return np.einsum("nl,nlc->nc", hits - p, x), hessian


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))
