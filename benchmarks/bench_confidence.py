#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How often the floor holds under the mix that is chosen, and what that takes.

usage: benchmarks/bench_confidence.py [--rounds N]

Judgments are drawn with a q that is known (pairwise; each class as many prompts, equal traffic),
put through the evaluator's own statistics and the program of one hour at a floor of 95 %, and the
mix is held against that q.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sprout.config import Config
from sprout.control import joint
from sprout.control.inputs import Group, Inputs, Matrix, inputs_of, priors
from sprout.control.quality import ClassQuality, quality
from sprout.evaluate.answers import Judged, Question
from sprout.evaluate.findings import find
from sprout.optimize.floor import Range
from sprout.profile import LevelProfile
from sprout.v1 import control_pb2 as pb

LEVELS = ("L0", "L1", "L2")
FLOOR = 0.95
CASES: tuple[tuple[str, list[tuple[float, float]], int], ...] = (
    # P(preferred to L0) of L1 and L2 in each class, prompts of each
    ("one row, L1 and L2 alike", [(0.45, 0.45)], 400),
    ("one row, L2 far below", [(0.46, 0.2)], 400),
    ("4 classes alike", [(0.45, 0.3)] * 4, 200),
    ("16 classes alike", [(0.45, 0.3)] * 16, 60),
    ("16 classes alike", [(0.45, 0.3)] * 16, 400),
    ("16 classes that differ", [(0.5 - 0.01 * k, 0.3) for k in range(16)], 60),
)


def judged(
    rng: np.random.Generator, preferred: Sequence[tuple[float, float]], n: int
) -> pb.Evaluation:
    found = []
    for c, row in enumerate(preferred):
        for k, scores in enumerate(2.0 * (rng.random((n, 2)) < row)):
            task = f"c{c:02d}" if len(preferred) > 1 else ""
            found.append(Judged(Question(f"{c}-{k}", "", task), (1.0, *map(float, scores))))
    return pb.Evaluation(levels=LEVELS, classes=find(found, "pairwise").classes)


def inputs(base: Inputs, made: pb.Evaluation) -> Inputs:
    of = quality(made).classes

    def profile(found: ClassQuality) -> tuple[LevelProfile, ...]:
        return tuple(
            replace(p, preference=q) for p, q in zip(base.profile, found.preference, strict=True)
        )

    tasks = [task for task in of if task]
    matrix: Matrix = of[""].covariance
    return replace(
        base,
        profile=profile(of[""]),
        covariance=matrix,
        judged=of[""].judged,
        groups=tuple(
            Group(
                task=task,
                traffic=1 / len(tasks),
                profile=profile(of[task]),
                covariance=of[task].covariance,
                judged=of[task].judged,
                shrunk=of[task].shrunk,
                weight_share=of[task].weight_share,
            )
            for task in tasks
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    start = inputs_of(Config(), 200.0, Range(100, 300, ""), priors(Config(), LEVELS))
    start = replace(start, exploration_share=0.0, confidence=0.9)
    print(f"{'':40}{'floor held, %':>22}{'L0, % of requests':>24}")
    print(f"{'':40}{'plain':>7}{'mix':>7}{'choice':>8}{'plain':>8}{'mix':>8}{'choice':>8}")
    for name, preferred, n in CASES:
        truth = np.array([(1.0, 2 * a, 2 * b) for a, b in preferred])
        held, l0 = np.zeros((3, rounds)), np.zeros((3, rounds))
        rng = np.random.default_rng(9)
        for turn in range(rounds):
            given = inputs(start, judged(rng, preferred, n))
            for k, (confidence, of) in enumerate(((0.5, "mix"), (0.9, "mix"), (0.9, "choice"))):
                asked = replace(given, confidence=confidence, confidence_of=of)  # type: ignore[arg-type]
                made = joint.solve(asked, 200.0, FLOOR, {})
                mixes = np.array(made.groups or (made.shares,))
                held[k, turn] = (mixes * truth).sum(1).mean() >= FLOOR - 1e-9
                l0[k, turn] = mixes[:, 0].mean()
        h, x = (100 * values.mean(1) for values in (held, l0))
        what = f"{name}, {n} prompts{' each' if len(preferred) > 1 else ''}"
        print(
            f"{what:40}{h[0]:7.0f}{h[1]:7.0f}{h[2]:8.0f}{x[0]:8.0f}{x[1]:8.0f}{x[2]:8.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
