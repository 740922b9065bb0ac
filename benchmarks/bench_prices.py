# SPDX-License-Identifier: Apache-2.0
"""What live prices come to on the prompts that a predictor was judged on, and what they take.

At several positions of the intensity in its range: the mix of the published program, and the prices
beside it, with e, p and q as a control plane starts (the priors). *Expected* is what
the policy says of itself. *Other half*: prices set on one half of the prompts, at random, and what
the other half's measured joules and judged preferences come to at them; mean and standard deviation
over splits. Predictions are cross-fitted throughout.

*Today*: prices set on a third, corrected by how another third was judged, as an evaluation would
report it, measured on the last; as judged, and with the judgments of the last two shuffled, so that
predictions tell nothing of preference any more.

Then with a mix of its own for each task class, with the sample's e and q of the class: what the
mixes come to, which is what classes had while a mix kept its requests from choosing, and what
prices do, without and with a guard for each class.

What prices take: of these prompts, and of as many as are ever used with as many mixes as a policy
may have, drawn from these with replacement. `--times`: that alone.

    python benchmarks/bench_prices.py --predictor FILE --pack paper [--splits 40] [--times]
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
from sprout.control.inputs import Group, Inputs, Prompts
from sprout.control.part import choose
from sprout.control.plan import PromptPlan
from sprout.control.predicted import MOST_PROMPTS, Predicted, fitting
from sprout.control.quality import Judgments
from sprout.directives import pack
from sprout.optimize.contrast import multinomial
from sprout.predict.document import load
from sprout_ext.board import MAX_MIXES

Array = NDArray[np.float64]

LOW, HIGH = 100.0, 500.0  # g/kWh
ROUNDS = 5


def often(made: PromptPlan, known: Predicted) -> Array:
    """(m, L) how often each prompt gets each level."""
    found = np.zeros_like(known.joules)
    at = np.arange(len(found))
    for point in made.points:
        chosen = choose(np.array(made.g_per_joule), point, known.joules, known.preferences)
        found[at, chosen] += point.fraction
    return found


def part(known: Predicted, rows: NDArray[np.int64]) -> Predicted:
    return replace(
        known,
        label=known.label[rows],
        preferred=known.preferred[rows],
        preferences=known.preferences[rows],
        joules=known.joules[rows],
        stands_for=None if known.stands_for is None else known.stands_for[rows],
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


def today_of(known: Predicted) -> Judgments:
    n = len(known.label)
    scores = np.eye(known.joules.shape[1])[known.preferred]
    return Judgments(
        known.weights_sha256, ("",) * n, np.ones(n), known.preferences, known.joules, scores
    )


def today(given: Inputs, known: Predicted, joules: Array, splits: int, *, blind: bool) -> str:
    """Without and with the correction: splits with prices; of those joules less than L0's and
    preference relative to L0's, in percent."""
    mix, shown = plan(given), []
    for corrected in (False, True):
        rng, found = np.random.default_rng(1), []
        for _ in range(splits):
            ours, heard, theirs = np.array_split(rng.permutation(len(joules)), 3)
            preferred = known.preferred.copy()
            if blind:
                later = np.concatenate([heard, theirs])
                preferred[later] = rng.permutation(preferred[later])
            now = replace(known, preferred=preferred)
            made, _ = prices.price(
                given, mix, part(known, ours), today_of(part(now, heard)) if corrected else None
            )
            if made is None:
                continue
            x = often(made, part(now, theirs))
            won = preferred[theirs, None] == np.arange(x.shape[1])
            used = joules[theirs]
            found.append(
                (1 - (x * used).sum() / used[:, 0].sum(), (x * won).sum() / won[:, 0].sum())
            )
        if not found:
            shown.append("0 of them")
            continue
        mean, sd = 100 * np.mean(found, axis=0), 100 * np.std(found, axis=0, ddof=1)
        shown.append(f"{len(found)} | {mean[0]:.1f} at {mean[1]:.1f} +- {sd[1]:.1f}")
    return " | ".join(shown)


def by_class(given: Inputs, known: Predicted, joules: Array, minimum: float) -> Inputs:
    """With a group for each class: its share of the sample, its q, its e in the ratio to all's."""
    e, means = np.array([p.energy_joules for p in given.profile]), joules.mean(0)
    groups = []
    for number, name in enumerate(known.classes):
        own = known.label == number
        if own.sum() < prices.LEAST_PROMPTS:
            continue
        q = np.bincount(known.preferred[own], minlength=joules.shape[1]) / own.sum()
        rows = zip(
            given.profile, q.tolist(), (e * joules[own].mean(0) / means).tolist(), strict=True
        )
        profile = tuple(replace(p, preference=a, energy_joules=b) for p, a, b in rows)
        groups.append(Group(task=name, traffic=float(own.mean()), minimum=minimum, profile=profile))
    return replace(given, groups=tuple(groups))


