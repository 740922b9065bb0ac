# SPDX-License-Identifier: Apache-2.0
"""The newest eligible outcomes of each level, as the store gives them, to estimate e and p from."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sprout.control.propensity import Served
from sprout.profile import live

# Along the index `profile`, from its end: reads as many rows as it gives.
SAMPLES = """
SELECT policy_version, tenant, task, id, energy_joules, device_seconds, input_tokens,
    output_tokens, energy_estimated, stored_at
FROM outcomes WHERE pack_hash = ? AND level = ? AND eligible = 1 ORDER BY id DESC LIMIT ?
"""


class Newest(NamedTuple):
    """The newest eligible outcomes of each level."""

    rows: Sequence[Sequence[Any]]  # by level, as SAMPLES gives them
    served: Mapping[int, Served | None]  # by policy version
    last: int  # the newest id of all outcomes
    now: float

    def of_tasks(self, tasks: Collection[str]) -> dict[str, "Newest"]:
        """Those of each class alone."""
        rows: dict[str, list[list[Any]]] = {task: [[] for _ in self.rows] for task in tasks}
        for level, found in enumerate(self.rows):
            for row in found:
                if row[2] in rows:
                    rows[row[2]][level].append(row)
        return {task: self._replace(rows=own) for task, own in rows.items()}

    def samples(self, level: int) -> live.Samples:
        """Without the tenants that nothing is drawn for: what their requests would use at another
        level is neither known nor asked."""
        rows, propensity = [], []
        for version, tenant, task, *numbers in self.rows[level]:
            mixes = self.served.get(version)
            if mixes is not None and tenant and tenant in mixes.opted_out:
                continue
            rows.append(numbers)
            shares = () if mixes is None else mixes.of(tenant, task)
            propensity.append(shares[level] if level < len(shares) else math.nan)
        columns = np.array(rows, np.float64).reshape(-1, 7).T
        ids, joules, seconds, inputs, outputs, estimated, stored_at = columns
        return live.Samples(
            age_outcomes=self.last - ids,
            energy_joules=joules,
            device_seconds=seconds,
            input_tokens=inputs,
            output_tokens=outputs,
            propensity=np.array(propensity, np.float64),
            energy_estimated=bool(estimated.any()),
            age_s=max(0.0, self.now - float(stored_at.max())) if rows else math.nan,
        )
