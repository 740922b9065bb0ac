# SPDX-License-Identifier: Apache-2.0
"""PROMPT_BANK: PROMPT with what can be known in each hour. H hours of a window.

Each hour the price is set anew, so that the next four weeks would have the target: the grid is
expected to go as it went in the last four (`receding.expected`), every hour's mix to be the present
one. What the hour over- or underspent, by the fitting prompts, is carried on. An hourly minimum is
a second price: in an hour whose preference would stay under it, as much more as it takes. Neither
the window's grid nor its mix is known in advance, nor what comes of the bundle's prompts.
"""

import numpy as np
from numpy.typing import NDArray

from sprout.replay.prompted import Prompted
from sprout.replay.receding import HORIZON_H, expected
from sprout.replay.window import Outcome, Plan, Window

Array = NDArray[np.float64]

INTENSITIES = 96  # that hours are told apart by, evenly in their logarithm
LEAST_G = 1.0  # per kWh: below it all hours are alike


def prompt_bank(
    prompted: Prompted, window: Window, target: float, hourly_minimum: float = 0.0
) -> tuple[Plan, Outcome]:
    """`target`, `hourly_minimum`: of normalised preference, the latter 0 for none."""
    levels = prompted.levels_at(
        window, lambda fold: prices(prompted, window, target, hourly_minimum, fold)
    )
    return prompted.measure(window, levels)


def prices(
    prompted: Prompted, window: Window, target: float, hourly_minimum: float, fold: int
) -> Array:
    """(H,) grams per unit of q; the fitting prompts of a fold have no say in it."""
    meta, table = window.bundle.meta, prompted.table
    mix, q0 = window.bundle.mix_of(window.hours), prompted.q0(window, fold)
    trace = np.log(np.maximum(window.grid.g_per_kwh, LEAST_G))
    # The range of the whole trace only decides how finely hours are told apart.
    edges = np.linspace(trace.min(), trace.max() + 1e-9, INTENSITIES + 1)
    place = (np.searchsorted(edges, trace, side="right") - 1).clip(0, INTENSITIES - 1)
    grams_per_kwh = meta.pue * np.exp((edges[:-1] + edges[1:]) / 2)
    candidates = table.grid * float(np.sqrt(grams_per_kwh[0] * grams_per_kwh[-1]))
    won = table.won(
        candidates[None] / grams_per_kwh[:, None], meta.embodied_g_per_s / grams_per_kwh, fold
    )
    logs, carry = np.log(candidates), 0.0
    found = np.empty(window.hours)
    for hour in range(window.hours):
        here = window.start + hour
        ahead = expected(place.astype(np.float64), here, HORIZON_H).astype(np.int64)
        often = np.bincount(ahead, minlength=INTENSITIES) / HORIZON_H
        by_place = np.tensordot(mix[hour], won, axes=1) / q0[hour]  # (intensities, candidates)
        horizon, now = ascending(often @ by_place), ascending(by_place[place[here]])
        price = float(np.interp(target - carry / HORIZON_H, horizon, logs))
        if hourly_minimum > 0:
            price = max(price, float(np.interp(hourly_minimum, now, logs)))
        carry += float(np.interp(price, logs, now)) - target
        found[hour] = price
    return np.exp(found)


def ascending(values: Array) -> Array:
    """Half way between the highest ascending sequence below and the lowest above."""
    above = np.maximum.accumulate(values)
    below = np.minimum.accumulate(values[::-1])[::-1]
    middle: Array = (above + below) / 2
    return middle
