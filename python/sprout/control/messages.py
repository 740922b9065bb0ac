# SPDX-License-Identifier: Apache-2.0
"""Between the control plane's own types and those on the wire."""

import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from sprout.carbon.intensity import Intensity
from sprout.control.objective import Objective
from sprout.control.pin import Pin, Window
from sprout.control.plan import (
    Budget,
    Confidence,
    GroupPlan,
    Plan,
    PromptGroup,
    PromptPlan,
    PromptPoint,
)
from sprout.control.rows import AuditEntry
from sprout.optimize.floor import Range, basis_of_range
from sprout.profile import LevelProfile
from sprout.units import request_g
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


def pin(value: Pin, levels: Sequence[str]) -> pb.Pin:
    until = None if value.until is None else timestamp(value.until)
    shares = zip(levels, value.shares, strict=True)
    return pb.Pin(
        shares=[pb.LevelShare(level=level, share=share) for level, share in shares],
        until=until,
        reason=value.reason,
        by=value.by,
    )


def window(value: Window) -> pb.Window:
    return pb.Window(start=value.start, end=value.end, weekdays=value.weekdays, level=value.level)


def objective(value: Objective) -> pb.Objective:
    return pb.Objective(
        xi=value.xi,
        mode=value.mode,
        control_share=value.control_share,
        canary_share=value.canary_share,
        max_shares=value.max_shares,
        max_increase=value.max_increase,
    )


def audit_entry(number: int, entry: AuditEntry) -> pb.AuditEntry:
    return pb.AuditEntry(
        id=number,
        time=timestamp(entry.time),
        who=entry.who,
        who_basis=entry.who_basis,
        claimed=entry.claimed,
        action=entry.action,
        before_json=entry.before,
        after_json=entry.after,
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
        quality_price_g_per_point=plan.price_g_per_point,
        budget=None if plan.budget is None else pb.Budget(**asdict(plan.budget)),
        confidence=None if plan.confidence is None else pb.Confidence(**asdict(plan.confidence)),
        evaluation=plan.evaluation,
        block=plan.block,
        would_be=[
            pb.LevelShare(level=p.level, share=share)
            for p, share in zip(plan.profile, plan.would_be, strict=False)
        ],
        no_prompt=plan.no_prompt,
    )


def prompt(plan: PromptPlan) -> pb.PromptPolicy:
    return pb.PromptPolicy(
        weights=plan.weights,
        share=plan.share,
        g_per_joule=plan.g_per_joule,
        points=[pb.PricePoint(**asdict(point)) for point in plan.points],
        expected_preference=plan.expected_preference,
        expected_g_per_request=plan.expected_g,
        expected_shares=plan.shares,
        basis=plan.basis,
        least=plan.least,
    )


def _prompt(policy: pb.Policy) -> PromptPlan:
    message = policy.prompt
    return PromptPlan(
        **_priced(message),
        weights=message.weights,
        share=message.share,
        basis=message.basis,
        mix_g=mix_g(policy),
        groups=tuple(
            PromptGroup(tenant=mix.tenant, task=mix.task, **_priced(mix.prompt))
            for mix in policy.mixes
            if mix.HasField("prompt")
        ),
        kept=tuple((mix.tenant, mix.task, mix.no_prompt) for mix in policy.mixes if mix.no_prompt),
    )


def _priced(message: pb.PromptPolicy | pb.PromptPrices) -> dict[str, Any]:
    """What a PromptPlan and a PromptGroup have in common."""
    return {
        "g_per_joule": tuple(message.g_per_joule),
        "points": tuple(
            PromptPoint(p.fraction, p.g_per_preference, tuple(p.g)) for p in message.points
        ),
        "expected_preference": message.expected_preference,
        "expected_g": message.expected_g_per_request,
        "shares": tuple(message.expected_shares),
        "least": message.least,
    }


def mix_g(policy: pb.Policy) -> float:
    """Of a request of the policy's own mix; its explanation has the mean over all mixes."""
    k0 = policy.intensity.g_per_kwh
    return math.fsum(
        s.share
        * request_g(
            p.energy_joules,
            p.device_seconds,
            intensity_g_per_kwh=k0,
            pue=policy.pue,
            embodied_g_per_s=policy.embodied_g_per_s,
        )
        for s, p in zip(policy.shares, policy.explanation.profile, strict=False)
    )


def mix(plan: GroupPlan, levels: Sequence[str], by: PromptPlan | None = None) -> pb.Mix:
    """Of one tenant or class. A number that is not known (nan) stays unset. by: of the policy."""
    priced = None if by is None else by.of(plan.key)
    return pb.Mix(
        tenant=plan.tenant,
        task=plan.task,
        shares=[
            pb.LevelShare(level=level, share=share)
            for level, share in zip(levels, plan.shares, strict=True)
        ],
        minimum=plan.minimum,
        expected_preference=plan.expected_preference,
        expected_g_per_request=_known(plan.expected_g),
        expected_l0_g_per_request=_known(plan.expected_l0_g),
        traffic_share=plan.traffic,
        basis=plan.basis,
        profile=[_profile(p) for p in plan.profile],
        prompt=None if priced is None else _prices(priced),
        no_prompt="" if by is None else by.why_kept(plan.key),
    )


def _prices(plan: PromptGroup) -> pb.PromptPrices:
    return pb.PromptPrices(
        g_per_joule=plan.g_per_joule,
        points=[pb.PricePoint(**asdict(point)) for point in plan.points],
        expected_preference=plan.expected_preference,
        expected_g_per_request=plan.expected_g,
        expected_shares=plan.shares,
        least=plan.least,
    )


def _group(message: pb.Mix, known: bool) -> GroupPlan:
    return GroupPlan(
        tenant=message.tenant,
        task=message.task,
        shares=tuple(s.share for s in message.shares),
        minimum=message.minimum,
        expected_preference=message.expected_preference,
        expected_g=message.expected_g_per_request if known else math.nan,
        expected_l0_g=message.expected_l0_g_per_request if known else math.nan,
        traffic=message.traffic_share,
        basis=message.basis,
        profile=tuple(map(_level, message.profile)),
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
        profile=tuple(map(_level, why.profile)),
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
        block=why.block,
        would_be=tuple(s.share for s in why.would_be),
        price_g_per_point=_set(why, "quality_price_g_per_point"),
        budget=_budget(why.budget) if why.HasField("budget") else None,
        confidence=_confidence(why.confidence) if why.HasField("confidence") else None,
        evaluation=why.evaluation,
        groups=tuple(_group(message, known) for message in policy.mixes),
        prompt=_prompt(policy) if policy.HasField("prompt") else None,
        no_prompt=why.no_prompt,
    )


def _budget(message: pb.Budget) -> Budget:
    return Budget(**{each.name: getattr(message, each.name) for each in fields(Budget)})


def _confidence(message: pb.Confidence) -> Confidence:
    return Confidence(**{each.name: getattr(message, each.name) for each in fields(Confidence)})


def _level(message: pb.LevelProfile) -> LevelProfile:
    return LevelProfile(**{each.name: _set(message, each.name) for each in fields(LevelProfile)})


def _profile(p: LevelProfile) -> pb.LevelProfile:
    return pb.LevelProfile(**asdict(p))


def _set(message: Any, name: str) -> Any:
    """A field of a message; None: it is optional and unset."""
    field = message.DESCRIPTOR.fields_by_name[name]
    return getattr(message, name) if not field.has_presence or message.HasField(name) else None


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value
