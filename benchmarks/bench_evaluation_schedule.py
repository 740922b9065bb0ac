# SPDX-License-Identifier: Apache-2.0
"""When evaluations would have run in the published windows, and how clean those hours were.

Five zones of 2023, three windows of 720 hours each, hourly direct intensities. Every rule starts
without an evaluation before; an evaluation takes one hour. Of each: how many, the mean intensity at
which they ran, their carbon against the same number at fixed times (spread evenly over the window,
mean over every offset), and how old q was, mean and maximum over the window's hours.

The rules: the published one with the mean of the window (which knows the future, as the artifact
does), and with the factor falling instead of growing; the same with a trailing mean, which is what
Sprout runs; the forecast rule on the project's own seasonal forecast, made each hour from the hours
before it alone; and the same with the true next 72 hours, which nobody has: a bound.

    python benchmarks/bench_evaluation_schedule.py [--zones] [--json FILE]

Data: <SPROUT_DATA or ../shared/data>/sprout2023/carbon (Electricity Maps, ODbL 1.0).
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from _data import CARBON, STARTS, WINDOW_H

from sprout.carbon import forecast
from sprout.carbon.forecast import Values
from sprout.evaluate.schedule import Rule, when

AHEAD = 72


def read(zone: Path) -> tuple[Values, int]:
    """(g/kWh by hour of the year, hours since 1970 of the first)."""
    with zone.open(newline="") as file:
        rows = list(csv.DictReader(file))
    hours = [int(datetime.fromisoformat(row["datetime_utc"]).timestamp()) // 3600 for row in rows]
    if hours != list(range(hours[0], hours[0] + len(hours))):
        sys.exit(f"{zone.name} has gaps")
    return np.array([float(row["gco2_per_kwh_direct"]) for row in rows]), hours[0]


def seasonal(g: Values, start: int, first: int) -> Values:
    """(720, 72), each from the hours up to its own alone."""
    return np.stack(
        [forecast.guess(g[: t + 1], first, AHEAD).g_per_kwh for t in range(start, start + WINDOW_H)]
    )


def foresight(g: Values, start: int, first: int) -> Values:
    """(720, 72), the truth; nan behind the end of the year."""
    known = np.append(g, np.full(AHEAD, np.nan))
    return np.stack([known[t + 1 : t + 1 + AHEAD] for t in range(start, start + WINDOW_H)])


# Name, rule, what it knows of the hours ahead.
RULES: tuple[tuple[str, Rule, Callable[[Values, int, int], Values] | None], ...] = (
    ("published, window mean", Rule(mean="window"), None),
    ("the same, falling factor", Rule(mean="window", beta_per_hour=-0.029), None),
    ("opportunistic, trailing mean", Rule(), None),
    ("forecast, seasonal", Rule("forecast"), seasonal),
    ("forecast, perfect foresight", Rule("forecast"), foresight),
    ("fixed, every 24 h", Rule("fixed"), None),
)


def run(rule: Rule, g: Values, start: int, forecasts: Values | None) -> dict[str, float]:
    end = start + WINDOW_H
    if rule.mean == "window":
        hours = np.array(when(rule, g[start:end]))
    else:
        hours = np.array(when(rule, g[:end], start=start, forecasts=forecasts)) - start
    window = g[start:end]
    fixed = window[evenly(len(hours))].mean()
    age = np.arange(WINDOW_H) - hours[np.searchsorted(hours, np.arange(WINDOW_H), side="right") - 1]
    return {
        "evaluations": len(hours),
        "mean_g_per_kwh": float(window[hours].mean()),
        "window_g_per_kwh": float(window.mean()),
        "carbon_of_fixed": float(window[hours].mean() / fixed),
        "mean_age_hours": float(age.mean()),
        "max_age_hours": float(age.max()),
    }


def evenly(n: int) -> np.ndarray[Any, Any]:
    """(720, n): hours of n evaluations spread evenly over the window, for every offset."""
    offsets = np.arange(WINDOW_H)[:, None]
    return (offsets + np.floor(np.arange(n) * WINDOW_H / n).astype(int)) % WINDOW_H


def print_table(rows: list[dict[str, Any]], zones: bool) -> None:
    cells = [(name, [r for r in rows if r["rule"] == name]) for name, _, _ in RULES]
    if zones:
        cells = [
            (f"{name}; {zone}", [r for r in own if r["zone"] == zone])
            for name, own in cells
            for zone in dict.fromkeys(r["zone"] for r in own)
        ]
    print("| rule | evaluations | range | g/kWh at | window | carbon / fixed | range "
          "| age h, mean | max |")  # fmt: skip
    print("| --- | ---: | --- | ---: | ---: | ---: | --- | ---: | ---: |")
    for name, own in cells:

        def of(key: str, own: list[dict[str, Any]] = own) -> Values:
            return np.array([r[key] for r in own])

        n, ratio = of("evaluations"), of("carbon_of_fixed")
        print(f"| {name} | {n.mean():.1f} | {n.min():.0f}-{n.max():.0f} "
              f"| {of('mean_g_per_kwh').mean():.1f} | {of('window_g_per_kwh').mean():.1f} "
              f"| {ratio.mean():.3f} | {ratio.min():.2f}-{ratio.max():.2f} "
              f"| {of('mean_age_hours').mean():.1f} "
              f"| {of('max_age_hours').max():.0f} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--zones", action="store_true", help="a line for each zone as well")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not CARBON.is_dir():
        sys.exit(f"no traces at {CARBON} (SPROUT_DATA)")
    rows: list[dict[str, Any]] = []
    for path in sorted(CARBON.glob("*.csv")):
        g, first = read(path)
        for start in STARTS:
            known = {ahead: ahead(g, start, first) for _, _, ahead in RULES if ahead is not None}
            for name, rule, ahead in RULES:
                found = run(rule, g, start, None if ahead is None else known[ahead])
                rows.append({"rule": name, "zone": path.stem, "start": start} | found)
            print(f"{path.stem} {start}", file=sys.stderr, flush=True)
    print_table(rows, zones=False)
    if args.zones:
        print()
        print_table(rows, zones=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
