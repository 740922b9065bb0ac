# SPDX-License-Identifier: Apache-2.0
"""The newest outcomes as columns: what the nodes do now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sprout.profile.change import Costs
from sprout.profile.service import Demand
from sprout.profile.spans import concurrency

Floats = NDArray[np.float64]

LEAST_SPAN_S = 1.0  # that a rate is told from


@dataclass(frozen=True)
class Recent:
    """Outcomes of all levels and arms, newest first; columns (n,)."""

    node: NDArray[np.str_]
    level: NDArray[np.int64]
    eligible: NDArray[np.bool_]  # for the profile, and of the pack asked for
    stored_at: Floats  # seconds since 1970, as the next two
    start: Floats  # of work
    end: Floats
    energy_joules: Floats
    input_tokens: Floats
    output_tokens: Floats

    @classmethod
    def of(cls, rows: Sequence[Any]) -> Self:
        """Rows with these columns."""
        node = np.array([row[0] for row in rows], np.str_)
        numbers = np.array([row[1:] for row in rows], np.float64).reshape(-1, 8).T
        level, eligible, *amounts = numbers
        return cls(node, level.astype(np.int64), eligible > 0, *amounts)

    def __len__(self) -> int:
        return len(self.level)

    def demand(
        self, levels: Sequence[str], window_s: float, now: float, *, whole: bool = True
    ) -> list[Demand]:
        """The traffic of a mean node by level; token counts 0 where a level had none.

        By when requests ended, not by when they were heard of: an agent that was cut off reports an
        hour's at once. window_s: what was asked for. whole: there were outcomes before these rows
        and all since are here, so a quiet part of the window was quiet. Else (as many rows as may
        be read, or the first that there ever were) the rate is that since the first of them.
        """
        lately = (self.end > now - window_s) & (self.end <= now)
        nodes = max(1, len(np.unique(self.node[lately])))
        span, marks = window_s, 0
        if not whole and lately.any():
            first_s = now - float(self.end[lately].min())
            if first_s < window_s:
                span, marks = max(first_s, LEAST_SPAN_S), 1  # the first one only begins the span
        share = 1 - marks / max(1, int(lately.sum()))
        rows = []
        for index, level in enumerate(levels):
            own = lately & (self.level == index)
            count = int(own.sum())
            tokens = (self.input_tokens[own], self.output_tokens[own])
            means = [float(t.mean()) if count else 0.0 for t in tokens]
            rows.append(Demand(level, count * share / span / nodes, *means))
        return rows

    def costs(self, ended_after: Mapping[str, float], now: float) -> tuple[Costs, dict[str, float]]:
        """(the eligible ones that ended after a time, in order; the time up to which).

        Both times by node, each on its own clock and with its own delay: one that reports late is
        not passed over, nor does it hold up the others. A node that is not named starts anew.
        now: later ends are of a node whose clock is fast, and would hide all that follow.

        Only those whose company is known: requests that began before the node's oldest row ended,
        or that ended so lately that longer ones may still be at work beside them, are left out.
        """
        in_flight = np.ones(len(self))
        known = np.zeros(len(self), np.bool_)
        until: dict[str, float] = {}
        for name in np.unique(self.node).tolist():
            own = self.node == name
            start, end = self.start[own], self.end[own]
            in_flight[own] = concurrency(start, end)
            after = ended_after.get(name, 0.0)
            lag = float(np.quantile(end - start, 0.95))
            until[name] = max(after, min(float(end.max()), now) - lag)
            known[own] = (start >= end.min()) & (end <= until[name]) & (end > after)
        chosen = np.flatnonzero(known & self.eligible)
        return _costs(self, chosen[np.argsort(self.end[chosen])], in_flight), until


def _costs(recent: Recent, chosen: NDArray[np.int64], in_flight: Floats) -> Costs:
    return Costs(
        level=recent.level[chosen],
        energy_joules=recent.energy_joules[chosen],
        output_tokens=recent.output_tokens[chosen],
        in_flight=in_flight[chosen],
    )
