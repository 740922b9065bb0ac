# SPDX-License-Identifier: Apache-2.0
"""What the control plane keeps one by one: policies, evaluations, audit, intensities, what proves a
saving, settings."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from sprout.carbon.intensity import Intensity, Series
from sprout.control import tables as t
from sprout.control.database import LOOKUP, Database
from sprout.control.rows import AuditEntry, BlockRow, Feedback, Reading, Switchback
from sprout.v1 import control_pb2 as pb


class Records(Database):
    """Safe to call from several threads. Raises ControlError where the database fails."""

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

    def policy_messages(self, versions: Sequence[int]) -> list[bytes]:
        """sprout.v1.Policy of each version that is stored; at most LOOKUP of them."""
        p = t.POLICIES.c
        with self._reading() as db:
            query = sa.select(p.message).where(p.version.in_(versions[:LOOKUP]))
            return list(db.scalars(query))

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


def _timeless(evaluation: bytes) -> bytes:
    """What it found: who reports again what was not acknowledged may stamp it anew, and do so for
    another reason; and it may have stopped for another one, where nothing was left to be judged."""
    message = pb.Evaluation.FromString(evaluation)
    for told in ("trigger", "stopped"):
        message.ClearField(told)
    message.ClearField("started_at")
    message.ClearField("finished_at")
    return message.SerializeToString(deterministic=True)
