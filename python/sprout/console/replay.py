# SPDX-License-Identifier: Apache-2.0
"""`sprout replay`: a bundle run through the live decisions, beside what was published of it."""

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from sprout.console.output import emit_json, err, out
from sprout.errors import ConfigError, PrerequisiteError
from sprout.replay.accept import Check, check
from sprout.replay.bundle import Bundle, read
from sprout.replay.importer import import_clone
from sprout.replay.page import HEAD, page, shown
from sprout.replay.prompted import in_sample
from sprout.replay.run import PREDICTED, PROMPT_BANK, Request, Runs, plan_of, replay
from sprout.replay.tables import HOURLY_COLUMNS, RESULT_COLUMNS, hourly, results, write_csv
from sprout_ext.sampler import cuda_available, cuda_built

PUBLISHED = "published"  # in the place of a xi: every one that published.csv has
BRIEF = ("window", "scheme", "xi", "saving %", "preference %", "published", "static %", "gain")
NO_PLOTS = "No plots: they need matplotlib, which the extra `local` installs."


def run(
    folder: Path,
    request: Request,
    xis: Sequence[str],
    target_folder: Path,
    *,
    checked: bool,
    json: bool,
) -> bool:
    """Whether every check is met; without `checked` always True. ConfigError for wrong usage,
    PrerequisiteError for a device that this machine lacks."""
    if request.device == "cuda":
        _need_cuda()
    bundle = read(folder)
    request = _with_xis(request, xis, bundle)
    cases, left_out = plan_of(request, bundle)
    if not cases:
        raise ConfigError(f"nothing to run: {'; '.join(left_out)}")
    notes = [*bundle.notes, *(f"left out: {each}" for each in left_out)]
    if request.predictor is not None and set(PREDICTED) & set(request.schemes):
        notes.append(in_sample(bundle, request.predictor))
    if request.hourly_minimum and PROMPT_BANK in request.schemes:
        notes.append(f"PROMPT_BANK: at least {request.hourly_minimum:g} expected in every hour")
    for note in notes:
        err.print(note, markup=False)
    _make(target_folder)
    began = time.perf_counter()
    with _progress() as bar:
        task = bar.add_task("replay", total=len(cases) * request.seeds)
        runs = replay(bundle, cases, request, done=lambda: bar.advance(task))
    took_s = time.perf_counter() - began
    rows = results(runs, bundle.published)
    checks = check(runs, rows, bundle.published, bundle.meta.xi)
    _save(target_folder, bundle, runs=runs, rows=rows, checks=checks, notes=notes)
    summary = (
        f"{len(cases)} runs of {bundle.meta.window_h} h at {request.requests_per_hour} requests/h, "
        f"{request.seeds} seeds each: {took_s:.1f} s; written to {target_folder}"
    )
    if json:
        emit_json({"results": rows, "checks": [_plain(each) for each in checks], "notes": notes})
    else:
        _show(rows)
        out.print(summary, markup=False)
    if checked:
        if not checks:
            raise ConfigError("--check: none of these runs has a published figure")
        if not json:
            show_checks(checks)
    return not checked or all(each.good for each in checks)


def import_(clone: Path, target: Path, *, json: bool) -> None:
    made = import_clone(clone, target)
    if json:
        emit_json({"bundle": str(target), "notes": made})
        return
    for sentence in made:
        out.print(sentence, markup=False)


def numbers(given: Sequence[str] | None, what: str) -> tuple[float, ...]:
    """Of options that may repeat and hold several, set apart by commas."""
    try:
        return tuple(float(part) for part in listed(given))
    except ValueError:
        raise ConfigError(f"{what} must be numbers: {' '.join(given or ())}") from None


def listed(given: Sequence[str] | None) -> tuple[str, ...]:
    parts = (part.strip() for each in given or () for part in each.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


def _with_xis(request: Request, given: Sequence[str], bundle: Bundle) -> Request:
    if listed(given) != (PUBLISHED,):
        xis = numbers(given, "--xi")
    else:
        xis = tuple(sorted({each.xi for each in bundle.published}))
        if not xis:
            raise ConfigError(f"--xi {PUBLISHED}: {bundle.folder} has no published.csv")
    return Request(**(vars(request) | {"xis": xis}))


def _need_cuda() -> None:
    if not cuda_built():
        raise PrerequisiteError(
            "--device cuda: the core is built without CUDA; install NVIDIA's CUDA compiler (nvcc), "
            "then `make setup` again"
        )
    if not cuda_available():
        raise PrerequisiteError(
            "--device cuda: no NVIDIA GPU found (`nvidia-smi` shows what the driver sees)"
        )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder}: {error}") from None


def _progress() -> Progress:
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


def _save(
    folder: Path,
    bundle: Bundle,
    *,
    runs: Sequence[Runs],
    rows: list[dict[str, Any]],
    checks: Sequence[Check],
    notes: list[str],
) -> None:
    write_csv(folder / "results.csv", RESULT_COLUMNS, rows)
    by_hour = (row for each in runs for row in hourly(each))
    write_csv(folder / "hourly.csv", HOURLY_COLUMNS, by_hour)
    try:
        from sprout.replay.plots import figures

        drawn = figures(bundle, runs, rows)
    except ImportError:
        err.print(NO_PLOTS, markup=False)
        notes, drawn = [*notes, NO_PLOTS], {}
    command = shlex.join(["sprout", *sys.argv[1:]])
    table = HEAD, [shown(row) for row in rows]
    html = page(bundle, table=table, figures=drawn, checks=checks, notes=notes, command=command)
    try:
        for name, (_, svg) in drawn.items():
            (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
        (folder / "report.html").write_text(html, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"can't write to {folder}: {error}") from None


def _show(rows: Sequence[dict[str, Any]]) -> None:
    """Those columns that fit a terminal; all are in results.csv and report.html."""
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(BRIEF):
        table.add_column(name, justify="left" if number < 2 else "right", no_wrap=True)
    for row in rows:
        cells = dict(zip(HEAD, shown(row), strict=True))
        window = f"{cells['zone']} {cells['start']}"
        there = f"{cells['published %']} @ {cells['pref. %']}" if cells["published %"] else ""
        rest = (cells[name] for name in ("saving %", "preference %"))
        last = (cells[name] for name in ("static %", "gain"))
        table.add_row(window, cells["scheme"], cells["xi"], *rest, there, *last)
    out.print(table)


def show_checks(checks: Sequence[Check]) -> None:
    for each in checks:
        met = len(each.points) - len(each.missed)
        verdict = "met   " if each.good else "MISSED"
        out.print(
            f"{verdict} {each.name}: {met} of {len(each.points)}, largest difference "
            f"{each.worst:.2f}",
            markup=False,
        )
        for point in each.missed:
            out.print(
                f"         {point.where}: published {point.published:.2f}, here "
                f"{point.replayed:.2f}. {point.note}",
                markup=False,
            )


def _plain(each: Check) -> dict[str, Any]:
    return {
        "name": each.name,
        "met": each.good,
        "of": len(each.points),
        "largest_difference": each.worst,
        "missed": [vars(point) for point in each.missed],
    }
