# SPDX-License-Identifier: Apache-2.0
"""Policies that know more or less of a request and of the grid, and what they come to.

F folds of prompts, C tasks, L levels, H hours of a window; index 0 of R = 1 + draws is the sample
itself, the others are resamples of its judged prompts. A policy is a level for each judged prompt,
(H, m), or a mix for each fold, hour and task, (F, H, C, L): each fold's prompts get the mix that
the other folds' chose.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from bench_prompt import resamples
from numpy.typing import NDArray

from sprout.optimize.bank import BankModel
from sprout.optimize.problem import Problem
from sprout.replay.bundle import UNKNOWN, Bundle
from sprout.replay.prompted import Prompted, Prompts
from sprout.replay.window import Window

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

NOBODY = -2  # a fold that no prompt is of: leaving it out leaves all in


@dataclass(frozen=True, eq=False)
class Point:
    saving: Array  # (R,)
    preference: Array  # (R,) mean over hours of won / q0


@dataclass(frozen=True, eq=False)
class Frontier:
    """One scheme in one window: always the cheapest level, then by ascending target, then always
    L0, which saves nothing at 1. T points."""

    saving: Array  # (T, R)
    preference: Array  # (T, R) realised

    @classmethod
    def of(cls, cheapest: Point, points: list[Point]) -> "Frontier":
        l0 = Point(np.zeros_like(cheapest.saving), np.ones_like(cheapest.saving))
        every = [cheapest, *points, l0]
        return cls(np.array([p.saving for p in every]), np.array([p.preference for p in every]))

    def at(self, wanted: float | Array) -> Array:
        """(R,) the saving at a realised preference. nan above the most that is reached.

        Between neighbouring points it is a line, which is no approximation but a policy: requests
        are split between the two at random, and both figures are linear in the split. The first
        point from below that reaches `wanted` counts.
        """
        goal = np.broadcast_to(wanted, self.preference.shape[1:])
        enough = self.preference >= goal
        to = enough.argmax(axis=0)
        r, before = np.arange(len(goal)), np.maximum(to - 1, 0)
        low, high = self.preference[before, r], self.preference[to, r]
        part = np.where(to > 0, (goal - low) / np.where(high > low, high - low, 1.0), 0.0)
        found = (1 - part) * self.saving[before, r] + part * self.saving[to, r]
        return np.where(enough.any(axis=0), found, np.nan)


class Counted:
    """A bundle's judged prompts as they are and resampled within their tasks."""

    def __init__(self, prompted: Prompted, draws: int) -> None:
        own = self.own = prompted.own
        self.counts = resamples(prompted, draws)  # (R, m)
        self.counts32 = self.counts.astype(np.float32)
        self.folds = np.unique(own.fold)
        mine = (own.fold[:, None] == self.folds)[:, :, None] * own.weights.T[:, None, :]
        won = np.eye(own.energy_kwh.shape[1])[own.preferred]

        def sums(values: Array) -> Array:  # (m, L) -> (F C L, R)
            each = (mine[..., None] * values[:, None, None, :]).reshape(len(mine), -1)
            found: Array = (self.counts @ each).T
            return found

        self.energy, self.seconds, self.won = sums(own.energy_kwh), sums(own.seconds), sums(won)


class Here:
    """What policies come to in one window."""

    def __init__(self, counted: Counted, window: Window) -> None:
        self._counted, self.window = counted, window
        self._mix = window.bundle.mix_of(window.hours)  # (H, C)
        self._weights = self._mix @ counted.own.weights  # (H, m)
        self._weighted_k0 = self._weights * window.k0[:, None]
        self._base, self._q0 = self._sums(self._always(0))
        every = [self.mixes(self._always(level)) for level in range(window.levels)]
        self.cheapest = max(every, key=lambda point: float(point.saving[0]))

    def frontier(self, policies: Iterable[Any]) -> Frontier:
        return Frontier.of(self.cheapest, [self.point(policy) for policy in policies])

    def point(self, policy: Any) -> Point:
        """Of levels or mixes."""
        return self.levels(policy) if policy.ndim == 2 else self.mixes(policy)

    def mixes(self, shares: Array) -> Point:
        """Of (F or 1, H, C, L)."""
        return self._point(*self._sums(shares))

    def levels(self, levels: NDArray[np.int8]) -> Point:
        """Of (H, m)."""
        own, counted = self._counted.own, self._counted
        energy, seconds = np.zeros(levels.shape[1]), np.zeros(levels.shape[1])
        for level in range(self.window.levels):
            taken = levels == level
            energy += (self._weighted_k0 * taken).sum(axis=0) * own.energy_kwh[:, level]
            seconds += (self._weights * taken).sum(axis=0) * own.seconds[:, level]
        won = (self._weights * (own.preferred == levels)).astype(np.float32)
        return self._point(
            # Linear in kWh times intensity, so the hours may be summed first.
            counted.counts @ self.window.grams(energy, seconds, np.array(1.0)),
            (won @ counted.counts32.T).astype(np.float64),
        )

    def _sums(self, shares: Array) -> tuple[Array, Array]:
        """Grams of the window (R,) and won by hour (H, R)."""
        counted, folds = self._counted, len(self._counted.folds)
        x = np.broadcast_to(shares, (folds, *shares.shape[1:])) * self._mix[None, :, :, None]
        x = x.transpose(1, 0, 2, 3).reshape(self.window.hours, -1)
        k0 = self.window.k0[:, None]
        grams = self.window.grams(x @ counted.energy, x @ counted.seconds, k0)
        return grams.sum(axis=0), x @ counted.won

    def _always(self, level: int) -> Array:
        shares = np.zeros((1, *self._mix.shape, self.window.levels))
        shares[..., level] = 1.0
        return shares

    def _point(self, grams: Array, won: Array) -> Point:
        return Point(1 - grams / self._base, (won / self._q0).mean(axis=0))


