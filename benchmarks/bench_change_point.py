# SPDX-License-Identifier: Apache-2.0
"""How often the change-point test cries wolf, and how soon it sees a change, by simulation.

    python benchmarks/bench_change_point.py [--outcomes 1000000]

Outcomes of three levels with the energies of an H100 by load (benchmarked at 1, 8, 32 and 128 in
flight: 4.72, 0.72, 0.26 and 0.14 J/token at L0) and lognormal noise. For false alarms the load
wanders as a random walk between 1 and 30 in flight; for delays it stays, as it does in the hour
after a roll-out.
"""

import argparse
import time

import numpy as np

from sprout.profile.change import Costs, Monitor

LOADS = np.log([1, 8, 32, 128])
LOG_J_PER_TOKEN = np.log([4.72, 0.72, 0.26, 0.14])
CHUNK = 100  # outcomes that a look takes


def outcomes(
    rng: np.random.Generator, n: int, sigma: float, shared: float, step: float = 0.02
) -> Costs:
    """step: of the load's walk, in logs.

    shared: sigma of what ten neighbouring outcomes have in common (the meter's ticks).
    """
    walk = np.cumsum(rng.normal(0, step, n)) + rng.uniform(0, 8)
    top = np.log(30)
    log_n = np.abs((walk % (2 * top)) - top)  # reflected: 0 to log 30
    tokens = np.maximum(1, rng.lognormal(4, 1, n))
    y = np.interp(log_n, LOADS, LOG_J_PER_TOKEN) - 0.1 * np.log(tokens)
    y += rng.normal(0, sigma, n) + np.repeat(rng.normal(0, shared, n // 10 + 1), 10)[:n]
    return Costs(rng.integers(0, 3, n), np.exp(y) * tokens, tokens, np.exp(log_n))


def part(costs: Costs, first: int, last: int, factor: float = 1.0) -> Costs:
    cut = slice(first, last)
    return Costs(
        costs.level[cut],
        costs.energy_joules[cut] * factor,
        costs.output_tokens[cut],
        costs.in_flight[cut],
    )


def false_alarms(rng: np.random.Generator, n: int, sigma: float, shared: float) -> int:
    """In n outcomes of an engine that never changes; after an alarm it learns anew."""
    monitor, found = Monitor(), 0
    costs = outcomes(rng, n, sigma, shared)
    for first in range(0, n, CHUNK):
        before = monitor.change
        monitor.take(part(costs, first, first + CHUNK))
        found += monitor.change is not None and monitor.change is not before
    return found


def delay(rng: np.random.Generator, factor: float, sigma: float, shared: float) -> int | None:
    """Outcomes from the change to the alarm, in looks of CHUNK; None: not within 20,000."""
    monitor, before, after = Monitor(), 10_000, 20_000
    costs = outcomes(rng, before + after, sigma, shared, step=0.0)
    for first in range(0, before + after, CHUNK):
        changed = first >= before
        monitor.take(part(costs, first, first + CHUNK, factor if changed else 1.0))
        if changed and monitor.change is not None:
            return first + CHUNK - before  # an alarm from before counts as 100
    return None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--outcomes", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=100)
    given = parser.parse_args()
    rng = np.random.default_rng(1)
    print("sigma  shared  false alarms per 1e5   delay for a shift, median / 90 % (missed)")
    for sigma, shared in ((0.2, 0.0), (0.4, 0.0), (0.4, 0.2), (0.8, 0.0)):
        started = time.perf_counter()
        n = given.outcomes // 10
        alarms = sum(false_alarms(rng, n, sigma, shared) for _ in range(10))
        per_s = 10 * n / (time.perf_counter() - started)
        cells = []
        for factor in (1.05, 1.15, 0.85, 1.5):
            found = [delay(rng, factor, sigma, shared) for _ in range(given.runs)]
            seen = [d for d in found if d is not None]
            told = f"{np.median(seen):.0f} / {np.quantile(seen, 0.9):.0f}" if seen else "-"
            cells.append(f"{100 * (factor - 1):+.0f} %: {told} ({len(found) - len(seen)})")
        rate = alarms * 1e5 / (10 * n)
        print(f"{sigma:5}  {shared:6}  {rate:20.2f}   {'   '.join(cells)}   [{per_s:,.0f}/s]")


if __name__ == "__main__":
    main()
