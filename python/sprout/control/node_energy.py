# SPDX-License-Identifier: Apache-2.0
"""What whole nodes used, idle included, from their counters over time.

Counters are cumulative: between two readings the energy is exact, and only the ends of a span are
interpolated. A counter that fell began anew (another meter, another boot); what lies between is not
known and never guessed.
"""

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sprout.control.archive import Span
from sprout.control.notes import Note
from sprout.control.rows import BlockRow, Reading
from sprout.proof.switchback import Cell, label
from sprout.units import operational_g

MAX_GAP = 0.1  # of a span: the most that two readings around one of its ends may be apart


class Grid:
    """What policies said of intensity, PUE and embodied carbon: steps over time."""

    def __init__(self, notes: Sequence[Note]) -> None:
        self._notes = sorted(notes, key=lambda n: n.issued_at)
        self._times = [n.issued_at for n in self._notes]

    def at(self, time: float) -> Note | None:
        """The policy in force; None before the first."""
        index = bisect.bisect_right(self._times, time) - 1
        return self._notes[index] if index >= 0 else None

    def pieces(self, span: Span) -> list[tuple[float, Note | None]]:
        """(seconds, policy in force) that make up the span."""
        first = bisect.bisect_right(self._times, span.since)
        last = bisect.bisect_left(self._times, span.until)
        edges = [span.since, *self._times[first:last], span.until]
        return [(b - a, self.at(a)) for a, b in pairwise(edges) if b > a]

    def mean_g_per_kwh(self, span: Span) -> float:
        """Over time; nan where any part is unknown, or set by an operator for a drill."""
        pieces = self.pieces(span)
        if not pieces or any(intensity(made) is None for _, made in pieces):
            return math.nan
        total = math.fsum(s * (intensity(made) or 0.0) for s, made in pieces)
        return total / (span.until - span.since)


def intensity(made: Note | None) -> float | None:
    """g/kWh of the grid as the policy knew it; None: unknown, or not the grid's."""
    return None if made is None or made.overridden else made.g_per_kwh


def joules(readings: Sequence[Reading], span: Span) -> float | None:
    """Metered in the span (readings: of one node, in time order); None: it can't be told."""
    times = [r.time for r in readings]
    first = bisect.bisect_right(times, span.since) - 1
    last = bisect.bisect_left(times, span.until)
    if first < 0 or last >= len(times) or last <= first:
        return None
    inside = readings[first : last + 1]
    widest = MAX_GAP * (span.until - span.since)
    ends = (inside[1].time - inside[0].time, inside[-1].time - inside[-2].time)
    if max(ends) > widest or any(b.metered_joules < a.metered_joules for a, b in pairwise(inside)):
        return None
    return _at(inside[-2], inside[-1], span.until) - _at(inside[0], inside[1], span.since)


def _at(a: Reading, b: Reading, time: float) -> float:
    """The counter at a time between two readings."""
    return a.metered_joules + (b.metered_joules - a.metered_joules) * (time - a.time) / (
        b.time - a.time
    )


def cells(
    blocks: Sequence[BlockRow],
    readings: Mapping[str, Sequence[Reading]],
    notes: Mapping[int, Note],
    grid: Grid,
    requests: Callable[[Span], Mapping[str, int]],
) -> tuple[list[Cell], dict[str, int]]:
    """What was measured of unspoiled blocks; how many nodes in blocks were left out, by reason."""
    found: list[Cell] = []
    left_out: dict[str, int] = {}
    for block in blocks:
        if block.spoiled:
            left_out[block.spoiled] = left_out.get(block.spoiled, 0) + 1
            continue
        span = Span(block.measured_from, block.ended_at)
        opened = requests(span)
        mean = grid.mean_g_per_kwh(span)
        for node, own in readings.items():
            reason = ""
            used = joules(own, span)
            if used is None:
                reason = "a node's counter has a gap"
            elif not _served(own, span, notes, label(block.seed, block.number)):
                reason = "a node did not have the block's policy"
            elif math.isnan(mean):
                reason = "the intensity is not known"
            if reason or used is None:
                left_out[reason] = left_out.get(reason, 0) + 1
                continue
            pair = block.number // 2
            found.append(Cell(block.seed, pair, block.arm, node, used, opened.get(node, 0), mean))
    return found, left_out


def _served(own: Sequence[Reading], span: Span, notes: Mapping[int, Note], name: str) -> bool:
    """Whether every reading in the span found a policy of this block on the node's board."""
    inside = [r for r in own if span.since <= r.time < span.until]
    blocks = {notes[r.policy_version].block if r.policy_version in notes else "" for r in inside}
    return bool(inside) and all(block.startswith(name) for block in blocks)


@dataclass(frozen=True)
class Sci:
    """Software Carbon Intensity (ISO/IEC 21031): (operational + embodied) per request, of whole
    nodes while they were watched, location-based."""

    nodes: int
    node_hours: float
    requests: int
    joules: float
    idle_joules: float  # while nothing was active
    operational_g: float  # with PUE
    embodied_g: float
    unknown_joules: float  # at a time when the intensity was not known: in no grams
    estimated: bool

    @property
    def g_per_request(self) -> float:
        """nan without requests."""
        total = self.operational_g + self.embodied_g
        return total / self.requests if self.requests else math.nan


def sci(
    readings: Mapping[str, Sequence[Reading]],
    span: Span,
    grid: Grid,
    requests: Callable[[Span], Mapping[str, int]],
) -> Sci | None:
    """Over the parts of the span that the nodes' readings cover; None: they cover none."""
    used = idle = grams = embodied = unknown = seconds = 0.0
    count = nodes = 0
    estimated = False
    for node, own in readings.items():
        inside = [r for r in own if span.since <= r.time < span.until]
        if len(inside) < 2:
            continue
        nodes += 1
        count += requests(Span(inside[0].time, inside[-1].time)).get(node, 0)
        estimated |= any(r.energy_estimated for r in inside)
        for a, b in pairwise(inside):
            delta = b.metered_joules - a.metered_joules
            made = grid.at(a.time)
            seconds += b.time - a.time
            embodied += (made.embodied_g_per_s if made else 0.0) * (b.time - a.time)
            if delta < 0:
                continue
            used += delta
            idle += max(b.idle_joules - a.idle_joules, 0.0)
            g_per_kwh = intensity(made)
            if made is None or g_per_kwh is None:
                unknown += delta
            else:
                grams += operational_g(delta, g_per_kwh, made.pue)
    if not nodes:
        return None
    return Sci(nodes, seconds / 3600, count, used, idle, grams, embodied, unknown, estimated)
