# SPDX-License-Identifier: Apache-2.0
"""How often 95 % intervals hold the truth, on data whose truth is known.

usage: python tests/proof_coverage.py      prints the tables of docs/proof.md
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sprout.proof import bootstrap, switchback
from sprout.proof.attributed import Effect, Group, Moments, compare, moments
from sprout.proof.guard import Tally, judge
from sprout.proof.interval import Interval, saved_of_log_ratio, student_t
from sprout.proof.switchback import Cell, Schedule, System

Array = NDArray[np.float64]
Method = Callable[[Array, Array, np.random.Generator], tuple[float, float]]

SHARES, SHORTER = (0.4, 0.6), (1.0, 0.3)  # of the levels, and how their joules compare
TRUE_SAVED = 1 - sum(s * j for s, j in zip(SHARES, SHORTER, strict=True))
Z95 = 1.959964


# --- requests ------------------------------------------------------------------------------------


def requests(rng: np.random.Generator, n: int, sigma: float, *, policy: bool) -> Array:
    """(n,) joules with a long tail (log-normal; sigma of the log), mean 1 at L0."""
    level = rng.choice(2, size=n, p=SHARES) if policy else np.zeros(n, int)
    joules = np.asarray(SHORTER)[level] * rng.lognormal(-(sigma**2) / 2, sigma, n)
    return np.asarray(joules)


def moments_of(values: Array, probability: float = 1.0) -> Moments:
    return moments([Group(probability, len(values), values.sum(), (values**2).sum())])


def delta_log_t(policy: Array, control: Array, _: np.random.Generator) -> tuple[float, float]:
    effect = compare(moments_of(policy), moments_of(control))
    assert isinstance(effect, Effect)
    return effect.saved.low, effect.saved.high


def delta_normal(policy: Array, control: Array, _: np.random.Generator) -> tuple[float, float]:
    ratio = policy.mean() / control.mean()
    relative = [x.var(ddof=1) / len(x) / x.mean() ** 2 for x in (policy, control)]
    half = Z95 * ratio * math.sqrt(sum(relative))
    return 1 - ratio - half, 1 - ratio + half


def percentile(policy: Array, control: Array, rng: np.random.Generator) -> tuple[float, float]:
    means = [x[rng.integers(len(x), size=(400, len(x)))].mean(axis=1) for x in (policy, control)]
    low, high = np.quantile(1 - means[0] / means[1], (0.025, 0.975))
    return float(low), float(high)


REQUEST_METHODS: dict[str, Method] = {
    "delta on the log, Student's t (used)": delta_log_t,
    "delta on the ratio, normal": delta_normal,
    "percentile bootstrap": percentile,
}


def request_coverage(method: Method, *, control: int, sigma: float, runs: int, seed: int) -> float:
    """Of the fraction saved; 9 requests under the policy for each in the control group."""
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(runs):
        policy = requests(rng, 9 * control, sigma, policy=True)
        held = requests(rng, control, sigma, policy=False)
        low, high = method(policy, held, rng)
        hits += low <= TRUE_SAVED <= high
    return hits / runs


# --- blocks --------------------------------------------------------------------------------------

IDLE_J, BUSY_J = 60.0, 1.0  # per block and node at no traffic, and per request at L0


def cells(rng: np.random.Generator, pairs: int, *, nodes: int = 2) -> list[Cell]:
    """A day cut into pairs, in its rhythm of traffic and grid, with noise that lasts over blocks;
    the policy saves 45 % of the energy above idle."""
    schedule = Schedule(int(rng.integers(1 << 62)), 0.0, 1800.0, 300.0)
    noise = 0.0
    found = []
    for index in range(2 * pairs):
        block = schedule.block(index)
        hour = 24 * index / (2 * pairs)
        noise = 0.8 * noise + 0.1 * rng.standard_normal()
        rate = 100 * (1 + 0.5 * math.sin(2 * math.pi * hour / 24)) * math.exp(noise)
        grid = 250 + 100 * math.cos(2 * math.pi * hour / 24)
        for node in range(nodes):
            n = int(rng.poisson(rate))
            busy = (BUSY_J if block.arm == switchback.L0 else 0.55 * BUSY_J) * n
            joules = (IDLE_J + busy) * math.exp(0.05 * rng.standard_normal())
            found.append(Cell(1, block.pair, block.arm, str(node), joules, n, grid))
    return found


def true_energy_saved() -> float:
    """Of the expected joules and requests over whole days, by the ratio of sums."""
    l0, policy = IDLE_J + 100 * BUSY_J, IDLE_J + 55 * BUSY_J
    return 1 - policy / l0


def pair_t(columns: Array) -> tuple[float, float]:
    """Student's t over the influence values, no resampling."""
    value, influence = bootstrap.log_ratio(columns)
    n = len(influence)
    half = student_t(0.975, max(n - 1, 10)) * math.sqrt((influence**2).sum() / (n * (n - 1)))
    saved = saved_of_log_ratio(Interval(float(value), float(value) - half, float(value) + half))
    return saved.low, saved.high


