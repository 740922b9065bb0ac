# SPDX-License-Identifier: Apache-2.0
"""`sprout predictor`: fit one on a bundle, and look at what a file holds."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from sprout import __version__
from sprout.console.output import emit_json, err, out
from sprout.predict.check import Gain, Report, check, publishable
from sprout.predict.document import Meta, Predictor, assemble, load, save
from sprout.predict.fit import FITS, fit
from sprout.predict.sample import Sample
from sprout.replay.bundle import Bundle, read
from sprout.units import JOULES_PER_KWH


def fit_bundle(folder: Path, target: Path, *, json: bool) -> None:
    """PredictorError where it is no better than class means: then nothing is written."""
    bundle = read(folder)
    sample = sample_of(bundle)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("fit", total=FITS)
        fitted = fit(sample, done=lambda: bar.advance(task))
    report = check(sample, fitted)
    if not json:
        show(report)
    publishable(report)
    meta = described(bundle, sample, report)
    save(assemble(sample, fitted, meta), target)
    written = load(target)
    if json:
        emit_json(_plain(written))
    else:
        out.print(f"written to {target} ({target.stat().st_size:,} bytes)", markup=False)


def described(bundle: Bundle, sample: Sample, report: Report) -> Meta:
    seconds = sample.seconds.mean(axis=0) / sample.joules.mean(axis=0)
    return Meta(
        made=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        sprout_version=__version__,
        source=bundle.meta.name,
        levels=sample.levels,
        directives=tuple(bundle.meta.directives.get(name, "") for name in sample.levels),
        classes=sample.classes,
        prompts=len(sample.texts),
        seconds_per_joule=tuple(seconds.tolist()),
        report=report,
    )


def inspect(path: Path, *, json: bool) -> None:
    found = load(path)
    if json:
        emit_json(_plain(found))
        return
    meta, judged = found.meta, found.judged
    width = (
        f"{found.table.shape[0]:,} slots x {found.table.shape[1]} heads, grams of "
        f"{', '.join(map(str, found.orders))} bytes"
    )
    for name, value in (
        ("made", f"{meta.made} by Sprout {meta.sprout_version} on {meta.source}"),
        ("levels", ", ".join(meta.levels)),
        ("classes", ", ".join(meta.classes)),
        ("fitted on", f"{meta.prompts:,} prompts, {len(judged.label):,} of them judged"),
        ("weights", width),
        ("sha256", found.sha256),
    ):
        out.print(f"{name:10}{value}", markup=False)
    show(meta.report)


def sample_of(bundle: Bundle) -> Sample:
    """A bundle's tasks are the classes."""
    return Sample(
        texts=tuple(prompt.encode("utf-8", "surrogatepass") for prompt in bundle.prompts),
        classes=bundle.tasks,
        levels=tuple(bundle.meta.levels),
        label=bundle.task,
        joules=bundle.energy_kwh * JOULES_PER_KWH,
        seconds=bundle.seconds,
        preferred=bundle.preferred,
    )


def show(report: Report) -> None:
    out.print(
        f"cross-fitted on {report.prompts:,} judged prompts; losses beside those of class means "
        "(which know the class), difference with 95 % interval over prompts:",
        markup=False,
    )
    table = Table(box=None, pad_edge=False)
    for name in ("", "prompts", "preference", "means", "gain", "energy", "means", "gain"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    rows = [("all", report.prompts, report.preference, report.energy)]
    rows += [(each.name, each.prompts, each.preference, each.energy) for each in report.classes]
    for name, prompts, preference, energy in rows:
        table.add_row(name, f"{prompts:,}", *_gain(preference), *_gain(energy))
    out.print(table)
    table = Table(box=None, pad_edge=False)
    for name in ("level", "prompts", "predicted %", "observed %", "+-"):
        table.add_column(name, justify="left" if name == "level" else "right", no_wrap=True)
    for each in report.reliability:
        shares = (each.predicted, each.observed, each.half)
        table.add_row(each.level, f"{each.prompts:,}", *(f"{100 * s:.1f}" for s in shares))
    out.print(table)
    out.print(f"mean calibration error {100 * report.calibration_error:.2f} points", markup=False)


def _gain(each: Gain) -> tuple[str, str, str]:
    half = (each.high - each.low) / 2
    return f"{each.predictor:.4f}", f"{each.class_means:.4f}", f"{each.gain:+.4f} +- {half:.4f}"


def _plain(found: Predictor) -> dict[str, Any]:
    from pydantic import TypeAdapter

    meta: dict[str, Any] = TypeAdapter(Meta).dump_python(found.meta, mode="json")
    return meta | {
        "sha256": found.sha256,
        "orders": list(found.orders),
        "slots": int(found.table.shape[0]),
        "heads": int(found.table.shape[1]),
        "judged": len(found.judged.label),
        "weights_unused": float(np.mean(~found.table.any(axis=1))),
    }
