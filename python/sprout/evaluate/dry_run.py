# SPDX-License-Identifier: Apache-2.0
"""What an evaluation would take if it judged every prompt."""

from dataclasses import dataclass

from sprout.evaluate import in_force
from sprout.evaluate.judges.account import Rates
from sprout.evaluate.judging import Judging
from sprout.evaluate.sample import Sample
from sprout.v1 import control_pb2 as pb


@dataclass(frozen=True)
class Expected:
    prompts: int
    said: str
    requests: int
    joules: float
    joules_basis: str
    energy_estimated: bool
    carbon_g: float | None  # at the present intensity; None: not known
    seconds: float  # on the device
    judge: str
    judge_calls: int  # at most: what is cached or alike is not asked
    judge_tokens: int
    judge_joules: float | None
    judge_price: float | None


def expected(
    policy: pb.Policy, levels: int, sample: Sample, judge: Judging, rates: Rates
) -> Expected:
    """From e and p of the policy in force; nothing is asked."""
    profile = policy.explanation.profile
    n, k0 = len(sample.questions), in_force.intensity(policy)
    # Of one prompt: calls, and answers shown in each.
    asked, shown = {
        "pairwise": (2 * (levels - 1), 2),
        "choice": (1, levels),
        "exact": (0, 0),
    }[judge.method]
    calls = asked * n
    mean = [p.mean_input_tokens + p.mean_output_tokens for p in profile]
    tokens = round(calls * shown * sum(mean) / len(mean)) if mean else 0
    price = tokens / 1000 * rates.price_per_1k_input
    return Expected(
        prompts=n,
        said=sample.said,
        requests=n * levels,
        joules=n * sum(level.energy_joules for level in profile),
        joules_basis=", ".join(dict.fromkeys(p.energy_basis for p in profile)),
        energy_estimated=any(p.energy_estimated for p in profile),
        carbon_g=None if k0 is None else n * sum(in_force.grams(policy, k0)),
        seconds=n * sum(level.device_seconds for level in profile),
        judge=judge.name,
        judge_calls=calls,
        judge_tokens=tokens,
        judge_joules=tokens * rates.joules_per_token if rates.joules_per_token else None,
        judge_price=price if rates.price_per_1k_input else None,
    )
