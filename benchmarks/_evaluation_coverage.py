# SPDX-License-Identifier: Apache-2.0
"""How often q's intervals hold the truth."""

from collections.abc import Callable

import numpy as np
from _evaluation import Array, Recorded, pairs

from sprout.evaluate.statistics.quality import Method, measure
from sprout.proof.interval import Interval

Draw = Callable[[np.random.Generator, int], Array]
# Judgments made up where the recorded ones are not of the method: name, method, draw, true ratios.
MADE: tuple[tuple[str, Method, Draw, tuple[float, ...]], ...] = (
    (
        "exact, one difficulty a prompt",
        "exact",
        lambda rng, n: (rng.random((n, 1)) < [0.6, 0.5, 0.4]).astype(float),
        (5 / 6, 2 / 3),
    ),
    (
        "exact, levels independent",
        "exact",
        lambda rng, n: (rng.random((n, 3)) < [0.6, 0.5, 0.4]).astype(float),
        (5 / 6, 2 / 3),
    ),
    (
        "pairwise, 30 % ties",
        "pairwise",
        lambda rng, n: pairs(rng.choice([0, 0.5, 1], size=(n, 2, 2), p=[0.35, 0.3, 0.35]).sum(2)),
        (1.0, 1.0),
    ),
    (
        "pairwise, 90 % ties",
        "pairwise",
        lambda rng, n: pairs(rng.choice([0, 1, 2], size=(n, 2), p=[0.07, 0.9, 0.03])),
        (0.96, 0.96),
    ),
    (
        "pairwise, one-sided",
        "pairwise",
        lambda rng, n: pairs(2 * (rng.random((n, 2)) < 0.1)),
        (0.2, 0.2),
    ),
)


def coverage(data: Recorded, runs: int) -> None:
    rng = np.random.default_rng(1)
    print("\nTrue q_i / q_0 inside the 95 % interval (L1, L2 together), % of evaluations")
    sizes = (10, 30, 100, 300, 1000)
    print("| drawn from | " + " | ".join(f"{n} prompts" for n in sizes) + " |")
    print("| --- |" + " --- |" * len(sizes))
    for name, pool in (
        ("all classes", data.scores),
        *zip(data.tasks, data.by_class, strict=True),
    ):
        q = pool.mean(axis=0)

        def again(rng: np.random.Generator, n: int, pool: Array = pool) -> Array:
            return pool[rng.integers(len(pool), size=n)]

        row = [_held(rng, "choice", again, q[1:] / q[0], n, runs) for n in sizes]
        print(f"| {name} | " + " | ".join(f"{100 * x:.1f}" for x in row) + " |", flush=True)
    for name, method, draw, truth in MADE:
        row = [_held(rng, method, draw, np.array(truth), n, runs) for n in sizes]
        print(f"| {name} | " + " | ".join(f"{100 * x:.1f}" for x in row) + " |", flush=True)


def _held(
    rng: np.random.Generator, method: Method, draw: Draw, truth: Array, n: int, runs: int
) -> float:
    """Evaluations without a ratio don't count; they say so themselves."""
    held = [
        ratio.low <= true <= ratio.high
        for _ in range(runs)
        for ratio, true in zip(measure(draw(rng, n), method=method).ratios[1:], truth, strict=True)
        if isinstance(ratio, Interval)
    ]
    return float(np.mean(held))
