# SPDX-License-Identifier: Apache-2.0
"""bench_ablation's figures as tables in Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

KNOWN = (
    ("none", "nothing: one mix for all"),
    ("classes", "its task: a mix for each"),
    ("text", "its text: a level for each prompt"),
)
GRID = ("mean", "foreseen", "hour by hour")


def spread(values: Sequence[float], form: str = ".1f") -> str:
    centre, low, high = (f"{v:{form}}" for v in values)
    return f"{centre} ({low} … {high})"


def half(values: Sequence[float], form: str = "+.1f") -> str:
    """With half of its interval's width."""
    return f"{values[0]:{form}} ± {(values[2] - values[1]) / 2:{form.lstrip('+')}}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def show(found: dict[str, Any]) -> str:
    held = found["held_out"]
    lines = [
        f"commit {found['commit']}, {found['seconds']:.0f} s; judged prompts: "
        + ", ".join(f"{count:,} {what}" for what, count in found["judged"].items())
        + (f" (held out, split within {held})" if held else " (cross-fitted)"),
        f"means of {len(found['windows'])} windows; {found['draws']} resamples of prompts",
        "",
    ]
    if "levels" not in found:
        return "\n".join([*lines, *_bank(found)])
    wanted = list(dict.fromkeys(row["preference_pct"] for row in found["levels"]))
    at = {(row["scheme"], row["preference_pct"]): row["saving_pct"] for row in found["levels"]}
    for preference in wanted:
        lines += [f"saving % at {preference:.0f} % realised", ""]
        body = [
            [text, *(spread(at[f"{name}, {grid}", preference]) for grid in GRID)]
            for name, text in KNOWN
        ]
        for name, text in KNOWN[:2]:
            own = [spread(at[f"{name}, {grid}, in hindsight", preference]) for grid in GRID[:2]]
            body.append([f"{text}, in hindsight", *own, "-"])
        lines += table(["known of a request", *(f"grid: {grid}" for grid in GRID)], body)
    body = []
    steps = found["steps"]
    for what in dict.fromkeys(row["what"] for row in steps):
        row = [what]
        for each in (s for s in steps if s["what"] == what):
            row += [spread(each["points"], "+.1f")]
            row += [f"{each['windows_above']} ({each['least']:+.1f} … {each['most']:+.1f})"]
        body.append(row)
    head = ["what it earns, points"]
    for preference in wanted:
        head += [f"at {preference:.0f} %", "windows above 0 (range)"]
    return "\n".join([*lines, *table(head, body), *_bank(found), *_wrong(found["sensitivity"])])


def _bank(found: dict[str, Any]) -> list[str]:
    lines = [f"BANK aimed at 95 %, {found['seeds']} evaluators, gain on static", ""]
    expected, assessed = found["bank"]["expected"], found["bank"]["assessed"]
    rows = []
    for i, window in enumerate(found["windows"]):
        row = [window, f"{expected['saving_pct'][i]:.1f} @ {expected['preference_pct'][i]:.1f}"]
        for each in (expected, assessed):
            own = each["gain_points"][i]
            row.append(f"{sum(own) / len(own):+.1f} ({min(own):+.1f} … {max(own):+.1f})")
        rows.append(row)
    lines += table(["window", "BANK", "gain, expected (seeds)", "gain, as scored (seeds)"], rows)
    for name, each in (("expected", expected), ("as scored", assessed)):
        for days in (1, 5):
            figure = spread(each[f"mean_blocks_of_{days}_days"], "+.2f")
            lines.append(f"mean gain, {name}, blocks of {days} d: {figure}")
    return [*lines, ""]


def _wrong(rows: list[dict[str, Any]]) -> list[str]:
    schemes = list(dict.fromkeys(row["scheme"] for row in rows))
    by: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        by.setdefault((row["group"], row["input"]), {})[row["scheme"]] = row
    lines: list[str] = []
    for group in dict.fromkeys(group for group, _ in by):
        body = []
        for (own, name), of in by.items():
            if own != group:
                continue
            cells = []
            for scheme in schemes:
                each, off = of[scheme], of[scheme]["off_frontier_points"]
                moved = f"{half(each['saving_points'])} @ {half(each['preference_points'])}"
                cells += [moved, "-" if off is None else half(off, "+.2f")]
            body.append([name, *cells])
        head = [group]
        for scheme in schemes:
            head += [f"{scheme}: saving @ preference", "off frontier"]
        lines += table(head, body)
    return lines