@dataclass(frozen=True, eq=False)
class Means:
    """What is known of the tasks, for each fold without its own prompts: all (F, C, L)."""

    energy_kwh: Array
    seconds: Array
    q: Array  # share of judgments that the level won


def means(prompts: Prompts, folds: Indices) -> Means:
    won = np.eye(prompts.energy_kwh.shape[1])[prompts.preferred]
    found = []
    for fold in folds:
        w = prompts.weights * (prompts.fold != fold)
        w = w / w.sum(axis=1, keepdims=True)
        found.append([w @ prompts.energy_kwh, w @ prompts.seconds, w @ won])
    return Means(*np.array(found).transpose(1, 0, 2, 3))


class Mixes:
    """The bank over a whole window, its grid foreseen, as the live program solves it."""

    def __init__(self) -> None:
        self._models: dict[tuple[int, int, int], BankModel] = {}

    def find(
        self, window: Window, known: Means, target: float, *, classes: bool, aware: bool
    ) -> Array:
        """(F, H, C, L). `classes`: a mix for each task. Not `aware`: one for all hours, made for
        the window's mean intensity and mean mix of tasks."""
        mix = window.bundle.mix_of(window.hours)
        tasks, levels = mix.shape[1], window.levels
        k0, n = (window.k0, mix) if aware else (window.k0.mean(keepdims=True), mix.mean(0)[None])
        blind = mix.mean(axis=0)  # all that is known of a request where classes are not
        found = []
        for energy, seconds, q in zip(known.energy_kwh, known.seconds, known.q, strict=True):
            e, s, own = (v if classes else (blind @ v)[None] for v in (energy, seconds, q))
            problem = Problem(
                costs_g=window.grams(e[None], s[None], k0[:, None, None]),
                requests=n if classes else np.ones((len(k0), 1)),
                preferences=own,
                target=target,
                against="pooled",
            )
            model = self._models.setdefault(problem.shape, BankModel(*problem.shape))
            found.append(
                np.broadcast_to(model.solve(problem).shares, (window.hours, tasks, levels))
            )
        return np.array(found)


class Told(Prompted):
    """A predictor's prompts, told other preferences or energies than those that it predicts."""

    def __init__(self, base: Prompted, fitted: Prompts, own: Prompts) -> None:
        self._seconds_per_kwh, self._device = base._seconds_per_kwh, base._device
        self.fitted, self.own = fitted, own
        self._curves = {}


def class_means(base: Prompted) -> Told:
    """Each prompt's true task is known and nothing else of it; cross-fitted."""

    def told(prompts: Prompts) -> Prompts:
        folds, place = np.unique(prompts.fold, return_inverse=True)
        known, task = means(base.fitted, folds), prompts.weights.argmax(axis=0)
        return replace(prompts, q=known.q[place, task], predicted_kwh=known.energy_kwh[place, task])

    return Told(base, told(base.fitted), told(base.own))


def scaled(base: Prompted, factors: Array) -> Told:
    """With predicted energies (and so device seconds) off by a factor (L,) for each level."""
    fitted, own = (
        replace(each, predicted_kwh=each.predicted_kwh * factors)
        for each in (base.fitted, base.own)
    )
    return Told(base, fitted, own)


def flat(window: Window) -> Window:
    """The same with its mean intensity in every hour, for decisions that know no other."""
    trace = window.grid.g_per_kwh.copy()
    trace[window.start : window.start + window.hours] = window.k0.mean()
    name = f"{window.grid.zone}, flat"
    return replace(window, grid=replace(window.grid, zone=name, g_per_kwh=trace))


def mixed(window: Window, mix: Array) -> Window:
    """The same with another mix of tasks, (hours or 1, C)."""
    return replace(window, bundle=replace(window.bundle, mix=mix))


def thinned(window: Window, step: int) -> Window:
    """Every so many hours of it, for policies that no order of hours matters to."""
    work, some = window.work, slice(None, None, step)
    k0 = window.k0[some]
    return Window(
        replace(window.bundle, mix=window.bundle.mix_of(window.hours)[some]),
        # A name of its own: prices are remembered by zone and start.
        replace(window.grid, zone=f"{window.grid.zone} {window.start}", g_per_kwh=k0),
        0,
        replace(
            work,
            energy_kwh=work.energy_kwh[some],
            seconds=work.seconds[some],
            assessed=work.assessed[some],
            truth=work.truth[some],
        ),
    )


def biased(bundle: Bundle, points: float, seed: int = 0) -> Bundle:
    """As judged by one who likes shorter answers better: of each task's judgments so many percent
    go from L0 to the shorter levels, in proportion to what these have; < 0: the other way."""
    rng, preferred = np.random.default_rng(seed), bundle.preferred.copy()
    for task in range(len(bundle.tasks)):
        own = np.flatnonzero((bundle.task == task) & (preferred != UNKNOWN))
        long, short = own[preferred[own] == 0], own[preferred[own] > 0]
        from_, to = (long, preferred[short]) if points > 0 else (short, np.zeros(1, dtype=int))
        count = min(round(abs(points) / 100 * len(own)), len(from_))
        preferred[rng.choice(from_, count, replace=False)] = rng.choice(to, count)
    return replace(bundle, preferred=preferred)
