# SPDX-License-Identifier: Apache-2.0
"""The newest eligible outcomes of each level, as the store gives them, to estimate e and p from."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sprout.control import tables as t
from sprout.control.inbox import NOT_ELIGIBLE
from sprout.control.propensity import Served
from sprout.profile import live
from sprout.v1 import control_pb2 as pb

_COLUMNS = (
    "policy_version, tenant, task, id, energy_joules, device_seconds, input_tokens, "
    "output_tokens, energy_estimated, stored_at"
)
# Along the index `profile`, from its end: reads as many rows as it gives.
SAMPLES = f"""
SELECT {_COLUMNS}, 1 AS metered
FROM outcomes WHERE pack_hash = ? AND level = ? AND eligible = 1 ORDER BY id DESC LIMIT ?
"""  # noqa: S608
# Those that would be eligible if they had been metered, down to an id, along their own index.
UNMETERED = f"""
SELECT {_COLUMNS}, 0 AS metered
FROM outcomes WHERE pack_hash = ? AND level = ? AND id > ? AND flags & {t.UNMETERED}
    AND ending = {pb.ENDING_DELIVERED}
    AND arm NOT IN ({", ".join(f"'{arm}'" for arm in sorted(NOT_ELIGIBLE))})
ORDER BY id DESC LIMIT ?
"""  # noqa: S608


class Newest(NamedTuple):
    """The newest eligible outcomes of each level, and those beside them that were not metered."""

    rows: Sequence[Sequence[Any]]  # by level, as SAMPLES and UNMETERED give them
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
        columns = np.array(rows, np.float64).reshape(-1, 8).T
        ids, joules, seconds, inputs, outputs, estimated, stored_at, metered = columns
        known = metered > 0
        return live.Samples(
            age_outcomes=self.last - ids,
            energy_joules=joules,
            device_seconds=seconds,
            input_tokens=inputs,
            output_tokens=outputs,
            propensity=np.array(propensity, np.float64),
            metered=known,
            energy_estimated=bool(estimated[known].any()),
            age_s=max(0.0, self.now - float(stored_at[known].max())) if known.any() else math.nan,
        )
