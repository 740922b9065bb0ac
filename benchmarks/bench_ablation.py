# SPDX-License-Identifier: Apache-2.0
"""What each idea earns at equal quality, and what wrong inputs cost.

What is known of a request (nothing; its task; its text) by what is known of the grid (the window's
mean; every hour foreseen; hour by hour, the next four weeks expected to be as the last four). All
are counted on the same judged prompts in expectation and compared at equal *realised* preference:
each has a frontier over targets, and between two targets requests are split (`_ablation.Frontier`).

Whatever is fitted (predictor, prices, mixes) is cross-fitted in five folds, or, with `--held-out`,
fitted on one half of the judged prompts and counted on the other (as in bench_prompt.py). The rows
"in hindsight" are fitted on the prompts that they are counted on. Intervals are 95 %, over prompts,
paired; with policies held fixed. BANK has several evaluators (`--seeds`); its gain on the best
static mix has an interval over blocks of days and over seeds.

    OPENBLAS_NUM_THREADS=1 python benchmarks/bench_ablation.py --bundle DIR [--draws 200]
        [--seeds 4] [--held-out preferred|task] [--only-bank]
        [--jobs 2] [--json FILE]
"""

import argparse
import json
import multiprocessing
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _ablation import (
    NOBODY,
    Array,
    Counted,
    Frontier,
    Here,
    Mixes,
    biased,
    class_means,
    flat,
    means,
    thinned,
)
from _ablation_bank import gains, run_of
from _ablation_sums import BLIND, FORESEEN, HINDSIGHT, HOURLY, savings, sensitivities
from _ablation_view import show
from _ablation_wrong import BIASES, CLASSES, EVERY_H, NONE, TEXT, Wrong, changes, wrongs
from _turns import commit
from bench_prompt import fitted, halves
from numpy.typing import NDArray

from sprout.replay.bundle import Bundle, read
from sprout.replay.grid import read_grid
from sprout.replay.prompted import Prompted
from sprout.replay.prompted_bank import prices
from sprout.replay.receding import bank
from sprout.replay.window import Window
from sprout.replay.workload import draw

WANTED = (0.95, 1.00)
TEXT_TARGETS = tuple(round(0.85 + 0.05 * step, 2) for step in range(7))
MIX_TARGETS = tuple(round(0.80 + 0.03 * step, 2) for step in range(11))
BANK_TARGET, MORE_BANK_TARGETS = 0.95, (0.90, 0.98)
FRONTIER_SEEDS = 2  # of BANK at the other targets


