# SPDX-License-Identifier: Apache-2.0
"""What one seed decides: which requests come in each hour, and what judges say of it.

The same for every zone and window, as published: only grids and policies differ between runs of a
seed, so their differences are paired.

*Requests*: `requests_per_hour` prompts, drawn with replacement; the task from the hour's mix, the
prompt evenly within the task. 0: no draws, the expectation of the same.

*Assessments*: one of `evaluation_prompts` judged prompts in every hour, drawn from its mix; a
multinomial, because how a judged prompt was judged is fixed. A scheme with an evaluator knows those
of the hours it evaluated in, ORACLE each, and every scheme is scored by them, as published. What
the preference is without that noise stands beside (`truth`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sprout.replay.bundle import Bundle, Indices

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Workload:
    """H hours, N requests in each, L levels; the last column is the small model's."""

    seed: int
    requests: NDArray[np.int32] | None  # (H, N) indices of prompts; None: expectation
    per_hour: int  # N; 1 where none is drawn
    energy_kwh: Array  # (H, L [+ 1]) mean of the hour's requests, were all at one level
    seconds: Array  # (H, L [+ 1])
    assessed: Array  # (H, L) preference shares; nan without judgments
    truth: Array  # (H, L) their expectation


def draw(bundle: Bundle, hours: int, requests_per_hour: int, seed: int) -> Workload:
    """ConfigError where the bundle's mix is shorter than `hours`."""
    mix = bundle.mix_of(hours)
    energy, seconds = table(bundle)
    rng = np.random.default_rng([seed, 1])
    requests: NDArray[np.int32] | None = None
    if requests_per_hour:
        requests = _requests(bundle, mix, requests_per_hour, rng)
        means = (
            np.array([values[row].mean(axis=0) for row in requests]) for values in (energy, seconds)
        )
    else:
        means = (mix @ bundle.task_means(values) for values in (energy, seconds))
    energy_kwh, device_s = means
    truth = assessed = np.full((hours, bundle.levels), np.nan)
    if bundle.judged:
        truth = mix @ bundle.preferences()
        count = bundle.meta.evaluation_prompts
        judge = np.random.default_rng([seed, 2])
        assessed = judge.multinomial(count, truth / truth.sum(axis=1, keepdims=True)) / count
    return Workload(
        seed, requests, max(1, requests_per_hour), energy_kwh, device_s, assessed, truth
    )


def table(bundle: Bundle) -> tuple[Array, Array]:
    """kWh and seconds of each prompt, (n, L [+ 1]): the small model is the last column."""
    energy, seconds = bundle.energy_kwh, bundle.seconds
    if bundle.small_energy_kwh is not None and bundle.small_seconds is not None:
        energy = np.column_stack([energy, bundle.small_energy_kwh])
        seconds = np.column_stack([seconds, bundle.small_seconds])
    return energy, seconds


def _requests(
    bundle: Bundle, mix: Array, per_hour: int, rng: np.random.Generator
) -> NDArray[np.int32]:
    pools: list[Indices] = [np.flatnonzero(bundle.task == c) for c in range(len(bundle.tasks))]
    drawn = np.empty((len(mix), per_hour), dtype=np.int32)
    for hour, counts in enumerate(rng.multinomial(per_hour, mix)):
        parts = [
            pool[rng.integers(len(pool), size=count)]
            for pool, count in zip(pools, counts, strict=True)
        ]
        drawn[hour] = np.concatenate(parts)
    return drawn
