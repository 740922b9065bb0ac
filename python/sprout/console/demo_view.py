# SPDX-License-Identifier: Apache-2.0
"""The demo's tables and its picture."""

from pathlib import Path
from typing import Any

from rich.table import Table

from sprout.config import Config
from sprout.console import operator
from sprout.console.demo_checks import Check
from sprout.console.demo_result import ARMS, Result, Shot
from sprout.console.output import out
from sprout.directives import pack

_COLOURS = {"L0": "#7a8b99", "L1": "#5aa469", "L2": "#2d6a4f"}
_WITHOUT = "#b0b7bd"


def totals(result: Result) -> dict[str, dict[str, Any]]:
    """Tokens, joules and grams by arm. An arm under a policy stands beside the same prompts
    without Sprout, priced at the arm's own intensity."""
    off = _sum(result.of("off"))
    by_arm = {}
    for arm in ("low", "high", "off"):
        own = _sum(result.of(arm))
        at = own["carbon_g"] / own["joules"] if own["joules"] else 0.0
        without = off["joules"] * at
        saved = 1 - own["carbon_g"] / without if without else 0.0
        levels = [shot.level for shot in result.of(arm)]
        mix = {level: levels.count(level) for level in sorted(set(levels))}
        by_arm[arm] = own | {
            "mix": mix,
            "without_carbon_g": without,
            "saved_fraction": saved if arm != "off" else 0.0,
        }
    return by_arm


def _sum(shots: list[Shot]) -> dict[str, Any]:
    receipts = [shot.answer.receipt for shot in shots if shot.answer.receipt is not None]
    return {
        "requests": len(shots),
        "output_tokens": sum(shot.answer.output_tokens for shot in shots),
        "joules": sum(r.energy_joules for r in receipts),
        "carbon_g": sum(r.carbon_g for r in receipts),
    }


def show(result: Result, cfg: Config, checks: list[Check], picture: Path) -> None:
    """For people; readable in ten seconds."""
    out.print()
    out.print(_answers(result))
    _policy(result)
    out.print(_comparison(result))
    _fine_print(result)
    verdict(checks, picture)


def verdict(checks: list[Check], picture: Path) -> None:
    """Whether it really happened, and where the picture is."""
    for check in checks:
        if not check.ok:
            out.print(f"[red]NOT SO[/]: {check.what} ({check.detail})", markup=True)
    if all(check.ok for check in checks):
        out.print(f"[green]{len(checks)} checks passed[/]: it all really happened.")
    out.print(f"picture: {picture}")


