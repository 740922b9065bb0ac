# SPDX-License-Identifier: Apache-2.0
"""An evaluation as a picture. Importing this needs matplotlib (the extra `local`)."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

_LEVELS = ("#5aa469", "#2d6a4f", "#b5651d", "#4c72b0", "#8c5aa4", "#c4a000", "#7a8b99")


def draw(found: dict[str, Any], path: Path) -> None:
    """q of every class and level as a share of L0's, with 95 % intervals; PNG, SVG or PDF by name.

    found: an evaluation as JSON has it.
    """
    classes, levels = found["classes"], found["levels"]
    figure = Figure(figsize=(8, 1.6 + 0.5 * len(classes)), layout="constrained")
    axes = figure.subplots()
    step = 0.6 / max(len(levels) - 1, 1)
    for i, level in enumerate(levels[1:], start=1):
        for row, one in enumerate(classes):
            q = one["preference"]
            if not q[0] > 0:
                continue
            y = row + (i - len(levels) / 2) * step
            value = 100 * q[i] / q[0]
            low, high = one.get("low") or [], one.get("high") or []
            if low:
                ends = [100 * low[i], min(100 * high[i], 250.0)]
                axes.plot(ends, [y, y], color=_LEVELS[(i - 1) % len(_LEVELS)], linewidth=2)
            axes.plot(
                [value],
                [y],
                "o",
                color=_LEVELS[(i - 1) % len(_LEVELS)],
                label=level if row == 0 else None,
            )
    axes.axvline(100, color="#7a8b99", linewidth=1)
    names = [f"{one.get('task') or 'all'} ({one['judged']})" for one in classes]
    axes.set_yticks(range(len(classes)), names)
    axes.invert_yaxis()
    axes.set_xlabel(f"preference, % of {levels[0]}'s; bars: 95 % intervals")
    axes.set_title(f"{found['judge']}, {found['method']}", fontsize="medium", loc="left")
    axes.legend(frameon=False, loc="best")
    with matplotlib.rc_context({"svg.hashsalt": "sprout"}):
        figure.savefig(path, dpi=150)
