# SPDX-License-Identifier: Apache-2.0
"""A bundle: measured requests, judgments, grids and a mix of tasks, in one folder.

    requests.csv.gz   id, task, prompt, wh_l0, s_l0, ..., wh_lN, s_lN [, wh_7b, s_7b] [, preferred]
    carbon/ZONE.csv   datetime_utc, gco2_per_kwh_direct and/or gco2_per_kwh_lifecycle
    mix.csv           hour, <task>...      shares by hour; absent: uniform over the tasks present
    published.csv     figures to compare with; absent: none
    meta.json         see `meta.py`; absent: what it says of the paper's

`requests.csv` may be plain or gzipped. Tasks, zones and the number of levels are the bundle's own.
What is missing and what stands in for it is said in `notes`, never silently.
"""

import csv
import gzip
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from sprout.errors import ConfigError
from sprout.replay.meta import Meta, read_meta
from sprout.replay.published import Published, read_published

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

UNKNOWN = -1  # `preferred` of a prompt that nobody judged
MOST_FIELD = 10_000_000  # characters of one prompt; csv's own limit is 131,072


@dataclass(frozen=True, eq=False)
class Bundle:
    """n prompts, C tasks, L levels. `task` and `preferred` are indices."""

    folder: Path
    meta: Meta
    tasks: tuple[str, ...]  # (C,)
    ids: tuple[str, ...]  # (n,)
    prompts: tuple[str, ...]  # (n,)
    task: Indices  # (n,)
    energy_kwh: Array  # (n, L) of one request
    seconds: Array  # (n, L) on the device
    small_energy_kwh: Array | None  # (n,) of the small model without a directive
    small_seconds: Array | None  # (n,)
    preferred: Indices  # (n,) the level whose answer won, or UNKNOWN
    mix: Array  # (hours, C), rows sum to 1; one row: the same in every hour
    zones: tuple[str, ...]
    published: tuple[Published, ...]
    notes: tuple[str, ...]  # what is missing and what stands in for it

    @property
    def levels(self) -> int:
        return int(self.energy_kwh.shape[1])

    @property
    def judged(self) -> bool:
        """Whether every task has judged prompts, which every scheme with a floor needs."""
        return bool((self.judged_by_task > 0).all())

    @property
    def judged_by_task(self) -> Indices:
        """(C,) judged prompts."""
        known = self.task[self.preferred != UNKNOWN]
        return np.bincount(known, minlength=len(self.tasks))

    def task_means(self, values: Array) -> Array:
        """(C, ...) means over the prompts of each task of values (n, ...)."""
        return np.array([values[self.task == c].mean(axis=0) for c in range(len(self.tasks))])

    def preferences(self) -> Array:
        """(C, L) share of each task's judged prompts whose answer at the level won."""
        known = self.preferred != UNKNOWN
        return np.array(
            [
                np.bincount(self.preferred[known & (self.task == c)], minlength=self.levels)
                / max(1, int(self.judged_by_task[c]))
                for c in range(len(self.tasks))
            ]
        )

    def mix_of(self, hours: int) -> Array:
        """(hours, C) of the first hours of a window; ConfigError where the mix is shorter."""
        if len(self.mix) == 1:
            return np.repeat(self.mix, hours, axis=0)
        if len(self.mix) < hours:
            raise ConfigError(f"{self.folder}/mix.csv has {len(self.mix)} hours, {hours} are asked")
        return self.mix[:hours]


def read(folder: Path) -> Bundle:
    """ConfigError names the file, the line and what is wrong with it."""
    if not folder.is_dir():
        raise ConfigError(f"no bundle: {folder} is no folder")
    path = next((p for p in (folder / n for n in REQUESTS) if p.is_file()), None)
    if path is None:
        raise ConfigError(f"{folder} holds neither {' nor '.join(REQUESTS)}")
    rows = _read_requests(path)
    notes: list[str] = []
    tasks, mix = _read_mix(folder / "mix.csv", rows.tasks, notes)
    meta = read_meta(folder / "meta.json", rows.energy.shape[1], folder.name, notes)
    if rows.small is None:
        notes.append(f"{path.name} has no small model (wh_7b, s_7b): MODEL_OPT is left out")
    elif meta.small_model_preference is None:
        notes.append("meta.json has no small_model_preference: MODEL_OPT is left out")
    published = read_published(folder / "published.csv")
    if not published:
        notes.append("no published.csv: there is nothing to compare with")
    number = {name: c for c, name in enumerate(tasks)}
    zones = tuple(sorted(p.stem for p in (folder / "carbon").glob("*.csv")))
    if not zones:
        raise ConfigError(f"{folder / 'carbon'} holds no ZONE.csv")
    bundle = Bundle(
        folder=folder,
        meta=meta,
        tasks=tasks,
        ids=tuple(rows.ids),
        prompts=tuple(rows.prompts),
        task=np.array([number[name] for name in rows.tasks], dtype=np.int64),
        energy_kwh=rows.energy,
        seconds=rows.seconds,
        small_energy_kwh=None if rows.small is None else rows.small[:, 0] / 1e3,
        small_seconds=None if rows.small is None else rows.small[:, 1],
        preferred=rows.preferred,
        mix=mix,
        zones=zones,
        published=published,
        notes=(),
    )
    if not bundle.judged:
        bare = [t for t, n in zip(tasks, bundle.judged_by_task, strict=True) if not n]
        notes.append(
            f"no judged prompts of {', '.join(bare)}: no preferences, only BASE and CO2_OPT run"
        )
    object.__setattr__(bundle, "notes", tuple(notes))
    return bundle


