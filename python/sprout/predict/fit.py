# SPDX-License-Identifier: Apache-2.0
"""Fitting with every prediction honest: no prompt is predicted by a model that has seen it.

The second stage learns from the first stage's heads of texts that the first stage has not seen,
else it would trust them too much. To predict a fold therefore takes two kinds of first stages: one
that left out this fold, for its heads, and for each other fold one that left out both, for what the
second stage learns from. With 5 folds those are 15, and one more of all prompts for use.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from sprout.predict import second
from sprout.predict.first import Design, First
from sprout.predict.sample import FOLDS, Sample

Array = NDArray[np.float64]

FITS = FOLDS * (FOLDS + 1) // 2 + 1


@dataclass(frozen=True, eq=False)
class Fitted:
    first: First
    second: Array  # (2 L, C + 1, L + 2)
    preferences: Array  # (judged, L) cross-fitted
    joules: Array  # (judged, L) cross-fitted


def fit(sample: Sample, done: Callable[[], None] = lambda: None) -> Fitted:
    """`done` is called after each of `FITS` first stages. PredictorError: too little to learn
    from; PrerequisiteError: no scipy."""
    sample.check()
    levels, classes = len(sample.levels), len(sample.classes)
    design, judged = Design(sample), sample.judged
    texts = [sample.texts[i] for i in judged]
    length = second.log_length(np.array([len(text) for text in texts]))
    fold, preferred, joules = sample.fold[judged], sample.preferred[judged], sample.joules[judged]

    def heads_without(*folds: int) -> Array:
        """(judged, L + C); only those of the folds left out are of use."""
        made = design.fit(np.flatnonzero(~np.isin(sample.fold, folds)))
        done()
        return second.features(made.heads(texts, levels), length, levels)

    alone = {f: heads_without(f) for f in range(FOLDS)}
    paired = {pair: heads_without(*pair) for pair in combinations(range(FOLDS), 2)}
    preferences, predicted = np.empty((len(judged), levels)), np.empty((len(judged), levels))
    for f in range(FOLDS):
        own = fold == f
        seen = np.empty_like(alone[f])
        for other in set(range(FOLDS)) - {f}:
            pair = (min(f, other), max(f, other))
            seen[fold == other] = paired[pair][fold == other]
        model = second.fit(seen[~own], preferred[~own], joules[~own], classes)
        preferences[own], predicted[own] = second.predict(alone[f][own], model)
    unseen = np.empty_like(alone[0])
    for f in range(FOLDS):
        unseen[fold == f] = alone[f][fold == f]
    final = design.fit(np.arange(len(sample.texts)))
    done()
    whole = second.fit(unseen, preferred, joules, classes)
    return Fitted(final, whole, preferences, predicted)
