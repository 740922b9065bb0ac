# SPDX-License-Identifier: Apache-2.0
"""results.csv and hourly.csv."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sprout.errors import ConfigError
from sprout.replay.published import COLUMNS, Published
from sprout.replay.run import Runs, interval_of_a_run, interval_of_the_mean

RESULT_COLUMNS = (
    *COLUMNS,
    "target_pct",
    "seeds",
    # What one more run falls between, 95 %: evaluations and draws vary, the bundle does not.
    "saving_low_pct",
    "saving_high_pct",
    "preference_low_pct",
    "preference_high_pct",
    # Without the noise of the hourly assessments that schemes are scored by.
    "expected_preference_pct",
    "hours_under_floor_pct",  # expected preference under 1 - xi
    "static_eq_saving_pct",  # of the best static mix, in hindsight, at the same preference
    "gain_points",  # on it
    "gain_low_points",  # 95 % interval of the mean over seeds
    "gain_high_points",
    "evaluations",
    "solver_mismatches",
    "published_saving_pct",
    "published_preference_pct",
    "device",  # that drew, scored and chose
)
HOURLY_COLUMNS = (
    "zone",
    "start_hour",
    "xi",
    "scheme",
    "target_pct",
    "hour",
    "datetime_utc",
    "gco2_per_kwh",
    "evaluated",
    "level_mix",
    "mg_per_request",
    "base_mg_per_request",
    "normalised_preference_pct",
    "expected_preference_pct",
)


def result(runs: Runs, published: Published | None) -> dict[str, Any]:
    """One row of results.csv: means over seeds; nan where there is no such figure."""
    case = runs.case
    saving, preference = interval_of_a_run(runs.saving), interval_of_a_run(runs.preference)
    gain = interval_of_the_mean(runs.gain)
    plan = None if runs.first is None else runs.first[1]
    values = (
        case.zone,
        case.start,
        case.xi,
        case.scheme,
        100 * float(np.mean(runs.saving)),
        100 * float(np.mean(runs.preference)),
        float(np.mean(runs.base_mg)),
        " ".join(f"{share:.4f}" for share in np.mean(runs.mixes, axis=0)),
        100 * case.target,
        len(runs.saving),
        *(100 * end for end in (*saving, *preference)),
        100 * float(np.mean(runs.expected)),
        100 * float(np.mean(runs.low_hours)),
        100 * float(np.mean(runs.static_saving)),
        100 * float(np.mean(runs.gain)),
        *(100 * end for end in gain),
        0 if plan is None else len(plan.evaluations),
        runs.mismatches,
        math.nan if published is None else published.saving_pct,
        math.nan if published is None else published.preference_pct,
        runs.device,
    )
    return dict(zip(RESULT_COLUMNS, values, strict=True))


def results(runs: Sequence[Runs], published: Iterable[Published]) -> list[dict[str, Any]]:
    known = {each.key: each for each in published}
    return [
        result(each, known.get(each.case.key) if math.isnan(each.case.target) else None)
        for each in runs
    ]


def hourly(runs: Runs) -> Iterable[dict[str, Any]]:
    """The first seed's hours."""
    if runs.first is None:
        return
    window, plan, outcome = runs.first
    case, evaluated = runs.case, set(plan.evaluations)
    for hour in range(window.hours):
        values = (
            case.zone,
            case.start,
            case.xi,
            case.scheme,
            100 * case.target,
            hour,
            window.grid.at(window.start + hour).strftime("%Y-%m-%dT%H:%M:%SZ"),
            float(window.k0[hour]),
            int(hour in evaluated),
            " ".join(f"{share:.4f}" for share in plan.shares[hour]),
            1e3 * float(outcome.grams[hour]),
            1e3 * float(outcome.base_grams[hour]),
            100 * float(outcome.preference[hour]),
            100 * float(outcome.expected[hour]),
        )
        yield dict(zip(HOURLY_COLUMNS, values, strict=True))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """nan becomes an empty cell. ConfigError if the file can't be written."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([_cell(row[name]) for name in columns] for row in rows)
    except OSError as error:
        raise ConfigError(f"can't write {path}: {error}") from None


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value
