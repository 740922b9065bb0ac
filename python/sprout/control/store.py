# SPDX-License-Identifier: Apache-2.0
"""The control plane's memory: policies, outcomes, totals, intensities, settings; SQLite in WAL.

64-bit identifiers are unsigned on the wire; SQL integers are signed, so they are stored as their
two's complement. Times are seconds since 1970. Outcomes are unique by (segment_uid, ticket).
Totals by arm are kept up in the same transaction, so they outlive pruned outcomes.
Commits are synced to disk (synchronous=FULL): agents forget what has been acknowledged.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import SQLAlchemyError

from sprout.carbon.intensity import Intensity, Series
from sprout.control import tables as t
from sprout.control.inbox import Row
from sprout.errors import ControlError
from sprout.profile import NOTHING, Measured

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


class Store:
    """Safe to call from several threads. Raises ControlError where the database fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.revision = 0  # moves with the outcomes kept: who saw this one has seen them all
        self._count = Lock()
        self._write = Lock()  # one writer at a time, rather than SQLITE_BUSY among our own threads
        self._engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 5})
        sa.event.listen(self._engine, "connect", _pragmas)
        with self._writing() as db:
            made_by = db.scalar(sa.text("PRAGMA user_version"))
            if made_by not in (0, t.VERSION):
                raise ControlError(f"store {path}: made by another version of Sprout ({made_by})")
            t.METADATA.create_all(db)
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

    def _changed(self) -> None:
        with self._count:
            self.revision += 1

    def totals(self) -> list[dict[str, Any]]:
        """By arm, of all outcomes ever stored."""
        with self._reading() as db:
            rows = db.execute(sa.select(t.TOTALS).order_by(t.TOTALS.c.arm)).mappings()
            return [dict(row) for row in rows]

    def measured(self, levels: int, pack_hash: int, newest: int) -> list[Measured]:
        """Means of the newest eligible outcomes of each level of a pack, (levels,)."""
        c = t.OUTCOMES.c
        found = []
        with self._reading() as db:
            for level in range(levels):
                last = (
                    sa.select(
                        c.energy_joules, c.device_seconds, c.output_tokens, c.energy_estimated
                    )
                    .where(c.pack_hash == pack_hash, c.level == level, c.eligible)
                    .order_by(c.id.desc())
                    .limit(newest)
                    .subquery()
                )
                row = db.execute(
                    sa.select(
                        sa.func.count(),
                        sa.func.avg(last.c.energy_joules),
                        sa.func.avg(last.c.device_seconds),
                        sa.func.avg(last.c.output_tokens),
                        sa.func.max(last.c.energy_estimated),
                    )
                ).one()
                count, joules, seconds, tokens, estimated = row
                found.append(
                    Measured(count, joules, seconds, tokens, bool(estimated)) if count else NOTHING
                )
        return found

    # --- policies ----------------------------------------------------------------------------

    def last_epoch(self) -> int:
        """The largest epoch that any policy was issued under; 0 if none was."""
        with self._reading() as db:
            return int(db.scalar(sa.select(sa.func.max(t.POLICIES.c.epoch))) or 0)

    def add_policy(
        self, epoch: int, version: int, pack_hash: int, issued_at: float, message: bytes
    ) -> None:
        """Store a policy (`message`: sprout.v1.Policy); once stored, again is no error."""
        insert = sqlite.insert(t.POLICIES).values(
            epoch=epoch,
            version=version,
            pack_hash=pack_hash,
            issued_at=issued_at,
            message=message,
        )
        with self._writing() as db:
            db.execute(insert.on_conflict_do_nothing(index_elements=["version"]))

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

    # --- settings that outlive a restart -----------------------------------------------------

    def setting(self, key: str) -> Any:
        """A stored JSON value; None if there is none."""
        with self._reading() as db:
            text = db.scalar(sa.select(t.SETTINGS.c.value).where(t.SETTINGS.c.key == key))
        return None if text is None else json.loads(text)

    def set_setting(self, key: str, value: Any) -> None:
        insert = sqlite.insert(t.SETTINGS).values(key=key, value=json.dumps(value))
        changes = {"value": insert.excluded.value}
        with self._writing() as db:
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
            ):
                removed += db.execute(table.delete().where(column < older_than)).rowcount
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
            raise ControlError(f"store {self._path}: {cause}") from None

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._translated(), self._engine.connect() as db:
            yield db

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._translated(), self._write, self._engine.begin() as db:
            yield db


def _pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
