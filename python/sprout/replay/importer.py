# SPDX-License-Identifier: Apache-2.0
"""A clone of the published artifact (github boringlee24/EMNLP24_Sprout) made into a bundle.

What is read, of the six TASKs; STEM is `TASK_5000`, for math `math_all`:

    prompt_sweeping/prompts/prompt_STEM.json           a list of chats, one a prompt
    prompt_sweeping/request_carbon/data/STEM_CONFIG.json   {"energy": [kWh], "time": [s]}
    .../assessment_results/summary_2000.json           {TASK: [{"instruction", "assistance_lvl"}]}
    sprout/carbon_intensity/ZONE_2023_hourly.csv       Electricity Maps, direct and LCA
    sprout/system/pai.csv                              jobs by hour; the mix is drawn from them

A clone without the judgments or the jobs gives a bundle without them, said so. Nothing is fetched,
and nothing is written but OUT, which must be new. The measurements stay their authors'.
"""

import csv
import gzip
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprout.energy import embodied
from sprout.errors import ConfigError

Array = NDArray[np.float64]

TASKS = ("alpaca", "math", "mmlu", "naturalqa", "triviaqa", "scienceqa")
CONFIGS = {"l0": "13b-chat", "l1": "brief_13b-chat", "l2": "brief+_13b-chat", "7b": "7b-chat"}
PROMPTS = "prompt_sweeping/prompts/prompt_{stem}.json"
REQUESTS = "prompt_sweeping/request_carbon/data/{stem}_{config}.json"
JUDGMENTS = (
    "prompt_sweeping/request_quality/auto_annotate/quality_accessor/assessment_results/"
    "summary_2000.json"
)
CARBON = "sprout/carbon_intensity"
JOBS = "sprout/system/pai.csv"
WINDOW_H = 720
LAST_ROWS = 30  # a start row stands at least so far before the end of the jobs
HOLD_H, HOLD_SPREAD_H = 24.0, 4.8  # how long a mix stands

META = {
    "name": "sprout2023",
    "levels": ["L0", "L1", "L2"],
    "directives": {
        "L0": "",
        "L1": "Always answer briefly",
        "L2": "Always answer very briefly",
    },
    "model": "Llama-2-13b-chat",
    "small_model": "Llama-2-7b-chat",
    "small_model_preference": {"large": 0.583, "small": 0.417},
    "windows_start_hour": [800, 3900, 7000],
    "window_hours": WINDOW_H,
    "pue": 1.0,
    "xi": 0.1,
    "evaluator": {
        "sample_prompts": 1000,
        "urgency_per_hour": 0.029,
        "grace_hours": 6,
        "max_idle_hours": 72,
    },
}


