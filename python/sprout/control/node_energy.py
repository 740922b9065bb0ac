# SPDX-License-Identifier: Apache-2.0
"""What whole nodes used, idle included, from their counters over time.

Counters are cumulative: between two readings the energy is exact, and only the ends of a span are
interpolated. A counter that fell began anew (another meter, another boot); what lies between is not
known and never guessed.

Nodes are taken one by one, so that no more than one node's readings are held; requests are counted
once, when it is known in which spans.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from sprout.carbon.intensity import Series
from sprout.control.archive import Counters, Opened, Span
from sprout.control.grid import Grid, intensity, series_of, title
from sprout.control.notes import Note
from sprout.control.rows import BlockRow
from sprout.proof.switchback import Cell, label
from sprout.units import operational_g

TOUCH_S = 1e-3  # what sums of seconds may be off by
MAX_GAP = 0.1  # of a span: the most that two readings around one of its ends may be apart


def joules(own: Counters, span: Span) -> float | None:
    """Metered in the span (own: of one node, in time order); None: it can't be told."""
    times = own.time
    first = int(np.searchsorted(times, span.since, side="right")) - 1
    last = int(np.searchsorted(times, span.until, side="left"))
    if first < 0 or last >= len(times) or last <= first:
        return None
    widest = MAX_GAP * (span.until - span.since)
    ends = (times[first + 1] - times[first], times[last] - times[last - 1])
    if max(ends) > widest or (np.diff(own.metered_joules[first : last + 1]) < 0).any():
        return None
    return _at(own, last - 1, span.until) - _at(own, first, span.since)


def _at(own: Counters, index: int, time: float) -> float:
    """The counter at a time between a reading and the next."""
    (a, b), (before, after) = own.time[index : index + 2], own.metered_joules[index : index + 2]
    return float(before + (after - before) * (time - a) / (b - a))


class Experiment:
    """The blocks of a switchback, node by node."""

    def __init__(self, blocks: Sequence[BlockRow], notes: Mapping[int, Note], grid: Grid) -> None:
        self.left_out: dict[str, int] = {}  # blocks, or nodes in blocks, by reason
        self._served = {version: made.block for version, made in notes.items()}
        self._found: list[tuple[Span, Cell]] = []  # without their requests
        self._blocks = []
        for block in blocks:
            if block.spoiled:
                self._leave_out(block.spoiled)
            else:
                span = Span(block.measured_from, block.ended_at)
                self._blocks.append((block, span, grid.mean(span)))

    def take(self, node: str, own: Counters) -> None:
        """A node and its counters, once."""
        for block, span, mean in self._blocks:
            used = joules(own, span)
            if used is None:
                self._leave_out("a node's counter has a gap")
            elif not self._had(own, span, label(block.seed, block.number)):
                self._leave_out("a node did not have the block's policy")
            elif isinstance(mean, str):
                self._leave_out(mean)
            else:
                series, g_per_kwh = mean
                pair = block.number // 2
                cell = Cell(block.seed, pair, block.arm, node, used, 0, g_per_kwh, title(series))
                self._found.append((span, cell))

    def spans(self) -> Iterator[Span]:
        """In which requests are to be counted."""
        return (span for span, _ in self._found)

    def cells(self, opened: Opened) -> list[Cell]:
        """What was measured of unspoiled blocks."""
        return [replace(c, requests=opened.within(c.node, span)) for span, c in self._found]

    def _had(self, own: Counters, span: Span, name: str) -> bool:
        """Whether every reading in the span found a policy of this block on the node's board."""
        first, last = np.searchsorted(own.time, (span.since, span.until), side="left")
        versions = np.unique(own.policy_version[first:last]).tolist()
        return bool(versions) and all(self._served.get(v, "").startswith(name) for v in versions)

    def _leave_out(self, reason: str) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1


@dataclass
class SciSeries:
    """(operational + embodied) per request of the time that had its intensity of one series."""

    joules: float = 0.0
    operational_g: float = 0.0  # with PUE
    embodied_g: float = 0.0
    requests: int = 0

    @property
    def g_per_request(self) -> float:
        """nan without requests."""
        total = self.operational_g + self.embodied_g
        return total / self.requests if self.requests else float("nan")


