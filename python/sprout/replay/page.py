# SPDX-License-Identifier: Apache-2.0
"""report.html of a replay: one page that needs nothing else."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from sprout.replay.accept import Check
from sprout.replay.bundle import Bundle

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #22302a; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-size: .9rem; }
td, th { padding: .15rem .6rem; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr:nth-child(even) { background: #f2f6f3; }
svg { max-width: 100%; height: auto; } .missed { color: #a03020; }
"""
READING = (
    "Saving is of grams of CO2e against all requests at L0. Preference is the mean over the hours "
    "of q·x / q0, scored by each hour's own assessment, as published. “Static” is the best static "
    "mix of the levels in hindsight at the same preference: what lies beyond it is what hourly "
    "decisions earned. ± is what one more run falls between (95 %): evaluations and draws vary, "
    "prompts and grid do not. Measurements are those of the bundle's authors."
)


def page(
    bundle: Bundle,
    *,
    table: tuple[Sequence[str], Sequence[Sequence[str]]],
    figures: Mapping[str, tuple[str, str]],
    checks: Sequence[Check],
    notes: Sequence[str],
    command: str,
) -> str:
    """table: its head and its rows, as printed; figures: as `plots.figures`."""
    title = f"Sprout: replay of {bundle.meta.name}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1><p><code>{escape(command)}</code></p><p>{escape(READING)}</p>",
        *(f"<p>{escape(note)}</p>" for note in notes),
        *(f"<h2>{escape(heading)}</h2>{svg}" for heading, svg in figures.values()),
        f"<h2>Results</h2>{_table(*table)}",
        *(_check(check) for check in checks),
        "</body></html>",
    ]
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{first}</tr>{body}</table>"


def _check(check: Check) -> str:
    verdict = "met" if check.good else "MISSED"
    count = f"{len(check.points) - len(check.missed)} of {len(check.points)}"
    rows = "".join(
        f'<tr class="{"" if point.good else "missed"}"><td>{escape(point.where)}</td>'
        f"<td>{point.published:.2f}</td><td>{point.replayed:.2f}</td><td>{escape(point.note)}</td></tr>"
        for point in check.points
    )
    head = "<tr><th></th><th>published</th><th>here</th><th></th></tr>"
    return f"<h2>{escape(check.name)}: {verdict}, {count}</h2><table>{head}{rows}</table>"


def shown(row: dict[str, Any]) -> list[str]:
    """One result as the cells of `HEAD`."""
    target = "" if math.isnan(row["target_pct"]) else f" {row['target_pct']:.4g} %"
    return [
        row["zone"],
        str(row["start_hour"]),
        f"{row['xi']:g}",
        row["scheme"] + target,
        _number(row["carbon_saving_pct"]) + _half(row, "saving"),
        _number(row["normalised_preference_pct"]) + _half(row, "preference"),
        _number(row["published_saving_pct"]),
        _number(row["published_preference_pct"]),
        _number(row["static_eq_saving_pct"]),
        "" if math.isnan(row["gain_points"]) else f"{row['gain_points']:+.1f}",
        _number(row["expected_preference_pct"]),
        _number(row["hours_under_floor_pct"]),
        f"{row['base_mg_per_request']:.1f}",
    ]


HEAD = (
    "zone",
    "start",
    "xi",
    "scheme",
    "saving %",
    "preference %",
    "published %",
    "pref. %",
    "static %",
    "gain",
    "expected pref. %",
    "hours under %",
    "BASE mg",
)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1f}"


def _half(row: dict[str, Any], what: str) -> str:
    half = (row[f"{what}_high_pct"] - row[f"{what}_low_pct"]) / 2
    return "" if math.isnan(half) or half < 0.05 else f" ±{half:.1f}"
