# SPDX-License-Identifier: Apache-2.0
"""What a span of real serving used and saved: read from the store, nothing is changed.

Two figures of saving, never mixed. *Attributed*: receipts of requests under the policy against
those of the control group. *Carbon saved*: whole nodes in a switchback. See proof/.

Grams are kept apart by the series of the intensity that they were made with, everywhere: after a
fallback to another source there are two sums. See grid.py.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sprout.carbon.intensity import Series
from sprout.control import guard as live
from sprout.control.archive import Archive, Slice, Span, Sums
from sprout.control.grid import Grid, grams_as, intensity, series_of, title
from sprout.control.inbox import OURS, PROMPT, UNSCORED
from sprout.control.node_energy import Experiment, Sci, Watch
from sprout.control.notes import Note
from sprout.proof.attributed import Arm, Carried, Effect, Group, compare, moments
from sprout.proof.capacity import Freed, freed
from sprout.proof.guard import Tally
from sprout.proof.interval import Absent
from sprout.proof.switchback import Cell, System, estimate

CONTROL = "control"
PARTS_S = (60.0, 300.0, 900.0, 3600.0, 6 * 3600.0, 86_400.0)
MAX_PARTS = 200  # of a timeline
SEED = 20_240_312  # of the resampling: the same store gives the same report
NO_DRAW = Absent(
    "no policy in force drew requests both into a control group (control.control_share) and under "
    "itself"
)
# Quantity -> (its sum, the sum of its squares) of a row; where not all have it, that of its
# products with device seconds too.
QUANTITIES: dict[str, Callable[[Sums], tuple[float, ...]]] = {
    "joules": lambda s: (s.joules, s.joules2, s.joules_s),
    "grams": lambda s: (s.grams, s.grams2, s.grams_s),
    "tokens": lambda s: (s.tokens, s.tokens2),
    "device_seconds": lambda s: (s.device_s, s.device_s2),
}
ATTRIBUTED = ("joules", "grams", "tokens")
METERED = ("joules", "grams")
GROUPINGS = ("arm", "level", "task", "tenant", "zone")


@dataclass(frozen=True)
class Line:
    """Sums over the requests of one arm, level, task, tenant or zone; Sprout's own, probes and
    evaluations, have lines of their own."""

    name: str
    requests: int
    unmetered: int  # of them: in neither joules nor grams
    joules: float
    grams: dict[str, float]  # by series of the intensity, as grid.grams_as names it
    with_grams: dict[str, int]  # requests, the same
    without_grams: int  # metered requests whose intensity was not known: in no grams
    tokens: float  # of output
    device_seconds: float
    estimated: bool  # at least one request's joules are a model's


@dataclass(frozen=True)
class SeriesLine:
    """What policies said of the grid, by series: they are never mixed."""

    zone: str
    source: str
    factor_type: str
    signal: str
    seconds: float
    low_g_per_kwh: float
    mean_g_per_kwh: float  # over time
    high_g_per_kwh: float
    estimated: bool  # at least one value


@dataclass(frozen=True)
class Shadow:
    """What was decided and not applied, weighted by the requests that were served meanwhile."""

    requests: int
    would_be: dict[str, float]  # share by level
    would_save_g: float  # per request, expected from the profile: nothing was measured
    would_save_fraction: float
    series: str  # of the intensity that most of them had: what is expected is of these
    of_others: int  # requests that had another


@dataclass(frozen=True)
class GuardState:
    rolled_back: str  # why; "" = it is not
    tallies: dict[str, tuple[Tally, Tally]]  # by kind: (policy, L0), over the span


@dataclass(frozen=True)
class Part:
    """Of the timeline."""

    start: float  # seconds since 1970
    requests: dict[str, int]  # by arm
    joules: float
    grams: dict[str, float]  # of receipts, by series
    series: str  # of the intensity; "": none was known all the time, or there were several
    g_per_kwh: float  # mean over time; nan without a series


@dataclass(frozen=True)
class Report:
    span: Span
    part_s: float
    lines: dict[str, list[Line]]  # by grouping
    series: list[SeriesLine]
    # By quantity, less device seconds; grams of several series: one of each.
    attributed: dict[str, Effect | Absent]
    attributed_estimated: bool
    compared: int  # requests in the attributed comparison
    # By quantity: levels that prompts chose ("policy") against levels drawn from the mix
    # ("control"), of requests without a mix of their own; {}: none were chosen.
    prompts: dict[str, Effect | Absent]
    system: System | Absent
    system_estimated: bool
    blocks: int  # stored of the switchback in the span
    left_out: dict[str, int]  # blocks, or nodes in blocks, by reason
    capacity: Freed | Absent
    shadow: Shadow | None
    guard: GuardState
    sci: Sci | None
    timeline: list[Part]


def make(archive: Archive, span: Span) -> Report:
    """Read everything once. ControlError where the store can't be read."""
    sums = archive.sums(span)
    in_span = archive.notes(span)
    known = {n.version: n for n in in_span}
    missing = sorted({s.policy_version for s in sums} - known.keys() - {0})
    known |= {n.version: n for n in archive.notes_of(missing)}
    grid, blocks = Grid(in_span), archive.blocks(span)
    experiment, watch = Experiment(blocks, known, grid), Watch(span, grid)
    for node, counters in archive.readings(span):
        experiment.take(node, counters)
        watch.take(node, counters)
    opened = archive.opened([*experiment.spans(), *watch.spans()])
    measured, watched = experiment.cells(opened), watch.sci(opened)
    part_s = next((s for s in PARTS_S if (span.until - span.since) / s <= MAX_PARTS), PARTS_S[-1])
    nodes = archive.nodes(span)
    drawn = [s for s in sums if drawn_as(s, known) is not None]
    return Report(
        span=span,
        part_s=part_s,
        lines={by: lines(sums, known, by) for by in GROUPINGS},
        series=series(grid, span),
        attributed=_attributed(sums, known) if drawn else dict.fromkeys(ATTRIBUTED, NO_DRAW),
        attributed_estimated=any(s.estimated for s in drawn),
        compared=sum(s.requests for s in drawn),
        prompts=_by_prompt(sums, known),
        system=_system(measured, in_span, blocks_run=bool(blocks)),
        system_estimated=watched is not None and watched.estimated,
        blocks=len(blocks),
        left_out=experiment.left_out,
        capacity=_freed(compared(sums, known, "device_seconds"), nodes if drawn else 0),
        shadow=shadow(sums, known),
        guard=_guard(archive, span, sums, known),
        sci=watched,
        timeline=_timeline(archive, span, part_s, grid, known),
    )


