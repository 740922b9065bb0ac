# SPDX-License-Identifier: Apache-2.0
"""The forecast's error on real grids, beside persistence, yesterday and last week.

Rolling origin: every few hours of 2023 a forecast of the next 72 from the hours before it alone.
The constants were tuned on January to June, direct, so what is reported is July to December.
MAE and MAPE at horizons and as the mean over 1 to 24 h; the spread is over blocks of a week, for
neighbouring origins share their errors: the standard error of the mean over blocks, and in how
many blocks the forecast beats persistence. Two designs that lost are run with it.

    python benchmarks/bench_forecast.py [--every 7] [--half 2] [--json FILE]

Data: <SPROUT_DATA or ../shared/data>/sprout2023/carbon (Electricity Maps, ODbL 1.0).
"""

import argparse
import calendar
import csv
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from _data import CARBON

from sprout.carbon import forecast
from sprout.carbon.forecast import DAY, FAST_DECAY, SLOW_DECAY, WEEK, Values

HOURS = 72
AHEAD = np.arange(1, HOURS + 1)
HORIZONS = (1, 6, 24, 72)
COVERAGE = 0.8

Method = Callable[[Values, int], Values]  # what is known, hours since 1970 of the first -> (72,)


def persistence(known: Values, first: int) -> Values:
    return np.full(HOURS, known[-1])


