# SPDX-License-Identifier: Apache-2.0
"""e and p of a level from its newest outcomes: decayed, outlier-proof, and weighted so that a
policy can't confirm itself.

*Decay.* An outcome weighs 2^(-a / half-life), a = how many outcomes of *all* levels came after it.
Counted over all levels, every level speaks of the same stretch of traffic, whatever its share; and
counted in outcomes, a quiet night takes nothing away. A level that gets no traffic keeps what it
has; its age says so.

*Propensity.* A policy that sends long prompts to L0 and short ones to L2 would see L2 cheaper than
it is. So an outcome weighs 1 / (the probability that a request like it gets its level, over all
arms, under the policy that drew it): the self-normalised (Hajek) estimate of what the level would
cost on *all* traffic. Where levels are drawn without a look at the prompt these weights only even
out policies of different shares. Probabilities under `LEAST_PROPENSITY` count as that: up to 100
times the weight and no more, which leans such a level towards the prompts that it usually gets.

*Outliers.* Joules and seconds are winsorised from above on the log scale: values over
median * exp(3 sigma), sigma = 1.4826 * MAD of the logs, and in no case under 10 times the median,
count as that limit. The mean is wanted, not the median (the LP adds energies up), so a long tail
must stay. Bias of the mean, 400 samples of 1,000 (`tests/unit/test_profile_live.py` repeats it):
lognormal of sigma 0.3 / 0.7 / 1: 0.0 / -0.1 / -0.7 %, two humps 1 : 7.4: -1.0 %; with one value in
1,000 a thousand times too large +0.9 / +0.7 / +0.2 / -0.7 %, where the plain mean is 100 % off.
Huber's location on the raw scale is -2 to -55 % off on the clean ones, being no mean. Noughts stay
(a meter with coarse steps gives them, and a neighbour their joules).

*Unmetered.* A gap in the meter meets long answers more often than short ones: the mean of those
that it spared is too low, and more so for a level of long answers (one missed reading a minute: a
saving of 60 % looks like 44 %). So p and tokens are means of all, and e is the joules
per active second of the metered times the active seconds of all. Joules are shared by active
second, at one rate for all that are active at a time: that rate does not go with the length.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sprout.profile.levels import NOTHING, Measured

Floats = NDArray[np.float64]

# An explored level's hundredth of the tenth that is drawn where prompts choose is 0.00098.
LEAST_PROPENSITY = 0.0005
WINSOR_SIGMAS = 3.0
LEAST_LIMIT = 10.0  # times the median
MAD_TO_SIGMA = 1.4826  # of a normal distribution


@dataclass(frozen=True)
class Samples:
    """The newest eligible outcomes of one level; columns (n,)."""

    age_outcomes: Floats  # how many outcomes, of all levels, came later
    energy_joules: Floats  # anything where they were not metered
    device_seconds: Floats
    input_tokens: Floats
    output_tokens: Floats
    propensity: Floats  # nan: not known
    metered: NDArray[np.bool_]
    energy_estimated: bool  # any of them
    age_s: float  # of the newest that was metered


def estimate(samples: Samples, *, half_life_outcomes: float) -> Measured:
    """Weighted means, their standard errors, and how much stands behind them."""
    n = int(samples.metered.sum())
    if n == 0:
        return NOTHING
    weights = _weights(samples, half_life_outcomes)
    active = winsorised(samples.device_seconds, weights)
    seconds, seconds_se = _mean(active, weights)
    joules, joules_se = _energy(samples, active, weights)
    return Measured(
        outcomes=n,
        energy_joules=joules,
        device_seconds=seconds,
        output_tokens=_mean(samples.output_tokens, weights)[0],
        energy_estimated=samples.energy_estimated,
        input_tokens=_mean(samples.input_tokens, weights)[0],
        effective_outcomes=effective(weights[samples.metered]),
        energy_se_joules=joules_se,
        device_se_s=seconds_se,
        age_s=samples.age_s,
    )


def _energy(samples: Samples, active: Floats, weights: Floats) -> tuple[float, float | None]:
    """Mean joules of all and its standard error (linearised). active: (n,) seconds."""
    metered, known = samples.metered, weights[samples.metered]
    joules = winsorised(samples.energy_joules[metered], known)
    mean, se = _mean(joules, known)
    seconds = float(known @ active[metered])
    if metered.all() or seconds <= 0:
        return mean, se
    watts = float(known @ joules) / seconds
    mean_s = float(weights @ active / weights.sum())
    moves = weights * watts * (active - mean_s) / weights.sum()
    moves[metered] += known * (joules - watts * active[metered]) * mean_s / seconds
    n = effective(known)
    spread = float(np.square(moves).sum())
    return watts * mean_s, math.sqrt(spread * n / (n - 1)) if n > 1 + 1e-9 else None


def winsorised(values: Floats, weights: Floats) -> Floats:
    """The values, none above the limit that the module's text gives; noughts set no limit."""
    positive = values > 0
    if not positive.any():
        return values
    logs, w = np.log(values[positive]), weights[positive]
    middle = _median(logs, w)
    sigma = MAD_TO_SIGMA * _median(np.abs(logs - middle), w)
    limit = math.exp(middle + max(WINSOR_SIGMAS * sigma, math.log(LEAST_LIMIT)))
    return np.minimum(values, limit)


def effective(weights: Floats) -> float:
    """Kish's effective sample size."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


def _weights(samples: Samples, half_life_outcomes: float) -> Floats:
    """(n,) positive; their scale means nothing."""
    decay = np.exp2(-(samples.age_outcomes - samples.age_outcomes.min()) / half_life_outcomes)
    inverse = 1 / np.maximum(samples.propensity, LEAST_PROPENSITY)
    known = np.isfinite(inverse)
    # Of a policy that can't be read any more: as its level's others are.
    inverse[~known] = inverse[known].mean() if known.any() else 1.0
    result: Floats = decay * inverse
    return result


def _mean(values: Floats, weights: Floats) -> tuple[float, float | None]:
    """Self-normalised mean and its standard error (linearised); None for a single value."""
    total = weights.sum()
    mean = float(weights @ values / total)
    n = effective(weights)
    if n <= 1 + 1e-9:
        return mean, None
    variance = float(np.square(weights * (values - mean)).sum()) / total**2
    return mean, math.sqrt(variance * n / (n - 1))


def _median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])