def _answers(result: Result) -> Table:
    table = Table(
        box=None, pad_edge=False, title="Answers and their receipts", title_justify="left"
    )
    table.add_column("", no_wrap=True, min_width=12)
    table.add_column("level", no_wrap=True)
    for name in ("tokens", "J (est.)" if result.estimated else "J", "mg CO2e"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("answer", no_wrap=True, overflow="ellipsis", max_width=50)
    for arm in ("pinned", "high"):
        table.add_section()
        for shot in result.of(arm):
            receipt = shot.answer.receipt
            table.add_row(
                f"{'pinned' if arm == 'pinned' else shot.kind}",
                shot.level,
                str(shot.answer.output_tokens),
                f"{receipt.energy_joules:.2f}" if receipt else "-",
                f"{1e3 * receipt.carbon_g:.2f}" if receipt else "-",
                " ".join(shot.answer.text.split())[:120],
            )
        if arm == "pinned":
            table.add_row(style="dim")
            table.add_row("[bold]high intensity[/]")
    return table


def _policy(result: Result) -> None:
    out.print()
    for arm, policy in result.policies.items():
        out.print(f"[bold]{ARMS[arm]}[/]: {operator.mix(policy)}")
        for sentence in operator.why(policy):
            out.print(f"  · {sentence}", markup=False)
    out.print()


def _comparison(result: Result) -> Table:
    title = "The same prompts, with the same number in flight"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    table.add_column("", no_wrap=True, min_width=22)
    energy = "J (est.)" if result.estimated else "J"
    for name in ("mix", "tokens", energy, "mg CO2e", "without", "saved"):
        table.add_column(name, justify="right", no_wrap=True)
    for arm, t in totals(result).items():
        beside = (f"{1e3 * t['without_carbon_g']:.1f}", f"{round(100 * t['saved_fraction'])} %")
        table.add_row(
            ARMS[arm],
            ", ".join(f"{n} {level}" for level, n in t["mix"].items()),
            str(t["output_tokens"]),
            f"{t['joules']:.0f}",
            f"{1e3 * t['carbon_g']:.1f}",
            *(beside if arm != "off" else ("", "")),
        )
    return table


def _fine_print(result: Result) -> None:
    source = (
        "Joules are estimated from CPU time and a declared wattage."
        if result.estimated
        else "Joules are metered."
    )
    for line in (
        source + " The intensities are the ends of an invented day.",
        "Energy is per request at equal concurrency; at equal traffic a node saves less, and the "
        "rest is freed capacity.",
        "Preferences are the paper's, not this model's. A dozen draws scatter around the "
        "mix, and some per cent of the joules are noise.",
    ):
        out.print(f"[dim]{line}[/]")


def draw(result: Result, cfg: Config, path: Path) -> None:
    """The picture: grams and tokens of each arm, and the mix that each policy asked for."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (carbon, tokens, mix) = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    _draw_carbon(carbon, result)
    _draw_tokens(tokens, result)
    _draw_mix(mix, result, pack(cfg.request.pack).levels)
    for axes in (carbon, tokens, mix):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _at(result: Result) -> dict[str, str]:
    """Axis labels of the arms under a policy."""
    return {
        arm: f"{arm} intensity\n{policy.intensity.g_per_kwh:.0f} g/kWh"
        for arm, policy in result.policies.items()
    }


def _draw_carbon(axes: Any, result: Result) -> None:
    arms, names = totals(result), _at(result)
    places = range(len(names))
    for offset, key, colour, label in (
        (-0.2, "without_carbon_g", _WITHOUT, "without Sprout"),
        (0.2, "carbon_g", _COLOURS["L2"], "under the policy"),
    ):
        values = [1e3 * arms[arm][key] for arm in names]
        bars = axes.bar([x + offset for x in places], values, 0.36, color=colour, label=label)
        axes.bar_label(bars, fmt="%.3g")
    axes.set_xticks(places, list(names.values()))
    axes.set_ylabel(f"mg CO2e, {'estimated' if result.estimated else 'metered'}")
    axes.set_title(f"carbon of {arms['off']['requests']} prompts")
    axes.legend(frameon=False, loc="upper left")
    axes.margins(y=0.25)


def _draw_tokens(axes: Any, result: Result) -> None:
    arms, names = totals(result), {**_at(result), "off": "without\nSprout"}
    colours = [_WITHOUT if arm == "off" else _COLOURS["L2"] for arm in names]
    values = [arms[arm]["output_tokens"] for arm in names]
    axes.bar_label(axes.bar(list(names.values()), values, 0.5, color=colours))
    axes.set_title("tokens generated")


def _draw_mix(axes: Any, result: Result, levels: tuple[str, ...]) -> None:
    names, policies = list(_at(result).values()), result.policies.values()
    bottom = [0.0] * len(names)
    for level in levels:
        shares = [
            100 * next((s.share for s in p.shares if s.level == level), 0.0) for p in policies
        ]
        axes.bar(names, shares, 0.5, bottom=bottom, label=level, color=_COLOURS.get(level))
        bottom = [b + s for b, s in zip(bottom, shares, strict=True)]
    axes.set_ylabel("share of requests, %")
    axes.set_title("the policy's mix")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
