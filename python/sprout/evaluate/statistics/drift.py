# SPDX-License-Identifier: Apache-2.0
"""Whether q moved between two evaluations, with a false-alarm rate over all of them.

With r = q_i / q_0 of the levels that both evaluations have, d = r_new - r_old and their covariances
by the delta method,

    W = d' (S_old + S_new)^-1 d   ~ chi-square with rank(S_old + S_new) degrees    (Wald 1943)

(Hotelling's T^2 with as many degrees of freedom as there are judgments; with tens of them the
difference to chi-square is small against what the covariances leave on the safe side, `quality`).
The k-th test of a series gets alpha_k = alpha 6 / (pi^2 k^2), which adds up to alpha: a series that
never ends rings by chance with a probability of at most alpha, whatever is common to its tests.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measured:
    """What one evaluation says of the ratios."""

    levels: tuple[str, ...]  # names, L0 first
    preferences: Array  # (levels,) q
    covariance: Array  # (levels, levels)


@dataclass(frozen=True)
class Drift:
    p_value: float  # of "nothing moved"
    threshold: float  # alpha_k
    alert: bool
    what: str  # for people


def drift(old: Measured, new: Measured, *, test: int, alpha: float = 0.05) -> Drift:
    """The `test`-th of a series (from 1), at a false-alarm rate of `alpha` over the whole series.

    ValueError for evaluations whose L0 differs, that share no other level, or have a q_0 of 0.
    """
    if test < 1 or not 0 < alpha < 1:
        raise ValueError(f"test counts from 1 and alpha is in (0, 1): {test}, {alpha}")
    if old.levels[0] != new.levels[0]:
        raise ValueError(f"{old.levels[0]} and {new.levels[0]}: not relative to the same level")
    common = [name for name in new.levels[1:] if name in old.levels[1:]]
    if not common:
        raise ValueError(f"no level in common: {old.levels}, {new.levels}")
    before, s_before = _of(old, common)
    after, s_after = _of(new, common)
    gap, s = after - before, s_before + s_after
    statistic = float(gap @ np.linalg.pinv(s, rcond=1e-12, hermitian=True) @ gap)
    p_value = chi_square_tail(statistic, int(np.linalg.matrix_rank(s, hermitian=True)))
    threshold = alpha_of(test, alpha)
    alert = p_value <= threshold
    return Drift(p_value, threshold, alert, _what(common, before, after, s, p_value, alert=alert))


def alpha_of(test: int, alpha: float) -> float:
    """The share of `alpha` that the test-th test of a series may spend."""
    return alpha * 6 / (math.pi**2 * test**2)


def ratio_moments(preferences: Array, covariance: Array) -> tuple[Array, Array]:
    """q_i / q_0 (levels,) and their covariance (levels, levels), by the delta method.

    ValueError if q_0 is 0.
    """
    q = np.asarray(preferences, dtype=np.float64)
    if not q[0] > 0:
        raise ValueError("q_0 is 0: nothing can be relative to it")
    r = q / q[0]
    slope = np.eye(len(q)) / q[0]
    slope[:, 0] -= r / q[0]
    return r, np.asarray(slope @ covariance @ slope.T)


def chi_square_tail(x: float, degrees: int) -> float:
    """P(chi-square > x), by the recurrence over degrees (Abramowitz and Stegun 26.4.8).

    With no degree of freedom nothing can have moved: 1.
    """
    if degrees == 0 or x <= 0:
        return 1.0
    half = x / 2
    tail, k = (math.erfc(math.sqrt(half)), 1) if degrees % 2 else (math.exp(-half), 2)
    while k < degrees:
        tail += math.exp(k / 2 * math.log(half) - half - math.lgamma(k / 2 + 1))
        k += 2
    return min(1.0, tail)


def _of(measured: Measured, names: Sequence[str]) -> tuple[Array, Array]:
    r, s = ratio_moments(measured.preferences, measured.covariance)
    at = [measured.levels.index(name) for name in names]
    return r[at], s[np.ix_(at, at)]


def _what(
    names: Sequence[str], before: Array, after: Array, s: Array, p_value: float, *, alert: bool
) -> str:
    """One sentence: every level with its move and 95 % interval, the surest first."""
    z95 = NormalDist().inv_cdf(0.975)
    error = np.sqrt(np.diag(s))
    gap = after - before
    order = np.argsort(-np.abs(gap) / np.where(error > 0, error, np.inf), kind="stable")
    moves = ", ".join(
        f"{names[i]} {100 * before[i]:.1f} → {100 * after[i]:.1f} % of L0 "
        f"({100 * gap[i]:+.1f} ± {100 * z95 * error[i]:.1f} points)"
        for i in order
    )
    return f"{'quality moved' if alert else 'no drift shown'} (p = {p_value:.2g}): {moves}"
