# SPDX-License-Identifier: Apache-2.0
"""Measured and judged prompts that a predictor is fitted on. n prompts, L levels, C classes."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sprout.errors import PredictorError

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

UNKNOWN = -1  # `preferred` of a prompt that nobody judged
FOLDS = 5
LEAST_JUDGED = 50  # of each class
MOST_LEVELS, MOST_HEADS = 8, 48  # as csrc/scorer.h


def fingerprint(text: bytes) -> int:
    """64 bits of a text's SHA-256: the same prompt is known again by it, and nobody can read it."""
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


@dataclass(frozen=True, eq=False)
class Sample:
    texts: tuple[bytes, ...]  # (n,)
    classes: tuple[str, ...]  # (C,)
    levels: tuple[str, ...]  # (L,)
    label: Indices  # (n,) of the class
    joules: Array  # (n, L) of one request
    seconds: Array  # (n, L) on the device
    preferred: Indices  # (n,) the level whose answer won, or UNKNOWN

    def check(self) -> None:
        """PredictorError: too little to learn from."""
        if len(self.levels) < 2:
            raise PredictorError("a predictor needs at least two levels to choose between")
        if len(self.levels) > MOST_LEVELS or len(self.levels) + len(self.classes) > MOST_HEADS:
            raise PredictorError(
                f"{len(self.levels)} levels and {len(self.classes)} classes: at most {MOST_LEVELS} "
                f"levels, and {MOST_HEADS} of both together"
            )
        if not (self.joules.sum(axis=0) > 0).all():
            raise PredictorError("a level's energy is 0 in all requests: nothing to predict")
        judged = np.bincount(self.label[self.judged], minlength=len(self.classes))
        for name, count in zip(self.classes, judged, strict=True):
            if count < LEAST_JUDGED:
                raise PredictorError(
                    f"class {name!r} has {count} judged prompts, at least {LEAST_JUDGED} are needed"
                )
        for c, name in enumerate(self.classes):
            if len(np.unique(self.fold[self.judged][self.label[self.judged] == c])) < FOLDS:
                raise PredictorError(
                    f"the judged prompts of class {name!r} are too much alike to be split in "
                    f"{FOLDS} folds"
                )

    @cached_property
    def judged(self) -> Indices:
        """Which prompts were."""
        return np.flatnonzero(self.preferred != UNKNOWN)

    @cached_property
    def fingerprints(self) -> NDArray[np.uint64]:
        return np.array([fingerprint(text) for text in self.texts], dtype=np.uint64)

    @cached_property
    def fold(self) -> Indices:
        """(n,) by the text alone: equal texts never stand on both sides of a split."""
        return (self.fingerprints % np.uint64(FOLDS)).astype(np.int64)

    @cached_property
    def log_joules(self) -> Array:
        """(n, L); a request of no energy counts as a millionth of the level's mean."""
        logs: Array = np.log(np.maximum(self.joules, 1e-6 * self.joules.mean(axis=0)))
        return logs
