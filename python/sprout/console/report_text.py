# SPDX-License-Identifier: Apache-2.0
"""The sentences of a report, the same in the terminal, in the page and in JSON."""

import math
from datetime import UTC, datetime

from sprout.console.output import grams, joules
from sprout.control.report import Line, Report
from sprout.proof.attributed import Effect
from sprout.proof.interval import Absent, Interval
from sprout.proof.switchback import L0

LINE_COLUMNS = ("requests", "tokens/answer", "energy", "J/request", "carbon", "mg/request")
ATTRIBUTED = (
    "Attributed means: by receipts, which share the energy of a batch among its requests. At equal "
    "traffic it overstates what the nodes save, and is not called carbon saved."
)
BY_PROMPT = (
    "Chance said whose prompts chose, so the two are alike but for that. What it does to "
    "preference is predicted, not measured here."
)
LOCATION_BASED = "Grams are location-based: what the grid emitted, no certificates deducted."
_UNITS = {"joules": "J", "grams": "mg", "tokens": "tokens"}


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def title(report: Report) -> str:
    return f"{stamp(report.span.since)} to {stamp(report.span.until)}"


def cells(line: Line) -> tuple[str, ...]:
    """Of a row, as LINE_COLUMNS."""
    parts = [(line.grams[name], line.with_grams[name]) for name in line.grams]
    metered = line.requests - line.unmetered
    return (
        f"{line.requests}{f' ({line.unmetered} not metered)' if line.unmetered else ''}",
        f"{line.tokens / line.requests:.1f}",
        joules(line.joules, line.estimated),
        f"{line.joules / metered:.3g}" if metered else "not known",
        " | ".join(grams(total) for total, _ in parts) or grams(math.nan),
        " | ".join(f"{1e3 * total / count:.3g}" for total, count in parts) or "unknown",
    )


def notes(report: Report) -> list[str]:
    """All sentences, for scripts that pass them on."""
    return [*grid(report), *(s for part in sections(report).values() for s in part)]


def grid(report: Report) -> list[str]:
    if not report.series:
        return ["No intensity was known in this span: no grams."]
    found = [
        f"{s.zone}: {s.low_g_per_kwh:.0f} to {s.high_g_per_kwh:.0f} g/kWh, mean over time "
        f"{s.mean_g_per_kwh:.0f} ({s.source}, {s.factor_type}, {s.signal}"
        f"{', estimated in part' if s.estimated else ''})"
        for s in report.series
    ]
    if len({(s.factor_type, s.signal) for s in report.series}) > 1:
        found.append("These are different quantities: compare no grams across them.")
    names = sorted({name for line in report.lines["arm"] for name in line.grams})
    if len(names) > 1:
        found.append(f"Grams are kept apart by series, never added: {' | '.join(names)}.")
    return [*found, LOCATION_BASED]


def sections(report: Report) -> dict[str, list[str]]:
    """Heading -> sentences. A part that says nothing is not there."""
    if not any(report.lines.values()):
        return {"Requests": ["No requests in this span."]}
    found = {
        "Carbon saved (whole nodes, switchback)": _system(report),
        "Attributed (requests under the policy against the control group)": _attributed(report),
        "By prompt (against requests drawn from the mix)": _by_prompt(report),
        "Freed capacity": _capacity(report),
        "Shadow": _shadow(report),
        "Guard": _guard(report),
        "SCI, per request (ISO/IEC 21031)": _sci(report),
    }
    return {heading: sentences for heading, sentences in found.items() if sentences}


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def percent(interval: Interval) -> str:
    """12.3 % (95 %: 10.1 to 14.5)"""
    level = f"{100 * interval.confidence:g} %"
    return f"{100 * interval.value:.1f} % ({level}: {_range(interval, 100, '.1f')})"


def _range(interval: Interval, factor: float, form: str) -> str:
    return f"{format(factor * interval.low, form)} to {format(factor * interval.high, form)}"


def _system(report: Report) -> list[str]:
    s = report.system
    out = []
    if isinstance(s, Absent):
        out.append(f"Not known: {s.reason}.")
    else:
        what = "Carbon saved" if s.carbon_saved.low > 0 else "No saving is proven: measured"
        meter = ", by an estimating meter" if report.system_estimated else ""
        out += [
            f"{what}: {percent(s.carbon_saved)} of the operational grams per request, idle "
            f"included{meter}: {1e3 * s.policy_g:.3g} mg under the policy, "
            f"{1e3 * s.l0_g:.3g} mg at L0.",
            f"Energy: {percent(s.energy_saved)}; {s.policy_joules:.3g} J per request under the "
            f"policy, {s.l0_joules:.3g} J at L0.",
            f"In the measured blocks of the policy together {grams_of(s.carbon_saved_g)}.",
            f"From {s.pairs} pairs of blocks on {counted(s.nodes, 'node')}, {s.requests} requests.",
        ]
        if s.pairs_of_others:
            out.append(
                f"Left out {counted(s.pairs_of_others, 'pair')} of blocks: priced in another "
                f"series than {s.series}, or in two."
            )
    for reason, count in sorted(report.left_out.items()):
        out.append(f"Left out {counted(count, 'time')}: {reason}.")
    return out


def grams_of(interval: Interval) -> str:
    return f"{interval.value:.3g} g ({100 * interval.confidence:g} %: {_range(interval, 1, '.3g')})"


