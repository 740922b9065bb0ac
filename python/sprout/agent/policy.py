# SPDX-License-Identifier: Apache-2.0
"""From the control plane's policy to what the board says."""

import math
import re
import time
from collections.abc import Sequence

from sprout.directives import Pack
from sprout.errors import PolicyError
from sprout.policy_version import version
from sprout.units import NS_PER_S
from sprout.v1 import control_pb2 as pb
from sprout_ext.board import (
    MAX_MIXES,
    MAX_POINTS,
    NAME_LENGTH,
    BoardMix,
    BoardPoint,
    BoardPolicy,
    BoardPrices,
    BoardPrompt,
)

MAX_LEVELS = 8  # of the board
# A policy outlives its control plane by its time to live at most; more than that is a mistake.
MAX_TTL_S = 7 * 24 * 3600
SUM_TOLERANCE = 1e-6
DIGEST = re.compile(r"[0-9a-f]{64}")


def boottime_ns() -> int:
    """CLOCK_BOOTTIME: goes on through suspend, and nobody sets it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def board_policy(policy: pb.Policy, pack: Pack, now_ns: int) -> BoardPolicy:
    """What the board gets. PolicyError says why a policy can't be applied.

    pack: the node's. A policy for another one is relayed as it is: the readers see its hash and
    serve L0, counted. now_ns: CLOCK_BOOTTIME at receipt; the policy's own times are not looked at,
    so the two clocks need not agree.
    """
    _check(policy.counter > 0, "has no version")
    count = len(policy.shares)
    _check(1 <= count <= MAX_LEVELS, f"has {count} levels, of 1 to {MAX_LEVELS}")
    shares = _shares(policy.shares)
    for name, share in (("control", policy.control_share), ("canary", policy.canary_share)):
        _check(0 <= share <= 1, f"share of {name} is {share}, not in 0 to 1")
    levels = tuple(share.level for share in policy.shares)
    if policy.pack_hash == pack.hash:
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
        mixes=_mixes(policy.mixes, levels),
        prompt=_prompt(policy.prompt, count) if policy.HasField("prompt") else None,
    )


def _shares(given: Sequence[pb.LevelShare], of: str = "") -> tuple[float, ...]:
    for one in given:
        _check(0 <= one.share <= 1, f"{of}share of {one.level} is {one.share}, not in 0 to 1")
    shares = tuple(one.share for one in given)
    _check(abs(sum(shares) - 1) <= SUM_TOLERANCE, f"{of}shares sum to {sum(shares)}, not to 1")
    return shares


def _mixes(given: Sequence[pb.Mix], levels: tuple[str, ...]) -> tuple[BoardMix, ...]:
    """levels: of the policy, and of each of its mixes."""
    _check(len(given) <= MAX_MIXES, f"has {len(given)} mixes, of at most {MAX_MIXES}")
    mixes: dict[tuple[str, str], BoardMix] = {}
    for number, mix in enumerate(given):
        both = f"tenant {mix.tenant!r} and task {mix.task!r}"
        _check(bool(mix.tenant) != bool(mix.task), f"mix {number} is of {both}, not of one of them")
        name = mix.tenant or mix.task
        whose = f"tenant {name!r}" if mix.tenant else f"task {name!r}"
        fits = len(name) <= NAME_LENGTH and name.isascii() and name.isprintable()
        _check(fits, f"{whose} is no name of 1 to {NAME_LENGTH} printable ASCII characters")
        _check((mix.tenant, mix.task) not in mixes, f"has two mixes of {whose}")
        own = tuple(share.level for share in mix.shares)
        _check(own == levels, f"mix of {whose}: levels {own} are not the policy's {levels}")
        shares = _shares(mix.shares, f"mix of {whose}: ")
        prices = None
        if mix.HasField("prompt"):
            prices = BoardPrices(*_prices(mix.prompt, len(levels), f"mix of {whose}: "))
        mixes[mix.tenant, mix.task] = BoardMix(mix.tenant, mix.task, shares, prices)
    return tuple(mixes.values())


def _prompt(given: pb.PromptPolicy, levels: int) -> BoardPrompt:
    """levels: of the policy. Whether the weights that it names can be had is asked later."""
    _check(DIGEST.fullmatch(given.weights) is not None, f"weights {given.weights!r}: no SHA-256")
    _check(0 <= given.share <= 1, f"share by prompt is {given.share}, not in 0 to 1")
    return BoardPrompt(*_prices(given, levels), given.weights, given.share)


def _prices(
    given: pb.PromptPolicy | pb.PromptPrices, levels: int, of: str = ""
) -> tuple[tuple[float, ...], tuple[BoardPoint, ...]]:
    """As `BoardPrices` has them."""
    count = len(given.points)
    _check(1 <= count <= MAX_POINTS, f"{of}has {count} prices, of 1 to {MAX_POINTS}")
    g_per_joule = _grams(given.g_per_joule, f"{of}grams a joule", levels)
    points = []
    for number, point in enumerate(given.points):
        price, name = point.g_per_preference, f"{of}price {number}"
        _check(0 <= price < math.inf, f"{name} is {price} g, not 0 or more")
        _check(0 <= point.fraction <= 1, f"{name}: fraction {point.fraction}, not 0 to 1")
        grams = _grams(point.g, f"{name}: grams", levels)
        points.append(BoardPoint(point.fraction, price, grams))
    total = sum(point.fraction for point in points)
    _check(abs(total - 1) <= SUM_TOLERANCE, f"{of}fractions of prices sum to {total}, not to 1")
    return g_per_joule, tuple(points)


def _grams(given: Sequence[float], what: str, levels: int) -> tuple[float, ...]:
    _check(len(given) == levels, f"{what}: {len(given)} numbers for {levels} levels")
    _check(all(map(math.isfinite, given)), f"{what}: {list(given)}, not all finite")
    return tuple(given)


def _check(right: bool, problem: str) -> None:
    if not right:
        raise PolicyError(problem)
