# SPDX-License-Identifier: Apache-2.0
"""What the q of small classes gain from the others'."""

import numpy as np
from _evaluation import Recorded

from sprout.evaluate.statistics import shrinkage
from sprout.evaluate.statistics.quality import Quality, measure


def shrinking(data: Recorded, runs: int) -> None:
    rng = np.random.default_rng(4)
    sizes = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    print(
        "\n| prompts in all | mean squared error, shrunk / own | small half | large half |", end=""
    )
    print(" amount small | large | ± 1.96 sd holds: own | shrunk |\n| --- |" + " --- |" * 7)
    for n in (60, 120, 300, 1000):
        own, shrunk = np.zeros(6), np.zeros(6)
        amount = np.zeros(6)
        held = np.zeros(2)
        for _ in range(runs):
            order = rng.permutation(6)  # the classes from the largest to the smallest
            counts = np.maximum(2, np.round(n * sizes)).astype(int)
            classes: list[Quality] = []
            for c, count in zip(order, counts, strict=True):
                pool = data.by_class[c]
                classes.append(
                    measure(
                        pool[rng.integers(len(pool), size=count)],
                        method="choice",
                        task=data.tasks[c],
                    )
                )
            after = shrinkage.shrink(classes).classes
            for k, (c, before, now) in enumerate(zip(order, classes, after, strict=True)):
                d0, d1 = before.preferences - data.q[c], now.preferences - data.q[c]
                own[k] += d0 @ d0
                shrunk[k] += d1 @ d1
                amount[k] += now.amount / runs
                held[0] += np.mean(np.abs(d0) <= 1.96 * np.sqrt(np.diag(before.covariance)))
                held[1] += np.mean(np.abs(d1) <= 1.96 * np.sqrt(np.diag(now.covariance)))
        held *= 100 / (6 * runs)
        parts = [shrunk.sum() / own.sum()] + [
            shrunk[k].sum() / own[k].sum() for k in (slice(3, 6), slice(0, 3))
        ]
        print(
            f"| {n} | "
            + " | ".join(f"{x:.2f}" for x in parts)
            + f" | {amount[3:].mean():.2f} | {amount[:3].mean():.2f} | {held[0]:.1f} % | "
            f"{held[1]:.1f} % |",
            flush=True,
        )