@dataclass
class Sci:
    """Software Carbon Intensity (ISO/IEC 21031) of whole nodes while they were watched,
    location-based. There is one figure for each series of intensities: they are never added."""

    nodes: int = 0
    node_hours: float = 0.0
    joules: float = 0.0
    idle_joules: float = 0.0  # while nothing was active
    unknown_joules: float = 0.0  # at a time when the intensity was not known: in no figure
    unknown_requests: int = 0  # opened then
    estimated: bool = False
    by_series: dict[str, SciSeries] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        return self.unknown_requests + sum(own.requests for own in self.by_series.values())


class Watch:
    """SCI over the parts of a span that the nodes' readings cover, node by node."""

    def __init__(self, span: Span, grid: Grid) -> None:
        self._span, self._grid = span, grid
        self._sum = Sci()
        self._stretches: list[tuple[str, Span, Series | None]] = []  # node, when, whose intensity

    def take(self, node: str, own: Counters) -> None:
        """A node and its counters, once.

        A step of the counters that spans two policies is shared between them by time.
        """
        first, last = np.searchsorted(own.time, (self._span.since, self._span.until), side="left")
        if last - first < 2:
            return
        inside = slice(first, last)
        time = own.time[inside]
        used = np.diff(own.metered_joules[inside])
        idle = np.maximum(np.diff(own.idle_joules[inside]), 0.0)
        since, until = time[:-1], time[1:]
        fine = used >= 0  # else it began anew
        begin, end = self._grid.steps(since, until)
        self._sum.nodes += 1
        self._sum.estimated |= bool(own.estimated[inside].any())
        self._sum.joules += float(used[fine].sum())
        self._sum.idle_joules += float(idle[fine].sum())
        self._sum.node_hours += float((until - since)[fine].sum()) / 3600
        for low, high in _runs(fine, begin, end):
            span = Span(float(since[low]), float(until[high]))
            self._piece(node, span, float(used[low : high + 1].sum()))

    def _piece(self, node: str, span: Span, used: float) -> None:
        at, whole = span.since, span.until - span.since
        for seconds, made in self._grid.pieces(span):
            g_per_kwh, series = intensity(made), series_of(made)
            share = used * seconds / whole
            if made is None or g_per_kwh is None or series is None:
                self._sum.unknown_joules += share
            else:
                sums = self._sum.by_series.setdefault(title(series), SciSeries())
                sums.joules += share
                sums.operational_g += operational_g(share, g_per_kwh, made.pue)
                sums.embodied_g += made.embodied_g_per_s * seconds
            self._stretch(node, Span(at, at + seconds), series)
            at += seconds

    def _stretch(self, node: str, span: Span, series: Series | None) -> None:
        """Adds it to the one before where that goes on: policies are many, series few."""
        if self._stretches:
            before, last, same = self._stretches[-1]
            if before == node and same == series and abs(span.since - last.until) < TOUCH_S:
                self._stretches[-1] = (node, Span(last.since, span.until), series)
                return
        self._stretches.append((node, span, series))

    def spans(self) -> Iterator[Span]:
        """In which requests are to be counted."""
        return (span for _, span, _ in self._stretches)

    def sci(self, opened: Opened) -> Sci | None:
        """None: the readings cover nothing of the span. Once."""
        for node, span, series in self._stretches:
            count = opened.within(node, span)
            if series is None:
                self._sum.unknown_requests += count
            else:
                self._sum.by_series[title(series)].requests += count
        return self._sum if self._sum.nodes else None


def _runs(
    fine: np.ndarray[tuple[int], np.dtype[np.bool_]],
    begin: np.ndarray[tuple[int], np.dtype[np.int64]],
    end: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> Iterator[tuple[int, int]]:
    """(first, last) of the steps between readings that lie under one policy; a step over several
    policies is a run of its own, and one whose counter fell is in none."""
    alone = begin != end
    breaks = (np.diff(begin) != 0) | alone[1:] | alone[:-1] | ~fine[1:] | ~fine[:-1]
    edges = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(begin)]
    return ((a, b - 1) for a, b in pairwise(edges) if fine[a])
