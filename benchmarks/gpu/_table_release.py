# SPDX-License-Identifier: Apache-2.0
"""Tables of `release.py`. A: both GPUs serve L0. B: one serves all under the policy."""

import math
from collections.abc import Sequence
from typing import Any

from _arms import PROMPT
from _figures import mean, percentile, saved

Found = dict[str, Any]


def release(found: Found) -> str:
    from table import markdown, share  # noqa: PLC0415  # which imports this one

    both, one = halves(found["blocks"])
    if not both:
        return "### Release\n\nNo pair of blocks is whole."
    rows = []
    for label, basis, watts in variants(both, one, found["bare_watts"]):
        base = [sum(b["joules"]) / b["seconds"] for b in both]
        rows.append((label, basis, f"{mean(watts)['mean']:.1f}", share(saved(base, watts))))
    l0, policy = (percentile(_waits(own), 99) for own in (both, one))
    kept = "not known" if None in (l0, policy) else "kept" if policy <= l0 else "**missed**"
    return (
        f"### Release\n\n{_head(found)}\n\n{_arms(both, one)}\n\nObjective, L0's own 99th "
        f"percentile: {kept}.\n\n{markdown(['the released GPU', 'is', 'W of both', 'saved'], rows)}"
        f"\n\n± are Student's, 95 %, over {len(both)} pairs."
    )


def halves(blocks: Sequence[Found]) -> tuple[list[Found], list[Found]]:
    """(two at L0, one under the policy), pair by pair; pairs that are not whole are left out."""
    whole: dict[int, dict[int, Found]] = {}
    for block in blocks:
        if "joules" in block:
            whole.setdefault(block["pair"], {})[len(block["serving"])] = block
    kept = [whole[pair] for pair in sorted(whole) if len(whole[pair]) == 2]
    return [pair[2] for pair in kept], [pair[1] for pair in kept]


def variants(
    both: Sequence[Found], one: Sequence[Found], bare: Sequence[float] | None
) -> list[tuple[str, str, list[float]]]:
    """(what becomes of the released GPU, measured or derived, watts of both by block)."""
    serving, idle, without = [], [], []
    for block in one:
        (busy,) = block["serving"]
        watts = [joules / block["seconds"] for joules in block["joules"]]
        serving.append(watts[busy])
        idle.append(sum(watts))
        if bare is not None:
            without.append(watts[busy] + bare[1 - busy])
    found = [
        ("both serve L0", "measured", [sum(b["joules"]) / b["seconds"] for b in both]),
        ("idles with its model loaded", "measured", idle),
    ]
    if bare is not None:
        found.append(
            ("idles without a model", "derived: its watts before the engines started", without)
        )
    found.append(
        ("is off, or serves somebody else", "derived: without its measured watts", serving)
    )
    return found


def _head(found: Found) -> str:
    idle = "; ".join(", ".join(f"{w:.0f}" for w in one) for one in found["idle_watts"])
    bare = "not measured" if found["bare_watts"] is None else _list(found["bare_watts"])
    decided, trace = found["decision"], found["trace"]
    mix = ", ".join(f"{name} {share:.0%}" for name, share in decided["shares"].items())
    by_prompt = " / ".join(f"{share:.0%}" for share in decided["prompt_shares"])
    return (
        f"{found['model']}; 2 x {found['gpu']}, driver {found['driver']}, {found['engine']}; "
        f"commit {found['commit']}, seed {found['seed']}. W of each GPU before the engines "
        f"started: {bare}; idle with the model loaded, before and after: {idle}. A GPU carries "
        f"{found['carried_per_s']:.1f} requests/s at L0 ({found['carried_is']}); the traffic is "
        f"{found['per_s']:.1f} requests/s, {found['load']:.0%} of what two carry: {trace['name']} "
        f"from second {trace['start_s']:.0f} on, {trace['speed']:.2f} times as fast. Policy: floor "
        f"{found['floor']:.0%}, expected {decided['blended_preference']:.1%}, "
        f"{found['preference'][PROMPT]:.1%} on all judged prompts that were served from; "
        f"{decided['prompt_share']:.0%} of requests choose by their prompt (expected {by_prompt}), "
        f"the others are drawn from {mix}."
    )


def _arms(both: Sequence[Found], one: Sequence[Found]) -> str:
    from table import markdown, number  # noqa: PLC0415

    rows = []
    for name, own in (("two GPUs, L0", both), ("one GPU, the policy", one)):
        latencies = [s for b in own for s in b["latencies_s"]]
        at_l0 = max(1, sum(b["preferred_at_l0"] for b in own))
        answered = sum(b["answered"] for b in own)
        levels = [sum(b["levels"][i] for b in own) for i in range(len(own[0]["levels"]))]
        rows.append(
            (
                *(name, len(own)),
                f"{mean([_watts(b, True) for b in own])['mean']:.1f}",
                f"{mean([_watts(b, False) for b in own])['mean']:.1f}" if own is one else "",
                f"{sum(sum(b['joules']) for b in own) / max(1, answered):.1f}",
                f"{mean([b['ended_per_s'] for b in own])['mean']:.2f}",
                f"{mean([b['in_flight'] for b in own])['mean']:.1f}",
                number(percentile(latencies, 50), 2),
                number(percentile(latencies, 99), 2),
                " / ".join(f"{n / max(1, answered):.0%}" for n in levels),
                sum(b["failed"] for b in own),
                f"{sum(b['preferred'] for b in own) / at_l0:.1%}",
            )
        )
    columns = ["", "blocks", "W of those that serve", "W of the other", "J/request, both GPUs"]
    columns += ["answers/s", "in flight", "p50 s", "p99 s", "L0 / L1 / L2", "failed"]
    columns += ["preference of what was served"]
    return markdown(columns, rows)


def _waits(blocks: Sequence[Found]) -> list[float]:
    """Seconds of all requests; one that failed is never answered."""
    return [s for b in blocks for s in (*b["latencies_s"], *[math.inf] * b["failed"])]


def _watts(block: Found, serving: bool) -> float:
    own = [j for i, j in enumerate(block["joules"]) if (i in block["serving"]) == serving]
    return float(sum(own)) / float(block["seconds"])


def _list(watts: Sequence[float]) -> str:
    return ", ".join(f"{w:.0f}" for w in watts)
