# SPDX-License-Identifier: Apache-2.0
"""The published schemes, each from a window to shares by hour (arXiv 2403.12900).

    BASE        always L0
    CO2_OPT     always the level of the least carbon, hour by hour
    MODEL_OPT   the same program over {large model, small model}, no directives, shares in tenths
    SPROUT_STA  one mix for the whole window: the program once, at the mean intensity of as many
                hours before it (as the published mixes do; docs/results/replay.md) and the
                window's mean assessment
    SPROUT      the program each hour, with the newest evaluation's preferences; evaluations run
                when `evaluate.schedule` says so
    ORACLE      the program each hour, with that hour's own assessment; each hour's shorter answers
                go to the requests that save most by them

The program is `optimize.lp`, the floor `optimize.floor`. As published, the floor's range is that of
the whole trace and the evaluator's mean that of the whole window: both know the future.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sprout.evaluate.schedule import when
from sprout.replay.window import Plan, Solver, Window

Array = NDArray[np.float64]
Scheme = Callable[[Window, float], Plan]

STEPS = 10  # of MODEL_OPT's shares


def base(window: Window, xi: float) -> Plan:
    return _always(window, np.zeros(window.hours, dtype=np.int64))


def co2_opt(window: Window, xi: float) -> Plan:
    return _always(window, np.argmin(window.costs_g[:, : window.levels], axis=1))


def model_opt(window: Window, xi: float) -> Plan:
    """The optimum is rounded to the nearest tenth, as the published mean shares suggest; so an
    hour may be up to half a tenth below its floor."""
    preference = window.bundle.meta.small_model_preference
    if preference is None:
        raise ValueError("the bundle has no small model: ask `runnable` first")
    columns = (0, window.levels)
    costs, q, solver = window.costs_g[:, columns], np.array(preference), Solver(2)
    shares = np.array(
        [
            solver.mix(c, q, window.floor(float(k0), xi))
            for c, k0 in zip(costs, window.k0, strict=True)
        ]
    )
    large = np.round(shares[:, 0] * STEPS) / STEPS
    return Plan(np.column_stack([large, 1 - large]), columns, mismatches=solver.mismatches)


def sprout_sta(window: Window, xi: float) -> Plan:
    """A trace that begins with the window has no hours before it: then the window's own."""
    solver = Solver(window.levels)
    before = window.grid.g_per_kwh[max(0, window.start - window.hours) : window.start]
    k0 = np.array((before if len(before) else window.k0).mean())
    work = window.work
    costs = window.grams(work.energy_kwh.mean(axis=0), work.seconds.mean(axis=0), k0)
    floor = window.floor(float(k0), xi)
    shares = solver.mix(costs[: window.levels], work.assessed.mean(axis=0), floor)
    return Plan(np.tile(shares, (window.hours, 1)), _all(window), mismatches=solver.mismatches)


def sprout(window: Window, xi: float) -> Plan:
    evaluations = when(window.bundle.meta.rule, window.k0)
    newest = newest_evaluation(evaluations, window.hours)
    return _hourly(window, xi, window.work.assessed[newest], tuple(evaluations))


def oracle(window: Window, xi: float) -> Plan:
    plan = _hourly(window, xi, window.work.assessed, ())
    return Plan(plan.shares, plan.columns, by_request=True, mismatches=plan.mismatches)


SCHEMES: dict[str, Scheme] = {
    "BASE": base,
    "CO2_OPT": co2_opt,
    "MODEL_OPT": model_opt,
    "SPROUT_STA": sprout_sta,
    "SPROUT": sprout,
    "ORACLE": oracle,
}
WITHOUT_XI = ("BASE", "CO2_OPT")  # the same whatever it is


def newest_evaluation(evaluations: list[int], hours: int) -> NDArray[np.int64]:
    """(hours,) the hour of the newest evaluation; there is one in hour 0."""
    count = np.searchsorted(evaluations, np.arange(hours), side="right")
    newest: NDArray[np.int64] = np.array(evaluations, dtype=np.int64)[count - 1]
    return newest


def _hourly(window: Window, xi: float, q: Array, evaluations: tuple[int, ...]) -> Plan:
    solver = Solver(window.levels)
    costs = window.costs_g[:, : window.levels]
    shares = [
        solver.mix(costs[hour], q[hour], window.floor(float(k0), xi))
        for hour, k0 in enumerate(window.k0)
    ]
    return Plan(np.array(shares), _all(window), evaluations, mismatches=solver.mismatches)


def _always(window: Window, level: NDArray[np.int64]) -> Plan:
    return Plan(np.eye(window.levels)[level], _all(window))


def _all(window: Window) -> tuple[int, ...]:
    return tuple(range(window.levels))
