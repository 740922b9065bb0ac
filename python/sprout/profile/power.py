# SPDX-License-Identifier: Apache-2.0
"""What a node draws, as a function of what it does.

    watts = idle + a * prefill tokens/s + b * decode tokens/s + c * busy

with every coefficient >= 0 and `busy` the share of time in which at least one request is at work.
The term in `busy` is what a GPU draws for having anything to do at all: at one request in flight an
H100 draws most of what it draws at thirty. It saturates, and it makes the difference: on the table
of equal arrival rates that the tests hold (13 points, 123 to 601 W) the model misses left-out
points by 17 W (root mean square); without the term by 130 W, with log2(1 + n), sqrt(n) or
n / (n + h) in its place by 65 to 90 W, and beside it none of those gains anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sprout.profile.nnls import nnls_gram

Floats = NDArray[np.float64]

COLUMNS = ("idle_watts", "prefill_j_per_token", "decode_j_per_token", "busy_watts")
CONFIDENCE = 0.95
DRAWS = 1000


@dataclass(frozen=True)
class Window:
    """A stretch of time in which what the node did and drew was measured."""

    block: int  # windows of one block ran one after the other under the same condition
    level: str  # "" while idle
    kind: str  # "idle", "closed" or "open"
    setting: float  # requests kept in flight (closed), or arriving per second (open)
    seconds: float
    joules: float  # of the node, idle included
    prefill_tokens: float
    decode_tokens: float
    busy_seconds: float
    active_seconds: float  # of all requests together
    requests: int  # that ended in it

    @property
    def watts(self) -> float:
        return self.joules / self.seconds


@dataclass(frozen=True)
class PowerModel:
    idle_watts: float
    prefill_j_per_token: float
    decode_j_per_token: float
    busy_watts: float

    def watts(self, prefill_tokens_per_s: float, decode_tokens_per_s: float, busy: float) -> float:
        return (
            self.idle_watts
            + self.prefill_j_per_token * prefill_tokens_per_s
            + self.decode_j_per_token * decode_tokens_per_s
            + self.busy_watts * busy
        )


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True)
class PowerFit:
    model: PowerModel
    intervals: dict[str, Interval]  # by COLUMNS: percentiles of the block bootstrap
    confidence: float
    windows: int
    blocks: int
    r2: float  # of watts; 1 - residual / total variance
    rmse_watts: float
    worst_watts: float  # measured - fitted, of the window that fits worst …
    worst_window: int  # … and its index


def fit(windows: Sequence[Window], *, seed: int, draws: int = DRAWS) -> PowerFit:
    """Least squares on the windows' mean watts, each weighted by its length.

    Intervals: whole blocks are drawn again, with replacement, because windows of a block share
    temperature, prompts and neighbours. ValueError where there are fewer windows or blocks than
    coefficients, or none is idle (idle and busy power could not be told apart).
    """
    blocks = sorted({w.block for w in windows})
    if len(windows) <= len(COLUMNS) or len(blocks) < len(COLUMNS):
        raise ValueError(
            f"{len(windows)} windows of {len(blocks)} conditions are too few for a fit of "
            f"{len(COLUMNS)} coefficients"
        )
    if not any(w.busy_seconds < w.seconds / 2 for w in windows):
        raise ValueError("no window is (nearly) idle: idle and busy power can't be told apart")
    a, y, weight = _design(windows)
    owner = np.searchsorted(blocks, [w.block for w in windows])
    gram, moment = _by_block(a, y, weight, owner, len(blocks))
    x = nnls_gram(gram.sum(axis=0), moment.sum(axis=0))
    picked = np.random.default_rng(seed).multinomial(
        len(blocks), np.full(len(blocks), 1 / len(blocks)), size=draws
    )
    sampled = nnls_gram(np.einsum("db,bij->dij", picked, gram), picked @ moment)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(sampled, (tail, 1 - tail), axis=0)
    residual = y - a @ x
    mean = np.average(y, weights=weight)
    total = float(weight @ (y - mean) ** 2)
    worst = int(np.argmax(np.abs(residual)))
    return PowerFit(
        model=PowerModel(*map(float, x)),
        intervals={
            name: Interval(float(lo), float(hi))
            for name, lo, hi in zip(COLUMNS, low, high, strict=True)
        },
        confidence=CONFIDENCE,
        windows=len(windows),
        blocks=len(blocks),
        r2=1 - float(weight @ residual**2) / total if total > 0 else 0.0,
        rmse_watts=float(np.sqrt(np.average(residual**2, weights=weight))),
        worst_watts=float(residual[worst]),
        worst_window=worst,
    )


def _design(windows: Sequence[Window]) -> tuple[Floats, Floats, Floats]:
    """(n, 4) rates, (n,) watts, (n,) seconds."""
    seconds = np.array([w.seconds for w in windows])
    totals = np.array(
        [(w.seconds, w.prefill_tokens, w.decode_tokens, w.busy_seconds) for w in windows]
    )
    joules = np.array([w.joules for w in windows])
    return totals / seconds[:, None], joules / seconds, seconds


def _by_block(
    a: Floats, y: Floats, weight: Floats, owner: NDArray[np.int64], blocks: int
) -> tuple[Floats, Floats]:
    """(blocks, k, k) and (blocks, k): each block's part of the normal equations."""
    gram = np.zeros((blocks, a.shape[1], a.shape[1]))
    moment = np.zeros((blocks, a.shape[1]))
    np.add.at(gram, owner, weight[:, None, None] * a[:, :, None] * a[:, None, :])
    np.add.at(moment, owner, (weight * y)[:, None] * a)
    return gram, moment
