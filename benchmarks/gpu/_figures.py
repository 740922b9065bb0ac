# SPDX-License-Identifier: Apache-2.0
"""Means with intervals, and percentiles that are not given where they can't be known."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

from sprout.profile.power import PowerFit, Window, fit

CONFIDENCE = 0.95
TAIL_NEEDS = 100  # requests behind a 99th percentile


def mean(values: Sequence[float]) -> dict[str, Any]:
    """Of independent repeats; `half_width` is Student's, None for a single one."""
    n = len(values)
    half = None
    if n > 1:
        spread = float(np.std(values, ddof=1)) / math.sqrt(n)
        half = float(student.ppf((1 + CONFIDENCE) / 2, n - 1)) * spread
    return {"mean": float(np.mean(values)), "half_width": half, "repeats": n}


def saved(base: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """1 - other / base, pair by pair: both of a pair saw the same arrivals and prompts."""
    return mean([1 - b / a for a, b in zip(base, other, strict=True)])


def percentile(latencies: Sequence[float], q: float) -> float | None:
    """None where too few requests are behind it."""
    needed = TAIL_NEEDS if q > 90 else 10
    if len(latencies) < needed:
        return None
    with np.errstate(invalid="ignore"):  # between two that were never answered
        found = float(np.percentile(latencies, q))
    return math.inf if math.isnan(found) else found


def power_fit(windows: Sequence[Window], seed: int) -> dict[str, Any]:
    """The project's own power model on these windows, with what it misses.

    `left_out_rmse_watts`: of each block, by the fit to all the others.
    """
    found: PowerFit = fit(windows, seed=seed)
    missed = []
    for block in sorted({w.block for w in windows}):
        others = [w for w in windows if w.block != block]
        if not any(w.busy_seconds < w.seconds / 2 for w in others):
            continue  # the only idle block: without it there is no fit
        model = fit(others, seed=seed, draws=1).model
        missed += [_residual(w, model.watts) for w in windows if w.block == block]
    return {
        "model": vars(found.model),
        "intervals": {name: [i.low, i.high] for name, i in found.intervals.items()},
        "confidence": found.confidence,
        "windows": found.windows,
        "blocks": found.blocks,
        "r2": found.r2,
        "rmse_watts": found.rmse_watts,
        "worst_watts": found.worst_watts,
        "left_out_rmse_watts": math.sqrt(float(np.mean(np.square(missed)))) if missed else None,
        "residuals_watts": [_residual(w, found.model.watts) for w in windows],
    }


def _residual(w: Window, watts: Any) -> float:
    rates = (w.prefill_tokens, w.decode_tokens, w.busy_seconds)
    return w.watts - float(watts(*(x / w.seconds for x in rates)))
