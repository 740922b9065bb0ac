# SPDX-License-Identifier: Apache-2.0
"""A made-up bundle in which a prompt's words tell what it costs and how its answers please."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from replay_synthetic import TASKS, make_bundle, write

from sprout.console.predictor import sample_of
from sprout.predict.check import check
from sprout.predict.document import Meta, Predictor, assemble
from sprout.predict.fit import fit
from sprout.predict.sample import Sample
from sprout.replay.bundle import read

WORDS = ("river", "stone", "cloud", "table", "green", "seven", "north", "garden", "winter")
# Of the two sorts of prompt: the first words, energy at L0 over the mean, odds of the levels.
SORTS = (("explain in depth why", 1.8, (0.8, 0.1, 0.1)), ("name one", 0.2, (0.1, 0.45, 0.45)))


def make_told(folder: Path, *, told: bool = True, prompts: int = 900, seed: int = 1) -> Path:
    """`told`: the first words tell the sort; else any words stand before either."""
    make_bundle(folder)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for i in range(prompts):
        sort = int(rng.integers(2))
        start, energy, odds = SORTS[sort]
        start = start if told else SORTS[int(rng.integers(2))][0]
        task = TASKS[i % 2]
        text = " ".join((start, *rng.choice(WORDS, 5), "plus" if task == "sums" else "who"))
        size = energy * rng.uniform(0.8, 1.2)
        row: dict[str, Any] = {"id": str(i), "task": task, "prompt": f"{text} {i}"}
        for level, share in enumerate((1.0, 0.25, 0.1)):
            row |= {f"wh_l{level}": size * share, f"s_l{level}": 12 * size * share}
        row["preferred"] = rng.choice(3, p=odds) if i % 3 else ""
        rows.append(row)
    write(folder / "requests.csv", list(rows[0]), rows)
    return folder


@cache
def fitted(folder: Path) -> tuple[Sample, Predictor]:
    """Fitted once for all tests of a folder; checked, not refused."""
    bundle = read(folder)
    sample = sample_of(bundle)
    found = fit(sample)
    meta = Meta(
        made="2026-01-01T00:00:00Z",
        sprout_version="0",
        source=bundle.meta.name,
        levels=sample.levels,
        directives=("", "", ""),
        classes=sample.classes,
        prompts=len(sample.texts),
        seconds_per_joule=tuple((sample.seconds.mean(0) / sample.joules.mean(0)).tolist()),
        report=check(sample, found),
    )
    return sample, assemble(sample, found, meta)
