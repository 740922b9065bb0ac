# SPDX-License-Identifier: Apache-2.0
"""What live prices come to on the prompts that a predictor was judged on, and what they take.

At several positions of the intensity in its range: the mix of the published program, and the prices
beside it, with e, p and q as a control plane starts (the priors). *Expected* is what
the policy says of itself. *Other half*: prices set on one half of the prompts, at random, and what
the other half's measured joules and judged preferences come to at them; mean and standard deviation
over splits. Predictions are cross-fitted throughout.

    python benchmarks/bench_prices.py --predictor FILE --pack paper [--splits 40]
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from _turns import commit
from numpy.typing import NDArray

from sprout.config import Config, ControlConfig, RequestConfig
from sprout.control import prices
from sprout.control.decide import offline, plan
from sprout.control.inputs import Inputs, Prompts
from sprout.control.plan import PromptPlan
from sprout.control.predicted import Predicted, fitting
from sprout.directives import pack
from sprout.optimize.contrast import multinomial
from sprout.predict.document import load

Array = NDArray[np.float64]

LOW, HIGH = 100.0, 500.0  # g/kWh
ROUNDS = 5


def often(made: PromptPlan, known: Predicted) -> Array:
    """(m, L) how often each prompt gets each level."""
    found = np.zeros_like(known.joules)
    at = np.arange(len(found))
    for point in made.points:
        chosen = prices.choose(np.array(made.g_per_joule), point, known.joules, known.preferences)
        found[at, chosen] += point.fraction
    return found


def part(known: Predicted, rows: NDArray[np.int64]) -> Predicted:
    return replace(
        known,
        label=known.label[rows],
        preferred=known.preferred[rows],
        preferences=known.preferences[rows],
        joules=known.joules[rows],
    )


def other_half(given: Inputs, known: Predicted, joules: Array, splits: int) -> str:
    """Joules less than L0's, and preference relative to L0's, in percent."""
    rng, mix = np.random.default_rng(1), plan(given)
    found = []
    for _ in range(splits):
        ours, theirs = np.array_split(rng.permutation(len(joules)), 2)
        made, _ = prices.price(given, mix, part(known, ours))
        if made is None:
            return "no prices"
        x = often(made, part(known, theirs))
        won = known.preferred[theirs, None] == np.arange(x.shape[1])
        used = joules[theirs]
        found.append((1 - (x * used).sum() / used[:, 0].sum(), (x * won).sum() / won[:, 0].sum()))
    mean, sd = 100 * np.mean(found, axis=0), 100 * np.std(found, axis=0, ddof=1)
    return f"{mean[0]:.1f} +- {sd[0]:.1f} | {mean[1]:.1f} +- {sd[1]:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictor", type=Path, required=True)
    parser.add_argument("--pack", default="explicit")
    parser.add_argument("--splits", type=int, default=40)
    args = parser.parse_args()
    found = load(args.predictor)
    known = fitting(found, pack(args.pack))
    config = Config(
        control=ControlConfig(exploration_share=0.0), request=RequestConfig(pack=args.pack)
    )
    print(f"{commit()}: {known.basis}")
    print(
        "g/kWh | floor % | mix saves % | by prompt, expected: saves % at % (set for %) | "
        "other half: joules saved % | preference %"
    )
    for position in (0.0, 0.25, 0.5, 0.75, 1.0):
        k0 = LOW + position * (HIGH - LOW)
        given = replace(offline(config, k0, LOW, HIGH), prompts=Prompts(known.sha256, 1.0))
        mix = plan(given)
        made, why = prices.price(given, mix, known)
        if made is None:
            print(f"{k0:.0f} | {100 * mix.floor:.1f} | {mix.saving_percent:.1f} | {why}")
            continue
        print(
            f"{k0:.0f} | {100 * mix.floor:.1f} | {mix.saving_percent:.1f} | "
            f"{100 * (1 - made.expected_g / mix.expected_l0_g):.1f} at "
            f"{100 * made.expected_preference:.1f} ({100 * made.least:.1f}) | "
            f"{other_half(given, known, found.judged.joules, args.splits)}"
        )
    q = np.array([p.preference for p in mix.profile])
    s = tuple(map(tuple, multinomial(q / q.sum(), 1000).tolist()))
    sure = replace(given, covariance=s, judged=1000, evaluation="e", confidence=0.9)
    for name, inputs in (("plain floor", given), ("90 % sure", sure)):
        mix, spent = plan(inputs), []
        for _ in range(ROUNDS):
            start = time.process_time()
            prices.price(inputs, mix, known)
            spent.append(1e3 * (time.process_time() - start))
        print(
            f"{len(known.label)} prompts, {name}: {np.median(spent):.0f} ms of CPU "
            f"({min(spent):.0f}-{max(spent):.0f})"
        )


if __name__ == "__main__":
    main()
