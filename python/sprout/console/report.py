# SPDX-License-Identifier: Apache-2.0
"""`sprout report`: what a span of serving used and saved."""

import csv as csv_format
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from sprout.config import Config
from sprout.console import report_text as text
from sprout.console.output import emit_json, err, out
from sprout.control.archive import Archive, Span
from sprout.control.node_energy import SciSeries
from sprout.control.report import GROUPINGS, Line, Report, make
from sprout.errors import ConfigError
from sprout.proof.interval import Interval

UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
COLUMNS = ("section", "name", "quantity", "value", "low", "high")
ROWS_SHOWN = 20


def run(
    cfg: Config,
    since: str,
    until: str,
    by: str,
    *,
    json: bool,
    csv: Path | None,
    html: Path | None,
) -> None:
    """ConfigError for a span or grouping that is none, ControlError where there is no store."""
    now = time.time()
    span = Span(moment(since, now), moment(until, now))
    if span.since >= span.until:
        raise ConfigError(f"--since {since} is not before --until {until}")
    if by not in GROUPINGS:
        raise ConfigError(f"--by {by}: choose one of {', '.join(GROUPINGS)}")
    archive = Archive(cfg.stack.state / "control.sqlite")
    try:
        made = make(archive, span)
    finally:
        archive.close()
    if csv is not None:
        _saved(csv, lambda: write_csv(made, csv))
    if html is not None:
        from sprout.console.report_html import page

        _saved(html, lambda: html.write_text(page(made, by), encoding="utf-8"))
    if json:
        emit_json(document(made))
    elif csv is None and html is None:
        show(made, by)


def moment(given: str, now: float) -> float:
    """Seconds since 1970 of "now", "24h" (ago) or an ISO 8601 time; ConfigError for others."""
    if given == "now":
        return now
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", given)
    if ago:
        return now - float(ago[1]) * UNITS_S[ago[2]]
    try:
        when = datetime.fromisoformat(given)
    except ValueError:
        text = f"{given!r} is no time: 24h, 7d, 2026-11-24 or 2026-11-24T08:00"
        raise ConfigError(text) from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _saved(path: Path, write: Callable[[], Any]) -> None:
    try:
        write()
    except OSError as error:
        raise ConfigError(f"can't write {path}: {error.strerror}") from None
    err.print(f"[dim]written: {path}[/]")


# --- for scripts ---------------------------------------------------------------------------------


def document(report: Report) -> dict[str, Any]:
    """Everything, for JSON, with the sentences that people are told."""
    content = asdict(report)
    if report.sci is not None:
        for name, own in report.sci.by_series.items():
            content["sci"]["by_series"][name]["g_per_request"] = own.g_per_request
    for part in ("since", "until"):
        content["span"][part] = text.stamp(getattr(report.span, part))
    return content | {"notes": text.notes(report)}


def write_csv(report: Report, path: Path) -> None:
    """One number a row, as in `document`; low and high where it has an interval."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv_format.writer(file)
        writer.writerow(COLUMNS)
        for by, lines in report.lines.items():
            for line in lines:
                for quantity, value in _flat(line):
                    writer.writerow((f"by {by}", line.name, quantity, value, "", ""))
        for series in report.series:
            name = f"{series.zone} {series.source} {series.factor_type} {series.signal}"
            for quantity in ("seconds", "low_g_per_kwh", "mean_g_per_kwh", "high_g_per_kwh"):
                writer.writerow(("intensity", name, quantity, getattr(series, quantity), "", ""))
        found: dict[str, Any] = {f"attributed {k}": v for k, v in report.attributed.items()}
        # "policy" there is by prompt, "control" by the mix.
        found |= {f"by prompt {k}": v for k, v in report.prompts.items()}
        found |= {"system": report.system, "capacity": report.capacity, "sci": report.sci}
        for name, own in report.sci.by_series.items() if report.sci else ():
            found[f"sci, {name}"] = own
        for section, value in found.items():
            _numbers(writer, section, value)
        for kind, (policy, l0) in report.guard.tallies.items():
            for arm, tally in (("policy", policy), ("L0", l0)):
                for quantity, count in asdict(tally).items():
                    writer.writerow((f"guard {kind}", arm, quantity, count, "", ""))


def _flat(line: Line) -> Iterator[tuple[str, Any]]:
    """(quantity, value); of those kept apart by series, one each."""
    for quantity, value in asdict(line).items():
        if isinstance(value, dict):
            yield from ((f"{quantity}, {name}", own) for name, own in value.items())
        elif quantity != "name":
            yield quantity, value


def _numbers(writer: Any, section: str, value: Any) -> None:
    """The fields of a dataclass, or None; what is absent leaves its reason."""
    for quantity, content in vars(value).items() if value is not None else ():
        if isinstance(content, dict):  # by series: sections of their own
            continue
        row: tuple[Any, ...] = (content, "", "")
        if isinstance(content, Interval):
            row = (content.value, content.low, content.high)
        writer.writerow((section, "", quantity, *row))
    if isinstance(value, SciSeries) and value.requests:
        writer.writerow((section, "", "g_per_request", value.g_per_request, "", ""))


# --- for people ----------------------------------------------------------------------------------


def show(report: Report, by: str) -> None:
    out.print(f"[bold]{text.title(report)}[/]")
    for line in text.grid(report):
        out.print(line, markup=False)
    if report.lines[by]:
        out.print()
        out.print(_table(report.lines[by], by))
    for heading, sentences in text.sections(report).items():
        out.print(f"\n[bold]{heading}[/]")
        for sentence in sentences:
            out.print(f"  · {sentence}", markup=False)


def _table(lines: list[Line], by: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(by)
    for column in text.LINE_COLUMNS:
        table.add_column(column, justify="right")
    for line in lines[:ROWS_SHOWN]:
        table.add_row(line.name, *text.cells(line))
    if len(lines) > ROWS_SHOWN:
        table.add_row(f"and {len(lines) - ROWS_SHOWN} more, in --csv and --json")
    return table