@dataclass
class Study:
    """What the processes share."""

    bundle: Bundle
    base: Prompted
    counted: Counted
    windows: list[tuple[str, int]]
    told: Prompted = field(init=False)  # class means
    wrong: list[Wrong] = field(default_factory=list)
    banks: dict[tuple[int, float, int], Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.told = class_means(self.base)
        for each in (self.base, self.told):
            _ = each.table

    def window(self, number: int, seed: int = 0) -> Window:
        zone, start = self.windows[number]
        grid = read_grid(self.bundle.folder / "carbon" / f"{zone}.csv", "direct")
        return Window(
            self.bundle, grid, start, draw(self.bundle, self.bundle.meta.window_h, 0, seed)
        )


STUDY: Study  # set before the processes are forked


def run_bank(job: tuple[int, float, int]) -> Array:
    """(H, L) of window, target, seed."""
    number, target, seed = job
    return bank(STUDY.window(number, seed), target).shares


def cells(number: int) -> tuple[dict[str, Array], list[tuple[str, str, str, Array]]]:
    """By scheme (wanted, R) savings; and the sensitivities, of one window."""
    window = STUDY.window(number)
    here, mixes, base, told = Here(STUDY.counted, window), Mixes(), STUDY.base, STUDY.told
    known = means(base.fitted, STUDY.counted.folds)
    hindsight = means(base.own, np.array([NOBODY]))
    constant = flat(window)
    frontiers: dict[str, Frontier] = {}
    for name, classes in ((NONE, False), (CLASSES, True)):
        for carbon, aware in ((BLIND, False), (FORESEEN, True)):
            for own, data in (("", known), (f", {HINDSIGHT}", hindsight)):
                frontiers[f"{name}, {carbon}{own}"] = here.frontier(
                    mixes.find(window, data, target, classes=classes, aware=aware)
                    for target in MIX_TARGETS
                )
    for name, prompted in ((CLASSES, told), (TEXT, base)):
        frontiers[f"{name}, {HOURLY}"] = here.frontier(
            by_hour(prompted, window, target) for target in TEXT_TARGETS
        )
    for carbon, seen in ((BLIND, constant), (FORESEEN, window)):
        frontiers[f"{TEXT}, {carbon}"] = here.frontier(
            base.levels(seen, target) for target in TEXT_TARGETS
        )
    found = {
        name: np.array([each.at(wanted) for wanted in WANTED]) for name, each in frontiers.items()
    }
    found[f"{NONE}, {HOURLY}"] = banked(number, here)
    return found, list(changes(STUDY.counted, base, known, thinned(window, EVERY_H), STUDY.wrong))


def by_hour(prompted: Prompted, window: Window, target: float) -> NDArray[np.int8]:
    return prompted.levels_at(window, lambda fold: prices(prompted, window, target, 0.0, fold))


def banked(number: int, here: Here) -> Array:
    """(wanted, R): BANK, mean over the seeds that have all targets."""
    targets = sorted((BANK_TARGET, *MORE_BANK_TARGETS))
    seeds = [s for s in range(FRONTIER_SEEDS) if (number, targets[0], s) in STUDY.banks]
    tasks = len(STUDY.bundle.tasks)
    found = []
    for seed in seeds:
        plans = [STUDY.banks[number, target, seed] for target in targets]
        frontier = here.frontier(np.repeat(mix[None, :, None], tasks, axis=2) for mix in plans)
        found.append([frontier.at(wanted) for wanted in WANTED])
    mean: Array = np.array(found).mean(axis=0)
    return mean


def study(whole: Bundle, given: argparse.Namespace) -> dict[str, Any]:
    global STUDY  # noqa: PLW0603 - forked processes inherit it
    measured = commit()  # now: the tree may move on meanwhile
    fork = multiprocessing.get_context("fork")
    learnt, left = halves(whole, given.held_out) if given.held_out else (whole, whole)
    with fork.Pool(given.jobs) as pool:
        wrong = () if given.only_bank else BIASES
        bundles = [learnt, *(biased(learnt, points) for points in wrong)]
        predictor, *judges = pool.map(fitted, bundles, chunksize=1)
    base = Prompted(left, predictor)
    windows = [(zone, start) for zone in left.zones for start in left.meta.starts]
    STUDY = Study(left, base, Counted(base, given.draws), windows)
    kinds = dict(zip(wrong, judges, strict=True))
    STUDY.wrong = wrongs(base, left, STUDY.counted, kinds) if wrong else []
    numbers, seeds = range(len(windows)), range(given.seeds)
    jobs = [(n, BANK_TARGET, s) for n in numbers for s in seeds]
    some = seeds[:FRONTIER_SEEDS]
    if not given.only_bank:
        jobs += [(n, target, s) for n in numbers for target in MORE_BANK_TARGETS for s in some]
    with fork.Pool(given.jobs) as pool:
        STUDY.banks = dict(zip(jobs, pool.map(run_bank, jobs, chunksize=1), strict=True))
    found: list[Any] = []
    if not given.only_bank:
        with fork.Pool(given.jobs) as pool:
            found = pool.map(cells, numbers, chunksize=1)
    bank_runs = {
        how: gains(
            [
                [
                    run_of(
                        STUDY.window(n, s),
                        STUDY.banks[n, BANK_TARGET, s],
                        assessed=how == "assessed",
                    )
                    for s in seeds
                ]
                for n in numbers
            ]
        )
        for how in ("expected", "assessed")
    }
    return {
        "commit": measured,
        "held_out": given.held_out,
        "judged": {"fitted on": len(base.fitted.fold), "counted": len(base.own.fold)},
        "draws": given.draws,
        "seeds": given.seeds,
        "windows": [f"{zone} {start}" for zone, start in windows],
        **(savings([each[0] for each in found], WANTED) if found else {}),
        "bank": bank_runs,
        "sensitivity": sensitivities([each[1] for each in found]),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=200, help="resamples of the prompts")
    parser.add_argument("--seeds", type=int, default=4, help="of BANK's evaluator")
    parser.add_argument("--held-out", choices=("preferred", "task"))
    parser.add_argument("--only-bank", action="store_true", help="its gain on static mixes alone")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    started = time.perf_counter()
    result = study(read(arguments.bundle), arguments)
    result["seconds"] = time.perf_counter() - started
    print(show(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