def yesterday(known: Values, first: int) -> Values:
    return known[len(known) - 1 + AHEAD - DAY * ((AHEAD + DAY - 1) // DAY)]


def last_week(known: Values, first: int) -> Values:
    return known[len(known) - 1 + AHEAD - WEEK]


def season_alone(known: Values, first: int) -> Values:
    """Lost: the same season, no level correction."""
    return forecast.season(known, first)[0][(first + len(known) - 1 + AHEAD) % WEEK]


def fixed_decay(known: Values, first: int) -> Values:
    """Lost: the same season, level corrected by two fixed decays (weights not learned)."""
    season, _ = forecast.season(known, first)
    off = known - season[(first + np.arange(len(known))) % WEEK]
    slow = off[-DAY:].mean()
    level = slow * SLOW_DECAY**AHEAD + (off[-1] - slow) * FAST_DECAY**AHEAD
    return season[(first + len(known) - 1 + AHEAD) % WEEK] + level


def seasonal(weeks: int) -> Method:
    return lambda known, first: (
        forecast.guess(known[-weeks * WEEK :], first + len(known) - weeks * WEEK, HOURS).g_per_kwh
    )


METHODS: dict[str, Method] = {
    "persistence": persistence,
    "yesterday": yesterday,
    "last week": last_week,
    "season alone": season_alone,
    "fixed decay": fixed_decay,
    "forecast, 4 weeks": seasonal(4),
    "forecast, 8 weeks": seasonal(8),
}


def read(zone: Path, factor_type: str) -> tuple[Values, int]:
    """(g/kWh by hour, hours since 1970 of the first)."""
    with zone.open(newline="") as file:
        rows = list(csv.DictReader(file))
    hours = [int(datetime.fromisoformat(row["datetime_utc"]).timestamp()) // 3600 for row in rows]
    if hours != list(range(hours[0], hours[0] + len(hours))):
        sys.exit(f"{zone.name} has gaps; the baselines here know none")
    return np.array([float(row[f"gco2_per_kwh_{factor_type}"]) for row in rows]), hours[0]


def origins(half: int, first: int, every: int) -> np.ndarray[Any, Any]:
    """Indices of the last hour known: eight weeks before them and 72 h after them are at hand,
    and all of these 72 h lie in the half."""
    year = datetime.fromtimestamp(first * 3600, UTC).year
    middle = calendar.timegm((year, 7, 1, 0, 0, 0)) // 3600 - first
    end = calendar.timegm((year + 1, 1, 1, 0, 0, 0)) // 3600 - first
    start, stop = (8 * WEEK, middle) if half == 1 else (middle, end)
    return np.arange(start, stop - HOURS - 1, every)


def summary(
    error: Values, true: Values, weeks: np.ndarray[Any, Any], rival: Values
) -> dict[str, Any]:
    """error, true, rival: (origins, 72); rival: persistence's absolute errors."""
    at = {f"{h} h": error[:, h - 1] for h in HORIZONS} | {"1-24 h": error[:, :DAY].mean(axis=1)}
    ratio = error / np.maximum(true, 1.0)  # a zone at 0 g/kWh has no percentage
    part = {f"{h} h": ratio[:, h - 1] for h in HORIZONS} | {"1-24 h": ratio[:, :DAY].mean(axis=1)}
    blocks = [
        (e.mean(), r.mean())
        for e, r in (
            (at["1-24 h"][weeks == w], rival[weeks == w, :DAY].mean(axis=1))
            for w in np.unique(weeks)
        )
    ]
    own = np.array([e for e, _ in blocks])
    return {
        "mae": {name: float(x.mean()) for name, x in at.items()},
        "mape": {name: float(x.mean()) for name, x in part.items()},
        "mae_1_24_standard_error": float(own.std(ddof=1) / np.sqrt(len(own))),
        "blocks": len(own),
        "blocks_better_than_persistence": int(sum(e < r for e, r in blocks)),
    }


def zone_results(path: Path, factor_type: str, half: int, every: int) -> dict[str, Any]:
    values, first = read(path, factor_type)
    at = origins(half, first, every)
    true = values[at[:, None] + AHEAD]
    weeks = (at - at[0]) // WEEK
    found: dict[str, Any] = {"origins": len(at), "mean_g_per_kwh": float(true.mean())}
    inside = np.zeros((len(at), HOURS), bool)
    for name, method in METHODS.items():
        made = np.stack(
            [method(values[t + 1 - 8 * WEEK : t + 1], first + t + 1 - 8 * WEEK) for t in at]
        )
        error = np.abs(made - true)
        if name == "persistence":
            rival = error
        found[name] = summary(error, true, weeks, rival)
    for row, t in enumerate(at):
        made = forecast.guess(
            values[t + 1 - 8 * WEEK : t + 1], first + t + 1 - 8 * WEEK, HOURS, coverage=COVERAGE
        )
        inside[row] = (made.low <= true[row]) & (true[row] <= made.high)
    found["coverage"] = {f"{h} h": float(inside[:, h - 1].mean()) for h in HORIZONS}
    found["coverage"]["1-24 h"] = float(inside[:, :DAY].mean())
    return found


def show(zone: str, factor_type: str, found: dict[str, Any]) -> None:
    print(
        f"\n{zone}, {factor_type}: mean {found['mean_g_per_kwh']:.0f} g/kWh, "
        f"{found['origins']} origins"
    )
    head = "".join(f"{name:>8}" for name in ("1 h", "6 h", "24 h", "72 h", "1-24 h"))
    print(f"{'':<19}{'MAE g/kWh':>40} {'se':>6}{'MAPE %':>41}   weeks won")
    print(f"{'':<19}{head}        {head}")
    for name in METHODS:
        s = found[name]
        mae = "".join(f"{v:8.1f}" for v in s["mae"].values())
        mape = "".join(f"{100 * v:8.1f}" for v in s["mape"].values())
        won = f"{s['blocks_better_than_persistence']}/{s['blocks']}"
        print(f"{name:<19}{mae} {s['mae_1_24_standard_error']:6.1f} {mape}   {won}")
    cover = ", ".join(f"{h} {100 * v:.0f} %" for h, v in found["coverage"].items())
    print(f"{100 * COVERAGE:.0f} % intervals held: {cover}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--every", type=int, default=7, help="hours between origins (odd: all hours of the day)"
    )
    parser.add_argument("--half", type=int, choices=(1, 2), default=2, help="of the year")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    zones = sorted(CARBON.glob("*.csv"))
    if not zones:
        sys.exit(f"no traces in {CARBON} (SPROUT_DATA)")
    results: dict[str, Any] = {}
    started = time.perf_counter()
    for factor_type in ("direct", "lifecycle"):
        for path in zones:
            found = zone_results(path, factor_type, arguments.half, arguments.every)
            results[f"{path.stem} {factor_type}"] = found
            show(path.stem, factor_type, found)
    lost = [
        f"{zone} at {h}"
        for zone, found in results.items()
        for h in ("6 h", "24 h", "1-24 h")
        if found["forecast, 8 weeks"]["mae"][h] >= found["persistence"]["mae"][h]
    ]
    print(f"\nnot better than persistence: {', '.join(lost) or 'nowhere at 6 h, 24 h and 1-24 h'}")
    print(f"{time.perf_counter() - started:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
