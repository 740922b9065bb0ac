# SPDX-License-Identifier: Apache-2.0
"""What a decision costs: the hourly program and the 72-hour bank, beside scipy.optimize.linprog.

Every solve has new costs, a new floor or new expected requests, as one in service has. All cases
take turns in each round, so that a drift of the machine hits them alike; reported are the median
over rounds and the range. First of all the answers are compared with scipy's.

    python benchmarks/bench_optimizer.py [--rounds 30] [--json FILE]
"""

import sys
from importlib.metadata import version
from itertools import cycle
from typing import Any

import numpy as np
from _turns import Case, looped, made_on, main, summary, table, take_turns
from scipy import optimize, sparse

from sprout.optimize import lp
from sprout.optimize.bank import BankModel
from sprout.optimize.contrast import Certainty, multinomial
from sprout.optimize.problem import Problem

COSTS = (1218.0, 273.0, 182.0)
PREFERENCES = (0.40, 0.34, 0.26)
HOURS, CLASSES, LEVELS = 72, 16, 4
LOOP = 200
# targets
PAPER_US, BANK_MS = 50.0, 20.0


def hourly(levels: int) -> list[tuple[list[float], list[float], float]]:
    """Costs, preferences and floors of some hours, for `levels` levels."""
    rng = np.random.default_rng(levels)
    at = np.linspace(0, 2, levels)
    e = np.interp(at, range(3), COSTS)
    q = np.interp(at, range(3), PREFERENCES)
    return [
        (list(e * k0), list(q), floor) for k0, floor in rng.uniform((50, 0.36), (500, 0.4), (64, 2))
    ]


def horizons() -> list[Problem]:
    """Some forecasts in turn: intensities and requests move, e, p and q stay."""
    rng = np.random.default_rng(0)
    shape = (CLASSES, LEVELS)
    e = np.sort(rng.uniform(0.05, 1, shape), axis=1)[:, ::-1] * 3e-4
    q = np.sort(rng.uniform(0.1, 0.5, shape), axis=1)[:, ::-1].copy()
    n = rng.uniform(10, 1000, (HOURS, CLASSES))
    daily = np.sin(np.arange(HOURS) / 24 * 2 * np.pi)
    found = []
    for _ in range(8):
        k0 = 300 + 150 * daily + rng.normal(0, 20, HOURS)
        costs = k0[:, None, None] * e + 1.67e-4 * (e * 2e4)
        found.append(Problem(costs, n * rng.uniform(0.8, 1.2, n.shape), q, 0.93, 0.85))
    return found


def anew(p: Problem, **changes: Any) -> Problem:
    """The same problem with nothing computed yet."""
    known = {
        name: getattr(p, name)
        for name in ("costs_g", "requests", "preferences", "target", "hourly_minimum")
    }
    return Problem(**(known | changes))


def scipy_hour(costs: list[float], q: list[float], floor: float) -> Any:
    scale = max(costs)
    return optimize.linprog(
        np.array(costs) / scale,
        A_ub=-np.array([q]),
        b_ub=[-floor],
        A_eq=np.ones((1, len(costs))),
        b_eq=[1.0],
        bounds=(0, 1),
        method="highs-ds",
    )


def scipy_bank(p: Problem) -> Any:
    """With sparse matrices, written out as its documentation says."""
    hours, classes, levels = p.shape
    w, columns = p.requests / p.requests.mean(), p.costs_g.size
    part = (w[..., None] * p.preferences / p.preferences[:, :1]).reshape(hours, -1)
    rows = np.repeat(np.arange(hours), classes * levels)
    by_hour = sparse.csr_array((part.ravel(), (rows, np.arange(columns))), (hours, columns))
    budget = sparse.csr_array(part.reshape(1, -1))
    return optimize.linprog(
        (w[..., None] * p.costs_g / p.costs_g.max()).ravel(),
        A_ub=-sparse.vstack([by_hour, budget]),
        b_ub=-np.append(p.hourly_minimum * w.sum(1), p.target * w.sum()),
        A_eq=sparse.kron(sparse.eye_array(hours * classes), np.ones((1, levels)), format="csr"),
        b_eq=np.ones(hours * classes),
        bounds=(0, 1),
        method="highs-ds",
    )


