# SPDX-License-Identifier: Apache-2.0
"""From what was judged to what the control plane is told: q by class, bias, cost."""

import contextlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sprout.evaluate.answers import Judged
from sprout.evaluate.judges.account import Position
from sprout.evaluate.limits import MAX_CLASSES
from sprout.evaluate.statistics import length, position
from sprout.evaluate.statistics.length import Length
from sprout.evaluate.statistics.position import Corrected
from sprout.evaluate.statistics.quality import POOLED, Method, Quality, blank, measure, ratios
from sprout.evaluate.statistics.shrinkage import Shrunk, shrink
from sprout.proof.interval import Absent, Interval
from sprout.v1 import control_pb2 as pb

Array = NDArray[np.float64]

LEAST_OF_A_CLASS = 2  # prompts; a class with fewer is in the pooled q alone
LEAST_CONSISTENT = 0.7  # share of pairs
LEAST_FOR_LENGTH = 30  # prompts, before its effect can be told from a level's
WIDEST = 1e6  # what a bound that is not known, or beyond, is written as


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
    places: Position | None = None,
) -> Findings:
    """ValueError where nothing was judged.

    always: (levels,) bounds of q_i / q_0 that hold at every moment. Where sampling stopped on what
    it saw, they are what may be said of all together: intervals for a size that was set before
    would claim too much. Classes keep theirs, for the size that they came to.
    places: what the judge's choices made of the order (method "choice", whose judgments don't hold
    it).
    """
    notes: list[str] = []
    by_task = _with_own_q(judged, notes)
    at_equal: Length | None = None
    if length_corrected and method == "pairwise":
        at_equal = _at_equal_length(judged, by_task, notes)
    pooled = _measured(judged, method, POOLED, at_equal.corrected if at_equal else None)
    own = [
        _measured(of, method, task, at_equal.classes[task] if at_equal else None)
        for task, of in by_task.items()
    ]
    classes = [_class(pooled, share=1.0)]
    if always is not None and at_equal is None and len(classes[0].low):
        low, high = always
        del classes[0].low[:], classes[0].high[:]
        classes[0].low.extend(low)
        classes[0].high.extend(min(value, WIDEST) for value in high)
    for quality, shrunk in zip(own, _shrunk(own, at_equal), strict=True):
        # What others lend it is no ground to divide by.
        if quality.preferences[0] > 0 and shrunk.preferences[0] > 0:
            share = _weight(by_task[quality.task]) / _weight(judged)
            classes.append(_class(_moved(quality, shrunk), shrunk.amount, share))
        else:
            notes.append(f"{quality.task}: L0 was never right, so it has no q of its own")
    bias = _bias(judged, method, places)
    if bias.get("consistent", 1.0) < LEAST_CONSISTENT:
        notes.append(
            f"the judge gave one verdict in both orders in {100 * bias['consistent']:.0f} % of "
            "pairs: where it goes by place, q is pulled towards 100 %"
        )
    return Findings(pooled, tuple(classes), bias, tuple(dict.fromkeys(notes)))


def _with_own_q(judged: Sequence[Judged], notes: list[str]) -> dict[str, list[Judged]]:
    """By task, in the order of its name."""
    by_task: dict[str, list[Judged]] = {}
    for one in judged:
        if one.question.task != POOLED:
            by_task.setdefault(one.question.task, []).append(one)
    enough = [task for task, of in by_task.items() if len(of) >= LEAST_OF_A_CLASS]
    enough.sort(key=lambda task: (-len(by_task[task]), task))
    if len(enough) > MAX_CLASSES:
        notes.append(
            f"the {MAX_CLASSES} largest of {len(enough)} classes have a q of their own; "
            f"{len(enough) - MAX_CLASSES} are in that of all together alone"
        )
    return {task: by_task[task] for task in sorted(enough[:MAX_CLASSES])}


def _at_equal_length(
    judged: Sequence[Judged], classes: Collection[str], notes: list[str]
) -> Length | None:
    """None where length can't be told, and a note says so. The leaning is of the judge, so it is
    one for all classes, those with a few prompts too."""
    if len(judged) < LEAST_FOR_LENGTH:
        notes.append(
            f"not corrected for length: {len(judged)} prompts, {LEAST_FOR_LENGTH} are needed"
        )
        return None
    try:
        return _length(judged, classes)
    except ValueError as error:
        notes.append(f"not corrected for length: {error}")
        return None


