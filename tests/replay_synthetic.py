# SPDX-License-Identifier: Apache-2.0
"""A small bundle for the tests of the replay: made up, with the shape of a real one."""

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

TASKS = ("sums", "trivia")
HOURS = 72
STARTS = (0, 30)
WINDOW_H = 36


def make_bundle(
    folder: Path,
    *,
    levels: int = 3,
    small: bool = True,
    judged: bool = True,
    mix: bool = True,
    meta: bool = True,
    prompts: int = 120,
) -> Path:
    """Longer answers are preferred for sums, all alike for trivia; L0 uses 8 J for L1's 2."""
    rng = np.random.default_rng(5)
    (folder / "carbon").mkdir(parents=True)
    numbers = [f"{what}_l{i}" for i in range(levels) for what in ("wh", "s")]
    numbers += ["wh_7b", "s_7b"] if small else []
    rows: list[dict[str, Any]] = []
    for i in range(prompts):
        task = TASKS[i % 2]
        size = 0.2 * (1 + rng.random()) * (1 + i % 2)
        row: dict[str, Any] = {
            "id": f"{task}-{i}",
            "task": task,
            "prompt": f"{task}, “{i}”\nplease",
        }
        for level in range(levels):
            row |= {f"wh_l{level}": size / 4**level, f"s_l{level}": 12 * size / 4**level}
        row |= {"wh_7b": 0.6 * size, "s_7b": 5 * size} if small else {}
        shares = np.linspace(2 if task == "sums" else 1, 1, levels)
        row["preferred"] = rng.choice(levels, p=shares / shares.sum()) if judged and i % 3 else ""
        rows.append(row)
    write(folder / "requests.csv", ["id", "task", "prompt", *numbers, "preferred"], rows)
    for zone, phase in (("AA", 0.0), ("BB", 2.0)):
        write_grid(
            folder / "carbon" / f"{zone}.csv", 300 + 200 * np.sin(np.arange(HOURS) / 4 + phase)
        )
    if mix:
        share = 0.5 + 0.3 * np.sin(np.arange(WINDOW_H) / 9)
        write(
            folder / "mix.csv",
            ["hour", *TASKS],
            [{"hour": h, "sums": s, "trivia": 1 - s} for h, s in enumerate(share)],
        )
    if meta:
        document: dict[str, Any] = {
            "name": "made up",
            "levels": [f"L{i}" for i in range(levels)],
            "windows_start_hour": STARTS,
            "window_hours": WINDOW_H,
            "embodied_g_per_s": 1.6715e-4,
            "xi": 0.1,
            "evaluator": {"sample_prompts": 400},
        }
        if small:
            document["small_model_preference"] = {"large": 0.6, "small": 0.4}
        (folder / "meta.json").write_text(json.dumps(document))
    return folder


def write_grid(path: Path, g_per_kwh: Any) -> None:
    first = datetime(2023, 1, 1, tzinfo=UTC)
    write(
        path,
        ["datetime_utc", "gco2_per_kwh_direct"],
        [
            {
                "datetime_utc": (first + timedelta(hours=h)).isoformat(),
                "gco2_per_kwh_direct": f"{g:.3f}",
            }
            for h, g in enumerate(g_per_kwh)
        ],
    )


def write(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