def check() -> int:
    """The answers are as good as scipy's. Returns how many were compared."""
    compared = 0
    for levels in (3, 8):
        model = lp.PaperModel(levels)
        for costs, q, floor in hourly(levels):
            ours, theirs = model.solve(costs, q, floor), scipy_hour(costs, q, floor)
            if ours.mismatch or abs(np.dot(costs, ours.shares) / max(costs) - theirs.fun) > 1e-6:
                raise SystemExit(f"not as good as scipy: {ours}")
            compared += 1
    bank = BankModel(HOURS, CLASSES, LEVELS)
    for p in horizons():
        solution, theirs = bank.solve(p), scipy_bank(p)
        weight = p.requests.mean() * p.costs_g.max()
        if abs(solution.expected_g / weight / theirs.fun - 1) > 1e-7:
            raise SystemExit("the bank is not as good as scipy's")
        compared += 1
    return compared


def cases() -> dict[str, Case]:
    three, eight, forecasts = cycle(hourly(3)), cycle(hourly(8)), cycle(horizons())
    kept, kept_eight = lp.PaperModel(3), lp.PaperModel(8)
    kept_bank, kept_hour = BankModel(HOURS, CLASSES, LEVELS), BankModel(1, 1, 3)
    certainty = Certainty(0.95, multinomial(np.array(PREFERENCES), 1000)[None])

    def sure() -> object:
        costs, q, _ = next(three)
        hour = Problem(
            np.array([[costs]]), np.ones((1, 1)), np.array([q]), 0.9, certainty=certainty
        )
        return kept_hour.solve(hour)

    return {
        "hour_3_levels_us": looped(lambda: kept.solve(*next(three)), LOOP),
        "hour_3_levels_new_model_us": looped(lambda: lp.solve(*next(three)), LOOP // 10),
        "hour_3_levels_scipy_us": looped(lambda: scipy_hour(*next(three)), LOOP // 20),
        "hour_8_levels_us": looped(lambda: kept_eight.solve(*next(eight)), LOOP),
        "hour_3_levels_95_percent_sure_us": looped(sure, LOOP // 10),
        "bank_ms": looped(lambda: kept_bank.solve(anew(next(forecasts))), 4),
        "bank_new_model_ms": looped(
            lambda: BankModel(HOURS, CLASSES, LEVELS).solve(anew(next(forecasts))), 1
        ),
        "bank_scipy_ms": looped(lambda: scipy_bank(next(forecasts)), 1),
    }


def measure(rounds: int) -> dict[str, Any]:
    """Everything, as what `--json` writes."""
    compared, turns = check(), cases()
    times = take_turns(turns, rounds)
    results = {name: summary(name, seconds) for name, seconds in times.items()}
    hour, bank = results["hour_3_levels_us"], results["bank_ms"]
    return {
        **made_on(rounds),
        "highspy": version("highspy"),
        "scipy": version("scipy"),
        "variables_of_the_bank": HOURS * CLASSES * LEVELS,
        "answers_as_good_as_scipys": compared,
        "results": results,
        "targets": {
            f"hour, 3 levels <= {PAPER_US:.0f} us": hour["median"] <= PAPER_US,
            f"bank <= {BANK_MS:.0f} ms": bank["median"] <= BANK_MS,
        },
    }


def show(found: dict[str, Any]) -> str:
    first = (
        f"{found['answers_as_good_as_scipys']} answers as good as scipy {found['scipy']}'s; "
        f"highspy {found['highspy']}; the bank has {found['variables_of_the_bank']:,} variables"
    )
    return table(first, found)


if __name__ == "__main__":
    sys.exit(main(__doc__, 30, measure, show))
