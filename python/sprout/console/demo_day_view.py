# SPDX-License-Identifier: Apache-2.0
"""The day in one picture and one table."""

import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich.table import Table

from sprout.console.demo_checks import Check
from sprout.console.demo_day_result import HOURS, Day, Saving, quarters, saving
from sprout.console.demo_view import verdict
from sprout.console.output import out

_INK, _FAINT, _GRID = "#22303a", "#6b7780", "#b5533c"
# From L0 on: grey, then the greener the shorter the answer.
_LEVELS = ("#b9c1c8", "#7fbf8e", "#2d7a4f", "#1b5238", "#0f3323")
_WORDS = ("no directive", "brief", "very brief")


def show(day: Day, checks: list[Check], picture: Path) -> None:
    """For people; readable in ten seconds."""
    out.print()
    out.print(_table(day))
    _fine_print(day)
    verdict(checks, picture)


def _table(day: Day) -> Table:
    energy = "J (est.)" if day.estimated else "J"
    table = Table(box=None, pad_edge=False, title=_headline(day), title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("g/kWh", justify="right", no_wrap=True)
    table.add_column("policy", no_wrap=True)
    for name in ("served", "tokens", energy, "mg", "at L0 (est.)", "less"):
        table.add_column(name, justify="right", no_wrap=True)
    for part in quarters(day):
        begin, end = (datetime.fromisoformat(part[key]) for key in ("begin", "end"))
        mix = [
            f"{level} {100 * share:.0f} %"
            for level, share in zip(day.levels, part["policy_mix"], strict=False)
            if share >= 0.005
        ]
        table.add_row(
            f"{_local(day, begin)}-{_local(day, end)}",
            f"{part['g_per_kwh']:.0f}",
            ", ".join(mix),
            "/".join(str(count) for count in part["served"]),
            str(part["output_tokens"]),
            f"{part['joules']:.0f}",
            f"{1e3 * part['carbon_g']:.1f}",
            f"{1e3 * part['at_l0_g']:.1f}",
            _percent(1 - part["carbon_g"] / part["at_l0_g"]) if part["at_l0_g"] > 0 else "",
        )
    return table


def _headline(day: Day) -> str:
    return f"{_date(day)}: {len(day.under_policy())} requests under the policy, {_saved(day)}"


def _saved(day: Day) -> str:
    found = saving(day)
    if math.isnan(found.fraction):
        return "saving unknown"
    return f"{_percent(found.fraction)} less carbon than at L0 (estimated; {_interval(found)})"


def _interval(found: Saving) -> str:
    return f"95 %: {100 * found.low:.0f} to {100 * found.high:.0f} %"


def _fine_print(day: Day) -> None:
    found, held = saving(day), day.held_out()
    source = (
        "Joules are estimated from CPU time and a declared wattage."
        if day.estimated
        else "Joules are metered."
    )
    for line in (
        f"served: answers at {'/'.join(day.levels)}; mg: of CO2e; at L0: from the mean of "
        f"{len(held)} requests that were held out. At most {day.max_tokens} tokens an answer.",
        f"Had the day's mean mix been kept all day: {1e3 * found.same_mix_g:.1f} mg (estimated) "
        f"instead of {1e3 * found.carbon_g:.1f}. That difference is what following the grid gains; "
        "the rest of the saving is shorter answers as such.",
        _intensities(day),
        f"{source} They are attributed to requests, idle is left out: a node saves less. xi is "
        f"{day.xi:g}; preferences are the paper's, not this model's.",
    ):
        out.print(f"[dim]{line}[/]")


def _intensities(day: Day) -> str:
    kind = "SYNTHETIC intensities" if day.grid.kind == "synthetic" else "Intensities"
    return (
        f"{kind}: {day.grid.zone}, {day.grid.factor_type}, {day.grid.credit}; replayed "
        f"{day.speed:.0f} times as fast."
    )


def _date(day: Day) -> str:
    if day.grid.kind == "synthetic":
        return "SYNTHETIC day"
    local = day.first_hour.astimezone(day.grid.clock) + timedelta(hours=12)
    place = day.grid.place[0].upper() + day.grid.place[1:]
    return f"{place}, {local.day} {local:%B %Y}"


def _local(day: Day, time: datetime) -> str:
    return f"{time.astimezone(day.grid.clock):%H:%M}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def draw(day: Day, path: Path, *, good: bool) -> None:
    """Intensity, the mix that followed it, the answers, and what it came to; one clock below.
    The title says what was found, where `good` says that it was."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    found = saving(day)
    with plt.rc_context({"font.size": 11, "text.color": _INK, "axes.labelcolor": _INK}):
        figure, panels = plt.subplots(
            4, 1, figsize=(10, 10.5), sharex=True, height_ratios=(2.2, 2.2, 1, 2.4)
        )
        figure.subplots_adjust(left=0.09, right=0.86, top=0.885, bottom=0.115, hspace=0.42)
        _draw_grid(panels[0], day)
        _draw_mix(panels[1], day)
        _draw_answers(panels[2], day)
        _draw_grams(panels[3], day, found)
        _clock_below(panels[3], day)
        for axes in panels:
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(colors=_FAINT, length=0)
            axes.spines[["left", "bottom"]].set_color("#d5dade")
        figure.text(0.09, 0.965, _title(day, good), fontsize=16, fontweight="bold", va="center")
        figure.text(0.09, 0.935, _subtitle(day), fontsize=11, color=_FAINT, va="center")
        figure.text(0.09, 0.018, _credit(day), fontsize=8.5, color=_FAINT, va="bottom")
        figure.savefig(path, dpi=120)
        plt.close(figure)


def _title(day: Day, good: bool) -> str:
    invented = "SYNTHETIC DAY: " if day.grid.kind == "synthetic" else ""
    finding = "The dirtier the grid, the shorter the answers"
    return invented + (finding if good else "A day that failed its checks")


def _subtitle(day: Day) -> str:
    where = f"{_date(day)}: a day in {HOURS * 3600 / day.speed:.0f} seconds"
    return f"{where}, {len(day.under_policy())} real prompts under Sprout's policy"


def _credit(day: Day) -> str:
    energy = "estimated from CPU time and declared watts" if day.estimated else "metered"
    return (
        f"{_intensities(day)}\n"
        f"Joules {energy}, attributed to requests without idle. All at L0: from the mean of "
        f"{len(day.held_out())} requests that were held out.\n"
        f"At most {100 * day.xi:.0f} % of preference is given up (xi); preferences are the "
        "paper's, not this model's."
    )


def _x(day: Day, time: datetime) -> float:
    return (time - day.first_hour).total_seconds() / 3600


def _heading(axes: Any, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=11, fontweight="bold", pad=6)


def _draw_grid(axes: Any, day: Day) -> None:
    values = day.grid_values()
    x, y = [_x(day, time) for time, _ in values], [g for _, g in values]
    axes.step([*x, 24.0], [*y, y[-1]], where="post", color=_GRID, linewidth=2)
    axes.fill_between([*x, 24.0], [*y, y[-1]], step="post", color=_GRID, alpha=0.12, linewidth=0)
    axes.set_ylim(0, 1.22 * max(y))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    for extreme, words, lift in ((max(y), "dirtiest", 5), (min(y), "cleanest", -17)):
        at = y.index(extreme)
        axes.annotate(
            f"{words}: {extreme:.0f}",
            (min(max(x[at] + 0.5, 1.6), 22.4), extreme),
            xytext=(0, lift),
            textcoords="offset points",
            ha="center",
            color=_GRID,
            fontweight="bold",
        )
    _heading(axes, f"The grid: carbon intensity, gCO2e/kWh ({day.grid.factor_type})")


def _draw_mix(axes: Any, day: Day) -> None:
    steps = day.steps()
    edges = [_x(day, step.begin) for step in steps] + [_x(day, steps[-1].end)]
    bottom = [0.0] * len(edges)
    for number, level in enumerate(day.levels):
        shares = [100 * step.shares[number] for step in steps]
        top = [b + s for b, s in zip(bottom, [*shares, shares[-1]], strict=True)]
        colour = _LEVELS[min(number, len(_LEVELS) - 1)]
        axes.fill_between(edges, bottom, top, step="post", color=colour, linewidth=0)
        room, x, y = _roomiest(edges, bottom, top)
        if room > 12:
            text = f"{level}: {_WORDS[number]}" if number < len(_WORDS) else level
            ink = "white" if number >= 2 else _INK
            axes.text(x, y, text, ha="center", va="center", color=ink)
        bottom = top
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 50, 100], ["0", "50", "100 %"])
    _heading(axes, "The policy: share of requests at each level")


def _roomiest(
    edges: list[float], bottom: list[float], top: list[float]
) -> tuple[float, float, float]:
    """(height, x, y of its middle) of a band's tallest stretch of four hours: for its name."""
    best = (0.0, 0.0, 0.0)
    for at in (half_hours / 2 for half_hours in range(4, 45)):
        inside = [i for i in range(len(edges) - 1) if edges[i] < at + 2 and edges[i + 1] > at - 2]
        low, high = max(bottom[i] for i in inside), min(top[i] for i in inside)
        best = max(best, (high - low, at, (low + high) / 2))
    return best


def _draw_answers(axes: Any, day: Day) -> None:
    for number in range(len(day.levels)):
        x = [_x(day, day.moment(s.sent_s)) for s in day.under_policy() if s.level == number]
        colour = _LEVELS[min(number, len(_LEVELS) - 1)]
        axes.plot(x, [number] * len(x), "o", color=colour, markersize=8, clip_on=False)
    axes.set_ylim(-0.6, len(day.levels) - 0.4)
    axes.set_yticks(range(len(day.levels)), day.levels)
    axes.tick_params(axis="y", pad=9)
    axes.spines["left"].set_visible(False)
    _heading(axes, "What was served: each dot is a real answer")


def _draw_grams(axes: Any, day: Day, found: Saving) -> None:
    own = day.under_policy()
    joules_at_l0 = found.at_l0_g / sum(s.carbon_g / s.joules for s in own)
    x, actual, without = [0.0], [0.0], [0.0]
    for served in own:
        x.append(_x(day, day.moment(served.sent_s)))
        actual.append(actual[-1] + 1e3 * served.carbon_g)
        without.append(without[-1] + 1e3 * joules_at_l0 * served.carbon_g / served.joules)
    x, actual, without = [*x, 24.0], [*actual, actual[-1]], [*without, without[-1]]
    axes.fill_between(x, actual, without, step="post", color=_LEVELS[1], alpha=0.25, linewidth=0)
    axes.step(x, without, where="post", color=_FAINT, linewidth=1.6, linestyle=(0, (4, 2)))
    axes.step(x, actual, where="post", color=_LEVELS[2], linewidth=2.4)
    for value, text, colour, side in (
        (without[-1], "all at L0\n(estimated)", _FAINT, "bottom"),
        (actual[-1], "with Sprout", _LEVELS[2], "top"),
    ):
        axes.annotate(
            f"{value:.0f} mg\n{text}",
            (24, value),
            xytext=(8, 0),
            textcoords="offset points",
            va=side,
            color=colour,
            fontweight="bold",
            annotation_clip=False,
        )
    axes.set_ylim(0, 1.25 * max(without))
    axes.yaxis.set_major_formatter("{x:g} mg")
    less = f"{_percent(found.fraction)} less carbon (estimated; {_interval(found)})"
    _heading(axes, f"What it came to: {less}")


def _clock_below(axes: Any, day: Day) -> None:
    hours = range(0, 25, 3)
    times = [day.first_hour + timedelta(hours=h) for h in hours]
    axes.set_xlim(0, 24)
    axes.set_xticks(list(hours), [_local(day, time) for time in times])
    clock = "UTC" if str(day.grid.clock) == "UTC" else "local time"
    axes.set_xlabel(clock, color=_FAINT)
