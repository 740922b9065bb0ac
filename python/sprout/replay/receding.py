# SPDX-License-Identifier: Apache-2.0
"""BANK: quality as a budget over four weeks (`optimize.bank`), with what can be known in each hour.

Each hour the program is solved for the next four weeks, of which the first mix is applied. The
grid is expected to go as it went in the last four weeks, the requests to cost what the present
hour's cost. Preferences are the mean of the evaluations so far; they run when they do for SPROUT.
Not the newest alone: its noise (q0 of 1,000 prompts is good to 4 %) is half of what there is to
trade, and a program that looks for the cheapest quality finds the errors in it first. What the
hour over- or underspent, by the same preferences, is carried on. No future is seen but by the rule
of the evaluations, whose mean is the window's (see `schemes`).
"""

import math

import numpy as np
from numpy.typing import NDArray

from sprout.evaluate.schedule import when
from sprout.optimize.bank import BankModel, carry_on
from sprout.optimize.problem import Problem
from sprout.replay.window import Plan, Window

Array = NDArray[np.float64]

HORIZON_H = 672
DAY_H = 24


def bank(window: Window, target: float, horizon_h: int = HORIZON_H) -> Plan:
    """`target`: mean normalised preference. Above what any level has: the most preferred mix."""
    evaluations = when(window.bundle.meta.rule, window.k0)
    seen = window.work.assessed[evaluations]
    so_far = np.cumsum(seen, axis=0) / np.arange(1, len(seen) + 1)[:, None]
    newest = np.searchsorted(evaluations, np.arange(window.hours), side="right") - 1
    q = so_far[newest]
    model = BankModel(horizon_h, 1, window.levels)
    requests = np.full((horizon_h, 1), float(window.work.per_hour))
    energy = window.work.energy_kwh[:, : window.levels]
    seconds = window.work.seconds[:, : window.levels]
    carry, mixes = 0.0, []
    for hour in range(window.hours):
        ahead = expected(window.grid.g_per_kwh, window.start + hour, horizon_h)
        problem = Problem(
            costs_g=window.grams(energy[hour], seconds[hour], ahead[:, None])[:, None, :],
            requests=requests,
            preferences=q[hour][None],
            target=target,
            carry_request_points=carry,
        )
        mix = model.solve(problem).shares[0, 0]
        reached = float(mix @ q[hour] / q[hour, 0])
        carry = carry_on(carry, window.work.per_hour, reached, target, most_request_points=math.inf)
        mixes.append(mix)
    return Plan(np.array(mixes), tuple(range(window.levels)), tuple(evaluations))


def expected(g_per_kwh: Array, now: int, hours: int) -> Array:
    """(hours,) from the hour `now` on: the present value, then what stood a whole number of days,
    four weeks at most, before. The first day of a trace has only its present value."""
    period = min(HORIZON_H, now // DAY_H * DAY_H)
    if period == 0:
        return np.full(hours, g_per_kwh[now])
    steps = np.arange(hours)
    return g_per_kwh[now + steps - period * -(-steps // period)]
