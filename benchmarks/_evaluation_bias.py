# SPDX-License-Identifier: Apache-2.0
"""What a judge's leanings do to q, and what is left once they are taken out."""

import numpy as np
from _evaluation import Array, Recorded, logistic

from sprout.evaluate.statistics import choice, length, position

JOULES_PER_TOKEN = 5.9  # of the published 13B runs


def bias(data: Recorded, runs: int) -> None:
    """Pairwise judges made from the recorded shares: level i beats L0 with odds q_i / q_0 of the
    class, times a prompt's own factor (log-normal, sigma 1)."""
    rng = np.random.default_rng(3)
    tokens = np.round(data.wh * 3600 / JOULES_PER_TOKEN)
    labels = [data.tasks[c] for c in data.of]
    found: dict[str, list[Array]] = {}

    def note(name: str, q: Array, truth: Array) -> None:
        found.setdefault(name, []).append(100 * (q - truth))

    for _ in range(runs):
        odds = np.log(data.q[:, 1:] / data.q[:, :1])[data.of]
        odds = odds + rng.standard_normal(odds.shape)
        p = logistic(odds)
        truth = 2 * p.mean(axis=0)
        lean = _leaning(odds, 0.2)
        for name, first, second in (
            ("adds 20 points", np.clip(p - 0.2, 0, 1), np.clip(p + 0.2, 0, 1)),
            (f"adds {lean:.1f} to the log-odds", logistic(odds - lean), logistic(odds + lean)),
        ):
            orders = (rng.random((*p.shape, 2)) < np.stack([first, second], axis=-1)).astype(float)
            note(f"position, {name}: L0 always first", 2 * orders[..., 0].mean(axis=0), truth)
            note(f"position, {name}: both orders", 2 * orders.mean(axis=(0, 2)), truth)
            note(
                f"position, {name}: without (logit)",
                position.without(orders).preferences[1:],
                truth,
            )
        more = tokens[:, 1:] - tokens[:, :1]
        prefers = logistic(odds + np.tanh(more / more.std()))
        scores = np.ones((len(p), 3))
        scores[:, 1:] = (rng.random((2, *p.shape)) < prefers).sum(axis=0)
        note("length, adds up to 1 to the log-odds: as judged", scores.mean(axis=0)[1:], truth)
        for name, given in (("without", None), ("without, by class", labels)):
            q = length.without(scores, tokens, labels=given).corrected.preferences[1:]
            note(f"length, adds up to 1 to the log-odds: {name}", q, truth)
    print("\nError of q in points (L1, L2): mean over runs of 6,000 prompts, and its sd")
    for name, errors in found.items():
        mean, sd = np.mean(errors, axis=0), np.std(errors, axis=0)
        print(f"| {name} | {mean[0]:+.1f} ± {sd[0]:.1f} | {mean[1]:+.1f} ± {sd[1]:.1f} |")
    _choices(data, runs, rng)


def _leaning(odds: Array, points: float) -> float:
    """What makes the first shown win `points` too often."""
    low, high = 0.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        first = (logistic(odds + middle) + 1 - logistic(odds - middle)).mean() / 2
        low, high = (middle, high) if first < 0.5 + points else (low, middle)
    return low


def _choices(data: Recorded, runs: int, rng: np.random.Generator) -> None:
    """Three-way choices of a judge who picks the first shown as often as the published one."""
    lean = np.log([0.486, 0.324, 0.190])
    utility = np.log(data.q)[data.of]
    truth = data.q[data.of].mean(axis=0)
    errors: dict[str, list[Array]] = {"balanced": [], "without (logit)": []}
    for _ in range(runs):
        at = np.argsort(rng.random(utility.shape), axis=1)
        won = (utility + lean[at] + rng.gumbel(size=utility.shape)).argmax(axis=1)
        found = choice.without(won, at)
        errors["balanced"].append(100 * (found.balanced - truth))
        errors["without (logit)"].append(100 * (found.preferences - truth))
    for name, values in errors.items():
        mean, sd = np.mean(values, axis=0), np.std(values, axis=0)
        cells = " | ".join(f"{m:+.2f} ± {s:.2f}" for m, s in zip(mean, sd, strict=True))
        print(f"| choice, position: {name} (q0, q1, q2) | {cells} |")
