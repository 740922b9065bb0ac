# SPDX-License-Identifier: Apache-2.0
"""The requests of one mix, as far as prices of prompts go: a sample that stands for them, and what
the published rule comes to on it. See prices.py. n prompts of the predictor's m, L levels.
"""

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sprout.control.inputs import Group, Inputs
from sprout.control.plan import PromptPoint
from sprout.control.predicted import Predicted
from sprout.control.quality import Judgments
from sprout.errors import InfeasibleError
from sprout.optimize.blocks import Blend, Block, Blocks
from sprout.optimize.program import INFINITY, Program
from sprout.optimize.prompt import Row
from sprout.units import operational_g

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

MOST_POINTS = 4  # of a mix, in a policy
# Beside a price one that is by so much lower and higher: prompts tied at it go one way whole.
NUDGES = (0.0, -1e-9, 1e-9)
SLACK = 1e-8  # that sums of the solver's may be off
SHARE = 1e-9  # a point of a smaller fraction is rounding
LEAST_PROMPTS = 30  # judged, before something is said of a mix by them
SURE = 1.96  # standard errors that a gain must have before it is counted


def weights(known: Predicted, traffic: tuple[tuple[str, float], ...]) -> Array:
    """(m,) that sum to 1: each class as in the traffic; what is of no class that the predictor
    knows ("") is spread over all prompts, and so is everything where nothing is known."""
    m = len(known.label)
    stands_for = np.ones(m) if known.stands_for is None else known.stands_for
    everywhere: Array = stands_for / stands_for.sum()
    shares = dict(traffic)
    counts = np.bincount(known.label, minlength=len(known.classes))
    w = shares.pop("", 0.0) * everywhere
    for c, name in enumerate(known.classes):
        if counts[c] and name in shares:
            w[known.label == c] += shares[name] / counts[c]
    total = float(w.sum())
    return w / total if total > 0 else everywhere


@dataclass(frozen=True)
class Heard:
    """What is said by prompts that an evaluation judged."""

    prompts: int
    gain: float  # as `Made.judged`
    variance: float


def counted(gap: float, sd: float) -> float:
    """What is counted of a gap between what is reckoned with and what an evaluation heard.

    Worse: shrunk by how far its error alone would put it (the positive part of James and Stein's
    estimate). Better: what it is surely better by. So noise loosens nothing, and tightens little.
    """
    if gap < 0:
        return gap * max(0.0, 1 - (sd / gap) ** 2)
    return max(0.0, gap - SURE * sd)


@dataclass(frozen=True, eq=False)
class Made:
    """What the published rule comes to on the sample, in expectation. Preferences are of L0's."""

    points: tuple[PromptPoint, ...]
    shares: Array  # (L,)
    g: float  # per request
    drawn: float  # preference of these shares, whoever gets them
    predicted: float  # what it gains on that who gets them, as predicted
    judged: float  # the same as the prompts were judged
    influence: Array  # (m,) of each prompt on `judged`, whose variance is the sum of their squares
    heard: Heard | None = None  # None: too few of today's prompts, or none

    @property
    def least(self) -> float:
        """The preference, counted as judged where that is less, then or by an evaluation."""
        told = min(self.predicted, self.judged)
        if self.heard is not None and self.heard.gain < told:
            sd = math.sqrt(self.heard.variance + float(np.square(self.influence).sum()))
            told += counted(self.heard.gain - told, sd)
        return self.drawn + told


@dataclass(frozen=True)
class _Cap:
    """sign * (the level's share) >= least"""

    level: int
    sign: float
    least: float


