#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What one decision costs with task classes, tenants and confidence: CPU time of `decide.plan`.

usage: benchmarks/bench_joint.py [--rounds N] [--hours N]

CPU time and not the clock's, so that what else the machine does hardly counts. Random instances of
a fixed seed: three levels, classes of different q, e and traffic; 672 hours of a daily wave.
"first" is an hour's first decision after an evaluation, at most.
"""

import argparse
import time
from dataclasses import replace
from statistics import median

import numpy as np

from sprout.config import Config
from sprout.control.decide import plan
from sprout.control.inputs import Group, Horizon, Inputs, Matrix, inputs_of, priors
from sprout.optimize.contrast import multinomial
from sprout.optimize.floor import Range
from sprout.profile import LevelProfile

LEVELS = ("L0", "L1", "L2")
HOURS = 672
JUDGED = 400  # of each class


def matrix(q: tuple[float, ...], judged: int) -> Matrix:
    return tuple(map(tuple, multinomial(np.array(q), judged).tolist()))


def instance(
    rng: np.random.Generator, classes: int, *, sure: bool, bank: bool, hours: int = HOURS
) -> Inputs:
    base = inputs_of(
        Config(), float(rng.uniform(120, 300)), Range(100, 300, ""), priors(Config(), LEVELS)
    )

    def drawn() -> tuple[tuple[LevelProfile, ...], tuple[float, ...]]:
        shares = np.sort(rng.uniform(0.2, 1.0, 3))[::-1]
        q = tuple(map(float, shares / shares.sum()))
        e = rng.uniform(0.3, 3.0)
        return tuple(
            replace(p, preference=x, energy_joules=p.energy_joules * float(e))
            for p, x in zip(base.profile, q, strict=True)
        ), q

    profile, q = drawn()
    traffic = rng.dirichlet(np.ones(classes + 1))
    groups = []
    for i in range(classes):
        own, its = drawn()
        groups.append(
            Group(
                task=f"c{i}",
                traffic=float(traffic[i]),
                profile=own,
                covariance=matrix(its, JUDGED),
                judged=JUDGED,
            )
        )
    horizon = None
    if bank:
        wave = 200 + 80 * np.sin(np.arange(hours) * 2 * np.pi / 24) + rng.normal(0, 15, hours)
        horizon = Horizon(tuple(wave.round(2).tolist()), (10.0,) * hours, 0.95, 0.0, "")
    return replace(
        base,
        profile=profile,
        covariance=matrix(q, JUDGED * max(classes, 1)),
        judged=JUDGED * max(classes, 1),
        confidence=0.9 if sure else 0.5,
        groups=tuple(groups),
        mode="bank" if bank else "paper",
        horizon=horizon,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hours", type=int, default=HOURS)
    args = parser.parse_args()
    rounds = args.rounds
    print(f"{'':34}{'median':>10}{'min':>10}{'max':>10}  ms{'first':>8}")
    for bank in (False, True):
        for classes in (0, 4, 16):
            for sure in (False, True):
                rng, taken, once = np.random.default_rng(7), [], [0.0]
                for _ in range(rounds):
                    given = instance(rng, classes, sure=sure, bank=bank, hours=args.hours)
                    first = time.process_time()
                    if sure:  # z is worked out once an evaluation
                        plan(replace(given, mode="paper", horizon=None))
                        once.append(1e3 * (time.process_time() - first))
                    start = time.process_time()
                    made = plan(given)
                    taken.append(1e3 * (time.process_time() - start))
                    assert made.active_constraint != "infeasible", made.degraded
                what = f"{f'{args.hours} h' if bank else 'hour'}, {classes} classes" + (
                    ", 90 % sure" if sure else ""
                )
                print(
                    f"{what:34}{median(taken):10.1f}{min(taken):10.1f}{max(taken):10.1f}{max(once):10.1f}"
                )


if __name__ == "__main__":
    main()
