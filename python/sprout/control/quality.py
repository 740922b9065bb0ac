# SPDX-License-Identifier: Apache-2.0
"""What an evaluation found, checked as it arrives, and laid over the profile.

An evaluation has q and its covariance for all requests together (class "") and by task class. It is
strictly checked: everything that is decided rests on it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from sprout.directives import Pack
from sprout.evaluate.limits import MAX_BY_PROMPT, MAX_CLASSES, MAX_NAME, MAX_TEXT
from sprout.optimize.contrast import Certainty
from sprout.profile import LevelProfile
from sprout.v1 import control_pb2 as pb
from sprout_ext.board import NAME_LENGTH

METHODS = ("pairwise", "choice", "exact")
MAX_BYTES = 256 << 10
MAX_BIAS = 16
MAX_PREFERENCE = 2.0  # 2 P(preferred to L0)
ROUNDING = 1e-9  # of it, and of shares: weighted sums go over by as much
SKEW_S = 300.0  # that another machine's clock may be ahead

SHA256 = re.compile(r"[0-9a-f]{64}")

Matrix = tuple[tuple[float, ...], ...]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class ClassQuality:
    preference: tuple[float, ...]  # (levels,) q
    covariance: Matrix  # (levels, levels) of the estimates; (): not known
    judged: int  # prompts
    shrunk: float  # 0: its own judgments alone … 1: those of all classes
    weight_share: float = 0.0  # of the requests that all prompts stand for; 0: not known

    @property
    def errors(self) -> tuple[float | None, ...]:
        """(levels,) standard errors."""
        if not self.covariance:
            return (None,) * len(self.preference)
        return tuple(math.sqrt(max(0.0, row[i])) for i, row in enumerate(self.covariance))


@dataclass(frozen=True, eq=False)
class Judgments:
    """Of n prompts by themselves: what weights said of them, and how their answers were judged."""

    weights: str  # SHA-256
    task: tuple[str, ...]  # (n,)
    stands_for: Array  # (n,) requests
    preferences: Array  # (n, levels) predicted, as the next
    joules: Array  # (n, levels)
    scores: Array  # (n, levels); q_i / q_0 is the mean of column i over that of column 0

    def rows(self, some: Sequence[int]) -> "Judgments":
        """Of some of them."""
        at = np.array(some, np.int64)
        return Judgments(
            self.weights,
            tuple(self.task[i] for i in some),
            self.stands_for[at],
            self.preferences[at],
            self.joules[at],
            self.scores[at],
        )


@dataclass(frozen=True)
class Quality:
    """What q rests on."""

    id: str
    finished_at: float  # seconds since 1970
    judge: str
    classes: Mapping[str, ClassQuality]  # by task; "": all together
    judgments: Judgments | None = None  # None: no prompt was asked of a predictor

    def basis(self, task: str = "") -> str:
        """For people. A time and not an age, so that it stays as it is."""
        when = datetime.fromtimestamp(self.finished_at, UTC)
        judged = self.classes[task].judged
        prompts = f"{judged} prompt{'' if judged == 1 else 's'}"
        return f"evaluated by {self.judge} on {prompts}, {when:%Y-%m-%d %H:%M} UTC"

    def on(self, profile: Sequence[LevelProfile], task: str = "") -> tuple[LevelProfile, ...]:
        """(levels,) the profile with the q of a class that was evaluated."""
        found, basis = self.classes[task], self.basis(task)
        return tuple(
            replace(p, preference=q, preference_basis=basis, preference_se=se)
            for p, q, se in zip(profile, found.preference, found.errors, strict=True)
        )


def quality(message: pb.Evaluation) -> Quality:
    """Of an evaluation that was checked."""
    return Quality(
        message.id,
        _seconds(message.finished_at),
        message.judge,
        {c.task: _class(c, len(message.levels)) for c in message.classes},
        _judgments(message) if message.by_prompt else None,
    )


def _judgments(message: pb.Evaluation) -> Judgments:
    rows = message.by_prompt
    predicted = np.array([row.predicted for row in rows], np.float64)
    preferences, joules = np.split(predicted, 2, axis=1)
    return Judgments(
        message.weights,
        tuple(row.task for row in rows),
        np.array([row.weight for row in rows], np.float64),
        preferences,
        joules,
        np.array([row.scores for row in rows], np.float64),
    )


def _class(message: pb.ClassQuality, levels: int) -> ClassQuality:
    flat = list(message.covariance)
    rows = tuple(tuple(flat[i : i + levels]) for i in range(0, len(flat), levels))
    return ClassQuality(
        tuple(min(q, MAX_PREFERENCE) for q in message.preference),
        rows,
        message.judged,
        min(message.shrunk, 1.0),
        min(message.weight_share, 1.0),
    )


def checked(message: pb.Evaluation, pack: Pack, now: float) -> None:
    """ValueError says what is wrong. now: seconds since 1970."""
    if message.ByteSize() > MAX_BYTES:
        raise ValueError(f"evaluation: {message.ByteSize()} bytes, at most {MAX_BYTES}")
    for name in ("id", "judge"):
        _name(name, getattr(message, name))
    if message.method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}: {message.method[:64]!r}")
    for name in ("judge_version", "stopped", "prompts", "trigger"):
        if len(getattr(message, name)) > MAX_TEXT:
            raise ValueError(f"{name} is longer than {MAX_TEXT} characters")
    if tuple(message.levels) != pack.levels:
        raise ValueError(f"levels are {', '.join(pack.levels)}, not {', '.join(message.levels)}")
    if (message.pack, message.pack_hash) != (pack.name, pack.hash):
        raise ValueError(
            f"pack {message.pack[:64]!r} ({message.pack_hash:016x}) is not the one in force, "
            f"{pack.name!r} ({pack.hash:016x})"
        )
    _check_times(message, now)
    _check_classes(message, len(pack.levels))
    _check_numbers(message)
    _check_by_prompt(message, len(pack.levels))


def _check_classes(message: pb.Evaluation, levels: int) -> None:
    tasks = [c.task for c in message.classes]
    if len(set(tasks)) < len(tasks):
        raise ValueError("classes names one twice")
    if "" not in tasks:
        raise ValueError('classes lacks "", all requests together')
    if len(tasks) > MAX_CLASSES + 1:
        raise ValueError(f"{len(tasks) - 1} classes, at most {MAX_CLASSES}")
    if len({len(c.covariance) > 0 for c in message.classes}) > 1:
        raise ValueError("some classes have a covariance and some have none")
    for each in message.classes:
        try:
            _check_class(each, levels)
        except ValueError as error:
            raise ValueError(f"class {each.task!r}: {error}") from None


def _check_times(message: pb.Evaluation, now: float) -> None:
    start, end = _seconds(message.started_at), _seconds(message.finished_at)
    if not 0 < start <= end:
        raise ValueError("started_at and finished_at must be set, and in this order")
    if end > now + SKEW_S:
        raise ValueError(f"finished_at is {end - now:.0f} s from now: whose clock is wrong?")


def _check_class(c: pb.ClassQuality, levels: int) -> None:
    if len(c.task) > NAME_LENGTH or not (c.task.isascii() and c.task.isprintable()):
        raise ValueError(f"a task is printable ASCII of at most {NAME_LENGTH} characters")
    if not 1 <= c.judged < 1 << 63:
        raise ValueError(f"judged must be at least 1: {c.judged}")
    if len(c.preference) != levels:
        raise ValueError(f"{len(c.preference)} preferences for {levels} levels")
    for q in c.preference:
        if not 0 <= q <= MAX_PREFERENCE * (1 + ROUNDING):  # nor NaN
            raise ValueError(f"preference must be in 0 to {MAX_PREFERENCE:g}: {q}")
    if c.task == "" and c.preference[0] == 0:
        raise ValueError("L0 has no preference: nothing can be compared with it")
    if c.covariance:
        if len(c.covariance) != levels * levels:
            raise ValueError(f"{len(c.covariance)} covariances for {levels} levels")
        s = np.array(c.covariance).reshape(1, levels, levels)
        Certainty(0.5, s).check(1, levels)  # finite, symmetric, no negative variance
    _check_intervals(c, levels)
    for name in ("shrunk", "weight_share"):
        share = getattr(c, name)
        if not 0 <= share <= 1 + ROUNDING:
            raise ValueError(f"{name} must be in 0 to 1: {share}")


def _check_intervals(c: pb.ClassQuality, levels: int) -> None:
    for name in ("low", "high"):
        ends = getattr(c, name)
        if len(ends) not in (0, levels) or not all(0 <= v < math.inf for v in ends):
            raise ValueError(f"{name} must be {levels} finite numbers, not negative, or none")
    if len(c.low) != len(c.high) or any(a > b for a, b in zip(c.low, c.high, strict=True)):
        raise ValueError("low and high are no intervals")


def _check_numbers(message: pb.Evaluation) -> None:
    for field, value in message.cost.ListFields():
        if not 0 <= value < math.inf:
            raise ValueError(f"cost.{field.name} must be finite and not negative: {value}")
    if len(message.bias) > MAX_BIAS:
        raise ValueError(f"{len(message.bias)} measures of bias, at most {MAX_BIAS}")
    for name, value in message.bias.items():
        _name("a measure of bias", name)
        if not math.isfinite(value):
            raise ValueError(f"bias[{name!r}] must be finite: {value}")


def _check_by_prompt(message: pb.Evaluation, levels: int) -> None:
    rows = message.by_prompt
    if len(rows) > MAX_BY_PROMPT:
        raise ValueError(f"{len(rows)} judged prompts, at most {MAX_BY_PROMPT}")
    if rows and not SHA256.fullmatch(message.weights):
        raise ValueError(f"weights is no SHA-256: {message.weights[:64]!r}")
    for number, row in enumerate(rows):
        what = f"by_prompt[{number}]"
        if (len(row.predicted), len(row.scores)) != (2 * levels, levels):
            raise ValueError(
                f"{what}: {len(row.predicted)} predictions and {len(row.scores)} scores for "
                f"{levels} levels"
            )
        if len(row.task) > NAME_LENGTH or not (row.task.isascii() and row.task.isprintable()):
            raise ValueError(f"{what}: a task is printable ASCII of {NAME_LENGTH} characters")
        if not 0 < row.weight < math.inf or not all(0 <= x < math.inf for x in row.predicted):
            raise ValueError(f"{what}: a weight is above 0, predictions not below it, all finite")
        if not all(0 <= x <= MAX_PREFERENCE * (1 + ROUNDING) for x in row.scores):
            raise ValueError(f"{what}: scores are in 0 to {MAX_PREFERENCE:g}")


def _name(what: str, text: str) -> None:
    if not 0 < len(text) <= MAX_NAME or not text.isprintable():
        raise ValueError(f"{what} must be 1 to {MAX_NAME} printable characters")


def _seconds(stamp: object) -> float:
    return float(stamp.seconds + stamp.nanos / 1e9)  # type: ignore[attr-defined]