def capacity(archive: Archive, span: Span) -> Freed | Absent:
    """That part of the report alone. ControlError where the store can't be read."""
    sums = archive.sums(span, by_task=False)
    known = {n.version: n for n in archive.notes_of(sorted({s.policy_version for s in sums} - {0}))}
    drawn = any(drawn_as(s, known) is not None for s in sums)
    nodes = archive.nodes(span) if drawn else 0
    return _freed(compared(sums, known, "device_seconds"), nodes)


def _freed(arms: tuple[Arm, Arm], nodes: int) -> Freed | Absent:
    return freed(*arms, replicas=nodes) if nodes else NO_DRAW


def drawn_as(row: Sums, known: dict[int, Note]) -> str | None:
    """ "policy" or "control" where a fair draw between the two put these requests; else None.

    Under the policy are those too whose prompt chose the level, or was to: chance put them there.
    """
    made = known.get(row.policy_version)
    if made is None or made.standing != "policy":
        return None
    if not (made.control_probability > 0 and made.policy_probability > 0):
        return None
    if row.arm == CONTROL:
        return CONTROL
    return "policy" if row.arm in (f"L{row.level}", PROMPT, UNSCORED) else None


def _attributed(sums: Sequence[Sums], known: dict[int, Note]) -> dict[str, Effect | Absent]:
    """By quantity. Grams of each series, the one with the most requests first."""
    served: Counter[Series] = Counter()
    for row in sums:
        series = series_of(known.get(row.policy_version))
        if series is not None and drawn_as(row, known) is not None:
            served[series] += row.with_grams
    found: dict[str, Effect | Absent] = {}
    for name in ATTRIBUTED:
        if name != "grams" or not served:
            found[name] = compare(*compared(sums, known, name))
            continue
        for series, _ in served.most_common():
            key = name if len(served) == 1 else f"{name}, {title(series)}"
            found[key] = compare(*compared(sums, known, name, series))
    return found


def chosen_by(row: Sums, known: dict[int, Note]) -> tuple[bool, float] | None:
    """(whether the prompt chose the level, or the mix did; how likely that was) where a fair draw
    between the two said which; else None. Who has a mix without prices is never chosen for; and a
    node without weights has the second alone of the two ("unscored" are in neither)."""
    made = known.get(row.policy_version)
    if made is None or made.standing != "policy" or not 0 < made.prompt_share < 1:
        return None
    if made.preference_by_prompt(row.tenant, row.task) is None:
        return None
    if row.arm == PROMPT:
        return True, made.policy_probability * made.prompt_share
    if row.arm == f"L{row.level}":
        return False, made.policy_probability * (1 - made.prompt_share)
    return None


