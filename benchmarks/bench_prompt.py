# SPDX-License-Identifier: Apache-2.0
"""What a level per prompt earns, with intervals over prompts, beside what is published.

All zones and windows of a bundle under a predictor that `sprout predictor fit` made. The judged
prompts are resampled within their tasks, the same in all windows, so that means over windows have
honest intervals; predictor and prices are held fixed. Where a bundle's prompts are those that the
predictor was fitted on, predictions and prices are cross-fitted. `--held-out` instead fits on one
half of the judged prompts, and on those that nobody judged, and measures on the other half: split
evenly within each task and preferred level, or evenly within tasks alone, so that the halves' q0
differ by chance.

    python benchmarks/bench_prompt.py --bundle DIR --predictor FILE [--draws 400] [--json FILE]
    python benchmarks/bench_prompt.py --bundle DIR --held-out preferred|task
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _turns import commit
from numpy.typing import NDArray

from sprout.console.predictor import described, sample_of
from sprout.optimize.prompt import Row, solve
from sprout.predict.check import check, publishable
from sprout.predict.document import Predictor, assemble, load
from sprout.predict.fit import fit
from sprout.predict.sample import fingerprint
from sprout.replay.bundle import UNKNOWN, Bundle, read
from sprout.replay.grid import read_grid
from sprout.replay.prompted import Prompted, in_sample
from sprout.replay.prompted_bank import prices
from sprout.replay.static import static_eq
from sprout.replay.window import Window
from sprout.replay.workload import draw

Array = NDArray[np.float64]
Scheme = Callable[[Prompted, Window, float], NDArray[np.int8]]

TARGETS = (0.90, 0.95, 1.00, 1.05)
LOW_HOURS = (0.90, 0.87)
MINIMUM = 0.90  # hourly


def banked(least: float) -> Scheme:
    return lambda prompted, window, target: prompted.levels_at(
        window, lambda fold: prices(prompted, window, target, least, fold)
    )


SCHEMES: dict[str, Scheme] = {
    "PROMPT": Prompted.levels,
    "PROMPT_BANK": banked(0.0),
    f"PROMPT_BANK, hours >= {100 * MINIMUM:.0f} %": banked(MINIMUM),
}


@dataclass(frozen=True, eq=False)
class Cell:
    """One window at one target; index 0 is the sample itself, the rest are resamples."""

    saving: Array  # (1 + draws,)
    preference: Array
    low_hours: list[Array]  # share of hours under each of LOW_HOURS
    static: float  # the best static mix's saving at the same preference, in hindsight


def resamples(prompted: Prompted, draws: int) -> Array:
    """(1 + draws, m) how often each prompt counts; first once each."""
    weights = prompted.own.weights
    counts = np.ones((1 + draws, weights.shape[1]))
    rng = np.random.default_rng(0)
    for row in weights:
        own = np.flatnonzero(row)
        counts[1:, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=draws)
    return counts


def cell(prompted: Prompted, window: Window, levels: NDArray[np.int8], counts: Array) -> Cell:
    own = prompted.own
    weights = window.bundle.mix_of(window.hours) @ own.weights  # (H, m)
    at = np.arange(len(own.preferred))
    chosen = window.grams(own.energy_kwh[at, levels], own.seconds[at, levels], window.k0[:, None])
    base = window.grams(own.energy_kwh[:, 0], own.seconds[:, 0], window.k0[:, None])
    grams = counts @ (weights * chosen).sum(axis=0)
    saving = 1 - grams / (counts @ (weights * base).sum(axis=0))
    won = (weights * (own.preferred == levels)) @ counts.T  # (H, 1 + draws)
    ratio = won / ((weights * (own.preferred == 0)) @ counts.T)
    preference = ratio.mean(axis=0)
    fixed = static_eq(window, float(preference[0]))
    static = math.nan if fixed is None else fixed
    return Cell(saving, preference, [(ratio < each).mean(axis=0) for each in LOW_HOURS], static)


def program_seconds(prompted: Prompted, count: int) -> float:
    """The program with a variable per prompt and level, one price, on so many prompts."""
    import time  # noqa: PLC0415

    own = prompted.own
    some = np.random.default_rng(0).integers(0, len(own.q), count)
    q, costs = own.q[some], own.predicted_kwh[some]
    rows = [Row("mean preference", q / q[:, 0].mean(), 1.0)]
    best = math.inf
    for _ in range(3):
        started = time.perf_counter()
        solve(costs, np.ones(count), rows)
        best = min(best, time.perf_counter() - started)
    return best


def interval(values: Array) -> list[float]:
    """Percentages: the figure itself and its 95 % interval."""
    return [100 * float(v) for v in (values[0], *np.quantile(values[1:], (0.025, 0.975)))]


def some(bundle: Bundle, rows: NDArray[np.bool_]) -> Bundle:
    at = np.flatnonzero(rows)
    return replace(
        bundle,
        ids=tuple(bundle.ids[i] for i in at),
        prompts=tuple(bundle.prompts[i] for i in at),
        task=bundle.task[at],
        energy_kwh=bundle.energy_kwh[at],
        seconds=bundle.seconds[at],
        small_energy_kwh=None,
        small_seconds=None,
        preferred=bundle.preferred[at],
    )


def halves(bundle: Bundle, within: str) -> tuple[Bundle, Bundle]:
    """To fit on, to measure on. Equal prompts stay together, on the first one's side."""
    order = sorted(
        range(len(bundle.prompts)), key=lambda i: fingerprint(bundle.prompts[i].encode())
    )
    side: dict[str, int] = {}
    seen: dict[tuple[int, int], int] = {}
    for i in order:
        if bundle.preferred[i] == UNKNOWN or bundle.prompts[i] in side:
            continue
        group = int(bundle.task[i]), int(bundle.preferred[i]) if within == "preferred" else 0
        seen[group] = seen.get(group, 0) + 1
        side[bundle.prompts[i]] = seen[group] % 2
    other = np.array([side.get(prompt, 0) == 1 for prompt in bundle.prompts])
    return some(bundle, ~other), some(bundle, other & (bundle.preferred != UNKNOWN))


