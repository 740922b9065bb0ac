# SPDX-License-Identifier: Apache-2.0
"""How much a judge prefers the longer answer, and q at equal length. Pairwise judgments.

As length-controlled AlpacaEval does (Dubois et al. 2024, arXiv 2404.04475):

    P(level preferred to L0) = 1 / (1 + exp(-(theta_ic + phi tanh(d / s))))

with d the tokens that the level's answer has more than L0's and s the standard deviation of d over
all pairs. phi is common to all; theta is of the level i in the class c of the prompt, which stands
for AlpacaEval's difficulty of the instruction: classes differ in length *and* in what brevity costs
them, and without it the one would pass for the other. q_i is the mean over prompts of 2 P at d = 0.
Ties are halves.

Levels are *meant* to be shorter, so d = 0 lies at the edge of what was seen: the standard error
says how far out, and where no pair comes near equal length the correction rests on the curve's
shape alone. `reach` is the share of pairs that do not stand on one side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sprout.evaluate.statistics.logistic import fit
from sprout.evaluate.statistics.position import Corrected, at_zero
from sprout.proof.interval import CONFIDENCE

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Length:
    corrected: Corrected  # its coefficient is phi; > 0: the longer answer is preferred
    classes: dict[str, Corrected]  # by name, at the common phi
    reach: float  # share of pairs with d >= 0 or d <= 0, whichever is rarer


def without(
    scores: ArrayLike,
    output_tokens: ArrayLike,
    *,
    labels: Sequence[str] | None = None,
    weights: ArrayLike | None = None,
    confidence: float = CONFIDENCE,
) -> Length:
    """Pairwise scores (n, levels), tokens of the answers (n, levels), classes (n,), weights (n,).

    ValueError for other shapes, scores outside [0, 2], under 2 prompts, or where every pair has the
    same difference in length: its effect can't be told from the level's.
    """
    rows = np.asarray(scores, dtype=np.float64)
    tokens = np.asarray(output_tokens, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] < 2 or tokens.shape != rows.shape:
        raise ValueError(f"scores {rows.shape}, tokens {tokens.shape}: want (prompts, levels >= 2)")
    if not ((rows >= 0) & (rows <= 2)).all() or not (tokens >= 0).all():
        raise ValueError("pairwise scores are in [0, 2] and tokens not negative")
    n, levels = rows.shape
    others = levels - 1
    more = tokens[:, 1:] - tokens[:, :1]
    scale = float(more.std())
    if scale == 0:
        raise ValueError("every pair differs alike in length: no effect of length can be told")
    if labels is not None and len(labels) != n:
        raise ValueError(f"{len(labels)} classes for {n} prompts")
    names, of = np.unique(np.asarray([""] * n if labels is None else labels), return_inverse=True)
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    cells = np.eye(len(names) * others)  # one column per class and level
    x = np.column_stack(
        [
            cells[(of[:, None] * others + np.arange(others)).ravel()],
            np.tanh(more / scale).ravel(),
        ]
    )
    found = fit(rows[:, 1:].ravel() / 2, x, np.repeat(np.arange(n), others), np.repeat(w, others))

    def averaged(shares: Array) -> Corrected:
        return at_zero(found, n, confidence=confidence, mix=np.kron(shares, np.eye(others)))

    classes = dict(zip(names.tolist(), map(averaged, np.eye(len(names))), strict=True))
    reach = min(float((more >= 0).mean()), float((more <= 0).mean()))
    return Length(averaged(np.bincount(of, weights=w) / w.sum()), classes, reach)
