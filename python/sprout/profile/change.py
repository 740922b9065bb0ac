# SPDX-License-Identifier: Apache-2.0
"""Whether the engine is still the one that was profiled.

Watched is y = log(joules per output token) of each outcome. It depends on load and length, so a
regression is the reference, not a mean:

    y = level + a log n + b (log n)^2 + c log(output tokens),   n = requests in flight beside it

(on an H100, n from 1 to 32 takes y down by 2.8). The residuals of `BLOCK` outcomes in a row give
one standardised mean, and those a two-sided CUSUM (Page 1954): S = max(0, S + z - DRIFT), alarm at
S > LIMIT. Neighbouring outcomes share the meter's ticks; the scatter of block means in the
reference, not that of single outcomes, is what z is measured by.

False alarms and delays, simulated (`benchmarks/bench_change_point.py`): docs/profiling.md.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEARN = 4000  # outcomes that a reference is learned from
BLOCK = 100
DRIFT = 1.5  # in standard deviations of a block: shifts of half of it and less never alarm
LIMIT = 5.0
CLIP = 4.0  # standard deviations: one wild outcome is no change
# Beyond the loads and lengths of the reference. A curve goes astray outside of what it was fitted
# to: with a margin of log 1.5 there were 5 to 20 times the false alarms.
MARGIN = math.log(1.1)


@dataclass(frozen=True)
class Costs:
    """Outcomes in the order of arrival; columns (n,)."""

    level: NDArray[np.int64]
    energy_joules: Floats
    output_tokens: Floats
    in_flight: Floats  # mean number at work beside it, itself included; >= 1

    def __len__(self) -> int:
        return len(self.level)

    def usable(self) -> "Costs":
        """Those with joules and tokens."""
        return self._where((self.energy_joules > 0) & (self.output_tokens > 0))

    def _where(self, keep: NDArray[np.bool_]) -> "Costs":
        return Costs(
            self.level[keep],
            self.energy_joules[keep],
            self.output_tokens[keep],
            self.in_flight[keep],
        )

    def of_levels(self, known: Sequence[int]) -> "Costs":
        return self._where(np.isin(self.level, known))

    @property
    def y(self) -> Floats:
        result: Floats = np.log(self.energy_joules / self.output_tokens)
        return result


@dataclass(frozen=True)
class Reference:
    """What log(joules per output token) is expected to be, and where that is known."""

    levels: tuple[int, ...]
    level_terms: tuple[float, ...]  # (levels,)
    load_terms: tuple[float, float]  # a, b
    length_term: float  # c
    sigma: float  # of a residual
    block_sigma: float  # of the mean of BLOCK standardised residuals, times sqrt(BLOCK); >= 1
    log_in_flight: tuple[float, float]  # range learned from
    log_tokens: tuple[float, float]
    outcomes: int

    def residuals(self, costs: Costs) -> Floats:
        """(m,) standardised and clipped, of the m outcomes whose level and load it knows."""
        costs = costs.of_levels(self.levels)
        log_n, log_t = np.log(costs.in_flight), np.log(costs.output_tokens)
        inside = _within(log_n, self.log_in_flight) & _within(log_t, self.log_tokens)
        index = np.searchsorted(self.levels, costs.level)
        a, b = self.load_terms
        expected = (
            np.array(self.level_terms)[index] + a * log_n + b * log_n**2 + self.length_term * log_t
        )
        z = (costs.y - expected)[inside] / self.sigma
        result: Floats = np.clip(z, -CLIP, CLIP)
        return result


def learn(costs: Costs) -> Reference:
    """From at least 10 blocks of usable outcomes; ValueError for fewer."""
    costs = costs.usable()
    if len(costs) < 10 * BLOCK:
        raise ValueError(f"{len(costs)} outcomes are too few to tell a change from")
    levels = tuple(int(level) for level in np.unique(costs.level))
    log_n, log_t = np.log(costs.in_flight), np.log(costs.output_tokens)
    design = np.column_stack(
        (costs.level[:, None] == np.array(levels), log_n, log_n**2, log_t)
    ).astype(np.float64)
    y = costs.y
    x = _least_squares(design, y)
    # Once more without what lies far off: one outcome in a thousand must not tilt the reference.
    residual = y - design @ x
    near = np.abs(residual - np.median(residual)) <= CLIP * _mad_sigma(residual)
    x = _least_squares(design[near], y[near])
    residual = y - design @ x
    sigma = max(_mad_sigma(residual), 1e-6)
    z = np.clip(residual / sigma, -CLIP, CLIP)
    blocks = z[: len(z) // BLOCK * BLOCK].reshape(-1, BLOCK).mean(axis=1) * math.sqrt(BLOCK)
    k = len(levels)
    return Reference(
        levels=levels,
        level_terms=tuple(map(float, x[:k])),
        load_terms=(float(x[k]), float(x[k + 1])),
        length_term=float(x[k + 2]),
        sigma=sigma,
        block_sigma=max(1.0, float(blocks.std(ddof=1))),
        log_in_flight=(float(log_n.min()), float(log_n.max())),
        log_tokens=(float(log_t.min()), float(log_t.max())),
        outcomes=len(costs),
    )


@dataclass(frozen=True)
class Change:
    ratio: float  # joules per output token, now over before
    outcomes: int  # since it began, as far as the CUSUM can tell

    def __str__(self) -> str:
        return (
            f"engine-changed: joules per output token are {100 * (self.ratio - 1):+.0f} % off what "
            f"was profiled, for about {self.outcomes} outcomes: profile again (`sprout profile`) "
            "if this is meant to stay"
        )


class Monitor:
    """Takes outcomes in their order, each once. `change` is what it has found.

    With a reference given (from `profile.json`) a change stands until another one is given. Without
    one it learns from the first LEARN outcomes, and after an alarm it learns anew: the live profile
    follows the engine too, so the change stands until the new reference does.
    """

    def __init__(self, reference: Reference | None = None) -> None:
        self._given = reference is not None
        self.reference = reference
        self.change: Change | None = None
        self._learning: list[Costs] = []
        self._outside = 0  # outcomes out of the reference's range, less those within
        self._rest: Floats = np.zeros(0)
        self._up, self._down = _Side(1.0), _Side(-1.0)

    @property
    def blind(self) -> bool:
        """Most of the newest outcomes are of levels, loads or lengths that were not profiled."""
        return self._outside >= LEARN

    def take(self, costs: Costs) -> None:
        """Outcomes after those taken before."""
        costs = costs.usable()
        if self.reference is None:
            self._learn(costs)
            return
        fresh = self.reference.residuals(costs)
        outside = len(costs) - len(fresh)
        self._outside = min(max(0, self._outside + outside - len(fresh)), LEARN)
        if self.blind and not self._given:
            self._forget()
            return
        z = np.concatenate((self._rest, fresh))
        whole = len(z) // BLOCK
        self._rest = z[whole * BLOCK :]
        scale = math.sqrt(BLOCK) / self.reference.block_sigma
        for mean in z[: whole * BLOCK].reshape(-1, BLOCK).mean(axis=1):
            if self.reference is None:
                break  # an alarm: what follows is learned from
            self._step(float(mean) * scale, float(mean))

    def _learn(self, costs: Costs) -> None:
        self._learning.append(costs)
        if sum(map(len, self._learning)) >= LEARN:
            self.reference = learn(_joined(self._learning))
            self._learning, self.change = [], None

    def _step(self, z: float, mean: float) -> None:
        for side in (self._up, self._down):
            side.step(z, mean)
        side = max(self._up, self._down, key=lambda s: s.sum)
        if side.sum > LIMIT and self.reference is not None:
            ratio = math.exp(side.mean * self.reference.sigma)
            self.change = Change(ratio, side.blocks * BLOCK)
            if not self._given:
                self._forget()

    def _forget(self) -> None:
        self.reference, self._rest, self._outside = None, np.zeros(0), 0
        self._up, self._down = _Side(1.0), _Side(-1.0)


class _Side:
    """One side of the CUSUM, and the mean residual since it last left nought."""

    def __init__(self, sign: float) -> None:
        self._sign = sign
        self.sum, self.blocks = 0.0, 0
        # Once an alarm stands, the newest blocks say how large the change is now.
        self._means: deque[float] = deque(maxlen=100)

    @property
    def mean(self) -> float:
        return sum(self._means) / len(self._means) if self._means else 0.0

    def step(self, z: float, mean: float) -> None:
        self.sum = max(0.0, self.sum + self._sign * z - DRIFT)
        if self.sum > 0:
            self.blocks += 1
            self._means.append(mean)
        else:
            self.blocks = 0
            self._means.clear()


def _joined(parts: Sequence[Costs]) -> Costs:
    return Costs(
        np.concatenate([p.level for p in parts]),
        np.concatenate([p.energy_joules for p in parts]),
        np.concatenate([p.output_tokens for p in parts]),
        np.concatenate([p.in_flight for p in parts]),
    )


def _least_squares(design: Floats, y: Floats) -> Floats:
    # Of the smallest norm: a load that never varied leaves its terms at about nought.
    result: Floats = np.linalg.lstsq(design, y, rcond=1e-8)[0]
    return result


def _mad_sigma(values: Floats) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _within(values: Floats, ends: tuple[float, float]) -> NDArray[np.bool_]:
    return (values >= ends[0] - MARGIN) & (values <= ends[1] + MARGIN)
