# SPDX-License-Identifier: Apache-2.0
"""The paper's figures, redrawn from a replay, as SVG. Importing this needs matplotlib."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from sprout.replay.bundle import Bundle
from sprout.replay.run import Runs
from sprout.units import JOULES_PER_KWH

COLOURS = {
    "BASE": "#7a8b99",
    "CO2_OPT": "#b5651d",
    "MODEL_OPT": "#9b5de5",
    "SPROUT_STA": "#95d5b2",
    "SPROUT": "#2d6a4f",
    "ORACLE": "#d4a017",
    "BANK": "#1d4ed8",
}
LEVELS = ("#7a8b99", "#5aa469", "#2d6a4f", "#1b4332", "#95d5b2", "#081c15")

Rows = Sequence[dict[str, Any]]


def figures(bundle: Bundle, runs: Sequence[Runs], rows: Rows) -> dict[str, tuple[str, str]]:
    """File name → (title, one SVG element), of those that there is something to draw for."""
    drawn: dict[str, tuple[str, str]] = {}

    def add(name: str, title: str, draw: Callable[[], Figure | None]) -> None:
        figure = draw()
        if figure is not None:
            drawn[name] = title, _svg(figure)

    xi = min((row["xi"] for row in rows), key=lambda value: abs(value - bundle.meta.xi))
    add("saving", f"Saving against preference, xi = {xi:g}", lambda: saving(rows, bundle, xi))
    add("xi", "SPROUT over xi", lambda: sweep(rows, bundle))
    add("mix", "Mix and intensity over time", lambda: mix(runs, bundle))
    add("energy", "Energy of a request by level and task", lambda: energy(bundle))
    add(
        "models",
        "A large model that answers briefly, a small one that does not",
        lambda: models(bundle),
    )
    return drawn


def saving(rows: Rows, bundle: Bundle, xi: float) -> Figure | None:
    """One panel a zone; crosses: published; whiskers: what one more run falls between."""
    rows = [row for row in rows if row["xi"] == xi and row["scheme"] != "BASE"]
    zones = list(dict.fromkeys(row["zone"] for row in rows))
    if not zones:
        return None
    figure = Figure(figsize=(3.1 * len(zones) + 1.2, 3.6), layout="constrained")
    panels = figure.subplots(1, len(zones), sharey=True, squeeze=False)[0]
    for axes, zone in zip(panels, zones, strict=True):
        for row in (row for row in rows if row["zone"] == zone):
            here = row["normalised_preference_pct"], row["carbon_saving_pct"]
            colour = COLOURS.get(row["scheme"], "black")
            axes.plot(*here, "o", color=colour, markersize=5, label=row["scheme"])
            axes.plot(here[0], row["static_eq_saving_pct"], "_", color=colour, markersize=9)
            axes.hlines(
                here[1], row["preference_low_pct"], row["preference_high_pct"], colour, lw=0.7
            )
            axes.vlines(here[0], row["saving_low_pct"], row["saving_high_pct"], colour, lw=0.7)
            axes.plot(
                row["published_preference_pct"], row["published_saving_pct"], "x", color=colour
            )
        axes.set_title(zone, fontsize="medium")
        axes.set_xlabel("normalised preference, %")
    panels[0].set_ylabel("carbon saved, %")
    figure.suptitle(
        "dots: replayed, with what one more run falls between; crosses: published; "
        "dashes: the best static mix at the dot's preference",
        fontsize="small",
    )
    _legend_once(figure, panels)
    return figure


def sweep(rows: Rows, bundle: Bundle) -> Figure | None:
    rows = [row for row in rows if row["scheme"] == "SPROUT"]
    if len({row["xi"] for row in rows}) < 3:
        return None
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    lines = dict.fromkeys((row["zone"], row["start_hour"]) for row in rows)
    for number, (zone, start) in enumerate(lines):
        own = sorted(
            (row for row in rows if (row["zone"], row["start_hour"]) == (zone, start)),
            key=lambda row: row["xi"],
        )
        colour = f"C{number}"
        x = [row["normalised_preference_pct"] for row in own]
        axes.plot(
            x, [row["carbon_saving_pct"] for row in own], color=colour, label=f"{zone} {start}"
        )
        axes.plot(
            [row["published_preference_pct"] for row in own],
            [row["published_saving_pct"] for row in own],
            ":",
            color=colour,
        )
        axes.plot(x, [row["static_eq_saving_pct"] for row in own], color=colour, alpha=0.3)
    axes.set_xlabel("normalised preference, %   (dotted: published; faint: best static mix)")
    axes.set_ylabel("carbon saved, %")
    axes.legend(frameon=False, fontsize="small")
    return figure


def mix(runs: Sequence[Runs], bundle: Bundle) -> Figure | None:
    """Of the first window of each zone, SPROUT at the bundle's xi, the first seed."""
    chosen: dict[str, Runs] = {}
    for each in runs:
        if each.case.scheme == "SPROUT" and each.first and each.case.xi == bundle.meta.xi:
            chosen.setdefault(each.case.zone, each)
    if not chosen:
        return None
    figure = Figure(figsize=(9, 2.1 * len(chosen) + 0.6), layout="constrained")
    panels = figure.subplots(len(chosen), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (zone, each) in zip(panels, chosen.items(), strict=True):
        assert each.first is not None
        window, plan, _ = each.first
        days = np.arange(window.hours) / 24
        # Days are enough to see it by; hours would be a megabyte of path.
        step = 6
        cut = window.hours // step * step
        shares = plan.shares[:cut].reshape(-1, step, plan.shares.shape[1]).mean(axis=1)
        axes.stackplot(
            days[:cut:step], 100 * shares.T, colors=LEVELS, labels=bundle.meta.levels, step="post"
        )
        axes.set_ylabel("% of requests")
        axes.set_title(f"{zone}, from hour {each.case.start}", fontsize="medium", loc="left")
        grid = axes.twinx()
        grid.step(
            days[:cut:step], window.k0[:cut].reshape(-1, step).mean(axis=1), color="#b5651d", lw=1
        )
        grid.set_ylabel("g/kWh", color="#b5651d")
    panels[-1].set_xlabel("days")
    _legend_once(figure, panels)
    return figure


def energy(bundle: Bundle) -> Figure:
    """As measured in the bundle: means of the prompts of each task."""
    joules = bundle.task_means(bundle.energy_kwh) * JOULES_PER_KWH
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / bundle.levels
    for level, name in enumerate(bundle.meta.levels):
        at = np.arange(len(bundle.tasks)) + width * level
        axes.bar(at, joules[:, level], width, color=LEVELS[level % len(LEVELS)], label=name)
    axes.set_xticks(np.arange(len(bundle.tasks)) + 0.4 - width / 2, bundle.tasks)
    axes.set_ylabel("J per request")
    axes.legend(frameon=False)
    return figure


def models(bundle: Bundle) -> Figure | None:
    """Mean energy over the mix's tasks: the large model at each level, the small one without."""
    if bundle.small_energy_kwh is None:
        return None
    weights = bundle.mix.mean(axis=0)
    large = weights @ bundle.task_means(bundle.energy_kwh) * JOULES_PER_KWH
    small = float(weights @ bundle.task_means(bundle.small_energy_kwh)) * JOULES_PER_KWH
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    names = [f"large, {name}" for name in bundle.meta.levels]
    bars = axes.barh(
        [*names, "small, L0"], [*large, small], color=[*LEVELS[: len(large)], "#9b5de5"]
    )
    axes.bar_label(bars, fmt="%.0f J", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("J per request")
    return figure


def _legend_once(figure: Figure, panels: Any) -> None:
    found: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    figure.legend(
        list(found.values()), list(found), loc="outside lower center", ncols=7, frameon=False
    )


def _svg(figure: Figure) -> str:
    # The same results give the same bytes; text stays text.
    with matplotlib.rc_context({"svg.hashsalt": "sprout", "svg.fonttype": "none"}):
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]
