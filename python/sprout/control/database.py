# SPDX-License-Identifier: Apache-2.0
"""The file behind the store: opened, upgraded, read and written by several threads.

SQLite in WAL. 64-bit identifiers are unsigned on the wire; SQL integers are signed, so they are
stored as their two's complement. Times are seconds since 1970. Commits are synced to disk
(synchronous=FULL): agents forget what has been acknowledged.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import SQLAlchemyError

from sprout.control import tables as t
from sprout.errors import ControlError

# SQLite allows 32,766 bound values in a statement.
LOOKUP = 10_000


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """What a database raises as ControlError."""
    try:
        yield
    except SQLAlchemyError as error:
        # The driver's own words; SQLAlchemy's hold the statement and a batch of values.
        cause = getattr(error, "orig", None) or error
        raise ControlError(f"store {path}: {cause}") from None


class Database:
    """Safe to call from several threads. Raises ControlError where the database fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
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

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with translated(self.path), self._engine.connect() as db:
            yield db

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with translated(self.path), self._write, self._engine.begin() as db:
            yield db

    def _insert(self, table: sa.Table, rows: Sequence[Any]) -> None:
        """NamedTuples whose fields are the table's columns; one that is there already stays."""
        if rows:
            insert = sqlite.insert(table).on_conflict_do_nothing()
            with self._writing() as db:
                db.execute(insert, [row._asdict() for row in rows])


def of_policies(
    db: sa.Connection, column: str, versions: Iterable[int]
) -> Iterator[tuple[int, Any]]:
    """(version, what stands in that column) of those of these policies that are stored; all as
    columns hold it."""
    wanted = sorted(versions)
    for first in range(0, len(wanted), LOOKUP):
        part = wanted[first : first + LOOKUP]
        marks = ", ".join("?" * len(part))
        query = f"SELECT version, {column} FROM policies WHERE version IN ({marks})"  # noqa: S608
        yield from ((row[0], row[1]) for row in db.exec_driver_sql(query, tuple(part)))


def _pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
