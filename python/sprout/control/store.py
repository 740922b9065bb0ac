# SPDX-License-Identifier: Apache-2.0
"""The control plane's memory: policies, outcomes, totals, intensities, settings; SQLite in WAL.

64-bit identifiers are unsigned on the wire; SQL integers are signed, so they are stored as their
two's complement. Times are seconds since 1970. Outcomes are unique by (segment_uid, ticket).
Totals by arm are kept up in the same transaction, so they outlive pruned outcomes; their grams by
series of the intensity too, since those of two are not to be added.
Commits are synced to disk (synchronous=FULL): agents forget what has been acknowledged.
"""

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from google.protobuf.message import DecodeError
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import SQLAlchemyError

from sprout.carbon.intensity import Intensity, Series
from sprout.control import propensity
from sprout.control import tables as t
from sprout.control.grid import FORGOTTEN, grams_as
from sprout.control.inbox import PROMPT, Row
from sprout.control.notes import note
from sprout.control.propensity import Served
from sprout.control.recent import Recent
from sprout.control.rows import AuditEntry, BlockRow, Feedback, Reading, Switchback
from sprout.errors import ControlError
from sprout.profile import Measured, live
from sprout.v1 import control_pb2 as pb

# SQLite allows 32,766 bound values in a statement.
LOOKUP = 10_000

# Outcomes come by the thousand a second: their statements skip SQLAlchemy's work on each row.
_COLUMNS = (*Row._fields, "stored_at", "pack_hash")
_LAST = sa.select(sa.func.max(t.OUTCOMES.c.id))
_ADD = (
    f"INSERT INTO outcomes ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608
    "ON CONFLICT (segment_uid, ticket) DO NOTHING"
)
_ADD_TOTALS = """
INSERT INTO totals (arm, outcomes, energy_joules, carbon_g, output_tokens, energy_estimated)
SELECT arm, count(*), total(energy_joules), total(carbon_g), total(output_tokens),
    max(energy_estimated)
FROM outcomes WHERE id > ? GROUP BY arm
ON CONFLICT (arm) DO UPDATE SET
    outcomes = outcomes + excluded.outcomes,
    energy_joules = energy_joules + excluded.energy_joules,
    carbon_g = carbon_g + excluded.carbon_g,
    output_tokens = output_tokens + excluded.output_tokens,
    energy_estimated = max(energy_estimated, excluded.energy_estimated)
"""
_PRICED = """
SELECT arm, policy_version, total(carbon_g) FROM outcomes
WHERE id > ? AND carbon_g IS NOT NULL GROUP BY arm, policy_version
"""
_ADD_GRAMS = """
INSERT INTO grams (arm, series, carbon_g) VALUES (?, ?, ?)
ON CONFLICT (arm, series) DO UPDATE SET carbon_g = carbon_g + excluded.carbon_g
"""
# Along the index `profile`, from its end: reads as many rows as it gives.
_SAMPLES = """
SELECT policy_version, tenant, task, id, energy_joules, device_seconds, input_tokens,
    output_tokens, energy_estimated, stored_at
FROM outcomes WHERE pack_hash = ? AND level = ? AND eligible = 1 ORDER BY id DESC LIMIT ?
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
) WHERE pack_hash = ? AND (arm LIKE 'L%' OR arm IN ('prompt', 'control', 'held_back', 'paused'))
GROUP BY tenant, task
"""
_UNDER_POLICY = sa.or_(t.OUTCOMES.c.arm.like("L%"), t.OUTCOMES.c.arm == PROMPT)
_ADD_ENDINGS = """
INSERT INTO endings (arm, ending, outcomes)
SELECT arm, ending, count(*) FROM outcomes WHERE id > ? GROUP BY arm, ending
ON CONFLICT (arm, ending) DO UPDATE SET outcomes = outcomes + excluded.outcomes
"""


