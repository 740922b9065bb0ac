# SPDX-License-Identifier: Apache-2.0
"""Tables of `live.py`'s parts: receipts, overhead, prefix."""

from collections import defaultdict
from typing import Any

from _figures import mean, saved

Found = dict[str, Any]


def receipts(found: Found) -> str:
    """Differences are to the counter, read apart from the agent."""
    from table import markdown, number  # noqa: PLC0415  # which imports this one

    rows, apart = [], []
    for cell in found.get("cells", ()):
        counter, own, settled = cell["counter_joules"], cell["receipts"], cell["outcomes"]
        rows.append(
            (
                *(cell["concurrency"], own["requests"], f"{cell['seconds']:.1f}"),
                f"{counter:.0f}",
                f"{own['joules']:.0f}",
                f"{own['joules'] / counter - 1:+.2%}",
                f"{settled['joules']:.0f}",
                f"{settled['joules'] / counter - 1:+.2%}",
                sum(cell["errors"].values()),
                *(number(s, 2) for s in cell["latency_s"]),
            )
        )
        agent = cell["agent"]
        both = agent["settled_joules"] + agent["idle_joules"]
        apart.append(
            (
                *(cell["concurrency"], f"{agent['seconds']:.1f}", f"{agent['counter_joules']:.0f}"),
                f"{agent['metered_joules'] / agent['counter_joules'] - 1:+.2%}",
                f"{agent['settled_joules']:.0f}",
                f"{agent['idle_joules']:.0f}",
                f"{both / agent['metered_joules'] - 1:+.2%}",
            )
        )
    columns = ["in flight", "requests", "busy s", "counter J", "receipts J", "off", "outcomes J"]
    columns += ["off", "failed", "p50 s", "p99 s"]
    totals = ["in flight", "s, idle to idle", "counter J", "agent's meter off"]
    totals += ["settled J", "idle J", "their sum off the meter"]
    return (
        f"### Receipts\n\n{head(found)}\n\n{markdown(columns, rows)}\n\n"
        f"The agent's totals:\n\n{markdown(totals, apart)}"
    )


def overhead(found: Found) -> str:
    from table import markdown, number  # noqa: PLC0415

    rows = []
    for case in found.get("ratios", ()):
        rate, span = case["requests_per_s"], case["throughput_ratio_range"]
        rows.append(
            (
                *(case["concurrency"], "parts" if case["stream"] else "whole"),
                *(case["rounds"], case["requests"]),
                *(f"{rate[model]:.2f}" for model in ("baseline", "ensemble")),
                f"{case['throughput_ratio']:.3f} ({span[0]:.3f} to {span[1]:.3f})",
                *(number(ms, 0) for ms in case["p50_ms"]),
                number(case["p50_ratio"], 3),
                *(number(ms, 0) for ms in case["p99_ms"]),
                number(case["p99_ratio"], 3),
            )
        )
    columns = ["in flight", "answers in", "rounds", "requests", "requests/s baseline", "ensemble"]
    columns += ["ratio (range)", "p50 ms baseline", "ensemble", "ratio"]
    columns += ["p99 ms baseline", "ensemble", "ratio"]
    intervals = [
        (
            sending(row),
            *(number(row[name], 0) for name in ("tokens_per_s", "chunks_per_s", "p50_ms")),
        )
        for row in found.get("intervals", ())
    ]
    without = number(found.get("alone_tokens_per_s"), 0)
    intervals.append(("none: the engine's own API, whole", without, "-", "-"))
    most = ", ".join(f"{rate:.0f}" for rate in found.get("ceiling_chunks_per_s", ()))
    failures = "".join(f"\n- failed: {said[:200]}" for said in found.get("failures", ()))
    return (
        f"### Overhead\n\n{head(found)} {found.get('prompt_tokens')} tokens in, "
        f"{found.get('output_tokens')} out.\n\n{markdown(columns, rows)}\n\n128 in flight:\n\n"
        + markdown(["chunk interval", "tokens/s", "chunks/s", "p50 ms"], intervals)
        + f"\n\nPostprocessing, one instance, one token a chunk, an engine that costs nothing: "
        f"{most or '-'} chunks/s on {found['machine']}.{failures}"
    )


def sending(row: Found) -> str:
    """How often streams send; results from before there was a budget have none."""
    if row["interval_ms"] is None:
        return "whole"
    budget = row.get("budget_chunks_per_s")
    return f"{row['interval_ms']:g} ms" + (f", {budget:g} chunks/s at most" if budget else "")


def prefix(found: Found) -> str:
    from table import interval, markdown, share  # noqa: PLC0415

    by: dict[tuple[int, int, int], dict[bool, list[Found]]] = defaultdict(
        lambda: {True: [], False: []}
    )
    for cell in found.get("cells", ()):
        by[cell["system_tokens"], cell["level"], cell["tail_tokens"]][cell["shared"]].append(cell)
    rows = []
    for (system, level, tail), both in sorted(by.items()):
        fresh, kept = (
            [c["joules_per_request"] for c in sorted(both[which], key=lambda c: c["round"])]
            for which in (False, True)
        )
        if not fresh or len(fresh) != len(kept):
            continue
        rows.append(
            (
                *(f"L{level}", system or "", both[True][0]["prefix_tokens"], tail),
                interval(mean(fresh)),
                interval(mean(kept)),
                share(saved(fresh, kept)),
                cached(both[True]),
                cached(both[False]),
            )
        )
    columns = ["level", "system tokens before", "beginning, tokens", "tokens behind"]
    columns += ["J/request, none alike", "alike", "saved", "read from the cache, alike", "none"]
    return (
        f"### Reuse of directive prefixes\n\n{head(found)} Answers of one token, "
        f"{found.get('in_flight')} in flight.\n\n{markdown(columns, rows)}"
    )


def cached(cells: list[Found]) -> str:
    shares = [c["from_cache"] for c in cells if c["from_cache"] is not None]
    return f"{sum(shares) / len(shares):.1%}" if shares else "not told"


def head(found: Found) -> str:
    words = found.get("vocabulary")
    return (
        f"{found['model']}{f', vocabulary of {words:,}' if words else ''}; {found['gpu']}, driver "
        f"{found['driver']}, engine {found['engine']}, {found['slots']} at once; "
        f"{found['machine']}; commit {found['commit']}, seed {found['seed']}."
        + (f" **Broken off: {found['failed']}.**" if "failed" in found else "")
    )


LIVE = {"receipts": receipts, "overhead": overhead, "prefix": prefix}
