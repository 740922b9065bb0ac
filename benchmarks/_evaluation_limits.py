# SPDX-License-Identifier: Apache-2.0
"""What so many prompts can tell: the regret that is left over the region."""

import numpy as np
from _data import EMBODIED_G_PER_S, STARTS, ZONES
from _evaluation import XI, Array, Recorded, Situation

from sprout.config import Config
from sprout.evaluate import horizon
from sprout.evaluate.statistics.sequential import Hour, Stopping
from sprout.v1 import control_pb2 as pb

SIZES = (100, 300, 1000)
BATCH = 10  # prompts between two looks; the bounds keep the tightest of all looks


def limits(data: Recorded, runs: int) -> None:
    """Per situation runs x 3 starts of the grid, each zone in turn."""
    rng = np.random.default_rng(6)
    schedule = Config().evaluate.schedule
    print(
        f"\nRegret that is left over the region, median (90 % of evaluations): % of the grams, "
        f"points under the floor; and how many met {100 * schedule.stop_g_ratio:g} %, "
        f"{schedule.stop_points:g} points by then ({len(STARTS) * runs} evaluations each)"
    )
    print("| prompts of | " + " | ".join(f"{n:,}: grams | points | met" for n in SIZES) + " |")
    print("| --- |" + " --- |" * 3 * len(SIZES))
    one = np.eye(len(data.tasks))
    for name, shares in (
        ("all classes", data.mix.mean(axis=0)),
        *((task, one[c]) for c, task in enumerate(data.tasks)),
    ):
        found = np.array(
            [
                _regrets(data, rng, shares, ZONES[run % len(ZONES)], start)
                for run in range(runs)
                for start in STARTS
            ]
        )  # (evaluations, sizes, 2)
        # Once met, it has ended.
        met = (found[..., 0] <= schedule.stop_g_ratio) & (found[..., 1] <= schedule.stop_points)
        cells = []
        for k in range(len(SIZES)):
            grams, points = ((found[:, k, i] * (100, 1)[i]) for i in (0, 1))
            cells += [
                f"{np.median(x):.0f} ({np.quantile(x, 0.9):.0f})"
                if i == 0
                else f"{np.median(x):.1f} ({np.quantile(x, 0.9):.1f})"
                for i, x in enumerate((grams, points))
            ] + [f"{100 * met[:, : k + 1].any(axis=1).mean():.0f} %"]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def _regrets(
    data: Recorded, rng: np.random.Generator, shares: Array, zone: str, start: int
) -> Array:
    """(sizes, 2) g_ratio and points that are left after so many prompts."""
    situation = Situation("", np.ones(3), _horizon(data, shares, zone, start), shares, "pairwise")
    schedule = Config().evaluate.schedule
    rule = Stopping(
        situation.hours,
        method="pairwise",
        most_g_ratio=schedule.stop_g_ratio,
        most_points=schedule.stop_points,
    )
    judged = situation.draw(data, rng, max(SIZES))
    left = []
    for first in range(0, len(judged), BATCH):
        verdict = rule.update(judged[first : first + BATCH])
        if first + BATCH in SIZES:
            left.append((verdict.regret_g_ratio, verdict.violation_points))
    return np.array(left)


def _horizon(data: Recorded, shares: Array, zone: str, start: int) -> list[Hour]:
    """As `horizon.hours` makes them of a policy that is in force at an hour of the grid."""
    grid = data.grid[zone]
    trailing = grid[start - 168 : start]
    why = pb.Explanation(k0_min_g_per_kwh=min(trailing), k0_max_g_per_kwh=max(trailing), xi=XI)
    for level in range(3):
        wh = shares @ [data.wh[data.of == c, level].mean() for c in range(len(shares))]
        s = shares @ [data.seconds[data.of == c, level].mean() for c in range(len(shares))]
        why.profile.add(energy_joules=3600 * float(wh), device_seconds=float(s))
    return horizon.hours(
        pb.Policy(
            intensity=pb.Intensity(g_per_kwh=grid[start]),
            explanation=why,
            pue=1.0,
            embodied_g_per_s=EMBODIED_G_PER_S,
        )
    )
