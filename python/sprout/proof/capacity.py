# SPDX-License-Identifier: Apache-2.0
"""What shorter answers free: requests per second at the same latency, replicas that could go.

By Little's law a replica with n requests in flight serves n / (device-seconds per request) requests
a second. Control requests run in the same batches as those under the policy, so the arms' device-
seconds are compared at the same number in flight, hence at the same speed of a token. A fleet that
keeps that number serves 1 / ratio as many requests, or the same ones on ratio as many replicas.

It becomes carbon once it is released: fewer replicas, sleeping or slower ones.
"""

import math
from dataclasses import dataclass

from sprout.proof.attributed import Arm, compare
from sprout.proof.interval import CONFIDENCE, Absent, Interval


@dataclass(frozen=True)
class Freed:
    ratio: Interval  # device-seconds of a request, policy / L0: the share of the fleet still needed
    throughput: Interval  # requests per second at the same latency, policy / L0
    replicas: int  # that there are
    releasable: Interval  # of them; an estimate, not rounded
    releasable_whole: int  # that surely could go, at the interval's confidence; never the last one


def freed(
    policy: Arm, control: Arm, *, replicas: int, confidence: float = CONFIDENCE
) -> Freed | Absent:
    """From device-seconds per request (seconds are known of all) under the policy and at L0."""
    effect = compare(policy, control, confidence)
    if isinstance(effect, Absent):
        return effect
    saved = effect.saved
    ratio = Interval(1 - saved.value, 1 - saved.high, 1 - saved.low, confidence)
    throughput = Interval(1 / ratio.value, 1 / ratio.high, 1 / ratio.low, confidence)
    releasable = saved.times(replicas)
    whole = min(math.floor(releasable.low), replicas - 1)
    return Freed(ratio, throughput, replicas, releasable, max(whole, 0))
