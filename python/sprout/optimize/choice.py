# SPDX-License-Identifier: Apache-2.0
"""How many standard deviations hold for a mix that was chosen by the same estimates.

For a mix that was set beforehand the floor holds with confidence Phi(z) (see `contrast`). But the
program looks for what the estimates make look good, and finds what they flatter: of two levels that
are alike it takes the luckier one. What holds for every mix at once holds for the one chosen, be it
chosen how it may (Scheffe 1953). With q the truth, e the estimates' error and S = B B, B symmetric,

    sup over y of  y . e / sqrt(y' S y)  =  |projection of Z onto the cone of the B y|,  Z ~ N(0, I)

and the y of mixes are no whole space, as Scheffe's are, but a cone: no share is negative. A level's
part in the mean of the ratios r_ci = q_ci / q_c0 has to first order the direction

    e_ci - r_ci e_c0     i > 0     against each row's own L0 (L0's own ratio is 1, for sure)

whatever the floor, the traffic, the costs or the caps, so z depends on q and S alone. Against a
pooled L0 rows may trade with each other's: the cone of all  e_ci - e_c0  and  e_c0  holds them.

For one row and three levels of equal, independent errors z is the root of the quantile of a
chi-bar-square with weights 1/4, 1/2, 1/4: 1.72 where 0.9 is wanted, not 1.28. With many rows it is
on the safe side: no program can exploit them all.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DRAWS = 10_000  # the confidence is met to within half a point
SEED = 20240312
ALIKE = 1e-9  # of cosines: one direction
NOTHING = 1e-9  # a standard deviation, of normalised preference
SWEEPS = 500
CLOSE = 1e-7  # of a squared length, from one sweep to the next


def z_of_choice(covariance: Array, confidence: float, preferences: Array | None) -> float:
    """z with which the floor holds for whichever mix is chosen; 0 where nothing is uncertain.

    covariance: (rows, levels, levels) or (rows, levels, rows, levels). confidence: above 0.5.
    preferences: (rows, levels) q with q_0 > 0; None: the floor is against a pooled L0.
    """
    s = np.ascontiguousarray(covariance, np.float64)
    q = b"" if preferences is None else np.ascontiguousarray(preferences, np.float64).tobytes()
    return _z(s.tobytes(), s.shape, confidence, q)


@lru_cache(maxsize=16)  # an evaluation stays for hours, decisions are of minutes
def _z(covariance: bytes, shape: tuple[int, ...], confidence: float, preferences: bytes) -> float:
    s = np.frombuffer(covariance).reshape(shape)
    q = np.frombuffer(preferences).reshape(shape[:2]) if preferences else None
    gram = _gram(s, q)
    if not len(gram):
        return 0.0
    # Moments have the covariance `gram`; its symmetric root is unique, so z is steady in S.
    values, vectors = np.linalg.eigh(gram)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    draws = np.random.default_rng(SEED).standard_normal((DRAWS, len(gram)))
    return float(np.quantile(_lengths(gram, draws @ root), confidence))


def _gram(s: Array, q: Array | None) -> Array:
    """(k, k) cosines between the k directions, none twice."""
    rows, levels = s.shape[:2]
    y = np.eye(rows * levels).reshape(rows, levels, rows, levels)
    for c in range(rows):
        for i in range(1, levels):
            y[c, i, c, 0] = -1.0 if q is None else -q[c, i] / q[c, 0]
    flat = (y if q is None else y[:, 1:]).reshape(-1, rows * levels)
    if s.ndim == 3:
        whole = np.zeros((rows, levels, rows, levels))
        for c in range(rows):
            whole[c, :, c] = s[c]
        s = whole
    inner = flat @ s.reshape(rows * levels, -1) @ flat.T
    deviations = np.sqrt(np.maximum(np.diag(inner), 0.0))
    kept = np.flatnonzero(deviations > NOTHING)
    cosines = inner[np.ix_(kept, kept)] / np.outer(deviations[kept], deviations[kept])
    own: list[int] = []
    for k in range(len(kept)):
        if not own or cosines[k, own].max() < 1 - ALIKE:
            own.append(k)
    return np.asarray(cosines[np.ix_(own, own)])


def _lengths(gram: Array, moments: Array) -> Array:
    """(n,) of the projections onto the cone of k directions, from their products (n, k) with what
    is projected. Non-negative least squares by coordinates, all at once (Hildreth 1957)."""
    found = np.zeros(len(moments))
    going = np.arange(len(moments))  # those that are not settled yet
    x, slack, squares = np.zeros_like(moments), moments.copy(), found.copy()  # slack = m - G x
    for _ in range(SWEEPS):
        for k in range(len(gram)):
            moved = np.maximum(x[:, k] + slack[:, k], 0.0) - x[:, k]
            x[:, k] += moved
            slack -= moved[:, None] * gram[k]
        before, squares = squares, (x * (moments + slack)).sum(1)  # 2 m x - x G x
        found[going] = squares
        open_ = squares - before > CLOSE * np.maximum(squares, 1.0)
        if not open_.any():
            break
        going, x, slack, squares = going[open_], x[open_], slack[open_], squares[open_]
        moments = moments[open_]
    return np.asarray(np.sqrt(np.maximum(found, 0.0)))