def _length(judged: Sequence[Judged], classes: Collection[str]) -> Length:
    """ValueError where every pair differs alike. What has no q of its own is one class."""
    scores, tokens, weights = _columns(judged)
    tasks = [one.question.task for one in judged]
    labels = [task if task in classes else POOLED for task in tasks]
    return length.without(scores, tokens, labels=labels, weights=weights)


def _measured(
    judged: Sequence[Judged], method: Method, task: str, at_equal: Corrected | None
) -> Quality:
    scores, _, weights = _columns(judged)
    found = measure(scores, method=method, weights=weights, task=task)
    if at_equal is None:
        return found
    # A regression passes for certain where a level always won, too.
    s = at_equal.covariance + blank(method, found.levels)[1] / found.effective**2
    return _of(replace(found, preferences=at_equal.preferences, covariance=s))


def _shrunk(own: Sequence[Quality], at_equal: Length | None) -> Sequence[Shrunk]:
    """Where they were corrected, without the error that all have in common: to shrinkage the errors
    of classes are independent. It is added again; borrowing from each other does not lessen it."""
    if not own:
        return ()
    if at_equal is None:
        return shrink(own).classes
    common = [np.outer(s, s) for s in (at_equal.classes[one.task].shared for one in own)]
    apart = [
        replace(one, covariance=one.covariance - s) for one, s in zip(own, common, strict=True)
    ]
    return [
        replace(one, covariance=one.covariance + s)
        for one, s in zip(shrink(apart).classes, common, strict=True)
    ]


def _moved(quality: Quality, shrunk: Shrunk) -> Quality:
    if shrunk.amount == 0:
        return quality
    return _of(replace(quality, preferences=shrunk.preferences, covariance=shrunk.covariance))


def _of(quality: Quality) -> Quality:
    """With the intervals that its q and covariance give."""
    q, s = quality.preferences, quality.covariance
    return replace(quality, ratios=ratios(q, s, quality.effective, method=quality.method))


def _columns(judged: Sequence[Judged]) -> tuple[Array, Array, Array]:
    """Scores (n, levels), tokens (n, levels), weights (n,)."""
    scores = np.array([one.scores for one in judged], np.float64)
    tokens = np.zeros(scores.shape)
    for row, one in zip(tokens, judged, strict=True):
        row[: len(one.output_tokens)] = one.output_tokens
    return scores, tokens, np.array([one.question.weight for one in judged])


def _weight(judged: Sequence[Judged]) -> float:
    """Requests that they stand for, relative to others of the same evaluation."""
    return math.fsum(one.question.weight for one in judged)


def _class(quality: Quality, shrunk: float = 0.0, share: float = 0.0) -> pb.ClassQuality:
    """share: of the weight of all that was judged."""
    known = [r for r in quality.ratios if isinstance(r, Interval)]
    whole = known if len(known) == quality.levels else []
    return pb.ClassQuality(
        task=quality.task,
        judged=quality.judged,
        preference=quality.preferences.tolist(),
        covariance=quality.covariance.ravel().tolist(),
        low=[min(r.low, WIDEST) for r in whole],
        high=[min(r.high, WIDEST) for r in whole],
        shrunk=shrunk,
        weight_share=min(1.0, share),
    )


def _bias(judged: Sequence[Judged], method: Method, places: Position | None) -> dict[str, float]:
    """position: share of comparisons that the first shown won, beyond what would be its share of
    the places; length: what the longer answer gains, in log-odds for one standard deviation."""
    if method != "pairwise":
        leaning = None if places is None or method != "choice" else places.bias
        return {} if leaning is None else {"position": leaning}
    found: dict[str, float] = {}
    orders = [one.orders for one in judged if one.orders]
    if len(orders) == len(judged):
        heard = position.measure(np.array(orders))
        if not isinstance(heard, Absent):
            found["position"] = heard.first.value - 0.5
            found["consistent"] = heard.consistent
    if len(judged) >= LEAST_FOR_LENGTH:
        with contextlib.suppress(ValueError):  # every pair differs alike: nothing can be told
            at_equal = _length(judged, _with_own_q(judged, []))
            found["length"] = at_equal.corrected.coefficient.value
    return found
