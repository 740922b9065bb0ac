# SPDX-License-Identifier: Apache-2.0
"""The control plane's memory. What it keeps one by one is in `records`; here are the outcomes, and
what is counted of them.

Outcomes are unique by (segment_uid, ticket). Totals by arm are kept up in the same transaction, so
they outlive pruned outcomes; their grams by series of the intensity too, since those of two are not
to be added.
"""

import math
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

import sqlalchemy as sa
from google.protobuf.message import DecodeError

from sprout.control import propensity, retention
from sprout.control import tables as t
from sprout.control.database import LOOKUP, of_policies
from sprout.control.grid import FORGOTTEN, grams_as
from sprout.control.inbox import PROMPT, UNSCORED, Row
from sprout.control.notes import note
from sprout.control.propensity import Served
from sprout.control.recent import Recent
from sprout.control.records import Records
from sprout.control.samples import SAMPLES, UNMETERED, Newest
from sprout.profile import Measured, live

# Outcomes come by the thousand a second: their statements skip SQLAlchemy's work on each row.
_COLUMNS = (*Row._fields, "stored_at", "pack_hash")
_LAST = sa.select(sa.func.max(t.OUTCOMES.c.id))
_ADD = (
    f"INSERT INTO outcomes ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608
    "ON CONFLICT (segment_uid, ticket) DO NOTHING"
)
_ADD_TOTALS = """
INSERT INTO totals
    (arm, outcomes, energy_joules, carbon_g, output_tokens, energy_estimated, unmetered)
SELECT arm, count(*), total(iif(flags & 512, 0, energy_joules)),
    total(iif(flags & 512, 0, carbon_g)), total(output_tokens), max(energy_estimated),
    total(flags & 512) / 512
FROM outcomes WHERE id > ? GROUP BY arm
ON CONFLICT (arm) DO UPDATE SET
    outcomes = outcomes + excluded.outcomes,
    energy_joules = energy_joules + excluded.energy_joules,
    carbon_g = carbon_g + excluded.carbon_g,
    output_tokens = output_tokens + excluded.output_tokens,
    energy_estimated = max(energy_estimated, excluded.energy_estimated),
    unmetered = unmetered + excluded.unmetered
"""
_PRICED = """
SELECT arm, policy_version, total(carbon_g) FROM outcomes
WHERE id > ? AND carbon_g IS NOT NULL AND (flags & 512) = 0 GROUP BY arm, policy_version
"""
_ADD_GRAMS = """
INSERT INTO grams (arm, series, carbon_g) VALUES (?, ?, ?)
ON CONFLICT (arm, series) DO UPDATE SET carbon_g = carbon_g + excluded.carbon_g
"""
_RECENT = """
SELECT * FROM (
    SELECT node, level, eligible = 1 AND pack_hash = ?, stored_at,
        opened_at + queue_seconds AS start, opened_at + queue_seconds + device_seconds AS end,
        energy_joules, input_tokens, output_tokens
    FROM outcomes ORDER BY id DESC LIMIT ?
) WHERE stored_at > ?
"""
# Of requests under the policy, or that would have been while it is held back.
_TRAFFIC = """
SELECT tenant, task, count(*) FROM (
    SELECT tenant, task, arm, pack_hash FROM outcomes ORDER BY id DESC LIMIT ?
) WHERE pack_hash = ? AND (
    arm LIKE 'L%' OR arm IN ('prompt', 'unscored', 'control', 'held_back', 'paused')
)
GROUP BY tenant, task
"""
_UNDER_POLICY = sa.or_(t.OUTCOMES.c.arm.like("L%"), t.OUTCOMES.c.arm.in_((PROMPT, UNSCORED)))
_ADD_ENDINGS = """
INSERT INTO endings (arm, ending, outcomes)
SELECT arm, ending, count(*) FROM outcomes WHERE id > ? GROUP BY arm, ending
ON CONFLICT (arm, ending) DO UPDATE SET outcomes = outcomes + excluded.outcomes
"""


