# SPDX-License-Identifier: Apache-2.0
"""Between the control plane's own types and those on the wire."""

import math
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from sprout.carbon.intensity import Intensity
from sprout.control.plan import Plan
from sprout.optimize.floor import Range, basis_of_range
from sprout.profile import LevelProfile
from sprout.v1 import control_pb2 as pb

FACTOR_TYPES = {
    "direct": pb.FACTOR_TYPE_DIRECT,
    "lifecycle": pb.FACTOR_TYPE_LIFECYCLE,
}
SIGNALS = {"average": pb.SIGNAL_AVERAGE, "marginal": pb.SIGNAL_MARGINAL}


def timestamp(seconds: float) -> Timestamp:
    """Of seconds since 1970."""
    stamp = Timestamp()
    stamp.FromDatetime(datetime.fromtimestamp(seconds, UTC))
    return stamp


def duration(seconds: float) -> timedelta:
    """Of seconds, which protobuf takes for a Duration."""
    return timedelta(seconds=seconds)


def intensity(value: Intensity, *, override: bool) -> pb.Intensity:
    return pb.Intensity(
        g_per_kwh=value.g_per_kwh,
        zone=value.zone,
        source=value.source,
        factor_type=FACTOR_TYPES[value.factor_type],
        signal=SIGNALS[value.signal],
        time=value.time,
        estimated=value.estimated,
        override=override,
    )


def explanation(plan: Plan, trigger: str, pause_reason: str) -> pb.Explanation:
    """A number that is not known (nan) stays unset."""
    return pb.Explanation(
        k0_min_g_per_kwh=_known(plan.within.low),
        k0_max_g_per_kwh=_known(plan.within.high),
        range_basis=plan.range_basis,
        xi=plan.xi,
        fraction=plan.fraction,
        floor=plan.floor,
        active_constraint=plan.active_constraint,
        expected_g_per_request=_known(plan.expected_g),
        expected_l0_g_per_request=_known(plan.expected_l0_g),
        expected_preference=plan.expected_preference,
        profile=[_profile(p) for p in plan.profile],
        degraded=list(plan.degraded.values()),
        trigger=trigger,
        pause_reason=pause_reason,
        preference_basis=plan.preference_basis,
    )


def plan_of(policy: pb.Policy) -> Plan:
    """What a policy in force says of itself, for `Plan.lines`."""
    why = policy.explanation
    known = policy.HasField("intensity")
    ranged = why.k0_max_g_per_kwh > 0
    low = why.k0_min_g_per_kwh if ranged else math.nan
    high = why.k0_max_g_per_kwh if ranged else math.nan
    return Plan(
        shares=tuple(s.share for s in policy.shares),
        profile=tuple(
            LevelProfile(
                level=p.level,
                energy_joules=p.energy_joules,
                device_seconds=p.device_seconds,
                preference=p.preference,
                energy_basis=p.energy_basis,
                preference_basis=p.preference_basis,
                outcomes=p.outcomes,
                mean_output_tokens=p.mean_output_tokens,
                energy_estimated=p.energy_estimated,
            )
            for p in why.profile
        ),
        intensity_g_per_kwh=policy.intensity.g_per_kwh if known else None,
        within=Range(low, high, basis_of_range(why.range_basis)),
        range_basis=why.range_basis,
        xi=why.xi,
        fraction=why.fraction,
        floor=why.floor,
        active_constraint=why.active_constraint,
        expected_g=why.expected_g_per_request if known else math.nan,
        expected_l0_g=why.expected_l0_g_per_request if known else math.nan,
        expected_preference=why.expected_preference,
        control_share=policy.control_share,
        canary_share=policy.canary_share,
        degraded={str(i): reason for i, reason in enumerate(why.degraded)},
    )


def _profile(p: LevelProfile) -> pb.LevelProfile:
    return pb.LevelProfile(
        level=p.level,
        energy_joules=p.energy_joules,
        device_seconds=p.device_seconds,
        preference=p.preference,
        energy_basis=p.energy_basis,
        preference_basis=p.preference_basis,
        outcomes=p.outcomes,
        mean_output_tokens=p.mean_output_tokens,
        energy_estimated=p.energy_estimated,
    )


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value
