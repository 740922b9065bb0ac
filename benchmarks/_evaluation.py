# SPDX-License-Identifier: Apache-2.0
"""What evaluations of the published preferences are drawn from, the truth being known."""

import csv
import gzip
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from _data import BUNDLE, CARBON, EMBODIED_G_PER_S, STARTS, WINDOW_H, ZONES
from numpy.typing import NDArray

from sprout.evaluate.statistics.quality import Method
from sprout.evaluate.statistics.sequential import Hour
from sprout.optimize.floor import Range, place

Array = NDArray[np.float64]

XI = 0.1


def logistic(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


class Recorded:
    """The recorded preferences, and what goes with them."""

    def __init__(self) -> None:
        with gzip.open(BUNDLE / "requests.csv.gz", "rt") as file:
            rows = [row for row in csv.DictReader(file) if row["preferred"]]
        self.tasks = sorted({row["task"] for row in rows})
        self.of = np.array([self.tasks.index(row["task"]) for row in rows])
        self.scores = np.eye(3)[[int(row["preferred"]) for row in rows]]
        self.wh = np.array([[float(row[f"wh_l{i}"]) for i in range(3)] for row in rows])
        self.seconds = np.array([[float(row[f"s_l{i}"]) for i in range(3)] for row in rows])
        self.by_class = [self.scores[self.of == c] for c in range(len(self.tasks))]
        self.q = np.array([scores.mean(axis=0) for scores in self.by_class])
        self.pairwise = [self._pairwise(q) for q in self.q]
        with (BUNDLE / "mix.csv").open() as file:
            mix = np.array([[float(r[t]) for t in self.tasks] for r in csv.DictReader(file)])
        self.mix = mix / mix.sum(axis=1, keepdims=True)
        self.grid = {}
        for zone in ZONES:
            with (CARBON / f"{zone}.csv").open() as file:
                self.grid[zone] = [float(r["gco2_per_kwh_direct"]) for r in csv.DictReader(file)]

    @staticmethod
    def _pairwise(q: Array, size: int = 20_000) -> Array:
        """Scores of a pairwise judge as in `bias`, without a leaning, both orders."""
        rng = np.random.default_rng(0)
        p = logistic(np.log(q[1:] / q[0]) + rng.standard_normal((size, len(q) - 1)))
        return np.column_stack([np.ones(size), (rng.random((2, *p.shape)) < p).sum(axis=0)])

    def hours(self, rng: np.random.Generator, shares: Array) -> tuple[int, list[Hour]]:
        """An hour of a window, and the plan's hours: it and every sixth of the day from it on."""
        grid = self.grid[ZONES[rng.integers(len(ZONES))]]
        hour = int(rng.integers(WINDOW_H - 24))
        first = STARTS[rng.integers(len(STARTS))] + hour
        within = Range(min(grid), max(grid), "year")
        kwh = shares @ [self.wh[self.of == c].mean(axis=0) / 1000 for c in range(len(shares))]
        s = shares @ [self.seconds[self.of == c].mean(axis=0) for c in range(len(shares))]
        return hour, [
            Hour(
                tuple(grid[t] * kwh + EMBODIED_G_PER_S * s), place(grid[t], within, XI, 0).relative
            )
            for t in range(first, first + 24, 6)
        ]


@dataclass
class Situation:
    name: str
    truth: Array  # (levels,) q
    hours: list[Hour]
    shares: Array  # (classes,) of the requests
    method: Method = "choice"

    def draw(self, data: Recorded, rng: np.random.Generator, n: int) -> Array:
        classes = rng.choice(len(self.shares), size=n, p=self.shares)
        found = np.empty((n, 3))
        for c in set(classes.tolist()):
            pool = data.by_class[c] if self.method == "choice" else data.pairwise[c]
            found[classes == c] = pool[rng.integers(len(pool), size=int((classes == c).sum()))]
        return found


def by_class(data: Recorded, rng: np.random.Generator) -> list[Situation]:
    one = np.eye(len(data.tasks))
    return [
        Situation(name, data.q[c], data.hours(rng, one[c])[1], one[c])
        for c, name in enumerate(data.tasks)
    ]


def by_class_pairwise(data: Recorded, rng: np.random.Generator) -> list[Situation]:
    return [
        replace(s, truth=data.pairwise[c].mean(axis=0), method="pairwise")
        for c, s in enumerate(by_class(data, rng))
    ]


def by_hour(data: Recorded, rng: np.random.Generator, count: int = 12) -> list[Situation]:
    found = []
    for _ in range(count):
        hour = data.hours(rng, data.mix[0])[0]
        shares = data.mix[hour]
        found.append(Situation(f"hour {hour}", shares @ data.q, data.hours(rng, shares)[1], shares))
    return found


def pairs(others: NDArray[Any]) -> Array:
    """Scores of a pairwise judge: level 0, against whom it compares, has 1."""
    return np.column_stack([np.ones(len(others)), others])
