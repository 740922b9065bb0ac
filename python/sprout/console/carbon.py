# SPDX-License-Identifier: Apache-2.0
"""`sprout carbon`: what the sources say, asked from this machine. It needs no control plane."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from rich.table import Table

from sprout.carbon import check as checks
from sprout.carbon import make_chain, make_source
from sprout.carbon.intensity import Intensity
from sprout.carbon.sources import Source
from sprout.config import CarbonConfig
from sprout.console.output import emit_json, err, out
from sprout.errors import ConfigError, FeedError, PrerequisiteError

_BAR = 40  # characters for the largest value


def now(config: CarbonConfig, *, json: bool) -> bool:
    """True if a source has a value. Without one, what the control plane would do."""
    logging.getLogger("sprout.carbon").setLevel(logging.CRITICAL)  # it is shown below
    chain = make_chain(config.model_copy(update={"forecast_hours": 0.0}))
    found = asyncio.run(chain.look())
    member, value = (found[0], found[1].value) if found else (None, None)
    problems = chain.problems(until=member)
    if json:
        told = None if member is None or value is None else record(value, member.source)
        emit_json({"intensity": told, "problems": problems or None, "fallback": config.fallback})
    elif member is not None and value is not None:
        out.print(f"{checks.describe(value)}, {_age(value.age_s(member.source.clock()))} old")
    if problems and not json:
        err.print(problems, markup=False)
    if value is None and not json:
        err.print(f"no source has a value: {_without(config)}", markup=False)
    return value is not None


def series(
    config: CarbonConfig, what: Literal["history", "forecast"], hours: float, *, json: bool
) -> bool:
    """True if a source has values. Of the first that has any; the others' failures on stderr."""
    source, values, problems = asyncio.run(_first(config, what, hours))
    for problem in problems:
        err.print(problem, markup=False)
    basis = "" if source is None else source.forecast_basis if what == "forecast" else source.name
    if json:
        rows = [] if source is None else [record(value, source) for value in values]
        emit_json({"basis": basis or None, what: rows, "problems": problems})
    elif not values:
        err.print(f"no source has a {what}: {', '.join(config.sources)}")
    else:
        out.print(_table(values, f"{values[0].zone}: {basis}"))
    return bool(values)


def check(config: CarbonConfig, *, json: bool) -> bool:
    """True if every source has a value."""
    found = asyncio.run(checks.check(config))
    good = all(each.value is not None for each in found)
    if json:
        emit_json({"good": good, "sources": [asdict(each) for each in found]})
        return good
    for each in found:
        sign = "[green]ok  [/]" if each.value is not None else "[red]BAD [/]"
        out.print(f"{sign}  {each.source:<16} ", end="")
        out.print(each.found, markup=False)
        if each.remedy:
            out.print(f"{'':24}→ {each.remedy}", markup=False)
    return good


def record(value: Intensity, source: Source) -> dict[str, Any]:
    """An intensity for scripts, with its age on the source's clock; below 0 for one to come."""
    return asdict(value) | {
        "time": value.time.isoformat(),
        "age_s": (source.clock() - value.time).total_seconds(),
    }


async def _first(
    config: CarbonConfig, what: Literal["history", "forecast"], hours: float
) -> tuple[Source | None, list[Intensity], list[str]]:
    problems = []
    for name in config.sources:
        try:
            source = make_source(name, config)
            values = await (
                source.history(hours) if what == "history" else source.forecast(min(hours, 72.0))
            )
        except (FeedError, ConfigError, PrerequisiteError) as error:
            problems.append(str(error))
            continue
        if values:
            return source, values, problems
    return None, [], problems


def _table(values: Sequence[Intensity], title: str) -> Table:
    table = Table(title=title, box=None, title_justify="left", pad_edge=False)
    table.add_column("UTC")
    table.add_column("g/kWh", justify="right")
    table.add_column("")
    table.add_column("")
    most = max(value.g_per_kwh for value in values) or 1.0
    for value in values:
        bar = "█" * round(_BAR * value.g_per_kwh / most)
        mark = "estimated" if value.estimated else ""
        table.add_row(f"{value.time:%Y-%m-%d %H:%M}", f"{value.g_per_kwh:.0f}", mark, bar)
    return table


def _age(seconds: float) -> str:
    for size, unit in ((365.25 * 86_400, "years"), (86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _without(config: CarbonConfig) -> str:
    match config.fallback:
        case "last":
            return "the control plane goes on with the last one it had; without any, L0"
        case "none":
            return "the control plane serves L0"
        case g_per_kwh:
            return f"the control plane goes by carbon.fallback, {g_per_kwh:g} g/kWh"
