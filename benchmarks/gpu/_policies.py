# SPDX-License-Identifier: Apache-2.0
"""What is in force on a stack, as an operator puts it in force: by the control plane's own calls.

The control plane decides: the published program's mix, and beside it the levels by prompt. Its
floor is set by xi (`SETTINGS` leaves no range to place an intensity in, so the floor is 1 - xi),
its intensity by an override. The mix alone is had by pinning what the control plane solved.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from _arms import L0, PROMPT

from sprout import policy_version
from sprout.config import Config
from sprout.console import operator
from sprout.control.plan import PromptPoint
from sprout.v1 import control_pb2 as pb

TTL_S = 3600.0
IN_FORCE_S = 30.0  # that a policy may take to reach the node
REASON = "benchmark"


def settings(predictor: Path) -> dict[str, Any]:
    """Of the control plane, for `Live`. No control group, no exploration: an arm is one thing. The
    priors are kept (as many outcomes as there never are), so that every block of an hour has the
    policy that its first one had."""
    return {
        "request__pack": "paper",
        "control__prompt__predictor": str(predictor),
        "control__range_min_hours": 1e9,
        "control__range_fraction": 1.0,
        "control__control_share": 0.0,
        "control__exploration_share": 0.0,
        "control__confidence": 0.5,
        "control__min_outcomes": 10**9,
        "control__guard__enabled": False,
        "control__interval_s": 1.0,
        "agent__report_interval_s": 0.2,  # how soon the node's board is seen here
    }


@dataclass(frozen=True)
class Decision:
    """What the control plane made of an intensity and a floor."""

    shares: dict[str, float]  # the published program's mix
    mix_preference: float  # q.x / q0, expected
    prompt_preference: float  # of those whose prompt chooses, as predicted or as judged if less
    prompt_share: float  # of the requests; the others are drawn from the mix
    prompt_shares: list[float]  # (L,) expected of them
    g_per_joule: list[float]  # (L,) of the rule that they choose by …
    points: list[PromptPoint]  # … and its prices
    g_per_kwh: float

    @property
    def blended_preference(self) -> float:
        """Of all requests under the policy with its part for prompts."""
        return self.blend(self.prompt_preference, self.mix_preference)

    def blend(self, prompt: float, mix: float) -> float:
        return self.prompt_share * prompt + (1 - self.prompt_share) * mix

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "blended_preference": self.blended_preference}


def decision(policy: pb.Policy) -> Decision:
    """SystemExit where it is none that levels are chosen by: then there is nothing to measure."""
    if not policy.HasField("prompt"):
        why = policy.explanation.no_prompt or "; ".join(policy.explanation.degraded)
        raise SystemExit(f"no level is chosen by its prompt: {why}")
    if not policy.intensity.override:
        raise SystemExit("the policy is not decided on the hour's intensity")
    prompt = policy.prompt
    return Decision(
        shares={share.level: share.share for share in policy.shares},
        mix_preference=policy.explanation.expected_preference,
        prompt_preference=prompt.expected_preference,
        prompt_share=prompt.share,
        prompt_shares=list(prompt.expected_shares),
        g_per_joule=list(prompt.g_per_joule),
        points=[PromptPoint(p.fraction, p.g_per_preference, tuple(p.g)) for p in prompt.points],
        g_per_kwh=policy.intensity.g_per_kwh,
    )


class Policies:
    def __init__(self, cfg: Config) -> None:
        self._cfg = cfg

    def decide(self, g_per_kwh: float, floor: float) -> Decision:
        operator.override(self._cfg, g_per_kwh, TTL_S)
        operator.set_objective(self._cfg, {"xi": 1 - floor}, reset=False, reason=REASON)
        return decision(operator.unpin(self._cfg))

    def apply(self, arm: str, decided: Decision) -> int:
        """Puts an arm in force on the node and returns its policy's version."""
        if arm == PROMPT:
            policy = operator.unpin(self._cfg)
            decision(policy)
        else:
            shares = {"L0": 1.0} if arm == L0 else decided.shares
            policy = operator.pin(self._cfg, shares, TTL_S, REASON)
        self._await(policy_version.version(policy))
        return policy_version.version(policy)

    def _await(self, version: int) -> None:
        """Until every node has it on its board, prices and weights too."""
        deadline = time.monotonic() + IN_FORCE_S
        while True:
            nodes = operator.status(self._cfg).nodes
            if nodes and all(n.policy_version >= version and not n.policy_error for n in nodes):
                return
            if time.monotonic() > deadline:
                said = "; ".join(n.policy_error or f"has {n.policy_version}" for n in nodes)
                raise SystemExit(f"policy {version} is not in force: {said or 'no node'}")
            time.sleep(0.05)