def _attributed(report: Report) -> list[str]:
    out = []
    for name, effect in report.attributed.items():
        label = f"{name[0].upper()}{name[1:]}{' (estimated)' if _is_estimate(report, name) else ''}"
        if isinstance(effect, Effect):
            quantity = name.partition(",")[0]
            factor = 1e3 if quantity == "grams" else 1.0
            out.append(
                f"{label}: {percent(effect.saved)} less per request; "
                f"{factor * effect.policy_mean:.3g} {_UNITS[quantity]} under the policy "
                f"({effect.policy_requests} requests), {factor * effect.control_mean:.3g} at "
                f"{L0} ({effect.control_requests} in the control group); difference "
                f"{factor * effect.difference.value:.3g} "
                f"({_range(effect.difference, factor, '.3g')}){_unmetered(effect)}."
            )
        else:
            out.append(f"{label}: not known: {effect.reason}.")
    return [*out, ATTRIBUTED]


def _by_prompt(report: Report) -> list[str]:
    out = []
    for name, effect in report.prompts.items():
        label = f"{name[0].upper()}{name[1:]}"
        if isinstance(effect, Absent):
            out.append(f"{label}: not known: {effect.reason}.")
            continue
        factor = 1e3 if name == "grams" else 1.0
        out.append(
            f"{label}: {percent(effect.saved)} less per request than the mix; "
            f"{factor * effect.policy_mean:.3g} {_UNITS[name]} where the prompt chose "
            f"({effect.policy_requests} requests), {factor * effect.control_mean:.3g} drawn "
            f"({effect.control_requests}){_unmetered(effect)}."
        )
    return [*out, BY_PROMPT] if out else []


def _unmetered(effect: Effect) -> str:
    """How much of the two arms is known by its seconds alone."""
    if not effect.policy_unmetered + effect.control_unmetered:
        return ""
    policy = 100 * effect.policy_unmetered / effect.policy_requests
    control = 100 * effect.control_unmetered / effect.control_requests
    return (
        f"; {policy:.2g} % and {control:.2g} % of them were not metered, and count as the others "
        "do by the second"
    )


def _is_estimate(report: Report, quantity: str) -> bool:
    return report.attributed_estimated and quantity != "tokens"


def _capacity(report: Report) -> list[str]:
    c = report.capacity
    if isinstance(c, Absent):
        return [f"Not known: {c.reason}."]
    one = c.throughput
    return [
        f"At the same number in flight, hence the same latency of a token: {one.value:.2f} times "
        f"the requests per second (95 %: {_range(one, 1, '.2f')}).",
        f"Or the same requests on fewer of {counted(c.replicas, 'node')}: "
        f"{c.releasable.value:.2f} could go (95 %: {_range(c.releasable, 1, '.2f')}), "
        f"{c.releasable_whole} of them surely. "
        "It becomes carbon once it is released.",
    ]


def _shadow(report: Report) -> list[str]:
    s = report.shadow
    if s is None:
        return []
    mix = ", ".join(f"{level} {100 * share:.0f} %" for level, share in s.would_be.items())
    return [
        f"Shadow, nothing was applied: {s.requests} requests were served L0 that would have had "
        f"{mix}.",
        f"Expected from the profile, not measured: {100 * s.would_save_fraction:.1f} % "
        f"({1e3 * s.would_save_g:.3g} mg) less per request.",
    ] + [
        f"That leaves out {counted(count, 'request')} of another series than {s.series}."
        for count in (s.of_others,)
        if count
    ]


def _guard(report: Report) -> list[str]:
    out = []
    if report.guard.rolled_back:
        out.append(f"Rolled back, until an operator resumes: {report.guard.rolled_back}.")
    for kind, (policy, l0) in report.guard.tallies.items():
        if policy.wrong or l0.wrong or kind == "truncation":
            rates = [
                f"{100 * tally.rate:.2f} % of {tally.requests}" if tally.requests else "no requests"
                for tally in (policy, l0)
            ]
            where = "under the policy" if kind == "truncation" else "at shorter levels"
            out.append(f"{kind}: {rates[0]} {where}, {rates[1]} at {L0}.")
    return out


def _sci(report: Report) -> list[str]:
    s = report.sci
    if s is None:
        return ["Not known: no node's energy was read over this span."]
    if not s.requests:
        return [f"Not known: no requests while {counted(s.nodes, 'node')} used {s.joules:.3g} J."]
    meter = " (estimated)" if s.estimated else ""
    out = []
    for name, own in s.by_series.items():
        which = f" ({name})" if len(s.by_series) > 1 else ""
        if not own.requests:
            out.append(f"Not known{which}: no requests while {own.joules:.3g} J were used.")
            continue
        out.append(
            f"{1e3 * own.g_per_request:.3g} mg per request{meter}{which}: "
            f"{1e3 * own.operational_g / own.requests:.3g} operational, "
            f"{1e3 * own.embodied_g / own.requests:.3g} embodied, over {own.requests} requests."
        )
    out.append(
        f"{counted(s.nodes, 'node')}, {s.node_hours:.1f} node hours, "
        f"{joules(s.joules, s.estimated)}, of it {s.idle_joules:.3g} J idle."
    )
    if len(s.by_series) > 1:
        out.append("One figure for each series of intensities: they are not to be added.")
    if s.unknown_joules > 0:
        out.append(
            f"{s.unknown_joules:.3g} J and {counted(s.unknown_requests, 'request')} at times of "
            "unknown intensity are in no grams."
        )
    if s.by_series and all(own.embodied_g == 0 for own in s.by_series.values()):
        out.append("Embodied carbon counts as 0: energy.embodied_g_per_s is not set.")
    return out
