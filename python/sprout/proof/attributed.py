# SPDX-License-Identifier: Apache-2.0
"""What requests under the policy cost less than the random few that were held at L0.

Every request is drawn into the control group, or under the policy, with probabilities that its
policy states. Where these changed over time, an arm's plain mean would compare busy hours with
quiet ones; so each request counts 1 / (the probability of its arm) (Hájek's estimator). Nothing
else is adjusted, and nothing is left out that the level itself could have caused: a request counts
however it ended.

The figure is *attributed*: receipts share the joules of a batch among the requests in it. A longer
answer beside it costs a short one energy, and a node at equal traffic still idles: at equal traffic
it overstates what the node saves. It is never called carbon saved; see switchback.py for what is.

A meter that stands still is met by long answers more often than by short ones: those that it spared
would make the policy look worse or better than it is. So an arm's mean of what is metered is that
of the known per active second, times the active seconds of all (`Carried`). Joules are shared by
active second, at one rate for all that are active at a time; so the rate does not go with the
length, and seconds are known of all.

The interval of the ratio of means is the delta method's on the log scale with Student's t. It needs
sums alone, so a database can make them; docs/proof.md shows its coverage beside the alternatives.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from sprout.proof.interval import CONFIDENCE, Absent, Interval, saved_of_log_ratio, student_t

# Of each arm, effectively: with so many, 95 % intervals cover 92 to 94 %; see docs/proof.md.
MIN_REQUESTS = 30


@dataclass(frozen=True)
class Group:
    """Plain sums of one quantity over requests that were drawn with one probability."""

    probability: float  # of the arm, 0 < probability <= 1
    requests: int
    total: float
    total_of_squares: float
    # Wanted where some of the arm's are not known.
    seconds: float = 0.0  # that these were active
    squares_of_seconds: float = 0.0  # their sum
    products: float = 0.0  # of the quantity and the seconds of each, their sum


@dataclass(frozen=True)
class Moments:
    """Weighted sums of one quantity x over the requests of an arm."""

    requests: int = 0
    weight: float = 0.0  # Σw
    weight2: float = 0.0  # Σw²
    wx: float = 0.0  # Σwx
    w2x: float = 0.0  # Σw²x
    w2xx: float = 0.0  # Σw²x²
    ws: float = 0.0  # s: active seconds
    w2s: float = 0.0
    w2ss: float = 0.0
    w2xs: float = 0.0

    unmetered = 0  # as in Carried

    @property
    def effective(self) -> float:
        """Requests of equal weight that would tell as much (Kish)."""
        return self.weight**2 / self.weight2 if self.weight2 > 0 else 0.0

    @property
    def mean(self) -> float:
        """nan of nothing."""
        return self.wx / self.weight if self.weight > 0 else math.nan

    @property
    def variance_of_mean(self) -> float:
        """nan of fewer than two effective requests."""
        n = self.effective
        if n <= 1:
            return math.nan
        mean = self.mean
        spread = self.w2xx - 2 * mean * self.w2x + mean**2 * self.weight2
        return max(spread, 0.0) / self.weight**2 * n / (n - 1)


def moments(groups: Iterable[Group]) -> Moments:
    """Of all groups of an arm, each request weighted by 1 / probability."""
    n, weight, weight2, wx, w2x, w2xx = 0, 0.0, 0.0, 0.0, 0.0, 0.0
    ws, w2s, w2ss, w2xs = 0.0, 0.0, 0.0, 0.0
    for group in groups:
        w = 1 / group.probability
        n += group.requests
        weight += w * group.requests
        weight2 += w**2 * group.requests
        wx += w * group.total
        w2x += w**2 * group.total
        w2xx += w**2 * group.total_of_squares
        ws += w * group.seconds
        w2s += w**2 * group.seconds
        w2ss += w**2 * group.squares_of_seconds
        w2xs += w**2 * group.products
    return Moments(n, weight, weight2, wx, w2x, w2xx, ws, w2s, w2ss, w2xs)


@dataclass(frozen=True)
class Carried:
    """An arm not all of whose x are known: x a second of the known, times the seconds of all."""

    known: Moments
    unknown: Moments  # x stands for nothing

    @property
    def requests(self) -> int:
        return self.known.requests + self.unknown.requests

    @property
    def unmetered(self) -> int:
        return self.unknown.requests

    @property
    def effective(self) -> float:
        return self.known.effective

    @property
    def mean(self) -> float:
        return self._rate * self._mean_s

    @property
    def variance_of_mean(self) -> float:
        """Linearised: of Σ w (a x + b s - c) over the known and Σ w (d s - c) over the unknown."""
        n, k, u = self.known.effective, self.known, self.unknown
        if n <= 1 or k.ws <= 0:
            return math.nan
        a = self._mean_s / k.ws
        d = self._rate / (k.weight + u.weight)
        b, c = d - a * self._rate, d * self._mean_s
        spread = (
            a**2 * k.w2xx
            + b**2 * k.w2ss
            + c**2 * (k.weight2 + u.weight2)
            + 2 * (a * b * k.w2xs - a * c * k.w2x - b * c * k.w2s)
            + d**2 * u.w2ss
            - 2 * d * c * u.w2s
        )
        return max(spread, 0.0) * n / (n - 1)

    @property
    def _rate(self) -> float:
        return self.known.wx / self.known.ws if self.known.ws > 0 else math.nan

    @property
    def _mean_s(self) -> float:
        return (self.known.ws + self.unknown.ws) / (self.known.weight + self.unknown.weight)


Arm = Moments | Carried


@dataclass(frozen=True)
class Effect:
    """Per request, in the unit of the quantity."""

    policy_requests: int
    control_requests: int
    policy_unmetered: int  # of them: of these the seconds alone are known
    control_unmetered: int
    policy_mean: float
    control_mean: float
    difference: Interval  # control - policy: what a request costs less
    saved: Interval  # the same as a fraction of the control's mean


def compare(
    policy: Arm,
    control: Arm,
    confidence: float = CONFIDENCE,
    *,
    names: tuple[str, str] = ("under the policy", "in the control group"),
) -> Effect | Absent:
    """The difference of the two arms' means, or the reason why it can't be told. names: of any two
    arms that chance tells apart."""
    for name, arm in zip(names, (policy, control), strict=True):
        if arm.requests == 0:
            return Absent(f"no request {name}")
        if arm.effective < MIN_REQUESTS:
            metered = arm.requests - arm.unmetered
            text = f"{metered} requests {name}{' that were metered' if arm.unmetered else ''}"
            if arm.effective < 0.9 * metered:
                text += f" that tell as much as {arm.effective:.0f} of equal weight"
            return Absent(f"{text}; an interval needs {MIN_REQUESTS}")
        if not arm.mean > 0:  # nor is nan
            return Absent(f"nothing was measured of the requests {name}")
    v_policy, v_control = policy.variance_of_mean, control.variance_of_mean
    m_policy, m_control = policy.mean, control.mean
    log_ratio = math.log(m_policy / m_control)
    half = _half_width(
        (v_policy / m_policy**2, policy.effective),
        (v_control / m_control**2, control.effective),
        confidence,
    )
    half_difference = _half_width(
        (v_policy, policy.effective), (v_control, control.effective), confidence
    )
    difference = m_control - m_policy
    return Effect(
        policy_requests=policy.requests,
        control_requests=control.requests,
        policy_unmetered=policy.unmetered,
        control_unmetered=control.unmetered,
        policy_mean=m_policy,
        control_mean=m_control,
        difference=Interval(
            difference, difference - half_difference, difference + half_difference, confidence
        ),
        saved=saved_of_log_ratio(
            Interval(log_ratio, log_ratio - half, log_ratio + half, confidence)
        ),
    )


def _half_width(a: tuple[float, float], b: tuple[float, float], confidence: float) -> float:
    """Of (variance, effective requests) of two independent means, by Welch and Satterthwaite."""
    variance = a[0] + b[0]
    if variance == 0:
        return 0.0
    degrees = variance**2 / (a[0] ** 2 / (a[1] - 1) + b[0] ** 2 / (b[1] - 1))
    return student_t((1 + confidence) / 2, degrees) * math.sqrt(variance)
