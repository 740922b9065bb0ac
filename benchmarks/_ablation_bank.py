# SPDX-License-Identifier: Apache-2.0
"""BANK's gain on the best static mix, with an interval over blocks of days and over evaluators."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _ablation import Array, Indices

from sprout.replay.measure import measure
from sprout.replay.window import Plan, Solver, Window

RUNS, RESAMPLES, DAY_H = (1, 5), 500, 24  # days a block


@dataclass(frozen=True, eq=False)
class Run:
    """One window under one evaluator, by hour."""

    grams: Array  # (H,)
    preference: Array  # (H,)
    costs_g: Array  # (H, L)
    ratios: Array  # (H, L) each level's preference over L0's

    @property
    def saving(self) -> float:
        return float(1 - self.grams.mean() / self.costs_g[:, 0].mean())

    def gain(self, at: Indices | slice = slice(None)) -> float:
        """Saving of some hours less that of the best static mix, in hindsight, at their mean
        preference; of the most preferred one where no static mix has that much."""
        costs, ratios = self.costs_g[at].mean(axis=0), self.ratios[at].mean(axis=0)
        wanted = min(float(self.preference[at].mean()), float(ratios.max()))
        mix = Solver(len(costs)).mix(costs, ratios, wanted)
        return float((costs @ mix - self.grams[at].mean()) / costs[0])


def run_of(window: Window, shares: Array, *, assessed: bool) -> Run:
    """`assessed`: scored by the hours' assessments, as published; else by their expectation."""
    outcome = measure(window, Plan(shares, tuple(range(window.levels))), "BANK")
    q = window.work.assessed if assessed else window.work.truth
    reached = outcome.preference if assessed else outcome.expected
    return Run(outcome.grams, reached, window.costs_g[:, : window.levels], q / q[:, :1])


def day_blocks(hours: int, days: int, rng: np.random.Generator) -> Indices:
    """Hours of a window's whole days, resampled in runs of so many days, the last day followed by
    the first (circular block bootstrap)."""
    whole = hours // DAY_H * DAY_H
    run = DAY_H * days
    starts = DAY_H * rng.integers(whole // DAY_H, size=-(-whole // run))
    found: Indices = (starts[:, None] + np.arange(run)).ravel()[:whole] % whole
    return found


def gains(runs: Sequence[Sequence[Run]]) -> dict[str, Any]:
    """Of windows x seeds, in points. A resample takes the same days in all windows (their tasks
    and judgments are the same ones) and as many evaluators with replacement."""
    each = 100 * np.array([[run.gain() for run in of] for of in runs])
    hours, seeds, rng = len(runs[0][0].grams), each.shape[1], np.random.default_rng(0)
    found: dict[str, Any] = {
        "saving_pct": [100 * float(np.mean([r.saving for r in of])) for of in runs],
        "preference_pct": [100 * float(np.mean([r.preference.mean() for r in of])) for of in runs],
        "gain_points": each.tolist(),
    }
    for days in RUNS:
        resampled = []
        for _ in range(RESAMPLES):
            at, some = day_blocks(hours, days, rng), rng.integers(seeds, size=seeds)
            resampled.append(np.mean([[of[s].gain(at) for s in some] for of in runs]))
        ends = 100 * np.quantile(resampled, (0.025, 0.975))
        found[f"mean_blocks_of_{days}_days"] = [float(v) for v in (each.mean(), *ends)]
    return found
