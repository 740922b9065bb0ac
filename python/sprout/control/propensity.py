# SPDX-License-Identifier: Apache-2.0
"""How likely a request was to get each level, from the policy that drew it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from sprout.v1 import control_pb2 as pb

OPTED_OUT = "tenant opted out"  # as Mix.basis has it

Shares = tuple[float, ...]


@dataclass(frozen=True)
class Served:
    """(levels,) probabilities over all arms that chance decides, by the mix of a request.

    The control group is drawn first, then the canary, then the level, so L0 is also what those get
    who are in neither. The draw does not look at the prompt: one row holds for all requests that
    have a mix in common. Those of a mix with prices may be drawn to have their level chosen by what
    they ask, which no chance decides: their row adds up to less than 1.
    """

    default: Shares
    tenants: Mapping[str, Shares] = field(default_factory=dict)  # those with a mix of their own
    tasks: Mapping[str, Shares] = field(default_factory=dict)
    opted_out: frozenset[str] = frozenset()  # tenants: nothing was drawn for them

    def of(self, tenant: str, task: str) -> Shares:
        """A tenant's mix stands above a class's."""
        return self.tenants.get(tenant) or self.tasks.get(task) or self.default


def served(message: bytes) -> Served | None:
    """Of a sprout.v1.Policy; None: no policy can be read."""
    try:
        policy = pb.Policy.FromString(message)
    except DecodeError:
        return None
    if not policy.shares:
        return None
    if policy.paused:
        l0 = (1.0, *(0.0 for _ in policy.shares[1:]))
        return Served(l0, opted_out=opted_out(policy))
    drawn = (1 - policy.control_share) * policy.canary_share
    by_mix = 1 - policy.prompt.share  # 0 where it is unset

    def over_arms(mix: Sequence[pb.LevelShare], part: float) -> Shares:
        shares = [drawn * part * share.share for share in mix]
        return (shares[0] + 1 - drawn, *shares[1:])

    def of_mix(mix: pb.Mix) -> Shares:
        return over_arms(mix.shares, by_mix if mix.HasField("prompt") else 1.0)

    return Served(
        over_arms(policy.shares, by_mix),
        {m.tenant: of_mix(m) for m in policy.mixes if m.tenant and m.shares},
        {m.task: of_mix(m) for m in policy.mixes if not m.tenant and m.task and m.shares},
        opted_out(policy),
    )


def opted_out(policy: pb.Policy) -> frozenset[str]:
    """Tenants that a policy leaves at L0 because they want no part in it."""
    return frozenset(m.tenant for m in policy.mixes if m.basis == OPTED_OUT)
