# SPDX-License-Identifier: Apache-2.0
"""What a predictor knows of a made-up sample: cheap where it is short, and differently good."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from predict_synthetic import fitted, make_told

from sprout.control.inputs import Inputs, Prompts
from sprout.control.plan import PromptGroup, PromptPlan
from sprout.control.predicted import Predicted
from sprout.directives import Pack
from sprout.directives import pack as pack_of
from sprout.optimize.floor import Range
from sprout.predict.document import Predictor, load, save
from sprout.profile import NOTHING, build

PACK = pack_of("explicit")
LEVELS = ("L0", "L1", "L2")
CLASSES = ("sums", "trivia")
ENERGY, SECONDS, PREFERENCE = (60.0, 20.0, 12.0), (3.0, 1.0, 0.6), (0.40, 0.34, 0.26)


def predicted(
    seed: int = 1, m: int = 400, *, coarse: bool = False, judged: str = "better"
) -> Predicted:
    """`coarse`: few distinct numbers, so that many prompts tie at a price. `judged`: "better", more
    telling than what is predicted, or "drawn" by it, or "blind" to it."""
    rng = np.random.default_rng(seed)
    preferences = rng.dirichlet((4.0, 3.0, 2.5), m)
    joules = rng.gamma(2.0, 1.0, (m, 1)) * rng.uniform(0.7, 1.3, (m, 3)) * (900.0, 250.0, 160.0)
    if coarse:
        preferences, joules = np.round(preferences, 1) + 0.01, np.round(joules, -2) + 10.0
    means = preferences.mean(0)
    preferred = {
        "better": np.argmax(preferences / means, axis=1),
        "drawn": (rng.random((m, 1)) > np.cumsum(preferences / preferences.sum(1)[:, None], 1)).sum(
            1
        ),
        "blind": rng.choice(3, m, p=means / means.sum()),
    }[judged]
    return Predicted(
        sha256="f" * 64,
        basis="a made-up sample",
        weights=b"weights",
        weights_sha256="a" * 64,
        classes=CLASSES,
        label=rng.integers(0, 2, m),
        preferred=np.minimum(preferred, 2),
        preferences=preferences,
        joules=joules,
    )


def inputs(share: float = 0.9, traffic: tuple[tuple[str, float], ...] = (), **more: Any) -> Inputs:
    profile = build(
        LEVELS,
        [NOTHING] * 3,
        prior_energy_joules=ENERGY,
        prior_device_s=SECONDS,
        prior_preference=PREFERENCE,
        min_outcomes=3,
    )
    fields: dict[str, Any] = {
        "intensity_g_per_kwh": 200.0,
        "within": Range(100.0, 300.0, "as given"),
        "profile": profile,
        "xi": 0.1,
        "configured_fraction": 0.5,
        "pue": 1.2,
        "embodied_g_per_s": 1e-4,
        "prompts": Prompts("f" * 64, share, traffic),
    }
    return Inputs(**fields | more)


def write(folder: Path, target: Path, *, pack: Pack = PACK, turn: float = 1.0) -> Predictor:
    """A fitted predictor of a made-up bundle under `folder`, for a pack; `turn`: another one."""
    if not (folder / "requests.csv").exists():
        make_told(folder)
    found = fitted(folder)[1]
    meta = replace(found.meta, levels=pack.levels, directives=pack.directives)
    save(replace(found, meta=meta, second=turn * found.second), target)
    return load(target)


def follow(made: PromptPlan | PromptGroup, known: Predicted) -> Any:
    """(m, L) how often a prompt gets a level: the rule of PromptPolicy, loop by loop."""
    often = np.zeros_like(known.joules)
    for i in range(len(often)):
        for point in made.points:
            costs = [
                point.g[level]
                + made.g_per_joule[level] * known.joules[i, level]
                - point.g_per_preference * known.preferences[i, level]
                for level in range(3)
            ]
            often[i, costs.index(min(costs))] += point.fraction
    return often
