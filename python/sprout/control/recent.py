# SPDX-License-Identifier: Apache-2.0
"""The newest outcomes as columns: what the nodes do now."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sprout.profile.change import Costs
from sprout.profile.service import Demand
from sprout.profile.spans import concurrency

Floats = NDArray[np.float64]


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
        self, levels: Sequence[str], window_s: float, now: float, limit: int
    ) -> list[Demand]:
        """The traffic of a mean node by level; token counts 0 where a level had none.

        By when requests ended, not by when they were heard of: an agent that was cut off reports an
        hour's at once. window_s: what was asked for; if all `limit` rows came, they may reach back
        less far.
        """
        lately = (self.end > now - window_s) & (self.end <= now)
        nodes = max(1, len(np.unique(self.node[lately])))
        span = window_s
        if lately.any() and len(self) >= limit:
            span = min(window_s, max(now - float(self.end[lately].min()), 1.0))
        rows = []
        for index, level in enumerate(levels):
            own = lately & (self.level == index)
            count = int(own.sum())
            tokens = (self.input_tokens[own], self.output_tokens[own])
            means = [float(t.mean()) if count else 0.0 for t in tokens]
            rows.append(Demand(level, count / span / nodes, *means))
        return rows

    def costs(self, ended_after: float, now: float) -> tuple[Costs, float]:
        """(the eligible ones that ended after a time, in order; the time up to which).

        now: later ends are of a node whose clock is fast, and would hide all that follow.

        Only those whose company is known: requests that began before the oldest row ended, or that
        ended so lately that longer ones may still be at work beside them, are left out.
        """
        if len(self) == 0:
            return _costs(self, np.zeros(0, np.int64), self.start), ended_after
        in_flight = np.ones(len(self))
        for node in np.unique(self.node):
            own = self.node == node
            in_flight[own] = concurrency(self.start[own], self.end[own])
        lag = float(np.quantile(self.end - self.start, 0.95))
        until = max(ended_after, min(float(self.end.max()), now) - lag)
        known = (self.start >= self.end.min()) & (self.end <= until) & (self.end > ended_after)
        chosen = np.flatnonzero(known & self.eligible)
        return _costs(self, chosen[np.argsort(self.end[chosen])], in_flight), until


def _costs(recent: Recent, chosen: NDArray[np.int64], in_flight: Floats) -> Costs:
    return Costs(
        level=recent.level[chosen],
        energy_joules=recent.energy_joules[chosen],
        output_tokens=recent.output_tokens[chosen],
        in_flight=in_flight[chosen],
    )