def _by_prompt(sums: Sequence[Sums], known: dict[int, Note]) -> dict[str, Effect | Absent]:
    """By quantity; grams where all are of one series."""
    rows = [(s, chosen_by(s, known)) for s in sums]
    drawn = [(s, *chosen) for s, chosen in rows if chosen is not None]
    if not any(by_prompt for _, by_prompt, _ in drawn):
        return {}
    lit = {series_of(known[s.policy_version]) for s, _, _ in drawn}
    found: dict[str, Effect | Absent] = {}
    for name in ATTRIBUTED:
        if name == "grams" and (
            len(lit) > 1 or any(s.metered and s.with_grams < s.requests for s, _, _ in drawn)
        ):
            found[name] = Absent("their intensities are of several series, or not known")
            continue
        chosen, mixed = (
            _arm(((s, chance) for s, by_prompt, chance in drawn if by_prompt == wanted), name)
            for wanted in (True, False)
        )
        names = ("whose prompt chose the level", "drawn from the mix")
        found[name] = compare(chosen, mixed, names=names)
    return found


def _arm(rows: Iterable[tuple[Sums, float]], quantity: str) -> Arm:
    """Of (row, probability of its arm)."""
    known: list[Group] = []
    unknown: list[Group] = []
    for row, chance in rows:
        total, squares, *product = QUANTITIES[quantity](row)
        seconds = (row.device_s, row.device_s2)
        if quantity in METERED and not row.metered:
            unknown.append(Group(chance, row.requests, 0.0, 0.0, *seconds))
        else:
            count = row.with_grams if quantity == "grams" else row.requests
            known.append(Group(chance, count, total, squares, *seconds, *product))
    return Carried(moments(known), moments(unknown)) if unknown else moments(known)


def compared(
    sums: Sequence[Sums], known: dict[int, Note], quantity: str, series: Series | None = None
) -> tuple[Arm, Arm]:
    """(under the policy, in the control group) of one quantity.

    For grams, those whose intensity was of `series` alone. Requests whose intensity was not known
    are left out: their policies did not know it either, so they are left out of both arms.
    """
    arms: dict[str, list[tuple[Sums, float]]] = {"policy": [], CONTROL: []}
    for row in sums:
        arm = drawn_as(row, known)
        if arm is None:
            continue
        if quantity == "grams" and (
            (row.metered and row.with_grams == 0)
            or series is None
            or series_of(known[row.policy_version]) != series
        ):
            continue
        made = known[row.policy_version]
        chance = made.control_probability if arm == CONTROL else made.policy_probability
        arms[arm].append((row, chance))
    return _arm(arms["policy"], quantity), _arm(arms[CONTROL], quantity)


def lines(sums: Sequence[Sums], known: dict[int, Note], by: str) -> list[Line]:
    """Grouped by arm, level, task, tenant or zone, the most requests first."""
    names: dict[str, Callable[[Sums], str]] = {
        "arm": lambda s: s.arm,
        "level": lambda s: s.arm if s.arm in OURS else f"L{s.level}",
        "task": lambda s: s.arm if s.arm in OURS else s.task or "none given",
        "tenant": lambda s: s.arm if s.arm in OURS else s.tenant or "none given",
        "zone": lambda s: known[s.policy_version].zone if s.policy_version in known else "unknown",
    }
    groups: dict[str, list[Sums]] = {}
    for row in sums:
        groups.setdefault(names[by](row), []).append(row)
    made = [
        Line(
            name=name,
            requests=sum(s.requests for s in rows),
            unmetered=sum(s.requests for s in rows if not s.metered),
            joules=math.fsum(s.joules for s in rows if s.metered),
            **_grams(rows, known),
            without_grams=sum(s.requests - s.with_grams for s in rows if s.metered),
            tokens=math.fsum(s.tokens for s in rows),
            device_seconds=math.fsum(s.device_s for s in rows),
            estimated=any(s.estimated for s in rows),
        )
        for name, rows in groups.items()
    ]
    return sorted(made, key=lambda line: (-line.requests, line.name))


def _grams(rows: Sequence[Sums], known: dict[int, Note]) -> dict[str, dict[str, Any]]:
    """The fields of a line that keep grams apart."""
    parts: dict[str, list[Sums]] = {}
    for row in rows:
        if row.metered and row.with_grams:
            parts.setdefault(grams_as(known.get(row.policy_version)), []).append(row)
    return {
        "grams": {name: math.fsum(s.grams for s in own) for name, own in sorted(parts.items())},
        "with_grams": {name: sum(s.with_grams for s in own) for name, own in sorted(parts.items())},
    }


