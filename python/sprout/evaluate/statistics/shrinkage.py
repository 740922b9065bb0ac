# SPDX-License-Identifier: Apache-2.0
"""Classes with few judgments borrow from the others, as far as the classes are alike.

Multivariate empirical Bayes. Class c has the estimates q_c with covariance V_c; its true values
vary between classes with covariance B about a common mean mu. With a_c the share of c in the
effective prompts, B is found by the method of moments (DerSimonian and Laird 1986, in matrices:
Jackson, White and Riley 2013)

    B = (sum_c a_c (q_c - m)(q_c - m)' - sum_c a_c (1 - a_c) V_c) / (1 - sum_c a_c^2)
    m = sum_c a_c q_c

less its negative eigenvalues, plus 3 / (C - 1) sum_c a_c V_c: no variance is below 0, and with C
classes B is not known better than that; taken for 0 it would make one of all classes (the boundary
that Li and Lahiri 2010 adjust for). Then, with mu by generalised least squares,

    M_c = V_c (V_c + B)^-1         how much c yields: 0 nothing (many judgments, classes differ),
                                   1 all (no judgments to speak of, or classes that are alike)
    q_c - M_c (q_c - mu)           shrunk
    V_c - M_c V_c  +  M_c var(mu) M_c'  +  2 / max(1, C - 3) M_c d_c d_c' M_c'       d_c = q_c - mu

its covariance: the posterior's, what mu is unsure by, and what B is unsure by (Morris 1983). In a
direction in which no q_c can vary (L0 of pairwise) nothing moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sprout.evaluate.statistics.quality import MOST_SCORE, Quality

Array = NDArray[np.float64]

_NOTHING = 1e-12  # share of the largest eigenvalue that counts as 0


@dataclass(frozen=True, eq=False)
class Shrunk:
    """One class after borrowing."""

    task: str
    preferences: Array  # (levels,) q, as far as scores go
    covariance: Array  # (levels, levels) of these
    amount: float  # 0: its own judgments alone … 1: those of all classes


@dataclass(frozen=True, eq=False)
class Shrinkage:
    classes: tuple[Shrunk, ...]  # in the order given
    mean: Array  # (levels,) mu
    between: Array  # (levels, levels) B


def shrink(classes: Sequence[Quality]) -> Shrinkage:
    """Of qualities by class (without the pooled one), of one method and the same levels.

    One class alone stays as it is. ValueError for none, or for classes that don't go together.
    """
    if not classes:
        raise ValueError("no class to shrink")
    if len({(c.levels, c.method) for c in classes}) > 1 or len({c.task for c in classes}) < len(
        classes
    ):
        raise ValueError("classes of different levels or methods, or one of them twice")
    q = np.stack([c.preferences for c in classes])  # (classes, levels)
    v = np.stack([c.covariance for c in classes])  # (classes, levels, levels)
    a = np.array([c.effective for c in classes])
    b = between(q, v, a / a.sum())
    precision = np.stack([_inverse(one + b) for one in v])
    mu_covariance = _inverse(precision.sum(axis=0))
    mu = mu_covariance @ np.einsum("cij,cj->i", precision, q)
    # In directions in which nothing varies the inverse is 0, and all classes agree anyway.
    mu += (np.eye(len(mu)) - mu_covariance @ _inverse(mu_covariance)) @ q.mean(axis=0)
    unsure = 2 / max(1, len(classes) - 3)
    found = []
    for c, own, spread, w in zip(classes, q, v, precision, strict=True):
        if len(classes) == 1:
            found.append(Shrunk(c.task, own, spread, 0.0))
            continue
        m = spread @ w
        gap = m @ (own - mu)
        covariance = spread - m @ spread + m @ mu_covariance @ m.T + unsure * np.outer(gap, gap)
        rank = np.linalg.matrix_rank(spread, hermitian=True)
        amount = float(np.clip(np.trace(m) / rank, 0, 1)) if rank else 0.0
        # B is of all levels together, so a level may be drawn past what a score can be.
        moved = np.clip(own - gap, 0, MOST_SCORE[c.method])
        found.append(Shrunk(c.task, moved, (covariance + covariance.T) / 2, amount))
    return Shrinkage(tuple(found), mu, b)


def between(q: Array, v: Array, shares: Array) -> Array:
    """B (levels, levels) of q (classes, levels), their covariances and weights that sum to 1."""
    levels = q.shape[1]
    free = 1 - float((shares**2).sum())
    if free <= _NOTHING:
        return np.zeros((levels, levels))
    gap = q - shares @ q
    moments = np.einsum("c,ci,cj->ij", shares, gap, gap)
    noise = np.einsum("c,cij->ij", shares * (1 - shares), v)
    values, vectors = np.linalg.eigh((moments - noise) / free)
    unknown = 3 / (len(q) - 1) * np.einsum("c,cij->ij", shares, v)
    return np.asarray((vectors * np.maximum(values, 0)) @ vectors.T + unknown)


def _inverse(s: Array) -> Array:
    """Of a symmetric matrix, within the directions in which it is not 0."""
    return np.asarray(np.linalg.pinv(s, rcond=_NOTHING, hermitian=True))
