# SPDX-License-Identifier: Apache-2.0
"""Is a predictor worth having? Cross-fitted predictions against what came, and against class means.

*Loss of preference*: the mean of -log of the probability of the level that won. *Loss of energy*:
the gamma deviance 2 (y/m - 1 - log(y/m)), mean over levels, which is 0 for a perfect prediction and
does not care for the unit. *Class means* know each prompt's true class (a live request's has to be
guessed) and are cross-fitted too. An interval is 95 %, over prompts, of the paired difference.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sprout.errors import PredictorError
from sprout.predict.fit import Fitted
from sprout.predict.sample import FOLDS, Sample

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

Z = 1.959964
BINS = 5  # of a reliability table


@dataclass(frozen=True)
class Gain:
    """Loss of class means less that of the predictor; > 0: the predictor is better."""

    predictor: float
    class_means: float
    low: float
    high: float

    @property
    def gain(self) -> float:
        return self.class_means - self.predictor


@dataclass(frozen=True)
class Bin:
    """A fifth of all predictions of a level's preference, ordered."""

    level: str
    prompts: int
    predicted: float
    observed: float
    half: float  # of the observed share's 95 % interval


@dataclass(frozen=True)
class ClassCheck:
    name: str
    prompts: int
    preference: Gain
    energy: Gain
    predicted: tuple[float, ...]  # mean preference of each level
    observed: tuple[float, ...]
    energy_ratio: tuple[float, ...]  # predicted over measured, by level


@dataclass(frozen=True)
class Report:
    prompts: int  # judged
    preference: Gain
    energy: Gain
    reliability: tuple[Bin, ...]
    calibration_error: float  # mean |predicted - observed| over the bins
    classes: tuple[ClassCheck, ...]

    def refusal(self) -> str | None:
        """Why it must not be published; None: it may.

        Better than class means, surely, at preference or at energy; at neither surely worse.
        """
        parts = (("preference", self.preference), ("energy", self.energy))
        worse = [name for name, each in parts if each.high < 0]
        if worse:
            return f"it is worse than class means at {' and '.join(worse)}"
        if not any(each.low > 0 for _, each in parts):
            return "it is no better than class means, neither at preference nor at energy"
        return None


def check(sample: Sample, fitted: Fitted) -> Report:
    at = sample.judged
    label, preferred, joules = sample.label[at], sample.preferred[at], sample.joules[at]
    mean_q, mean_j = class_means(sample)
    losses = (
        _preference_loss(fitted.preferences, preferred),
        _preference_loss(mean_q, preferred),
        _energy_loss(fitted.joules, joules),
        _energy_loss(mean_j, joules),
    )
    won = np.eye(len(sample.levels))[preferred]
    classes = []
    for c, name in enumerate(sample.classes):
        own = label == c
        classes.append(
            ClassCheck(
                name,
                int(own.sum()),
                _gain(losses[0][own], losses[1][own]),
                _gain(losses[2][own], losses[3][own]),
                tuple(fitted.preferences[own].mean(axis=0).tolist()),
                tuple(won[own].mean(axis=0).tolist()),
                tuple((fitted.joules[own].sum(0) / joules[own].sum(0)).tolist()),
            )
        )
    bins = tuple(
        each
        for level, name in enumerate(sample.levels)
        for each in _bins(name, fitted.preferences[:, level], won[:, level])
    )
    return Report(
        len(at),
        _gain(losses[0], losses[1]),
        _gain(losses[2], losses[3]),
        bins,
        float(np.mean([abs(each.predicted - each.observed) for each in bins])),
        tuple(classes),
    )


def publishable(report: Report) -> None:
    """PredictorError: why not."""
    why = report.refusal()
    if why is not None:
        raise PredictorError(f"this predictor is not written: {why}")


def class_means(sample: Sample) -> tuple[Array, Array]:
    """Preferences and joules (judged, L): of the prompt's class, in the other folds."""
    at = sample.judged
    label, fold, joules = sample.label[at], sample.fold[at], sample.joules[at]
    won = np.eye(len(sample.levels))[sample.preferred[at]]
    q, j = np.empty_like(won), np.empty_like(joules)
    for f in range(FOLDS):
        for c in range(len(sample.classes)):
            own, others = (fold == f) & (label == c), (fold != f) & (label == c)
            # One more judgment, spread evenly: a level that never won is not impossible.
            q[own] = (won[others].sum(axis=0) + 1 / won.shape[1]) / (others.sum() + 1)
            j[own] = joules[others].mean(axis=0)
    return q, j


def _preference_loss(predicted: Array, preferred: Indices) -> Array:
    chosen = predicted[np.arange(len(preferred)), preferred]
    loss: Array = -np.log(np.maximum(chosen, 1e-12))
    return loss


def _energy_loss(predicted: Array, joules: Array) -> Array:
    ratio = np.maximum(joules / predicted, 1e-12)
    loss: Array = 2 * (ratio - 1 - np.log(ratio)).mean(axis=1)
    return loss


def _gain(ours: Array, theirs: Array) -> Gain:
    difference = theirs - ours
    n = len(difference)
    half = Z * float(difference.std(ddof=1)) / math.sqrt(n)
    centre = float(difference.mean())
    return Gain(float(ours.mean()), float(theirs.mean()), centre - half, centre + half)


def _bins(level: str, predicted: Array, won: Array) -> list[Bin]:
    found = []
    for own in np.array_split(np.argsort(predicted, kind="stable"), BINS):
        share = float(won[own].mean())
        half = Z * math.sqrt(max(share * (1 - share), 1e-12) / len(own))
        found.append(Bin(level, len(own), float(predicted[own].mean()), share, half))
    return found