def block_percentile(columns: Array, rng: np.random.Generator) -> tuple[float, float]:
    chosen = rng.integers(len(columns), size=(1000, len(columns)))
    low, high = np.quantile(-np.expm1(bootstrap.log_ratio(columns[chosen])[0]), (0.025, 0.975))
    return float(low), float(high)


def block_coverage(*, pairs: int, runs: int, seed: int) -> dict[str, float]:
    """Of the fraction of energy saved, by method."""
    rng = np.random.default_rng(seed)
    truth = true_energy_saved()
    hits = {"bootstrap-t over pairs (used)": 0, "percentile bootstrap": 0, "Student's t": 0}
    for _ in range(runs):
        made = cells(rng, pairs)
        found = switchback.estimate(made, pue=1.0, resamples=1000, seed=int(rng.integers(1 << 30)))
        assert isinstance(found, System)
        rows = [row for row, _names in switchback._pairs(made)[0][""]]
        columns = np.array(rows)[:, :4]
        saved = found.energy_saved
        ends = ((saved.low, saved.high), block_percentile(columns, rng), pair_t(columns))
        for name, (low, high) in zip(hits, ends, strict=True):
            hits[name] += low <= truth <= high
    return {name: count / runs for name, count in hits.items()}


# --- guard ---------------------------------------------------------------------------------------


def ever(rng: np.random.Generator, p: Array, p0: Array, alpha: float) -> bool:
    """Whether the guard ever raises the alarm, looking after every 20 requests of each arm.

    p, p0: (requests,) probability to go wrong under the policy and at L0. Bound 5 points.
    """
    wrong = (rng.random(len(p)) < p).cumsum()[19::20]
    wrong0 = (rng.random(len(p0)) < p0).cumsum()[19::20]
    return any(
        judge({"x": (Tally(20 * i, int(k)), Tally(20 * i, int(k0)))}, bound=0.05, alpha=alpha)[
            0
        ].worse
        for i, (k, k0) in enumerate(zip(wrong, wrong0, strict=True), start=1)
    )


def alarms(base: float, excess: float, *, alpha: float, runs: int, seed: int) -> float:
    """The share of runs of 2,000 requests in each arm in which the guard raised the alarm."""
    rng = np.random.default_rng(seed)
    p0 = np.full(2000, base)
    return sum(ever(rng, p0 + excess, p0, alpha) for _ in range(runs)) / runs


def main() -> None:
    print("| method | sigma | 30 control | 100 control | 400 control |")
    print("| --- | --- | --- | --- | --- |")
    for name, method in REQUEST_METHODS.items():
        for sigma in (0.6, 1.0):
            runs = 1000 if method is percentile else 4000
            row = [
                f"{100 * request_coverage(method, control=n, sigma=sigma, runs=runs, seed=n):.1f} %"
                for n in (30, 100, 400)
            ]
            print(f"| {name} | {sigma} | " + " | ".join(row) + " |", flush=True)
    print("\n| method | 6 pairs | 12 pairs | 24 pairs |\n| --- | --- | --- | --- |")
    by_size = [block_coverage(pairs=pairs, runs=1000, seed=pairs) for pairs in (6, 12, 24)]
    for name in by_size[0]:
        print(f"| {name} | " + " | ".join(f"{100 * b[name]:.1f} %" for b in by_size) + " |")
    print("\n| wrong at L0 | 5 points more | 10 points more | 15 points more |")
    print("| --- | --- | --- | --- |")
    for base in (0.01, 0.05, 0.2):
        rates = [alarms(base, x, alpha=0.001, runs=400, seed=1) for x in (0.05, 0.10, 0.15)]
        print(f"| {100 * base:g} % | " + " | ".join(f"{100 * r:.1f} %" for r in rates) + " |")


if __name__ == "__main__":
    main()
