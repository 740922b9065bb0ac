# SPDX-License-Identifier: Apache-2.0
"""Non-negative least squares for a handful of columns, many right-hand sides at once.

The optimum is the plain least-squares solution on its own support (the columns it does not put at
nought), so trying every support finds it: exact, without iterations or tolerances on convergence,
and all bootstrap samples go through together. SciPy's `nnls` would do one at a time; it is no
dependency at run time, and the tests' second opinion.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MAX_COLUMNS = 8  # 255 supports
_TOLERANCE = 1e-9  # of the largest coefficient of a scaled problem: rounding, not a negative


def nnls(design: Floats, target: Floats) -> Floats:
    """(k,) x >= 0 with the least |design x - target|. design: (n, k); target: (n,)."""
    return nnls_gram(design.T @ design, design.T @ target)


def nnls_gram(gram: Floats, moment: Floats) -> Floats:
    """(..., k) minimisers of x'Gx - 2 m'x over x >= 0. gram: (..., k, k); moment: (..., k).

    ValueError for more than MAX_COLUMNS columns.
    """
    k = gram.shape[-1]
    if k > MAX_COLUMNS:
        raise ValueError(f"{k} columns, at most {MAX_COLUMNS}")
    # Columns differ by orders of magnitude (tokens per second, shares): unit diagonals first.
    scale = np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))
    scale = np.where(scale > 0, scale, 1.0)
    gram = gram / (scale[..., :, None] * scale[..., None, :])
    moment = moment / scale
    best = np.zeros_like(moment)
    least = np.zeros(moment.shape[:-1])  # of x = 0
    for size in range(1, k + 1):
        for support in combinations(range(k), size):
            columns = np.array(support)
            part = gram[..., columns[:, None], columns]
            x = (np.linalg.pinv(part, hermitian=True) @ moment[..., columns, None])[..., 0]
            feasible = (x >= -_TOLERANCE * np.abs(x).max(axis=-1, keepdims=True)).all(axis=-1)
            # At a least-squares solution x'Gx = m'x, so the objective is -m'x.
            value = -(moment[..., columns] * x).sum(axis=-1)
            better = feasible & (value < least - _TOLERANCE * np.abs(least))
            least = np.where(better, value, least)
            candidate = np.zeros_like(moment)
            candidate[..., columns] = np.maximum(x, 0.0)
            best = np.where(better[..., None], candidate, best)
    result: Floats = best / scale
    return result