def fitted(bundle: Bundle) -> Predictor:
    sample = sample_of(bundle)
    found = fit(sample)
    report = check(sample, found)
    publishable(report)
    return assemble(sample, found, described(bundle, sample, report))


def measure(bundle: Bundle, predictor: Predictor, draws: int) -> dict[str, Any]:
    prompted = Prompted(bundle, predictor)
    counts, work = resamples(prompted, draws), draw(bundle, bundle.meta.window_h, 0, 0)
    known = {each.key: each for each in bundle.published}
    windows = [
        Window(bundle, read_grid(bundle.folder / "carbon" / f"{zone}.csv", "direct"), start, work)
        for zone in bundle.zones
        for start in bundle.meta.starts
    ]

    def published(scheme: str) -> list[Any]:
        keys = [(w.grid.zone, w.start, round(bundle.meta.xi, 6), scheme) for w in windows]
        return [known.get(key) for key in keys]

    oracle = published("ORACLE")
    goals = {f"{100 * target:.0f} %": [target] * len(windows) for target in TARGETS}
    if all(oracle):
        goals["ORACLE's"] = [each.preference_pct / 100 for each in oracle]
    rows = []
    for name, aims, scheme in [(n, a, s) for s in SCHEMES for n, a in goals.items()]:
        cells = [
            cell(prompted, window, SCHEMES[scheme](prompted, window, aim), counts)
            for window, aim in zip(windows, aims, strict=True)
        ]
        saving = np.mean([c.saving for c in cells], axis=0)
        static = np.mean([c.static for c in cells])
        rows.append(
            {
                "scheme": scheme,
                "target": name,
                "aimed_pct": 100 * float(np.mean(aims)),
                "saving_pct": interval(saving),
                "preference_pct": interval(np.mean([c.preference for c in cells], axis=0)),
                "low_hours_pct": [
                    interval(np.mean([c.low_hours[i] for c in cells], axis=0))
                    for i in range(len(LOW_HOURS))
                ],
                "static_eq_pct": 100 * float(static),
                "windows_above_oracle": sum(
                    o is not None and bool(100 * c.saving[0] > o.saving_pct)
                    for c, o in zip(cells, oracle, strict=True)
                ),
                "by_window": [
                    [w.grid.zone, w.start, 100 * float(c.saving[0]), 100 * float(c.preference[0])]
                    for w, c in zip(windows, cells, strict=True)
                ],
            }
        )
    means = {
        scheme: [
            float(np.mean([getattr(each, name) for each in found]))
            for name in ("saving_pct", "preference_pct")
        ]
        for scheme in ("SPROUT", "ORACLE")
        if all(found := published(scheme))
    }
    return {
        "commit": commit(),
        "predictor": predictor.sha256,
        "note": in_sample(bundle, predictor),
        "windows": len(windows),
        "draws": draws,
        "rows": rows,
        "published": means,
        "program_1e5_prompts_s": program_seconds(prompted, 100_000),
    }


def show(found: dict[str, Any]) -> str:
    lines = [found["note"], f"means of {found['windows']} windows, 95 % over prompts:"]
    head = f"{'target':10}{'saving %':>22}{'preference %':>24}{'hours < 90':>12}{'< 87':>7}"
    head += f"{'static':>8}{'> ORACLE':>10}"

    def spread(each: list[float]) -> str:
        return f"{each[0]:.1f} ({each[1]:.1f} to {each[2]:.1f})"

    scheme = ""
    for row in found["rows"]:
        if row["scheme"] != scheme:
            scheme = row["scheme"]
            lines += ["", scheme, head]
        low = [f"{each[0]:.1f} %" for each in row["low_hours_pct"]]
        saving, preference = spread(row["saving_pct"]), spread(row["preference_pct"])
        line = f"{row['target']:10}{saving:>22}{preference:>24}{low[0]:>12}{low[1]:>7}"
        lines.append(line + f"{row['static_eq_pct']:8.1f}{row['windows_above_oracle']:10}")
    lines.append("")
    lines += [f"{k}, published: {v[0]:.1f} @ {v[1]:.1f}" for k, v in found["published"].items()]
    lines.append(f"the program on 1e5 prompts: {found['program_1e5_prompts_s']:.2f} s")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--predictor", type=Path)
    how.add_argument("--held-out", choices=("preferred", "task"))
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    whole = read(given.bundle)
    if given.held_out:
        learnt, left = halves(whole, given.held_out)
        measured = measure(left, fitted(learnt), given.draws)
    else:
        measured = measure(whole, load(given.predictor), given.draws)
    print(show(measured))
    if given.json:
        given.json.write_text(json.dumps(measured, indent=2) + "\n")
    sys.exit(0)
