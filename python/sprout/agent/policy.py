# SPDX-License-Identifier: Apache-2.0
"""From the control plane's policy to what the board says."""

import math
import time

from sprout.directives import Pack
from sprout.errors import PolicyError
from sprout.policy_version import version
from sprout.units import NS_PER_S
from sprout.v1 import control_pb2 as pb
from sprout_ext.board import BoardPolicy

MAX_LEVELS = 8  # of the board
# A policy outlives its control plane by its time to live at most; more than that is a mistake.
MAX_TTL_S = 7 * 24 * 3600
SUM_TOLERANCE = 1e-6


def boottime_ns() -> int:
    """CLOCK_BOOTTIME: goes on through suspend, and nobody sets it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def board_policy(policy: pb.Policy, pack: Pack, now_ns: int) -> BoardPolicy:
    """What the board gets. PolicyError says why a policy can't be applied.

    pack: the node's. A policy for another one is relayed as it is: the readers see its hash and
    serve L0, counted. now_ns: CLOCK_BOOTTIME at receipt; the policy's own times are not looked at,
    so the two clocks need not agree.
    """
    shares = tuple(share.share for share in policy.shares)
    _check(policy.counter > 0, "has no version")
    _check(1 <= len(shares) <= MAX_LEVELS, f"has {len(shares)} levels, of 1 to {MAX_LEVELS}")
    for name, share in (
        *((share.level, share.share) for share in policy.shares),
        ("control", policy.control_share),
        ("canary", policy.canary_share),
    ):
        _check(0 <= share <= 1, f"share of {name} is {share}, not in 0 to 1")
    _check(abs(sum(shares) - 1) <= SUM_TOLERANCE, f"shares sum to {sum(shares)}, not to 1")
    if policy.pack_hash == pack.hash:
        levels = tuple(share.level for share in policy.shares)
        _check(levels == pack.levels, f"levels {levels} are not pack {pack.name}'s {pack.levels}")
    ttl_s = policy.ttl.seconds + policy.ttl.nanos / NS_PER_S
    _check(0 < ttl_s <= MAX_TTL_S, f"time to live is {ttl_s} s, not in 0 to {MAX_TTL_S}")
    known = policy.HasField("intensity")
    intensity = policy.intensity.g_per_kwh if known else math.nan
    _check(not known or 0 <= intensity < math.inf, f"intensity is {intensity} g/kWh")
    _check(1 <= policy.pue < math.inf, f"PUE is {policy.pue}, not 1 or more")
    _check(
        0 <= policy.embodied_g_per_s < math.inf, f"embodied carbon is {policy.embodied_g_per_s} g/s"
    )
    return BoardPolicy(
        version=version(policy),
        seed=policy.seed,
        pack_hash=policy.pack_hash,
        shares=shares,
        control_share=policy.control_share,
        canary_share=policy.canary_share,
        paused=policy.paused,
        deadline_boottime_ns=now_ns + policy.ttl.ToNanoseconds(),
        intensity_g_per_kwh=intensity,
        pue=policy.pue,
        embodied_g_per_s=policy.embodied_g_per_s,
    )


def _check(right: bool, problem: str) -> None:
    if not right:
        raise PolicyError(problem)
