# SPDX-License-Identifier: Apache-2.0
"""What a plan comes to: every request of every hour gets its level, and is counted.

Levels are drawn by the compiled sampler of the request path. A share of 1 needs no draw. Where the
workload is an expectation (no requests drawn), so is the outcome.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

from sprout.errors import ConfigError
from sprout.optimize.means import Device
from sprout.replay.window import Outcome, Plan, Window
from sprout.replay.workload import table
from sprout_ext.sampler import draw_batch, fold_key

Array = NDArray[np.float64]


def measure(window: Window, plan: Plan, name: str, device: Device = "cpu") -> Outcome:
    """`name` sets apart the draws of schemes, the same bits on either device. ConfigError: requests
    by their own energy are asked of a workload without requests."""
    if plan.by_request:
        grams = _by_request(window, plan)
    elif window.work.requests is None:
        grams = (plan.shares * window.costs_g[:, plan.columns]).sum(axis=1)
    else:
        grams = _drawn(window, plan, name, device)
    return Outcome(
        grams,
        window.costs_g[:, 0],
        _preference(window, plan, window.work.assessed),
        _preference(window, plan, window.work.truth),
    )


def _preference(window: Window, plan: Plan, q: Array) -> Array:
    small = window.bundle.meta.small_model_preference
    if small is not None and window.levels in plan.columns:
        q = np.array([small])  # judged apart, large against small
    elif len(plan.columns) != q.shape[1]:
        raise ValueError(f"{len(plan.columns)} columns, {q.shape[1]} preferences")
    normalised: Array = (plan.shares * q).sum(axis=1) / q[:, 0]
    return normalised


def _drawn(window: Window, plan: Plan, name: str, device: Device) -> Array:
    """(H,) grams per request, each request's level drawn."""
    requests = window.work.requests
    assert requests is not None
    energy, seconds = (values[:, plan.columns] for values in table(window.bundle))
    width = len(plan.columns)
    flat_energy, flat_seconds = energy.ravel(), seconds.ravel()
    key = fold_key(window.work.seed, zlib.crc32(f"{window.grid.zone} {name}".encode()), 0, 0)
    count = window.work.per_hour
    means = np.empty((window.hours, 2))
    for hour, shares in enumerate(plan.shares):
        if shares.max() == 1.0:
            column = plan.columns[int(shares.argmax())]
            means[hour] = window.work.energy_kwh[hour, column], window.work.seconds[hour, column]
            continue
        drawn = draw_batch(shares, key, (window.start + hour) * count, count, device=device)
        index = requests[hour] * width + drawn
        means[hour] = flat_energy[index].mean(), flat_seconds[index].mean()
    return window.grams(means[:, 0], means[:, 1], window.k0)


def _by_request(window: Window, plan: Plan) -> Array:
    """(H,) grams per request: of two levels, the cheaper goes to the requests that save most."""
    requests = window.work.requests
    if requests is None:
        raise ConfigError("ORACLE knows every request: it needs --requests above 0")
    energy = np.ascontiguousarray(window.bundle.energy_kwh.T)
    seconds = np.ascontiguousarray(window.bundle.seconds.T)
    grams = np.empty(window.hours)
    for hour, shares in enumerate(plan.shares):
        costs = window.costs_g[hour]
        kept, *others = sorted(np.flatnonzero(shares), key=lambda level: -costs[level])
        grams[hour] = costs[kept]
        if not others:
            continue
        (shorter,) = others  # one inequality: two levels at most
        k0, row = window.k0[hour], requests[hour]
        saved = window.grams(
            energy[kept][row] - energy[shorter][row], seconds[kept][row] - seconds[shorter][row], k0
        )
        count = round(float(shares[shorter]) * len(row))
        if count:
            most = np.partition(saved, len(row) - count)[len(row) - count :]
            grams[hour] -= most.sum() / len(row)
    return grams
