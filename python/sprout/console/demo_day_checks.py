# SPDX-License-Identifier: Apache-2.0
"""Whether the day really happened and the mix really followed the grid."""

import math
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from sprout.console import demo_checks
from sprout.console.demo_checks import Check
from sprout.console.demo_day_result import HOURS, Day, Served, weighted_mix

MIN_VERSIONS = 4  # policies seen in receipts
MIN_HOURS = 20  # of 24, in which the policy was made on that hour's own intensity
MIN_HELD_OUT = 3
THIRD = HOURS // 3


def examine(day: Day) -> list[Check]:
    """Every check."""
    requests = day.warm_up + len(day.served)
    return [
        *_answers(day),
        *_receipts(day),
        *_policy(day),
        *demo_checks.books(day.status, requests),
        *demo_checks.end(day.exit_status, day.left_behind),
    ]


def _answers(day: Day) -> Iterator[Check]:
    failed = [s.error for s in day.served if s.error]
    count = len(day.served)
    yield Check("no request failed", count > 0 and not failed, "; ".join(failed[:3]))
    bare = [
        s.prompt
        for s in day.served
        if not s.error
        and not (
            s.answer.text.strip() and s.joules > 0 and s.carbon_g > 0 and s.answer.output_tokens > 0
        )
    ]
    yield Check("every answer has text, joules, grams and tokens", not bare, ", ".join(bare))
    held = day.held_out()
    at_l0 = len(held) >= MIN_HELD_OUT and all(s.level == 0 for s in held)
    yield Check("enough requests were held out, all at L0", at_l0, f"{len(held)} of {count}")


def _receipts(day: Day) -> Iterator[Check]:
    own = day.under_policy()
    seen = {s.answer.receipt.policy_version for s in own if s.answer.receipt}
    yield Check(
        "receipts name several policies", len(seen) >= MIN_VERSIONS, f"{len(seen)} versions"
    )
    wrong = [s for s in own if not _fits(day, s)]
    yield Check(
        "each receipt names a published policy, its intensity and a level that it serves",
        bool(own) and not wrong,
        f"{len(wrong)} of {len(own)} do not",
    )
    inside = {round(v.g_per_kwh, 2) for v in day.trace}
    strange = [s.g_per_kwh for s in own if not _near(s.g_per_kwh, inside)]
    yield Check("every intensity in a receipt is one of the trace", not strange, f"{strange[:3]}")


def _fits(day: Day, served: Served) -> bool:
    receipt = served.answer.receipt
    policy = day.policies.get(receipt.policy_version) if receipt else None
    if receipt is None or policy is None or not 0 <= served.level < len(day.levels):
        return False
    share = {s.level: s.share for s in policy.shares}.get(day.levels[served.level], 0.0)
    priced = math.isclose(receipt.intensity_g_per_kwh, policy.intensity.g_per_kwh, rel_tol=1e-3)
    return share > 0 and priced


def _near(value: float, values: set[float]) -> bool:
    return any(math.isclose(value, other, rel_tol=1e-3, abs_tol=0.01) for other in values)


def _policy(day: Day) -> Iterator[Check]:
    steps, grid = day.steps(), day.grid_values()
    hours = [day.first_hour + timedelta(hours=h) for h in range(HOURS)]
    true = {h: [g for time, g in grid if time <= h][-1:] for h in hours}
    kept = [
        any(
            s.begin < h + timedelta(hours=1) and s.end > h and _near(s.g_per_kwh, set(true[h]))
            for s in steps
        )
        for h in hours
    ]
    yield Check(
        "the policy followed the grid hour by hour",
        sum(kept) >= MIN_HOURS,
        f"{sum(kept)} of {HOURS} hours",
    )
    if not steps:
        return
    ranked = sorted(hours, key=lambda h: true[h])
    clean, dirty = (_depth_wanted(day, part) for part in (ranked[:THIRD], ranked[-THIRD:]))
    yield Check(
        "policies ask for shorter answers in the dirtiest third of the day than in the cleanest",
        dirty > clean + 0.1,
        f"mean level {clean:.2f} clean, {dirty:.2f} dirty",
    )
    clean, dirty = (_depth_served(day, part) for part in (ranked[:THIRD], ranked[-THIRD:]))
    yield Check(
        "and answers are: mean level served",
        dirty > clean,
        f"{clean:.2f} clean, {dirty:.2f} dirty",
    )


def _depth_wanted(day: Day, hours: Sequence[datetime]) -> float:
    """Mean level (0 = L0) over hours of the trace's clock."""
    steps, depth, count = day.steps(), 0.0, 0
    for hour in sorted(hours):
        mix = weighted_mix(steps, hour, hour + timedelta(hours=1))
        if mix:
            depth += sum(level * share for level, share in enumerate(mix))
            count += 1
    return depth / count if count else math.nan


def _depth_served(day: Day, hours: Sequence[datetime]) -> float:
    chosen = set(hours)
    levels = [
        s.level
        for s in day.under_policy()
        if day.moment(s.sent_s).replace(minute=0, second=0, microsecond=0) in chosen
    ]
    return sum(levels) / len(levels) if levels else math.nan
