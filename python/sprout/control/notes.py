# SPDX-License-Identifier: Apache-2.0
"""What of a stored policy a comparison needs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sprout.carbon.intensity import Series
from sprout.control.propensity import opted_out
from sprout.policy_version import version
from sprout.v1 import control_pb2 as pb

_FACTORS = {pb.FACTOR_TYPE_DIRECT: "direct", pb.FACTOR_TYPE_LIFECYCLE: "lifecycle"}
_SIGNALS = {pb.SIGNAL_AVERAGE: "average", pb.SIGNAL_MARGINAL: "marginal"}


@dataclass(frozen=True)
class Note:
    version: int
    epoch: int
    issued_at: float  # seconds since 1970
    standing: str  # "policy": its decision was applied; else "block", "shadow" or "paused"
    block: str  # of a switchback; "" = none
    series: Series | None  # None: no intensity was known
    g_per_kwh: float | None
    intensity_estimated: bool
    overridden: bool  # an operator set the intensity
    control_share: float
    canary_share: float
    pue: float
    embodied_g_per_s: float
    levels: tuple[str, ...]
    shares: tuple[float, ...]
    would_be: tuple[float, ...]
    expected_g: float
    expected_l0_g: float
    opted_out: frozenset[str] = frozenset()  # tenants that get L0 and have no part in it
    prompt_share: float = 0.0  # of those whose mix has prices: have a level by what they ask
    prompt_preference: float = 0.0  # what that is expected to be worth, q.x / q0
    # The same of tenants and task classes with a mix of their own; None: it has no prices.
    own: Mapping[tuple[str, str], float | None] = field(default_factory=dict)

    def preference_by_prompt(self, tenant: str, task: str) -> float | None:
        """q.x / q0 expected of those of these names that have a level by what they ask; None: none
        has. A tenant's mix stands above a class's."""
        for key in ((tenant, ""), ("", task)):
            if key in self.own:
                return self.own[key]
        return self.prompt_preference if self.prompt_share > 0 else None

    @property
    def zone(self) -> str:
        return self.series[0] if self.series else "unknown"

    @property
    def control_probability(self) -> float:
        """That a request is drawn into the control group."""
        return self.control_share

    @property
    def policy_probability(self) -> float:
        """That a request gets a level drawn from the shares."""
        return (1 - self.control_share) * self.canary_share


def note(message: bytes) -> Note:
    """Of a sprout.v1.Policy."""
    policy = pb.Policy.FromString(message)
    why, k = policy.explanation, policy.intensity
    known = policy.HasField("intensity")
    held = why.active_constraint if why.active_constraint in ("block", "shadow") else "policy"
    series: Series | None = None
    if known:
        factor = _FACTORS.get(k.factor_type, "unspecified")
        series = (k.zone, k.source, factor, _SIGNALS.get(k.signal, "unspecified"))  # type: ignore[assignment]
    return Note(
        version=version(policy),
        epoch=policy.epoch,
        issued_at=policy.issued_at.seconds + policy.issued_at.nanos / 1e9,
        standing="paused" if policy.paused else held,
        block=why.block,
        series=series,
        g_per_kwh=k.g_per_kwh if known else None,
        intensity_estimated=k.estimated,
        overridden=k.override,
        control_share=policy.control_share,
        canary_share=policy.canary_share,
        pue=policy.pue,
        embodied_g_per_s=policy.embodied_g_per_s,
        levels=tuple(s.level for s in policy.shares),
        shares=tuple(s.share for s in policy.shares),
        would_be=tuple(s.share for s in why.would_be),
        expected_g=why.expected_g_per_request,
        expected_l0_g=why.expected_l0_g_per_request,
        opted_out=opted_out(policy),
        prompt_share=policy.prompt.share,
        prompt_preference=policy.prompt.expected_preference,
        own={
            (m.tenant, m.task): m.prompt.expected_preference if m.HasField("prompt") else None
            for m in policy.mixes
        },
    )


def notes(messages: Iterable[bytes]) -> dict[int, Note]:
    """By version."""
    return {made.version: made for made in map(note, messages)}
