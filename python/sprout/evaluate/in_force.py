# SPDX-License-Identifier: Apache-2.0
"""What the policy in force says of carbon."""

from sprout.profile import cost
from sprout.v1 import control_pb2 as pb


def intensity(policy: pb.Policy) -> float | None:
    """g/kWh; None: not known."""
    return policy.intensity.g_per_kwh if policy.HasField("intensity") else None


def grams(policy: pb.Policy, intensity_g_per_kwh: float) -> list[float]:
    """(levels,) per request at an intensity, as receipts count them."""
    return cost.grams(
        policy.explanation.profile,
        intensity_g_per_kwh=intensity_g_per_kwh,
        pue=policy.pue,
        embodied_g_per_s=policy.embodied_g_per_s,
    )
