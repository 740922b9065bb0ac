# SPDX-License-Identifier: Apache-2.0
"""What `sprout profile` tells people: a row per condition, the fit, what both come to."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.table import Table

from sprout.console.output import err, out
from sprout.profile.document import Profile
from sprout.profile.energy import attributed, marginal, node_watts
from sprout.profile.service import Demand
from sprout.serve.analysis import Row
from sprout.serve.profiling import Condition


def show(profile: Profile, rows: Sequence[Row], notes: Sequence[str]) -> None:
    """The table, the fit with its intervals and residuals, and what both come to."""
    tag = " (estimated)" if profile.made.energy_estimated else ""
    made = profile.made
    out.print(f"{made.model}, pack {made.pack}, {made.prompts} prompts, meter {made.meter}{tag}")
    table = Table(box=None, pad_edge=False)
    table.add_column("condition", no_wrap=True)
    est = " (est.)" if made.energy_estimated else ""
    columns = ("req/s", f"W{est}", "flight", "busy", "tokens", f"J/req{est}", f"J/tok{est}")
    for column in (*columns, f"J{est}", "p50 s", "p99 s"):
        table.add_column(column, justify="right")
    for r in rows:
        table.add_row(
            r.condition + (f" ({r.shed} not sent)" if r.shed else ""),
            *(_number(v) for v in (r.requests_per_s, r.watts, r.in_flight, r.busy, r.tokens)),
            *(_number(v) for v in (r.node_j_per_request, r.node_j_per_token)),
            *(_number(v) for v in (r.attributed_j_per_request, r.p50_s, r.p99_s)),
        )
    out.print(table)
    out.print("flight: requests in flight; J/req and J/tok: the node's, idle included;")
    out.print("J: of a receipt, the attributed share")
    for line in (*_power(profile), *_levels(profile)):
        out.print(line, markup=False)
    for note in notes:
        err.print(f"[yellow]{note}[/]")


def _power(profile: Profile) -> Iterator[str]:
    if profile.power is None:
        return
    fit, units = profile.power, ("W", "J/token", "J/token", "W")
    tag = ", estimated" if profile.made.energy_estimated else ""
    yield (
        f"node watts = idle + a · prefill tokens/s + b · decode tokens/s + c · busy{tag} "
        f"({fit.windows} windows, {fit.blocks} conditions; {100 * fit.confidence:.0f} % intervals)"
    )
    for (name, value), unit in zip(asdict(fit.model).items(), units, strict=True):
        ends = fit.intervals[name]
        yield f"  {name:<22} {value:8.3g} {unit:<8} [{ends.low:.3g}, {ends.high:.3g}]"
    worst = profile.windows[fit.worst_window]
    where = Condition(worst.kind, worst.level, worst.setting)
    yield (
        f"  R² {fit.r2:.3f}, residuals {fit.rmse_watts:.3g} W, the worst {fit.worst_watts:+.3g} W "
        f"of {worst.watts:.3g} W ({where})"
    )


def _levels(profile: Profile) -> Iterator[str]:
    """Attributed beside marginal at the rates that were driven, never in one sum."""
    if profile.power is None or profile.service is None:
        return
    power, service = profile.power.model, profile.service
    tag = ", estimated" if profile.made.energy_estimated else ""
    rates = sorted({w.setting for w in profile.windows if w.kind == "open"})
    first = profile.levels[0]
    yield f"from the fit, everything at {first.level} (joules per request{tag}):"
    for rate in rates:
        traffic = [
            Demand(t.level, rate if t is first else 0.0, t.input_tokens, t.output_tokens)
            for t in profile.levels
        ]
        shares = attributed(power, service, traffic, estimated=profile.made.energy_estimated)
        adds = marginal(power, service, traffic, estimated=profile.made.energy_estimated)
        if shares is None or adds is None:
            yield f"  {rate:.3g} requests/s: more than the node can do"
            continue
        marginals = "  ".join(f"{m.level} {m.joules:.3g}" for m in adds)
        attributions = "  ".join(f"{a.level} {a.joules:.3g}" for a in shares)
        yield (
            f"  {rate:.3g} requests/s: marginal {marginals}; attributed {attributions}; "
            f"node {node_watts(power, service, traffic):.4g} W"
        )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
