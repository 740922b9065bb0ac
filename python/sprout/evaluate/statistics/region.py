# SPDX-License-Identifier: Apache-2.0
"""Bounds of q_i / q_0 that hold at every moment at once, however often they are looked at.

Bets against a ratio (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by
betting"; Ville 1939). With s_i the score of a level, s_0 that of L0, w <= W the prompt's weight and
u = w / W, the two

    K(r) = mean over bets b of prod_k (1 + b u_k (s_ki / r - s_k0))          0 < b <= 1 / max s_0
    K'(r) = mean over bets b of prod_k (1 + b u_k (r s_k0 - s_ki))           0 < b <= 1 / max s_i

are non-negative and start at 1. If q_i / q_0 <= r then K(r) is a supermartingale; if q_i / q_0 >= r
then K'(r) is. So each ever reaches 1 / a with a probability of at most a, and

    low  = the largest r with K(r) >= 1 / a        high = the smallest r with K'(r) >= 1 / a

hold for ever with probability 1 - a each. K falls and K' rises with r, so bisection finds them.
a = alpha / (2 (levels - 1)): all bounds of all levels hold together with probability 1 - alpha.
A bet that fits is about (distance to the bound) q_0 / (variance of s_i - r s_0). The mixture spans
what can come up, so the bounds adapt to the variance, ties included. Most weight lies where the
distance is what is aimed at, known before the first judgment, and less on larger bets: those are
done sooner.
K depends on how often each row of scores came, not on their order, so the counts are what is kept.

Prompts are taken as drawn independently from the requests that q is for.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sprout.evaluate.statistics.quality import MOST_SCORE, Method, checked

Array = NDArray[np.float64]

MOST_BET = 0.5  # half of what may be staked where scores go up to 2
# The bet of most weight is the aim over this: variance of s_i - r s_0 over q_0, since what a
# judgment gains on average at a distance d from the true ratio is q_0 d. Of choices among three,
# 1.5 needed the fewest judgments of 0.75, 1, 1.5 and 2.2 (2.2: 1 to 2 % more); of pairwise ones,
# 0.6 of 0.4, 0.6 and 1 (up to 15 % more). It is no matter of validity.
AIM_OVER_BET: dict[Method, float] = {"pairwise": 0.6, "choice": 1.5, "exact": 0.7}
_STEPS = 20  # of the bisection over log r: to 3e-5 of r, on the safe side
_WIDEST = 1e6  # a ratio beyond is taken for unbounded


class Region:
    """Anytime-valid bounds for a number of levels. For one thread at a time."""

    def __init__(
        self,
        levels: int,
        *,
        method: Method,
        alpha: float = 0.05,
        aim: float = 0.05,
        most_weight: float = 1.0,
    ) -> None:
        """`aim`: the distance from estimate to bound, in q_i / q_0, at which to be tightest.
        `most_weight`: no prompt's weight may be larger. Both to be known before the first prompt.
        """
        if levels < 1:
            raise ValueError(f"at least one level is needed: {levels}")
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be in (0, 1): {alpha}")
        if not 0 < aim < math.inf:
            raise ValueError(f"aim must be finite and above 0: {aim}")
        if not 0 < most_weight < math.inf:
            raise ValueError(f"most_weight must be finite and above 0: {most_weight}")
        self.levels = levels
        self.method: Method = method
        self.judged = 0
        self.low = np.zeros(levels)  # (levels,) of q_i / q_0
        self.high = np.full(levels, math.inf)
        self.low[0] = self.high[0] = 1.0
        if method == "pairwise":
            self.high[1:] = MOST_SCORE[method]
        self._most_weight = most_weight
        self._bets, self._log_share = _mixture(aim / AIM_OVER_BET[method])
        self._enough = math.log(2 * max(1, levels - 1) / alpha)
        self._counts: dict[tuple[float, ...], int] = {}  # (weight, scores …) -> prompts

    def add(self, scores: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Prompts with their scores (n, levels) and weights (n,), None: 1.

        ValueError for scores that can't be the method's and weights above `most_weight`.
        """
        rows, w = checked(scores, self.method, weights)
        if rows.shape[1] != self.levels:
            raise ValueError(f"{rows.shape[1]} scores a prompt, not {self.levels}")
        if (w > self._most_weight * (1 + 1e-12)).any():
            raise ValueError(f"weight {w.max():g} is above the stated most, {self._most_weight:g}")
        for key in map(tuple, np.column_stack([w, rows]).tolist()):
            self._counts[key] = self._counts.get(key, 0) + 1
        self.judged += len(rows)
        self._narrow()

    @property
    def preferences(self) -> Array:
        """(levels,) q as estimated; nan before the first prompt."""
        rows, u, n = self._table()
        total = float((n * u).sum())
        return (n * u) @ rows / total if total else np.full(self.levels, math.nan)

    @property
    def contradicts_itself(self) -> bool:
        """A bound of now excludes one of before: a chance of alpha, or the requests changed."""
        return bool((self.low > self.high).any())

    def _table(self) -> tuple[Array, Array, Array]:
        """Scores (kinds, levels), weights over the most (kinds,) and counts (kinds,)."""
        keys = np.array(list(self._counts), dtype=np.float64).reshape(-1, self.levels + 1)
        counts = np.array(list(self._counts.values()), dtype=np.float64)
        return keys[:, 1:], np.minimum(keys[:, 0] / self._most_weight, 1.0), counts

    def _narrow(self) -> None:
        """What was excluded once stays so: the bounds of all moments hold together."""
        rows, u, n = self._table()
        base = rows[:, 0]
        for i in range(1, self.levels):
            won = rows[:, i]
            self.low[i] = max(self.low[i], self._lowest(won, base, u, n))
            self.high[i] = min(self.high[i], self._highest(won, base, u, n))

    def _log_wealth(self, gains: Array, n: Array) -> float:
        """log of the mean over bets of prod (1 + bet gain)^n."""
        logs = n @ np.log1p(gains[:, None] * self._bets) + self._log_share
        top = float(logs.max())
        return top + math.log(float(np.exp(logs - top).sum()))

    def _lowest(self, won: Array, base: Array, u: Array, n: Array) -> float:
        """The largest r that K excludes; 0 if none is."""

        def excluded(r: float) -> bool:
            gains = u * (won / r - base)
            return self._log_wealth(gains, n) >= self._enough

        return _bisect(excluded) if (won > 0).any() else 0.0

    def _highest(self, won: Array, base: Array, u: Array, n: Array) -> float:
        """The smallest r that K' excludes; inf if none is."""

        def excluded(inverse: float) -> bool:
            gains = u * (base / inverse - won)
            return self._log_wealth(gains, n) >= self._enough

        inverse = _bisect(excluded) if (base > 0).any() else 0.0
        return 1 / inverse if inverse else math.inf


def _mixture(heaviest: float) -> tuple[Array, Array]:
    """Bets (bets,), twice as large from one to the next, and the log of their weights."""
    best = min(MOST_BET, heaviest)
    octaves = np.arange(-2.0, math.floor(math.log2(MOST_BET / best)) + 1)
    shares = np.where(octaves >= 0, 0.5**octaves, 0.25**-octaves)
    return best * 2.0**octaves, np.log(shares / shares.sum())


def _bisect(excluded: Callable[[float], bool]) -> float:
    """The largest r in [1 / _WIDEST, _WIDEST] that is excluded, from beneath; 0 if none is."""
    low, high = -math.log(_WIDEST), math.log(_WIDEST)
    if not excluded(math.exp(low)):
        return 0.0
    if excluded(math.exp(high)):
        return _WIDEST
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if excluded(math.exp(middle)):
            low = middle
        else:
            high = middle
    return math.exp(low)
