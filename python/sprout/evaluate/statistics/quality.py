# SPDX-License-Identifier: Apache-2.0
"""q of each level from judged prompts: estimate, covariance, 95 % intervals of q_i / q_0.

With s_k (levels,) the scores of prompt k (`answers.Judged`) and w_k its inverse probability to have
come into the sample, up to a factor, q is the self-normalised mean (Hajek 1971)

    q = sum_k w_k s_k / sum_k w_k

    S = n/(n-1) sum_k v_k^2 (s_k - q)(s_k - q)'  +  S0 / m^2        v_k = w_k / sum w

by linearisation (Sarndal et al. 1992, 5.7), with m = 1 / sum v_k^2 the effective number of prompts
(Kish 1965). S0 is the covariance of a judgment that says nothing (every outcome alike): as if one
such judgment stood among the m. Without it a handful of ties, or a level that always won, would
pass for certain. It fades as 1/m^2 against the sampling error's 1/m. With one prompt S0 stands for
the sampling error too.

The interval is Wilson's (1927) for p, the share in which a level wins against L0, with as many
judgments as make its variance that of p:

    p = q_i / 2              r = 2 p           pairwise, whose q_0 is 1
    p = q_i / (q_i + q_0)    r = p / (1 - p)   otherwise
    N = p (1 - p) / var p,   t of Student with m - 1 degrees in the place of z

Ties, weights and what two levels have in common are in var p. It stays inside [0, 2], or [0, inf),
and is a sensible one where a level never won. docs/evaluation_statistics.md has its coverage.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sprout.proof.interval import CONFIDENCE, Absent, Interval, student_t

Array = NDArray[np.float64]
Method = Literal["pairwise", "choice", "exact"]

POOLED = ""  # the name of all classes together
LEAST_DEGREES = 10  # of Student's t
MOST_SCORE: dict[Method, float] = {"pairwise": 2.0, "choice": 1.0, "exact": 1.0}


@dataclass(frozen=True, eq=False)
class Quality:
    """What the judgments of one class, or of all, say."""

    task: str  # class; POOLED: all together
    method: Method
    judged: int  # prompts
    effective: float  # prompts of equal weight that would be as sure; <= judged
    preferences: Array  # (levels,) q
    covariance: Array  # (levels, levels) of the estimates q
    ratios: tuple[Interval | Absent, ...]  # (levels,) q_i / q_0, each by itself

    @property
    def levels(self) -> int:
        return len(self.preferences)


def measure(
    scores: ArrayLike,
    *,
    method: Method,
    weights: ArrayLike | None = None,
    task: str = POOLED,
    confidence: float = CONFIDENCE,
) -> Quality:
    """Scores (n, levels), weights (n,) > 0, None: alike.

    Prompts count as drawn independently; where their numbers by class were set, the pooled variance
    is on the safe side. ValueError if there is no prompt, or a score can't be the method's.
    """
    rows, w = checked(scores, method, weights)
    n, levels = rows.shape
    if n == 0:
        raise ValueError("no prompt was judged: there is no q")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1): {confidence}")
    v = w / w.sum()
    q = np.minimum(v @ rows, MOST_SCORE[method])  # rounding may take a mean past every score
    effective = float(1.0 / (v**2).sum())
    influence = v[:, None] * (rows - q)
    spread = blank(method, levels)[1]
    sampling = influence.T @ influence * n / (n - 1) if n > 1 else spread
    covariance = sampling + spread / effective**2
    found = ratios(q, covariance, effective, method=method, confidence=confidence)
    return Quality(task, method, n, effective, q, covariance, found)


def ratios(
    q: Array,
    covariance: Array,
    effective: float,
    *,
    method: Method,
    confidence: float = CONFIDENCE,
) -> tuple[Interval | Absent, ...]:
    """(levels,) intervals of q_i / q_0, of q (levels,), its covariance and effective prompts."""
    with_blank = (effective * q + blank(method, len(q))[0]) / (effective + 1)
    t = student_t((1 + confidence) / 2, max(effective - 1, LEAST_DEGREES))
    found: list[Interval | Absent] = [
        Interval(1.0, 1.0, 1.0, confidence) if q[0] > 0 else _undefined(0)
    ]
    for i in range(1, len(q)):
        found.append(
            _ratio(i, q, with_blank, covariance, method=method, t=t, confidence=confidence)
        )
    return tuple(found)


def checked(
    scores: ArrayLike, method: Method, weights: ArrayLike | None = None
) -> tuple[Array, Array]:
    """Scores (n, levels) and weights (n,) as arrays. ValueError if they can't be the method's."""
    rows = np.asarray(scores, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"scores are {rows.shape}, not (prompts, levels)")
    w = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (len(rows),):
        raise ValueError(f"weights are {w.shape}, not ({len(rows)},)")
    if not (np.isfinite(w).all() and (w > 0).all()):
        raise ValueError("weights must be finite and above 0")
    most = MOST_SCORE[method]
    if not (np.isfinite(rows).all() and (rows >= 0).all() and (rows <= most).all()):
        raise ValueError(f"{method}: scores must be in [0, {most:g}]")
    if method == "pairwise" and not (rows[:, 0] == 1).all():
        raise ValueError("pairwise: L0's score is 1, for it is what the others are compared with")
    if method == "choice" and (rows.sum(axis=1) > 1 + 1e-9).any():
        raise ValueError("choice: scores of a prompt add up to 1 at most")
    return rows, w


def blank(method: Method, levels: int) -> tuple[Array, Array]:
    """Mean (levels,) and covariance (levels, levels) of a judgment with every outcome alike."""
    if method == "pairwise":  # 0 or 2
        spread = np.eye(levels)
        spread[0, 0] = 0.0
        return np.ones(levels), spread
    if method == "choice":
        return np.full(levels, 1 / levels), np.eye(levels) / levels - 1 / levels**2
    return np.full(levels, 0.5), np.eye(levels) / 4


def _ratio(
    i: int,
    q: Array,
    with_blank: Array,
    covariance: Array,
    *,
    method: Method,
    t: float,
    confidence: float,
) -> Interval | Absent:
    """The interval of q_i / q_0."""
    if q[0] == 0:
        return _undefined(i)
    a, b = with_blank[i], with_blank[0]
    slope = np.zeros(len(q))
    if method == "pairwise":
        p, near = q[i] / 2, a / 2
        slope[i] = 0.5
    else:
        p, near = q[i] / (q[i] + q[0]), a / (a + b)
        slope[i], slope[0] = b / (a + b) ** 2, -a / (a + b) ** 2
    variance = float(slope @ covariance @ slope)
    low, high = wilson(float(p), float(near * (1 - near)) / variance, t)
    if method == "pairwise":
        return Interval(2 * float(p), 2 * low, 2 * high, confidence)
    value = float(q[i] / q[0])
    # p / (1 - p) and q_i / q_0 are rounded differently.
    low, high = (end / (1 - end) if end < 1 else math.inf for end in (low, high))
    return Interval(value, min(low, value), max(high, value), confidence)


def wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's (1927) interval of a share among n judgments; it holds the share."""
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return min(max(0.0, centre - half), share), max(min(1.0, centre + half), share)


def _undefined(i: int) -> Absent:
    return Absent(f"L0 never won or was never right: L{i} can't be relative to it")
