# SPDX-License-Identifier: Apache-2.0
"""A report's plots as SVG. Importing this needs matplotlib (the extra `local`)."""

import io
import math
from datetime import UTC, datetime, timedelta
from itertools import cycle

import matplotlib
from matplotlib.figure import Figure

from sprout.control.report import Report

_LEVELS = ("#7a8b99", "#5aa469", "#2d6a4f", "#1b4332", "#95d5b2", "#081c15")
_SERIES = ("#b5651d", "#5aa469", "#4c72b0", "#8c5aa4", "#c4a000")
_OTHER = "#d0d5d9"


def timeline(report: Report) -> str:
    """Shares of the arms, intensity, grams and joules over the span: one SVG element."""
    # The same report gives the same bytes; dates without what they have in common.
    with matplotlib.rc_context({"svg.hashsalt": "sprout", "date.converter": "concise"}):
        drawn = io.StringIO()
        _figure(report).savefig(drawn, format="svg", metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]


def _figure(report: Report) -> Figure:
    times = [datetime.fromtimestamp(part.start, UTC) for part in report.timeline]
    width = timedelta(seconds=report.part_s)
    figure = Figure(figsize=(9, 8), layout="constrained")
    shares, grid, carbon, energy = figure.subplots(4, 1, sharex=True)
    arms = sorted({arm for part in report.timeline for arm in part.requests})
    arms.sort(key=lambda arm: (not arm.startswith("L"), arm))
    totals = [max(sum(part.requests.values()), 1) for part in report.timeline]
    below = [0.0] * len(times)
    for number, arm in enumerate(arms):
        heights = [
            100 * part.requests.get(arm, 0) / total
            for part, total in zip(report.timeline, totals, strict=True)
        ]
        colour = _LEVELS[number % len(_LEVELS)] if arm.startswith("L") else _OTHER
        shares.bar(
            times,
            heights,
            width,
            bottom=below,
            label=arm,
            color=colour,
            align="edge",
            edgecolor="white",
            linewidth=0.2,
        )
        below = [a + b for a, b in zip(below, heights, strict=True)]
    shares.set_ylabel("% of requests")
    shares.legend(ncols=max(len(arms), 1), fontsize="small", loc="upper left", frameon=False)
    shares.set_ylim(0, 125)
    names = sorted({part.series for part in report.timeline} - {""})
    for name, colour in zip(names, cycle(_SERIES), strict=False):
        values = [p.g_per_kwh if p.series == name else math.nan for p in report.timeline]
        grid.step(times, values, where="post", color=colour, label=name)
    grid.set_ylabel("grid, g/kWh")
    # Grams of two series are two quantities: side by side, never one on the other.
    kinds = sorted({name for part in report.timeline for name in part.grams})
    for number, (name, colour) in enumerate(zip(kinds, cycle(_SERIES[1:]), strict=False)):
        one = width / len(kinds)
        starts = [time + number * one for time in times]
        heights = [1e3 * part.grams.get(name, 0.0) for part in report.timeline]
        carbon.bar(starts, heights, one, color=colour, align="edge", label=name)
    carbon.set_ylabel("receipts, mg CO2e")
    for axes, labels in ((grid, names), (carbon, kinds)):
        if len(labels) > 1:
            axes.legend(fontsize="x-small", loc="upper left", frameon=False)
    energy.bar(
        times, [part.joules for part in report.timeline], width, color="#5aa469", align="edge"
    )
    energy.set_ylabel("receipts, J")
    energy.set_xlabel("UTC")
    return figure