class Store(Records):
    """Safe to call from several threads. Raises ControlError where the database fails."""

    def __init__(self, path: Path) -> None:
        self.revision = 0  # moves with the outcomes kept: who saw this one has seen them all
        self._count = Lock()
        self._propensities: dict[int, Served | None] = {}
        self._traffic: tuple[tuple[int, int, int], list[tuple[str, str, int]]] | None = None
        self._series: dict[int, str] = {}  # by policy version, as columns hold it
        super().__init__(path)

    # --- outcomes ----------------------------------------------------------------------------

    def add_outcomes(self, rows: Sequence[Row]) -> int:
        """Store those not stored before; how many that were. One transaction: all or nothing."""
        if not rows:
            return 0
        with self._writing() as db:
            before = db.scalar(_LAST) or 0
            packs = dict(of_policies(db, "pack_hash", {row.policy_version for row in rows}))
            now = datetime.now(UTC).timestamp()
            values = [(*row, now, packs.get(row.policy_version)) for row in rows]
            stored = db.exec_driver_sql(_ADD, values).rowcount
            if stored:
                db.exec_driver_sql(_ADD_TOTALS, (before,))
                db.exec_driver_sql(_ADD_ENDINGS, (before,))
                self._add_grams(db, before)
        if stored:
            self._changed()
        return stored

    def _add_grams(self, db: sa.Connection, before: int) -> None:
        """Of the outcomes after an id, to their series'."""
        priced = db.exec_driver_sql(_PRICED, (before,)).fetchall()
        if len(self._series) > LOOKUP:
            self._series = {}
        new = {row[1] for row in priced} - self._series.keys()
        for version, message in of_policies(db, "message", new):
            self._series[version] = _series(message)
        grams = [(arm, self._series.get(version, FORGOTTEN), g) for arm, version, g in priced]
        if grams:
            db.exec_driver_sql(_ADD_GRAMS, grams)

    def _changed(self) -> None:
        with self._count:
            self.revision += 1

    def totals(self) -> list[dict[str, Any]]:
        """By arm, of all outcomes ever stored; energy and grams without the `unmetered` of them.

        carbon_g_by_series: of each, as grid.grams_as names it, or tables.BEFORE_SERIES.
        """
        by_arm: dict[str, dict[str, float]] = {}
        with self._reading() as db:
            rows = db.execute(sa.select(t.TOTALS).order_by(t.TOTALS.c.arm)).mappings()
            totals = [dict(row) for row in rows]
            for arm, series, carbon_g in db.execute(sa.select(t.GRAMS)):
                by_arm.setdefault(arm, {})[series] = carbon_g
        return [row | {"carbon_g_by_series": by_arm.get(row["arm"], {})} for row in totals]

    def endings(self) -> list[tuple[str, int, int]]:
        """(arm, sprout.v1.Ending, how many) of all outcomes ever stored."""
        with self._reading() as db:
            rows = db.execute(sa.select(t.ENDINGS).order_by(t.ENDINGS.c.arm, t.ENDINGS.c.ending))
            return [(row[0], row[1], row[2]) for row in rows]

    def measured(
        self,
        levels: int,
        pack_hash: int,
        newest: int,
        *,
        half_life_outcomes: float = math.inf,
        now: float | None = None,
    ) -> list[Measured]:
        """Estimates from the newest eligible outcomes of each level of a pack, (levels,), and from
        how long those took beside them that were not metered.

        newest: of each level, at most. half_life_outcomes: see live.py; inf: no decay.
        now: seconds since 1970 that ages count to; default the clock's.
        """
        found = self._newest(levels, pack_hash, newest, now)
        return [
            live.estimate(found.samples(level), half_life_outcomes=half_life_outcomes)
            for level in range(levels)
        ]

    def measured_by_task(
        self,
        levels: int,
        pack_hash: int,
        tasks: Collection[str],
        newest: int,
        *,
        half_life_outcomes: float = math.inf,
        now: float | None = None,
    ) -> dict[str, list[Measured]]:
        """The same of each of these task classes, from what there is of it among the newest."""
        found = self._newest(levels, pack_hash, newest, now)
        return {
            task: [
                live.estimate(own.samples(level), half_life_outcomes=half_life_outcomes)
                for level in range(levels)
            ]
            for task, own in found.of_tasks(tasks).items()
        }

    def _newest(self, levels: int, pack_hash: int, newest: int, now: float | None) -> Newest:
        now = datetime.now(UTC).timestamp() if now is None else now
        with self._reading() as db:
            last = db.scalar(_LAST) or 0
            found = []
            for level in range(levels):
                key = t.signed(pack_hash), level
                rows = [*db.exec_driver_sql(SAMPLES, (*key, newest))]
                if rows:
                    oldest = rows[-1][3]
                    rows += db.exec_driver_sql(UNMETERED, (*key, oldest, newest))
                found.append(rows)
            served = self._served(db, {row[0] for rows in found for row in rows})
        return Newest(found, served, last, now)

    def traffic(self, pack_hash: int, newest: int) -> list[tuple[str, str, int]]:
        """(tenant, task, requests) among the newest outcomes of all, of requests that are under
        the policies of a pack. Clients name tasks as they like. Counted once a revision."""
        asked = self.revision, pack_hash, newest  # before the rows: what comes meanwhile is news
        kept = self._traffic
        if kept is None or kept[0] != asked:
            with self._reading() as db:
                rows = db.exec_driver_sql(_TRAFFIC, (newest, t.signed(pack_hash))).fetchall()
            kept = self._traffic = asked, [(row[0], row[1], row[2]) for row in rows]
        return kept[1]

    def _served(self, db: sa.Connection, versions: set[int]) -> dict[int, Served | None]:
        """Propensities by policy version, as columns hold it. A policy never changes: kept."""
        if len(self._propensities) > LOOKUP:
            self._propensities = {}
        fresh = dict(self._propensities)
        for version, message in of_policies(db, "message", versions - fresh.keys()):
            fresh[version] = propensity.served(message)
        self._propensities = fresh
        return fresh

    def recent(self, pack_hash: int, newest: int, since: float) -> Recent:
        """The newest outcomes of all levels and arms that were stored after `since` (s, 1970)."""
        with self._reading() as db:
            # The limit first: whatever the time says, no more than this is read.
            rows = db.exec_driver_sql(_RECENT, (t.signed(pack_hash), newest, since)).fetchall()
        return Recent.of(rows)

    # --- what guard and budget count -----------------------------------------------------------

    def last_ids(self) -> tuple[int, int]:
        """Of outcomes and feedback, to count from; 0: there are none."""
        with self._reading() as db:
            last = (db.scalar(sa.select(sa.func.max(x.c.id))) for x in (t.OUTCOMES, t.FEEDBACK))
            outcome, feedback = (int(value or 0) for value in last)
        return outcome, feedback

    def truncations(self, after: int, up_to: int) -> list[tuple[int, str, int, int, int]]:
        """(policy version, arm, level, outcomes, of them cut off at their token limit)."""
        o = t.OUTCOMES.c
        query = (
            sa.select(o.policy_version, o.arm, o.level, sa.func.count(), sa.func.total(t.CUT))
            .where(o.id > after, o.id <= up_to)
            .group_by(o.policy_version, o.arm, o.level)
        )
        with self._reading() as db:
            return [(row[0], row[1], row[2], row[3], int(row[4])) for row in db.execute(query)]

    def served(
        self, after: int, up_to: int, pack_hash: int
    ) -> list[tuple[int, str, int, str, str, int]]:
        """(policy version, arm, level, tenant, task, requests), of a range of ids, whose level was
        drawn or chosen by the prompt under policies of a pack."""
        o = t.OUTCOMES.c
        keys = (o.policy_version, o.arm, o.level, o.tenant, o.task)
        query = (
            sa.select(*keys, sa.func.count())
            .where(o.id > after, o.id <= up_to, o.pack_hash == pack_hash, _UNDER_POLICY)
            .group_by(*keys)
        )
        with self._reading() as db:
            return [(row[0], row[1], row[2], row[3], row[4], row[5]) for row in db.execute(query)]

    def hourly_requests(self, since_hour: int, until_hour: int) -> dict[int, int]:
        """Requests by the hour since 1970 that they were opened in, since_hour <= h < until_hour;
        those that `served` counts."""
        o = t.OUTCOMES.c
        hour = sa.cast(o.opened_at / 3600, sa.Integer)
        query = (
            sa.select(hour, sa.func.count())
            .where(
                # What is stored after it was opened, which has the index, or an hour's skew before.
                o.stored_at >= 3600 * (since_hour - 1),
                o.opened_at >= 3600 * since_hour,
                o.opened_at < 3600 * until_hour,
                _UNDER_POLICY,
            )
            .group_by(hour)
        )
        with self._reading() as db:
            return {row[0]: row[1] for row in db.execute(query)}

    def feedback_counts(self, after: int, up_to: int) -> list[tuple[int, str, int, str, int]]:
        """(policy version, arm, level, kind, requests)"""
        f = t.FEEDBACK.c
        query = (
            sa.select(f.policy_version, f.arm, f.level, f.kind, sa.func.sum(f["count"]))
            .where(f.id > after, f.id <= up_to)
            .group_by(f.policy_version, f.arm, f.level, f.kind)
        )
        with self._reading() as db:
            rows = db.execute(query)
            return [(row[0], row[1], row[2], row[3], int(row[4])) for row in rows]

    # --- upkeep ------------------------------------------------------------------------------

    def prune(self, older_than: float, newest_outcomes: int) -> int:
        """Drop what was stored before a time, and outcomes beyond the newest; how many rows."""
        with self._writing() as db:
            removed = retention.prune(db, older_than, newest_outcomes)
        self._changed()
        return removed


def _series(policy: bytes) -> str:
    """What the grams of requests under a stored policy are a part of."""
    try:
        return grams_as(note(policy))
    except DecodeError:
        return FORGOTTEN
