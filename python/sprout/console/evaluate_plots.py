# SPDX-License-Identifier: Apache-2.0
"""An evaluation as a picture. Importing this needs matplotlib (the extra `local`)."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sprout.evaluate.findings import WIDEST

_LEVELS = ("#5aa469", "#2d6a4f", "#b5651d", "#4c72b0", "#8c5aa4", "#c4a000", "#7a8b99")
BAR = 2.0  # its width, in points
MOST = 250.0  # % of L0's preference: an interval beyond it is cut there, and says so


def draw(found: dict[str, Any], path: Path) -> None:
    """q of every class and level as a share of L0's, with 95 % intervals; PNG, SVG or PDF by name.

    found: an evaluation as JSON has it.
    """
    with matplotlib.rc_context({"svg.hashsalt": "sprout"}):
        figure(found).savefig(path, dpi=150)


def figure(found: dict[str, Any]) -> Figure:
    """found: as in `draw`."""
    classes, levels = found["classes"], found["levels"]
    made = Figure(figsize=(8, 1.6 + 0.5 * len(classes)), layout="constrained")
    axes = made.subplots()
    step = 0.6 / max(len(levels) - 1, 1)
    for row, one in enumerate(classes):
        q = one["preference"]
        if not q[0] > 0:
            continue
        for i, level in enumerate(levels[1:], start=1):
            y, colour = row + (i - len(levels) / 2) * step, _LEVELS[(i - 1) % len(_LEVELS)]
            value = 100 * q[i] / q[0]
            if one.get("low"):
                _bar(axes, y, value, (one["low"][i], one["high"][i]), colour)
            axes.plot([value], [y], "o", color=colour, label=level if row == 0 else None)
    axes.axvline(100, color="#7a8b99", linewidth=1)
    names = [f"{one.get('task') or 'all'} ({one['judged']})" for one in classes]
    axes.set_yticks(range(len(classes)), names)
    axes.invert_yaxis()
    axes.set_xlabel(f"preference, % of {levels[0]}'s; bars: 95 % intervals, cut at arrows")
    axes.set_title(f"{found['judge']}, {found['method']}", fontsize="medium", loc="left")
    axes.legend(frameon=False, loc="best")
    return made


def _bar(axes: Axes, y: float, value: float, interval: tuple[float, float], colour: str) -> None:
    """value: in %; interval: of shares of L0's preference. What is cut ends in an arrow, with its
    end beside it."""
    low, high = interval
    most = max(MOST, 1.1 * value)
    end = min(100 * high, most)
    axes.plot([100 * low, end], [y, y], color=colour, linewidth=BAR)
    if 100 * high > most:
        axes.plot([end], [y], ">", color=colour)
        text = "∞" if high >= WIDEST else f"{100 * high:.0f} %"
        axes.annotate(text, (end, y), (6, 0), textcoords="offset points", va="center", color=colour)
