# SPDX-License-Identifier: Apache-2.0
"""Studentized bootstrap over clusters: whole pairs of blocks are drawn again, never parts of one.

Each statistic comes with its influence values, from which its standard error follows, in the sample
and in every resample: the bootstrap-t (Efron and Tibshirani 1993, ch. 12; Hall 1988). With ten or
twenty pairs the percentile bootstrap is too narrow; docs/proof.md shows by how much.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sprout.proof.interval import CONFIDENCE, Interval

Array = NDArray[np.float64]
# (…, clusters, columns) -> (…,) the statistic and (…, clusters) its influence values
Statistic = Callable[[Array], tuple[Array, Array]]

RESAMPLES = 2000


def log_ratio(columns: Array) -> tuple[Array, Array]:
    """log((Σa / Σm) / (Σb / Σn)) of columns (…, clusters, 4) = a, m, b, n."""
    sums = columns.sum(axis=-2, keepdims=True)
    logs = np.log(sums)[..., 0, :]
    value = logs[..., 0] - logs[..., 1] - logs[..., 2] + logs[..., 3]
    parts = columns / sums
    influence = parts[..., 0] - parts[..., 1] - parts[..., 2] + parts[..., 3]
    return value, influence * columns.shape[-2]


def difference(columns: Array) -> tuple[Array, Array]:
    """Σb / Σn - Σa / Σm of columns (…, clusters, 4) = a, m, b, n."""
    a, m, b, n = np.moveaxis(columns, -1, 0)
    total_m, total_n = m.sum(axis=-1, keepdims=True), n.sum(axis=-1, keepdims=True)
    mean_a = a.sum(axis=-1, keepdims=True) / total_m
    mean_b = b.sum(axis=-1, keepdims=True) / total_n
    influence = (b - mean_b * n) / total_n - (a - mean_a * m) / total_m
    return (mean_b - mean_a)[..., 0], influence * columns.shape[-2]


def studentized(
    columns: Array,
    statistic: Statistic,
    *,
    seed: int,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Interval:
    """The statistic of columns (clusters, columns) with its interval. ValueError under 2 clusters.

    A resample that has no spread, or no request at all, says nothing and is left out.
    """
    clusters = columns.shape[0]
    if clusters < 2:
        raise ValueError(f"{clusters} clusters")
    value, influence = statistic(columns)
    error = float(_error(influence))
    chosen = np.random.default_rng(seed).integers(clusters, size=(resamples, clusters))
    with np.errstate(divide="ignore", invalid="ignore"):
        values, influences = statistic(columns[chosen])
        ratios = (values - value) / _error(influences)
    ratios = ratios[np.isfinite(ratios)]
    centre = float(value)
    if error == 0 or ratios.size == 0:  # all clusters say the same
        return Interval(centre, centre, centre, confidence)
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(ratios, (tail, 1 - tail))
    ends = (centre - float(upper) * error, centre - float(lower) * error)
    return Interval(centre, min(ends[0], centre), max(ends[1], centre), confidence)


def _error(influence: Array) -> Array:
    """Standard errors (…,) of influence values (…, clusters)."""
    n = influence.shape[-1]
    return np.asarray(np.sqrt((influence**2).sum(axis=-1) / (n * (n - 1))))