def with_classes(given: Inputs, known: Predicted, joules: Array, minimum: float) -> str:
    given = by_class(given, known, joules, minimum)
    mix, started = plan(given), time.process_time()
    made, why = prices.price(given, mix, known)
    spent = time.process_time() - started
    if made is None:
        return why
    n = np.array([group.traffic for group in mix.groups])
    own = [made.of(group.key) or group for group in mix.groups]  # or it keeps its mix
    g = np.array([each.expected_g for each in own])
    q = np.array([each.expected_preference for each in own])
    saved = 100 * (1 - n @ g / (n @ [group.expected_l0_g for group in mix.groups]))
    return (
        f"{100 * minimum:.0f} | {mix.saving_percent:.1f} at {100 * mix.expected_preference:.1f} | "
        f"{saved:.1f} at {100 * n @ q / n.sum():.1f} (set for {100 * made.least:.1f}) | "
        f"{100 * min(g.expected_preference for g in mix.groups):.1f} | {100 * q.min():.1f} | "
        f"{len(made.kept)} | {1e3 * spent:.0f}"
    )


def tenants(given: Inputs, known: Predicted, *, alike: bool) -> Inputs:
    """As many as may have a mix, each promised something; else with requests of its own, too."""
    count = MAX_MIXES - 1
    minima = [0.9 if alike else 0.9 + 0.001 * (i % 5) for i in range(count)]
    groups = [
        Group(tenant=f"t{i:02}", traffic=0.9 / count, minimum=minimum)
        for i, minimum in enumerate(minima)
    ]
    one, other = known.classes[:2]
    shares = () if alike else tuple((0.2 + 0.02 * i, 0.8 - 0.02 * i) for i in range(count))
    own = tuple(
        (group.tenant, ((one, a), (other, b)))
        for group, (a, b) in zip(groups, shares, strict=False)
    )
    asked = given.prompts
    assert asked is not None
    return replace(given, groups=tuple(groups), prompts=replace(asked, tenants=own))


def takes(name: str, inputs: Inputs, known: Predicted) -> str:
    mix, spent, walls = plan(inputs), [], []
    for _ in range(ROUNDS):
        start, began = time.process_time(), time.perf_counter()
        prices.price(inputs, mix, known)
        spent.append(1e3 * (time.process_time() - start))
        walls.append(1e3 * (time.perf_counter() - began))
    return (
        f"{len(known.label)} prompts, {name}: {np.median(spent):.0f} ms of CPU "
        f"({min(spent):.0f}-{max(spent):.0f}), {np.median(walls):.0f} ms "
        f"({min(walls):.0f}-{max(walls):.0f})"
    )


def times(given: Inputs, known: Predicted) -> None:
    q = np.array([p.preference for p in given.profile])
    s = tuple(map(tuple, multinomial(q / q.sum(), 1000).tolist()))
    sure = replace(given, covariance=s, judged=1000, evaluation="e", confidence=0.9)
    print(takes("plain floor", given, known))
    print(takes("90 % sure", sure, known))
    most = part(known, np.random.default_rng(1).integers(0, len(known.label), MOST_PROMPTS))
    print(takes("31 tenants that are alike", tenants(sure, most, alike=True), most))
    print(takes("31 tenants, each its own", tenants(sure, most, alike=False), most))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictor", type=Path, required=True)
    parser.add_argument("--pack", default="explicit")
    parser.add_argument("--splits", type=int, default=40)
    parser.add_argument("--times", action="store_true")
    args = parser.parse_args()
    found = load(args.predictor)
    known = fitting(found, pack(args.pack))
    config = Config(
        control=ControlConfig(exploration_share=0.0), request=RequestConfig(pack=args.pack)
    )
    print(f"{commit()}: {known.basis}")
    if args.times:
        high = replace(offline(config, HIGH, LOW, HIGH), prompts=Prompts(known.sha256, 1.0))
        times(high, known)
        return
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
    print(
        "today: g/kWh | judgments | floor % | prices | saves % at % | corrected: prices | the same"
    )
    for k0 in (LOW, (LOW + HIGH) / 2, HIGH):
        here = replace(offline(config, k0, LOW, HIGH), prompts=Prompts(known.sha256, 1.0))
        for blind in (False, True):
            kind = "shuffled" if blind else "as they are"
            print(
                f"{k0:.0f} | {kind} | {100 * plan(here).floor:.1f} | "
                f"{today(here, known, found.judged.joules, args.splits, blind=blind)}"
            )
    print(
        "classes: g/kWh | minimum % | mixes save % at % | by prompt | least of a class %, mixes | "
        "by prompt | keep theirs | CPU ms"
    )
    for k0 in (LOW, (LOW + HIGH) / 2, HIGH):
        here = replace(offline(config, k0, LOW, HIGH), prompts=Prompts(known.sha256, 1.0))
        for minimum in (0.0, 0.9, 1.0):
            print(f"{k0:.0f} | {with_classes(here, known, found.judged.joules, minimum)}")
    times(given, known)


if __name__ == "__main__":
    main()