REQUESTS = ("requests.csv.gz", "requests.csv")


@dataclass(frozen=True, eq=False)
class _Rows:
    ids: list[str]
    tasks: list[str]
    prompts: list[str]
    energy: Array  # (n, L) kWh
    seconds: Array  # (n, L)
    small: Array | None  # (n, 2) Wh, s
    preferred: Indices  # (n,)


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """The file as text, gzipped or not; ConfigError if it can't be read."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        if packed:
            with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
                yield file
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield file
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"can't read {path}: {error}") from None


def _read_requests(path: Path) -> _Rows:
    csv.field_size_limit(MOST_FIELD)
    ids, tasks, prompts, preferred = [], [], [], []
    numbers: list[list[float]] = []
    with opened(path) as file:
        reader = csv.DictReader(file)
        fields = reader.fieldnames or []
        levels = 0
        while f"wh_l{levels}" in fields:
            levels += 1
        if levels == 0:
            raise ConfigError(f"{path} has no column wh_l0")
        names = [f"{what}_l{i}" for what in ("wh", "s") for i in range(levels)]
        small = {"wh_7b", "s_7b"} <= set(fields)
        names += ["wh_7b", "s_7b"] if small else []
        if missing := [n for n in ("id", "task", "prompt", *names) if n not in fields]:
            raise ConfigError(f"{path} has no column {', '.join(missing)}")
        for row in reader:
            where = f"{path}:{reader.line_num}"
            ids.append(row["id"])
            tasks.append(row["task"])
            prompts.append(row["prompt"])
            numbers.append(_numbers((row[name] for name in names), where))
            preferred.append(_level(row.get("preferred") or "", levels, where))
    if not numbers:
        raise ConfigError(f"{path} holds no request")
    table = np.array(numbers)
    return _Rows(
        ids,
        tasks,
        prompts,
        energy=table[:, :levels] / 1e3,
        seconds=table[:, levels : 2 * levels],
        small=table[:, 2 * levels :] if small else None,
        preferred=np.array(preferred, dtype=np.int64),
    )


def _numbers(texts: Iterable[str | None], where: str) -> list[float]:
    try:
        numbers = [float(text or "") for text in texts]
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    if not (np.isfinite(numbers).all() and min(numbers) >= 0):
        raise ConfigError(f"{where}: numbers must be finite and not negative: {numbers}")
    return numbers


def _level(text: str, levels: int, where: str) -> int:
    if not text.strip():
        return UNKNOWN
    try:
        level = int(text)
    except ValueError:
        level = UNKNOWN
    if not 0 <= level < levels:
        raise ConfigError(f"{where}: preferred {text!r} is no level of 0 to {levels - 1}")
    return level


def _read_mix(path: Path, tasks: list[str], notes: list[str]) -> tuple[tuple[str, ...], Array]:
    """Tasks in the mix's order, and the mix."""
    present = tuple(dict.fromkeys(tasks))
    if not path.is_file():
        notes.append("no mix.csv: the tasks are mixed evenly in every hour")
        return present, np.full((1, len(present)), 1 / len(present))
    rows: list[list[float]] = []
    with opened(path) as file:
        reader = csv.DictReader(file)
        names = tuple(name for name in reader.fieldnames or () if name != "hour")
        if set(names) != set(present):
            raise ConfigError(f"{path} mixes {', '.join(names)}; there are {', '.join(present)}")
        for row in reader:
            where = f"{path}:{reader.line_num}"
            rows.append(_numbers((row[name] for name in names), where))
            if abs(sum(rows[-1]) - 1) > 1e-3:
                raise ConfigError(f"{where}: shares sum to {sum(rows[-1]):.4f}, not 1")
    if not rows:
        raise ConfigError(f"{path} holds no hour")
    mix = np.array(rows)
    return names, mix / mix.sum(axis=1, keepdims=True)
