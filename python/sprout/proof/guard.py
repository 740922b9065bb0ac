# SPDX-License-Identifier: Apache-2.0
"""Whether answers under the policy go wrong more often than at L0, looked at as often as one likes.

Of each arm k of n requests went wrong. Against any fixed pair of rates (p, p0) the likelihood of
what was seen under a Beta(1/2, 1/2) mixture, divided by its likelihood under the pair, is a
martingale with mean 1 (Robbins 1970; Johari et al. 2022, "Always valid inference"). Its minimum
over all pairs with p <= p0 + bound is therefore an e-value of "no worse than the bound": by Ville's
inequality it ever reaches 1 / alpha with a probability of at most alpha, however often one looks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

_PRIOR = 0.5  # Jeffreys'
_STEPS = 60  # of the bisection: below the spacing of floats


@dataclass(frozen=True)
class Tally:
    requests: int
    wrong: int

    def __post_init__(self) -> None:
        if not 0 <= self.wrong <= self.requests:
            raise ValueError(f"{self.wrong} of {self.requests} requests went wrong")

    @property
    def rate(self) -> float:
        """nan of no requests."""
        return self.wrong / self.requests if self.requests else math.nan


@dataclass(frozen=True)
class Verdict:
    kind: str
    policy: Tally
    l0: Tally
    log_evidence: float  # log of the e-value
    worse: bool


def judge(
    tallies: Mapping[str, tuple[Tally, Tally]], *, bound: float, alpha: float
) -> tuple[Verdict, ...]:
    """One verdict per kind on (policy, L0). A false one of any kind: at most `alpha`, ever."""
    if not tallies:
        return ()
    threshold = math.log(len(tallies) / alpha)
    found = []
    for kind, (policy, l0) in tallies.items():
        evidence = log_evidence(policy, l0, bound)
        found.append(Verdict(kind, policy, l0, evidence, evidence >= threshold))
    return tuple(found)


def log_evidence(policy: Tally, l0: Tally, bound: float) -> float:
    """log e-value against "the policy's rate is at most L0's plus `bound`" (0 <= bound < 1)."""
    if not 0 <= bound < 1:
        raise ValueError(f"bound {bound} is not in [0, 1)")
    return _mixture(policy) + _mixture(l0) - _best_of_null(policy, l0, bound)


def _mixture(tally: Tally) -> float:
    """log of the likelihood, averaged over the prior."""
    a, b = tally.wrong + _PRIOR, tally.requests - tally.wrong + _PRIOR
    return _log_beta(a, b) - _log_beta(_PRIOR, _PRIOR)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _best_of_null(policy: Tally, l0: Tally, bound: float) -> float:
    """The largest log-likelihood of a pair of rates that is within the bound."""
    if not (policy.requests and l0.requests) or policy.rate <= l0.rate + bound:
        return _log_likelihood(policy, policy.rate) + _log_likelihood(l0, l0.rate)
    # Else the best pair lies on the edge p = p0 + bound, where the log-likelihood is concave.
    low, high = 0.0, 1.0 - bound
    for _ in range(_STEPS):
        p0 = (low + high) / 2
        if _slope(policy, p0 + bound) + _slope(l0, p0) > 0:
            low = p0
        else:
            high = p0
    p0 = (low + high) / 2
    return _log_likelihood(policy, p0 + bound) + _log_likelihood(l0, p0)


def _log_likelihood(tally: Tally, p: float) -> float:
    return _times_log(tally.wrong, p) + _times_log(tally.requests - tally.wrong, 1 - p)


def _times_log(count: int, p: float) -> float:
    if count == 0:
        return 0.0
    return count * math.log(p) if p > 0 else -math.inf


def _slope(tally: Tally, p: float) -> float:
    """Derivative of the log-likelihood, which falls as p rises."""
    wrong, right = tally.wrong, tally.requests - tally.wrong
    up = 0.0 if wrong == 0 else wrong / p if p > 0 else math.inf
    down = 0.0 if right == 0 else right / (1 - p) if p < 1 else math.inf
    return up - down
