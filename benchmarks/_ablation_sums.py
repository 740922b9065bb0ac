# SPDX-License-Identifier: Apache-2.0
"""bench_ablation's windows summed up: means and their intervals over resamples of prompts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from _ablation import Array
from _ablation_wrong import CLASSES, NONE, TEXT

BLIND, FORESEEN, HOURLY = "mean", "foreseen", "hour by hour"
HINDSIGHT = "in hindsight"
STEPS = (  # what is earned by the first over the second
    ("carbon, foreseen", f"{NONE}, {FORESEEN}", f"{NONE}, {BLIND}"),
    ("carbon, hour by hour (BANK)", f"{NONE}, {HOURLY}", f"{NONE}, {BLIND}"),
    ("tasks", f"{CLASSES}, {BLIND}", f"{NONE}, {BLIND}"),
    ("tasks, where carbon is foreseen", f"{CLASSES}, {FORESEEN}", f"{NONE}, {FORESEEN}"),
    ("carbon, where tasks are known", f"{CLASSES}, {FORESEEN}", f"{CLASSES}, {BLIND}"),
    ("text on nothing, mean grid", f"{TEXT}, {BLIND}", f"{NONE}, {BLIND}"),
    ("text on true tasks, mean grid", f"{TEXT}, {BLIND}", f"{CLASSES}, {BLIND}"),
    ("text on true tasks, foreseen", f"{TEXT}, {FORESEEN}", f"{CLASSES}, {FORESEEN}"),
    ("text on true tasks, hour by hour", f"{TEXT}, {HOURLY}", f"{CLASSES}, {HOURLY}"),
    ("carbon foreseen, where texts are known", f"{TEXT}, {FORESEEN}", f"{TEXT}, {BLIND}"),
    ("carbon hour by hour, where texts are known", f"{TEXT}, {HOURLY}", f"{TEXT}, {BLIND}"),
    ("hindsight of tasks' mixes", f"{CLASSES}, {FORESEEN}, {HINDSIGHT}", f"{CLASSES}, {FORESEEN}"),
    ("hindsight of one mix", f"{NONE}, {BLIND}, {HINDSIGHT}", f"{NONE}, {BLIND}"),
)


def interval(values: Array) -> list[float]:
    """(R,) to the figure itself and its 95 % interval, without the resamples that have none."""
    ends = np.nanquantile(values[1:], (0.025, 0.975)) if len(values) > 1 else (np.nan, np.nan)
    return [float(v) for v in (values[0], *ends)]


def savings(found: list[dict[str, Array]], preferences: Sequence[float]) -> dict[str, Any]:
    """Means over windows at each wanted preference; percent and points."""
    levels, steps = [], []
    for w, wanted in enumerate(preferences):
        by_scheme = {name: np.array([100 * each[name][w] for each in found]) for name in found[0]}
        levels += [
            {
                "scheme": name,
                "preference_pct": 100 * wanted,
                "saving_pct": interval(values.mean(axis=0)),
                "by_window": values[:, 0].tolist(),
            }
            for name, values in by_scheme.items()
        ]
        for what, over, under in STEPS:
            gained = by_scheme[over] - by_scheme[under]
            steps.append(
                {
                    "what": what,
                    "preference_pct": 100 * wanted,
                    "points": interval(gained.mean(axis=0)),
                    "windows_above": int((gained[:, 0] > 0.005).sum()),
                    "least": float(gained[:, 0].min()),
                    "most": float(gained[:, 0].max()),
                }
            )
    return {"levels": levels, "steps": steps}


def sensitivities(found: list[list[tuple[str, str, str, Array]]]) -> list[dict[str, Any]]:
    """Means over windows."""
    rows = []
    for of in zip(*found, strict=True):
        group, name, scheme, _ = of[0]
        saving, preference, off = np.mean([each[3] for each in of], axis=0)
        rows.append(
            {
                "group": group,
                "input": name,
                "scheme": scheme,
                "saving_points": interval(saving),
                "preference_points": interval(preference),
                "off_frontier_points": None if np.isnan(off[0]) else interval(off),
            }
        )
    return rows