def series(grid: Grid, span: Span) -> list[SeriesLine]:
    """Of the intensities that policies were decided on; an operator's drills are none."""
    found: dict[Series, list[tuple[float, Note]]] = {}
    for seconds, made in grid.pieces(span):
        if made is not None and made.series is not None and intensity(made) is not None:
            found.setdefault(made.series, []).append((seconds, made))
    out = []
    for own, pieces in found.items():
        values = [made.g_per_kwh or 0.0 for _, made in pieces]
        seconds = math.fsum(s for s, _ in pieces)
        mean = math.fsum(s * g for (s, _), g in zip(pieces, values, strict=True)) / seconds
        estimated = any(made.intensity_estimated for _, made in pieces)
        out.append(SeriesLine(*own, seconds, min(values), mean, max(values), estimated))
    return sorted(out, key=lambda line: -line.seconds)


def shadow(sums: Sequence[Sums], known: dict[int, Note]) -> Shadow | None:
    """None: no request was served in shadow mode."""
    served: Counter[int] = Counter()
    for row in sums:
        made = known.get(row.policy_version)
        if made is not None and made.standing == "shadow" and row.arm not in OURS:
            served[row.policy_version] += row.requests
    total = sum(served.values())
    if not total:
        return None
    would_be: dict[str, float] = {}
    priced: dict[str, list[tuple[int, Note]]] = {}
    for version, count in served.items():
        made = known[version]
        for level, share in zip(made.levels, made.would_be, strict=False):
            would_be[level] = would_be.get(level, 0.0) + share * count / total
        priced.setdefault(grams_as(made) if made.series else "", []).append((count, made))
    counts = {name: sum(count for count, _ in own) for name, own in priced.items()}
    main = max(counts, key=lambda name: (counts[name], name))
    saved = math.fsum(n * (made.expected_l0_g - made.expected_g) for n, made in priced[main])
    l0 = math.fsum(n * made.expected_l0_g for n, made in priced[main])
    return Shadow(
        requests=total,
        would_be=would_be,
        would_save_g=saved / counts[main],
        would_save_fraction=saved / l0 if l0 > 0 else 0.0,
        series=main,
        of_others=total - counts[main],
    )


def _system(
    measured: Sequence[Cell], notes: Sequence[Note], *, blocks_run: bool
) -> System | Absent:
    if not blocks_run:
        return Absent("no switchback ran (control.switchback)")
    ratios = {n.pue for n in notes}
    if len(ratios) > 1:
        return Absent(f"the PUE changed in the span: {sorted(ratios)}")
    return estimate(measured, pue=ratios.pop() if ratios else math.nan, seed=SEED)


def _guard(
    archive: Archive, span: Span, sums: Sequence[Sums], known: dict[int, Note]
) -> GuardState:
    requests: live.Requests = Counter()
    cut: live.Requests = Counter()
    for s in sums:
        requests[s.policy_version, s.arm, s.level] += s.requests
        cut[s.policy_version, s.arm, s.level] += s.truncated
    said: live.Said = Counter()
    for version, arm, level, kind, count in archive.feedback(span):
        said[version, arm, level, kind] += count
    pause = archive.pause() or ""
    rolled_back = pause if pause.startswith(live.PREFIX) else ""
    return GuardState(rolled_back, live.tallies(requests, cut, said, known))


def _timeline(
    archive: Archive, span: Span, part_s: float, grid: Grid, known: dict[int, Note]
) -> list[Part]:
    """Every part of the span, those without a request too."""
    by_part: dict[int, list[Slice]] = {}
    for s in archive.slices(span, part_s):
        if s.arm not in OURS:
            by_part.setdefault(s.part, []).append(s)
    parts = []
    for index in range(math.ceil((span.until - span.since) / part_s)):
        start = span.since + index * part_s
        counts: Counter[str] = Counter()
        emitted: dict[str, list[float]] = {}
        for s in by_part.get(index, []):
            counts[s.arm] += s.requests
            if s.grams is not None:
                emitted.setdefault(grams_as(known.get(s.policy_version)), []).append(s.grams)
        mean = grid.mean(Span(start, min(start + part_s, span.until)))
        parts.append(
            Part(
                start=start,
                requests=dict(counts),
                joules=math.fsum(s.joules for s in by_part.get(index, [])),
                grams={name: math.fsum(own) for name, own in sorted(emitted.items())},
                series="" if isinstance(mean, str) else title(mean[0]),
                g_per_kwh=math.nan if isinstance(mean, str) else mean[1],
            )
        )
    return parts