class Store:
    """Safe to call from several threads. Raises ControlError where the database fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.revision = 0  # moves with the outcomes kept: who saw this one has seen them all
        self._count = Lock()
        self._propensities: dict[int, Served | None] = {}
        self._series: dict[int, str] = {}  # by policy version, as columns hold it
        self._write = Lock()  # one writer at a time, rather than SQLITE_BUSY among our own threads
        self._engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 5})
        sa.event.listen(self._engine, "connect", _pragmas)
        with self._writing() as db:
            # The driver begins none before a change of tables: half an upgrade would stay.
            db.exec_driver_sql("BEGIN IMMEDIATE")
            made_by = db.scalar(sa.text("PRAGMA user_version"))
            if made_by not in (0, *t.UPGRADES, t.VERSION):
                raise ControlError(f"store {path}: made by another version of Sprout ({made_by})")
            t.METADATA.create_all(db)
            for version in range(made_by or t.VERSION, t.VERSION):
                for change in t.UPGRADES[version]:
                    db.execute(sa.text(change))
            db.execute(sa.text(f"PRAGMA user_version = {t.VERSION}"))
        path.chmod(0o600)

    def close(self) -> None:
        self._engine.dispose()

    # --- outcomes ----------------------------------------------------------------------------

    def add_outcomes(self, rows: Sequence[Row]) -> int:
        """Store those not stored before; how many that were. One transaction: all or nothing."""
        if not rows:
            return 0
        with self._writing() as db:
            before = db.scalar(_LAST) or 0
            packs = self._packs(db, sorted({row.policy_version for row in rows}))
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

    @staticmethod
    def _packs(db: sa.Connection, versions: list[int]) -> dict[int, int]:
        """Packs by policy version, both as columns hold them."""
        found: dict[int, int] = {}
        for first in range(0, len(versions), LOOKUP):
            part = versions[first : first + LOOKUP]
            marks = ", ".join("?" * len(part))
            query = f"SELECT version, pack_hash FROM policies WHERE version IN ({marks})"  # noqa: S608
            found.update((row[0], row[1]) for row in db.exec_driver_sql(query, tuple(part)))
        return found

    def _add_grams(self, db: sa.Connection, before: int) -> None:
        """Of the outcomes after an id, to their series'."""
        priced = db.exec_driver_sql(_PRICED, (before,)).fetchall()
        if len(self._series) > LOOKUP:
            self._series = {}
        wanted = sorted({row[1] for row in priced} - self._series.keys())
        for first in range(0, len(wanted), LOOKUP):
            part = wanted[first : first + LOOKUP]
            marks = ", ".join("?" * len(part))
            query = f"SELECT version, message FROM policies WHERE version IN ({marks})"  # noqa: S608
            rows = db.exec_driver_sql(query, tuple(part))
            self._series.update((row[0], _series(row[1])) for row in rows)
        grams = [(arm, self._series.get(version, FORGOTTEN), g) for arm, version, g in priced]
        if grams:
            db.exec_driver_sql(_ADD_GRAMS, grams)

    def _changed(self) -> None:
        with self._count:
            self.revision += 1

    def totals(self) -> list[dict[str, Any]]:
        """By arm, of all outcomes ever stored; carbon_g_by_series: of each, as grid.grams_as names
        it, or tables.BEFORE_SERIES."""
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
        """Estimates from the newest eligible outcomes of each level of a pack, (levels,).

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

    def _newest(self, levels: int, pack_hash: int, newest: int, now: float | None) -> "_Newest":
        now = datetime.now(UTC).timestamp() if now is None else now
        with self._reading() as db:
            last = db.scalar(_LAST) or 0
            found = [
                db.exec_driver_sql(_SAMPLES, (t.signed(pack_hash), level, newest)).fetchall()
                for level in range(levels)
            ]
            served = self._served(db, {row[0] for rows in found for row in rows})
        return _Newest(found, served, last, now)

    def traffic(self, pack_hash: int, newest: int) -> list[tuple[str, str, int]]:
        """(tenant, task, requests) among the newest outcomes of all, of requests that are under
        the policies of a pack. Clients name tasks as they like."""
        with self._reading() as db:
            rows = db.exec_driver_sql(_TRAFFIC, (newest, t.signed(pack_hash))).fetchall()
        return [(row[0], row[1], row[2]) for row in rows]

    def _served(self, db: sa.Connection, versions: set[int]) -> dict[int, Served | None]:
        """Propensities by policy version, as columns hold it. A policy never changes: kept."""
        if len(self._propensities) > LOOKUP:
            self._propensities = {}
        wanted = sorted(versions - self._propensities.keys())
        fresh = dict(self._propensities)
        for first in range(0, len(wanted), LOOKUP):
            part = wanted[first : first + LOOKUP]
            marks = ", ".join("?" * len(part))
            query = f"SELECT version, message FROM policies WHERE version IN ({marks})"  # noqa: S608
            rows = db.exec_driver_sql(query, tuple(part))
            fresh.update((row[0], propensity.served(row[1])) for row in rows)
        self._propensities = fresh
        return fresh

    def recent(self, pack_hash: int, newest: int, since: float) -> Recent:
        """The newest outcomes of all levels and arms that were stored after `since` (s, 1970)."""
        with self._reading() as db:
            # The limit first: whatever the time says, no more than this is read.
            rows = db.exec_driver_sql(_RECENT, (t.signed(pack_hash), newest, since)).fetchall()
        return Recent.of(rows)

    # --- policies ----------------------------------------------------------------------------

    def last_epoch(self) -> int:
        """The largest epoch that any policy was issued under; 0 if none was."""
        with self._reading() as db:
            return int(db.scalar(sa.select(sa.func.max(t.POLICIES.c.epoch))) or 0)

    def add_policy(
        self,
        epoch: int,
        version: int,
        pack_hash: int,
        issued_at: float,
        message: bytes,
        *,
        inputs: str = "",
    ) -> None:
        """Store a policy; once stored, again is no error.

        message: sprout.v1.Policy. inputs: JSON of what it was solved from, "" = not known.
        """
        insert = sqlite.insert(t.POLICIES).values(
            epoch=epoch,
            version=version,
            pack_hash=pack_hash,
            issued_at=issued_at,
            message=message,
        )
        with self._writing() as db:
            db.execute(insert.on_conflict_do_nothing(index_elements=["version"]))
            if inputs:
                why = sqlite.insert(t.DECISIONS).values(version=version, inputs=inputs)
                db.execute(why.on_conflict_do_nothing(index_elements=["version"]))

    def decisions(
        self, limit: int, *, before: int | None = None, version: int | None = None
    ) -> list[tuple[int, bytes, str]]:
        """(version, sprout.v1.Policy, inputs as JSON or ""), newest first.

        before: older than this version alone. version: this one alone.
        """
        p, d = t.POLICIES.c, t.DECISIONS.c
        query = (
            sa.select(p.version, p.message, d.inputs)
            .select_from(t.POLICIES.outerjoin(t.DECISIONS, p.version == d.version))
            .order_by(p.version.desc())
            .limit(limit)
        )
        if before is not None:
            query = query.where(p.version < before)
        if version is not None:
            query = query.where(p.version == version)
        with self._reading() as db:
            return [(row[0], row[1], row[2] or "") for row in db.execute(query)]

    # --- evaluations -------------------------------------------------------------------------

    def add_evaluation(self, message: pb.Evaluation, now: float) -> None:
        """Store it; again is no error, and changes nothing. ValueError where one that found
        something else has its id."""
        body = message.SerializeToString(deterministic=True)
        e = t.EVALUATIONS
        insert = sqlite.insert(e).values(
            id=message.id,
            finished_at=message.finished_at.ToNanoseconds() / 1e9,
            stored_at=now,
            pack_hash=message.pack_hash,
            message=body,
        )
        with self._writing() as db:
            db.execute(insert.on_conflict_do_nothing(index_elements=["id"]))
            stored = db.scalar(sa.select(e.c.message).where(e.c.id == message.id))
            if stored != body and _timeless(stored or b"") != _timeless(body):
                raise ValueError(f"another evaluation has the id {message.id!r}")

    def evaluations(
        self, limit: int, *, before: str = "", pack_hash: int | None = None
    ) -> list[bytes]:
        """sprout.v1.Evaluation by when they ended, newest first.

        before: older than the one of this id alone. pack_hash: of this pack alone.
        ValueError where there is none of that id.
        """
        e = t.EVALUATIONS.c
        query = sa.select(e.message).order_by(e.finished_at.desc(), e.number.desc()).limit(limit)
        if pack_hash is not None:
            query = query.where(e.pack_hash == pack_hash)
        with self._reading() as db:
            if before:
                at = db.execute(sa.select(e.finished_at, e.number).where(e.id == before)).first()
                if at is None:
                    raise ValueError(f"there is no evaluation {before!r}")
                query = query.where(sa.tuple_(e.finished_at, e.number) < sa.tuple_(*at))
            return list(db.scalars(query))

    # --- audit -------------------------------------------------------------------------------

    def add_audit(self, entry: AuditEntry) -> None:
        """Store one change; it can't be taken back."""
        self._insert(t.AUDIT, [entry])

    def audit(self, limit: int, *, before: int | None = None) -> list[tuple[int, AuditEntry]]:
        """(id, entry), newest first. before: older than this id alone."""
        columns = [t.AUDIT.c[name] for name in AuditEntry._fields]
        query = sa.select(t.AUDIT.c.id, *columns).order_by(t.AUDIT.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(t.AUDIT.c.id < before)
        with self._reading() as db:
            return [(row[0], AuditEntry(*row[1:])) for row in db.execute(query)]

    # --- intensities -------------------------------------------------------------------------

    def add_intensities(self, values: Sequence[Intensity]) -> None:
        """Store; a later value for the same time of a series replaces the earlier one."""
        if not values:
            return
        rows = [
            {
                "zone": v.zone,
                "source": v.source,
                "factor_type": v.factor_type,
                "signal": v.signal,
                "time": v.time.timestamp(),
                "g_per_kwh": v.g_per_kwh,
                "estimated": v.estimated,
                "stored_at": datetime.now(UTC).timestamp(),
            }
            for v in values
        ]
        insert = sqlite.insert(t.INTENSITIES)
        changed = ("g_per_kwh", "estimated", "stored_at")
        changes = {name: insert.excluded[name] for name in changed}
        key = ["zone", "source", "factor_type", "signal", "time"]
        with self._writing() as db:
            db.execute(insert.on_conflict_do_update(index_elements=key, set_=changes), rows)

    def intensities(self, series: Series, since: datetime, until: datetime) -> list[Intensity]:
        """The values of a series with since < time <= until, oldest first."""
        c = t.INTENSITIES.c
        own = (c.zone, c.source, c.factor_type, c.signal)
        query = (
            sa.select(c.time, c.g_per_kwh, c.estimated)
            .where(*(column == value for column, value in zip(own, series, strict=True)))
            .where(c.time > since.timestamp(), c.time <= until.timestamp())
            .order_by(c.time)
        )
        with self._reading() as db:
            return [
                Intensity(g, *series, datetime.fromtimestamp(time, UTC), bool(estimated))
                for time, g, estimated in db.execute(query)
            ]

    # --- what proves a saving ------------------------------------------------------------------

    def add_feedback(
        self, rows: Sequence[Feedback], *, report_id: str = "", now: float = 0.0
    ) -> bool:
        """Store what people said of answers; False: the report of this id was stored before.

        report_id: "" = none. now: seconds since 1970.
        """
        report = sqlite.insert(t.FEEDBACK_REPORTS).on_conflict_do_nothing()
        with self._writing() as db:
            if report_id and not db.execute(report, {"report_id": report_id, "time": now}).rowcount:
                return False
            if rows:
                db.execute(sqlite.insert(t.FEEDBACK), [row._asdict() for row in rows])
        return True

    def add_readings(self, rows: Sequence[Reading]) -> None:
        """Store nodes' energy counters."""
        self._insert(t.READINGS, rows)

    def add_blocks(self, rows: Sequence[BlockRow]) -> None:
        """Store blocks of a switchback as they were."""
        self._insert(t.BLOCKS, rows)

    def add_switchback(self, row: Switchback) -> None:
        """Store a schedule."""
        self._insert(t.SWITCHBACKS, [row])

    def last_switchback(self) -> Switchback | None:
        """The schedule that was started last."""
        columns = [t.SWITCHBACKS.c[name] for name in Switchback._fields]
        query = sa.select(*columns).order_by(t.SWITCHBACKS.c.started_at.desc()).limit(1)
        with self._reading() as db:
            row = db.execute(query).one_or_none()
        return None if row is None else Switchback(*row)

    def policy_messages(self, versions: Sequence[int]) -> list[bytes]:
        """sprout.v1.Policy of each version that is stored; at most LOOKUP of them."""
        p = t.POLICIES.c
        with self._reading() as db:
            query = sa.select(p.message).where(p.version.in_(versions[:LOOKUP]))
            return list(db.scalars(query))

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

    def _insert(self, table: sa.Table, rows: Sequence[Any]) -> None:
        """NamedTuples whose fields are the table's columns; one that is there already stays."""
        if rows:
            insert = sqlite.insert(table).on_conflict_do_nothing()
            with self._writing() as db:
                db.execute(insert, [row._asdict() for row in rows])

    # --- settings that outlive a restart -----------------------------------------------------

    def setting(self, key: str) -> Any:
        """A stored JSON value; None if there is none."""
        with self._reading() as db:
            text = db.scalar(sa.select(t.SETTINGS.c.value).where(t.SETTINGS.c.key == key))
        return None if text is None else json.loads(text)

    def set_setting(self, key: str, value: Any) -> None:
        self.keep_setting(key, lambda: value)

    def keep_setting(self, key: str, read: Callable[[], Any]) -> None:
        """Store what `read` gives when it is this writer's turn.

        One that was held up then writes the newest value too, instead of undoing a newer one.
        """
        with self._writing() as db:
            insert = sqlite.insert(t.SETTINGS).values(key=key, value=json.dumps(read()))
            changes = {"value": insert.excluded.value}
            db.execute(insert.on_conflict_do_update(index_elements=["key"], set_=changes))

    # --- upkeep ------------------------------------------------------------------------------

    def prune(self, older_than: float, newest_outcomes: int) -> int:
        """Drop what was stored before a time, and outcomes beyond the newest; how many rows.

        Freed pages are re-used: the file stops growing, it does not shrink.
        """
        o = t.OUTCOMES.c
        removed = 0
        with self._writing() as db:
            for table, column in (
                (t.OUTCOMES, o.stored_at),
                (t.INTENSITIES, t.INTENSITIES.c.stored_at),
                (t.POLICIES, t.POLICIES.c.issued_at),
                (t.FEEDBACK, t.FEEDBACK.c.time),
                (t.FEEDBACK_REPORTS, t.FEEDBACK_REPORTS.c.time),
                (t.READINGS, t.READINGS.c.time),
                (t.BLOCKS, t.BLOCKS.c.ended_at),
            ):
                removed += db.execute(table.delete().where(column < older_than)).rowcount
            r = t.READINGS.c  # as many as outcomes, and a tenth of their size
            spare = sa.select(r.time).order_by(r.time.desc()).offset(newest_outcomes).limit(1)
            removed += db.execute(
                t.READINGS.delete().where(r.time <= spare.scalar_subquery())
            ).rowcount
            # q rests on the newest of each pack, however old it is.
            e = t.EVALUATIONS.c
            last_of = sa.select(sa.func.max(e.finished_at)).group_by(e.pack_hash)
            removed += db.execute(
                t.EVALUATIONS.delete().where(
                    e.stored_at < older_than, e.finished_at.not_in(last_of)
                )
            ).rowcount
            kept = sa.select(t.POLICIES.c.version)
            db.execute(t.DECISIONS.delete().where(t.DECISIONS.c.version.not_in(kept)))
            f = t.FEEDBACK.c
            said = sa.select(f.id).order_by(f.id.desc()).offset(newest_outcomes).limit(1)
            removed += db.execute(
                t.FEEDBACK.delete().where(f.id <= said.scalar_subquery())
            ).rowcount
            n = t.FEEDBACK_REPORTS.c.number
            sent = sa.select(n).order_by(n.desc()).offset(newest_outcomes).limit(1)
            removed += db.execute(
                t.FEEDBACK_REPORTS.delete().where(n <= sent.scalar_subquery())
            ).rowcount
            past = sa.select(o.id).order_by(o.id.desc()).offset(newest_outcomes).limit(1)
            last = db.scalar(past)
            if last is not None:
                removed += db.execute(t.OUTCOMES.delete().where(o.id <= last)).rowcount
        self._changed()
        return removed

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            # The driver's own words; SQLAlchemy's hold the statement and a batch of values.
            cause = getattr(error, "orig", None) or error
            raise ControlError(f"store {self.path}: {cause}") from None

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._translated(), self._engine.connect() as db:
            yield db

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._translated(), self._write, self._engine.begin() as db:
            yield db


def _series(policy: bytes) -> str:
    """What the grams of requests under a stored policy are a part of."""
    try:
        return grams_as(note(policy))
    except DecodeError:
        return FORGOTTEN


def _timeless(evaluation: bytes) -> bytes:
    """What it found: who reports again what was not acknowledged may stamp it anew, and do so for
    another reason; and it may have stopped for another one, where nothing was left to be judged."""
    message = pb.Evaluation.FromString(evaluation)
    for told in ("trigger", "stopped"):
        message.ClearField(told)
    message.ClearField("started_at")
    message.ClearField("finished_at")
    return message.SerializeToString(deterministic=True)


class _Newest(NamedTuple):
    """The newest eligible outcomes of each level."""

    rows: Sequence[Sequence[Any]]  # by level, as _SAMPLES gives them
    served: Mapping[int, Served | None]  # by policy version
    last: int  # the newest id of all outcomes
    now: float

    def of_tasks(self, tasks: Collection[str]) -> dict[str, "_Newest"]:
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


def _pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