class Part:
    """Joules and preferences corrected so that a level's means are those that it is decided on.

    Nothing of it changes: mixes that are alike have one.
    """

    def __init__(
        self,
        inputs: Inputs,
        group: Group,
        w: Array,
        known: Predicted,
        today: Judgments | None = None,
    ) -> None:
        """w: (m,) of the predictor's prompts, sums to 1. today: of its requests, by the predictor's
        weights. InfeasibleError: the predictor's prompts are of no use."""
        self._today = today
        assert inputs.intensity_g_per_kwh is not None
        profile = group.profile or inputs.profile
        self.q = np.array([p.preference for p in profile])
        self._whole, self._rows = len(w), np.flatnonzero(w)
        self._w = w[self._rows]
        self._joules, self._preferences = known.joules[self._rows], known.preferences[self._rows]
        self._won = np.eye(len(self.q))[known.preferred[self._rows]]
        joules, means = self._w @ self._joules, self._w @ self._preferences
        if means[0] <= 0 or joules.min() <= 0 or self.q[0] <= 0:
            raise InfeasibleError("of these prompts a level is expected to use or to be nothing")
        if not (self._w @ self._won[:, 0]) > 0:
            raise InfeasibleError("of these prompts none was judged to be best at L0")
        e = np.array([p.energy_joules for p in profile])
        a_joule = operational_g(1.0, inputs.intensity_g_per_kwh, inputs.pue)
        self.g_per_joule: Array = a_joule * e / joules
        self._embodied = inputs.embodied_g_per_s * np.array([p.device_seconds for p in profile])
        self._mean0 = float(means[0])
        self._more = self.q / self.q[0] - means / means[0]  # (L,)
        self._costs = self.g_per_joule * self._joules + self._embodied
        self._worth = self._preferences / self._mean0 + self._more
        self._caps = _of_mix(inputs, group, len(self.q))
        self._program_rows = self._rows_within(0.0)

    def tightened(self) -> "Part | None":
        """With caps that are tighter by a few prompts; None: there are none, or none can be.

        Where many caps bind, a point for each is to split the prompts that tie at it. Whoever
        keeps tighter ones with many points keeps these with few.
        """
        if not self._caps:
            return None
        part = copy(self)
        part._program_rows = self._rows_within((2 + len(self._caps)) * float(self._w.max()))
        try:
            part.alone().solve(-np.inf)
        except InfeasibleError:
            return None
        return part

    def block(self, share: float, worth: float, least: float) -> Block:
        """Its part in the program. share: of the requests; worth: of its preference in what all
        are held to; least: preference asked of it alone, as predicted."""
        rows = self._program_rows
        return Block("preference", share, worth, self._costs, self._w, self._worth, least, rows)

    def alone(self) -> Blocks:
        """The program of it alone."""
        return Blocks([self.block(1.0, 1.0, -np.inf)])

    def made(self, blend: Blend) -> Made:
        """A solution in the request path's own arithmetic. It may have more points than a policy.

        Its sums may put a prompt that is tied at a price on another side than the solver's do. So
        what each price really comes to is measured, and blended anew.
        """
        points = [self._point(vector, nudge) for vector in blend.vectors for nudge in NUDGES]
        chosen = [
            choose(self.g_per_joule, point, self._joules, self._preferences) for point in points
        ]
        measured = np.array([self._measured(levels) for levels in chosen])  # (K, 2 + L)
        fractions = self._blend(measured, blend.gain)
        used = np.flatnonzero(fractions > SHARE)
        parts = fractions[used] / fractions[used].sum()
        g, worth, *rest = (parts @ measured[used]).tolist()
        shares = np.array(rest)
        drawn = float(shares @ self.q) / float(self.q[0])
        judged, influence = self._judged(shares, [chosen[k] for k in used], parts)
        return Made(
            tuple(
                replace(points[k], fraction=float(part))
                for k, part in zip(used, parts, strict=True)
            ),
            shares,
            g,
            drawn,
            worth - drawn,
            judged,
            influence,
            self._heard(shares, [points[k] for k in used], parts),
        )

    def _heard(self, shares: Array, points: Sequence[PromptPoint], parts: Array) -> Heard | None:
        """What these points gain over drawing these shares, as today's prompts were judged."""
        today = self._today
        if today is None or len(today.stands_for) < LEAST_PROMPTS:
            return None
        w, at = today.stands_for / today.stands_for.sum(), np.arange(len(today.stands_for))
        gained = -(today.scores @ shares)
        for point, part in zip(points, parts, strict=True):
            levels = choose(self.g_per_joule, point, today.joules, today.preferences)
            gained += part * today.scores[at, levels]
        l0 = float(w @ today.scores[:, 0])
        if not l0 > 0:
            return None
        gain = float(w @ gained) / l0
        influence = w * (gained - gain * today.scores[:, 0]) / l0
        return Heard(len(at), gain, float(np.square(influence).sum()))

    def _rows_within(self, margin: float) -> list[Row]:
        """Of the caps, tighter by a margin."""
        return [self._row(cap, margin) for cap in self._caps]

    def _row(self, cap: _Cap, margin: float) -> Row:
        gains = np.zeros_like(self._costs)
        gains[:, cap.level] = cap.sign
        name = f"{'most' if cap.sign < 0 else 'least'} L{cap.level}"
        return Row(name, gains, cap.least + margin)

    def _judged(
        self, shares: Array, chosen: Sequence[Indices], parts: Array
    ) -> tuple[float, Array]:
        """What these levels gain over drawing the same shares, as the prompts were judged, of L0's;
        and each prompt's influence on it (of a ratio of means, linearised)."""
        w, won, at = self._w, self._won, np.arange(len(self._w))
        gained = sum(
            (part * won[at, levels] for part, levels in zip(parts, chosen, strict=True)),
            start=-(won @ shares),
        )
        l0 = float(w @ won[:, 0])
        told = float(w @ gained) / l0
        influence = np.zeros(self._whole)
        influence[self._rows] = w * (gained - told * won[:, 0]) / l0
        return told, influence

    def _point(self, vector: Array, nudge: float) -> PromptPoint:
        """vector: prices (1 + caps,)."""
        worth = float(vector[0]) * (1 + nudge)
        g = self._embodied - worth * self._more
        for cap, dual in zip(self._caps, vector[1:], strict=True):
            g[cap.level] -= cap.sign * dual
        return PromptPoint(1.0, worth / self._mean0, tuple(map(float, g)))

    def _measured(self, levels: Indices) -> list[float]:
        """Grams, predicted worth and (levels) shares of the sample at these levels (n,)."""
        w, at = self._w, np.arange(len(self._w))
        shares = np.bincount(levels, weights=w, minlength=len(self.q))
        means = w @ self._costs[at, levels], w @ self._worth[at, levels]
        return [*map(float, means), *shares.tolist()]

    def _blend(self, measured: Array, least: float) -> Array:
        """(K,) fractions of the least grams. InfeasibleError: not even these can meet the rows."""
        k, caps = len(measured), self._caps
        scale = float(measured[:, 0].max()) or 1.0
        matrix = [np.ones(k), measured[:, 1], *(c.sign * measured[:, 2 + c.level] for c in caps)]
        lower = [1.0, least - SLACK, *(c.least - SLACK for c in caps)]
        upper = [1.0, *[INFINITY] * (1 + len(caps))]
        found = Program(
            costs=measured[:, 0] / scale,
            lower=np.zeros(k),
            upper=np.ones(k),
            row_lower=np.array(lower),
            row_upper=np.array(upper),
            starts=np.arange(len(matrix) + 1, dtype=np.int32) * k,
            indices=np.tile(np.arange(k, dtype=np.int32), len(matrix)),
            values=np.concatenate(matrix),
        ).run_surely()
        return np.maximum(np.asarray(found.x), 0.0)


def choose(g_per_joule: Array, point: PromptPoint, joules: Array, preferences: Array) -> Indices:
    """(n,) levels at one point, by the rule of PromptPolicy in control.proto."""
    costs = np.array(point.g) + g_per_joule * joules
    found: Indices = np.argmin(costs - point.g_per_preference * preferences, axis=1)
    return found


def _of_mix(inputs: Inputs, group: Group, levels: int) -> list[_Cap]:
    """The mix's own, on the shares of those decided by their prompt. Not its exploration: what is
    learnt of levels is learnt from the mix."""
    lower, upper = inputs.caps.bounds(levels, group.previous or inputs.previous)
    most = [_Cap(level, -1.0, -high) for level, high in enumerate(upper) if high < 1]
    return most + [_Cap(level, 1.0, low) for level, low in enumerate(lower) if low > 0]
