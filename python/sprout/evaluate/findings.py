# SPDX-License-Identifier: Apache-2.0
"""From what was judged to what the control plane is told: q by class, bias, cost."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sprout.evaluate.answers import Judged
from sprout.evaluate.journal import Entry
from sprout.evaluate.statistics import length, position
from sprout.evaluate.statistics.drift import ratio_moments
from sprout.evaluate.statistics.quality import POOLED, Method, Quality, measure
from sprout.evaluate.statistics.shrinkage import shrink
from sprout.proof.interval import Absent, Interval
from sprout.v1 import control_pb2 as pb

Array = NDArray[np.float64]

LEAST_OF_A_CLASS = 2  # prompts; a class with fewer is in the pooled q alone
LEAST_CONSISTENT = 0.7  # share of pairs
LEAST_FOR_LENGTH = 30  # prompts, before its effect can be told from a level's
WIDEST = 1e6  # what a bound that is not known is written as
Z95 = 1.959964  # of the normal distribution


@dataclass(frozen=True, eq=False)
class Findings:
    """Of one evaluation so far."""

    pooled: Quality
    classes: tuple[pb.ClassQuality, ...]  # "" first
    bias: dict[str, float]
    notes: tuple[str, ...]  # for people


def find(
    judged: Sequence[Judged],
    method: Method,
    *,
    length_corrected: bool = False,
    always: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Findings:
    """ValueError where nothing was judged.

    always: (levels,) bounds of q_i / q_0 that hold at every moment. Where sampling stopped on what
    it saw, they are what may be said of all together: intervals for a size that was set before
    would claim too much.
    """
    notes: list[str] = []
    corrected = length_corrected and method == "pairwise"
    if corrected and len(judged) < LEAST_FOR_LENGTH:
        notes.append(
            f"not corrected for length: {len(judged)} prompts, {LEAST_FOR_LENGTH} are needed"
        )
        corrected = False
    pooled = _measured(judged, method, POOLED, corrected=corrected, notes=notes)
    by_task: dict[str, list[Judged]] = {}
    for one in judged:
        by_task.setdefault(one.question.task, []).append(one)
    own = [
        _measured(of, method, task, corrected=corrected, notes=notes)
        for task, of in sorted(by_task.items())
        if task != POOLED and len(of) >= LEAST_OF_A_CLASS
    ]
    classes = [_class(pooled)]
    if always is not None and not corrected and len(classes[0].low):
        low, high = always
        del classes[0].low[:], classes[0].high[:]
        classes[0].low.extend(low)
        classes[0].high.extend(min(value, WIDEST) for value in high)
    for quality, shrunk in zip(own, shrink(own).classes if own else (), strict=True):
        if shrunk.preferences[0] > 0:
            moved = replace(quality, preferences=shrunk.preferences, covariance=shrunk.covariance)
            classes.append(_class(moved, shrunk.amount))
        else:
            notes.append(f"{quality.task}: L0 was never right, so it has no q of its own")
    bias = _bias(judged, method)
    if bias.get("consistent", 1.0) < LEAST_CONSISTENT:
        notes.append(
            f"the judge gave one verdict in both orders in {100 * bias['consistent']:.0f} % of "
            "pairs: where it goes by place, q is pulled towards 100 %"
        )
    return Findings(pooled, tuple(classes), bias, tuple(dict.fromkeys(notes)))


def _measured(
    judged: Sequence[Judged], method: Method, task: str, *, corrected: bool, notes: list[str]
) -> Quality:
    scores, tokens, weights = _columns(judged)
    found = measure(scores, method=method, weights=weights, task=task)
    if not corrected or len(judged) < LEAST_FOR_LENGTH:
        return found
    try:
        at_equal = length.without(scores, tokens, labels=_labels(judged), weights=weights)
    except ValueError as error:
        notes.append(f"{task or 'all'}: not corrected for length: {error}")
        return found
    q, s = at_equal.corrected.preferences, at_equal.corrected.covariance
    return replace(found, preferences=q, covariance=s, ratios=_normal(q, s, found.ratios))


def _columns(judged: Sequence[Judged]) -> tuple[Array, Array, Array]:
    """Scores (n, levels), tokens (n, levels), weights (n,)."""
    scores = np.array([one.scores for one in judged], np.float64)
    tokens = np.zeros(scores.shape)
    for row, one in zip(tokens, judged, strict=True):
        row[: len(one.output_tokens)] = one.output_tokens
    return scores, tokens, np.array([one.question.weight for one in judged])


def _labels(judged: Sequence[Judged]) -> list[str]:
    return [one.question.task for one in judged]


def _normal(q: Array, s: Array, like: Sequence[Interval | Absent]) -> tuple[Interval | Absent, ...]:
    """Intervals of q_i / q_0 from a covariance alone, cut to [0, inf)."""
    if q[0] <= 0:
        return tuple(like)
    r, spread = ratio_moments(q, s)
    half = Z95 * np.sqrt(np.maximum(0.0, np.diag(spread)))
    return tuple(
        Interval(float(v), max(0.0, float(v - h)), float(v + h), 0.95)
        for v, h in zip(r, half, strict=True)
    )


def _class(quality: Quality, shrunk: float = 0.0) -> pb.ClassQuality:
    ratios = quality.ratios
    if shrunk > 0:
        ratios = _normal(quality.preferences, quality.covariance, ratios)
    known = [r for r in ratios if isinstance(r, Interval)]
    whole = known if len(known) == quality.levels else []
    return pb.ClassQuality(
        task=quality.task,
        judged=quality.judged,
        preference=quality.preferences.tolist(),
        covariance=quality.covariance.ravel().tolist(),
        low=[r.low for r in whole],
        high=[r.high if math.isfinite(r.high) else WIDEST for r in whole],
        shrunk=shrunk,
    )


def _bias(judged: Sequence[Judged], method: Method) -> dict[str, float]:
    """position: share of comparisons, beyond one half, that the first shown won; length: what the
    longer answer gains, in log-odds for one standard deviation."""
    if method != "pairwise":
        return {}
    found: dict[str, float] = {}
    orders = [one.orders for one in judged if one.orders]
    if len(orders) == len(judged):
        leaning = position.measure(np.array(orders))
        if not isinstance(leaning, Absent):
            found["position"] = leaning.first.value - 0.5
            found["consistent"] = leaning.consistent
    if len(judged) >= LEAST_FOR_LENGTH:
        scores, tokens, weights = _columns(judged)
        with contextlib.suppress(ValueError):  # every pair differs alike: nothing can be told
            at_equal = length.without(scores, tokens, labels=_labels(judged), weights=weights)
            found["length"] = at_equal.corrected.coefficient.value
    return found


def cost(entries: Sequence[Entry], judge: pb.EvaluationCost) -> pb.EvaluationCost:
    """With what the answers took added to what the judge did."""
    total = pb.EvaluationCost()
    total.CopyFrom(judge)
    for entry in entries:
        took = entry.took
        total.requests += took.requests
        total.output_tokens += took.output_tokens
        total.energy_joules += took.joules
        total.energy_estimated = total.energy_estimated or took.estimated
        total.carbon_g += took.carbon_g or 0.0
    return total