def import_clone(clone: Path, out: Path) -> list[str]:
    """What was made, in sentences. ConfigError names the file that is missing or malformed."""
    if not clone.is_dir():
        raise ConfigError(f"no clone: {clone} is no folder")
    if out.exists():
        raise ConfigError(f"{out} exists: name a new folder")
    chats = {task: _load(clone / PROMPTS.format(stem=_stem(task))) for task in TASKS}
    prompts = {task: [_user(chat, task) for chat in chats[task]] for task in TASKS}
    numbers = {task: _numbers(clone, task, len(prompts[task])) for task in TASKS}
    preferred, notes = _judgments(clone / JUDGMENTS, prompts)
    zones = _zones(clone / CARBON)
    jobs = _jobs(clone / JOBS, notes)

    (out / "carbon").mkdir(parents=True)
    with gzip.open(out / "requests.csv.gz", "wt", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = [f"{what}_{name}" for name in CONFIGS for what in ("wh", "s")]
        writer.writerow(["id", "task", "prompt", *columns, "preferred"])
        for task in TASKS:
            for i, (prompt, row) in enumerate(zip(prompts[task], numbers[task], strict=True)):
                values = [f"{value:.6g}" for value in row]
                judged = preferred.get((task, i), "")
                writer.writerow([f"{task}-{i:05d}", task, prompt, *values, judged])
    for zone, rows in zones.items():
        head = ["datetime_utc", "gco2_per_kwh_direct", "gco2_per_kwh_lifecycle"]
        _write(out / "carbon" / f"{zone}.csv", head, rows)
    if jobs is not None:
        _write(
            out / "hourly_jobs.csv", ["hour", "jobs"], [[h, f"{n:g}"] for h, n in enumerate(jobs)]
        )
        mix = drawn_mix(jobs, len(TASKS), WINDOW_H)
        _write(
            out / "mix.csv",
            ["hour", *TASKS],
            [[hour, *(f"{share:.6f}" for share in shares)] for hour, shares in enumerate(mix)],
        )
    rate = embodied.rate("a100-40gb", None, with_host=False)
    meta = META | {"embodied_g_per_s": float(f"{rate:.5g}")}
    (out / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    count = sum(map(len, prompts.values()))
    return [
        f"{count} prompts of {len(TASKS)} tasks, {len(preferred)} judged",
        f"{len(zones)} zones: {', '.join(sorted(zones))}",
        *notes,
        "no published.csv: the artifact's own results are not read",
    ]


def drawn_mix(jobs: Array, tasks: int, hours: int) -> Array:
    """(hours, tasks) shares, as the artifact draws them from the jobs by hour.

    NumPy's legacy generator, seeded 0, gives each task a row of the jobs to start at; the shares
    are the rows' counts over their sum; they stand for about a day, then every row is the next.
    """
    if len(jobs) <= LAST_ROWS:
        raise ConfigError(f"{len(jobs)} hours of jobs are too few to draw a mix from")
    generator = np.random.RandomState(0)
    rows = generator.randint(0, len(jobs) - LAST_ROWS, size=tasks)
    mix: list[Array] = []
    while len(mix) < hours:
        if rows.max() >= len(jobs):
            raise ConfigError(f"the jobs end after {len(mix)} h of the mix, {hours} are needed")
        shares = jobs[rows] / jobs[rows].sum()
        mix += [shares] * round(generator.normal(HOLD_H, HOLD_SPREAD_H))
        rows = rows + 1
    return np.array(mix[:hours])


def _stem(task: str) -> str:
    return "math_all" if task == "math" else f"{task}_5000"


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"can't read {path}: {error}") from None


def _user(chat: Any, task: str) -> str:
    """The text of the user's message; L0 has no other."""
    try:
        return next(str(m["content"]) for m in chat if m["role"] == "user")
    except (TypeError, KeyError, StopIteration):
        raise ConfigError(f"a prompt of {task} is no chat with a user's message") from None


def _numbers(clone: Path, task: str, count: int) -> list[list[float]]:
    """(count, 2 x configs): Wh and s of each."""
    columns: list[Sequence[float]] = []
    for config in CONFIGS.values():
        path = clone / REQUESTS.format(stem=_stem(task), config=config)
        found = _load(path)
        try:
            energy, seconds = found["energy"], found["time"]
            columns += [[float(e) * 1e3 for e in energy], [float(s) for s in seconds]]
        except (TypeError, KeyError, ValueError) as error:
            raise ConfigError(f"{path}: {error!r}; want lists energy and time") from None
        if not len(energy) == len(seconds) == count:
            raise ConfigError(
                f"{path}: {len(energy)} energies and {len(seconds)} times for {count} prompts"
            )
    return [list(row) for row in zip(*columns, strict=True)]


def _judgments(
    path: Path, prompts: dict[str, list[str]]
) -> tuple[dict[tuple[str, int], int], list[str]]:
    """(task, prompt) → preferred level, joined by stripped text."""
    if not path.is_file():
        return {}, [f"no judgments ({path.name}): the bundle has no preferences"]
    found, lost = {}, 0
    for task, judged in _load(path).items():
        if task not in prompts:
            raise ConfigError(f"{path}: no prompts of {task}")
        waiting: dict[str, list[int]] = defaultdict(list)
        for i, text in reversed(list(enumerate(prompts[task]))):
            waiting[text.strip()].append(i)
        for each in judged:
            places = waiting.get(str(each["instruction"]).strip())
            if places:
                found[task, places.pop()] = int(each["assistance_lvl"])
            else:
                lost += 1
    return found, [f"{lost} judgments join no prompt and are left out"] if lost else []


def _zones(folder: Path) -> dict[str, list[list[str]]]:
    zones = {}
    for path in sorted(folder.glob("*_2023_hourly.csv")):
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                names = list(reader.fieldnames or ())
                when, direct, lifecycle = (
                    _column(names, part, path) for part in ("atetime", "(direct)", "(LCA)")
                )
                rows = [[_utc(r[when], path), r[direct], r[lifecycle]] for r in reader]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"can't read {path}: {error}") from None
        zones[path.name.removesuffix("_2023_hourly.csv")] = rows
    if not zones:
        raise ConfigError(f"{folder} holds no ZONE_2023_hourly.csv")
    return zones


def _column(names: list[str], part: str, path: Path) -> str:
    found = [name for name in names if part in name]
    if not found:
        raise ConfigError(f"{path} has no column with {part!r} in its name")
    return found[0]


def _utc(text: str, path: Path) -> str:
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(f"{path}: {text!r} is no ISO 8601 time") from None
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _jobs(path: Path, notes: list[str]) -> Array | None:
    if not path.is_file():
        notes.append(f"no {path.name}: the tasks are mixed evenly")
        return None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return np.array([float(row["job_name"]) for row in csv.DictReader(file)])
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, ValueError) as error:
        raise ConfigError(f"{path}: {error!r}; want a column job_name of numbers") from None


def _write(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)
