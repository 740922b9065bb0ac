# SPDX-License-Identifier: Apache-2.0
"""Outcomes on disk until the control plane has them.

SQLite in WAL mode with synchronous=NORMAL: a commit is a write without an fsync, some 100 µs.
Killing the agent loses nothing: what was committed is in the kernel's hands. A power loss may take
the commits since the last checkpoint, but never the database's consistency; it takes the ledger in
memory too, and what is lost is a few seconds of statistics. An acknowledged row that reappears is
sent twice and dropped as a duplicate by the control plane.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from sprout.errors import SpoolError

log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT OR IGNORE INTO meta VALUES ('dropped', 0);
"""
ROWS = 500  # in a statement: AUTOINCREMENT keeps its own table, once a statement
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Spool:
    """Outbox of at most `bound` outcomes; where more come, the oldest are dropped and counted.

    Every method raises SpoolError where the disk won't have it, and may be tried again: the
    database is opened anew after an error. Any thread may call.
    """

    def __init__(self, path: Path, bound: int) -> None:
        self._path = path
        self._bound = bound
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._count = 0
        self._dropped = 0

    def append(self, outcomes: Sequence[bytes]) -> None:
        """Keep serialized outcomes, in order, all or none; they are committed on return."""
        if not outcomes:
            return
        kept = outcomes[-self._bound :]
        with self._transaction() as db:
            excess = max(0, self._count + len(kept) - self._bound)
            if excess:
                db.execute(
                    "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox ORDER BY id LIMIT ?)",
                    (excess,),
                )
            dropped = excess + len(outcomes) - len(kept)
            if dropped:
                self._count_dropped(db, dropped)
            for first in range(0, len(kept), ROWS):
                part = kept[first : first + ROWS]
                marks = ", ".join(["(?)"] * len(part))
                db.execute(f"INSERT INTO outbox (body) VALUES {marks}", part)  # noqa: S608
            db.commit()
            self._count += len(kept) - excess
            self._dropped += dropped
        if dropped:
            log.warning("spool is full (%d): dropped the %d oldest outcomes", self._bound, dropped)

    def peek(self, n: int) -> list[tuple[int, bytes]]:
        """The n oldest, as (id, body); they stay until they are acknowledged."""
        with self._transaction() as db:
            return db.execute("SELECT id, body FROM outbox ORDER BY id LIMIT ?", (n,)).fetchall()

    def ack(self, ids: Sequence[int], *, dropped: bool = False) -> None:
        """Forget outcomes that the control plane has; `dropped`: that it never will have."""
        if not ids:
            return
        with self._transaction() as db:
            delete = "DELETE FROM outbox WHERE id BETWEEN ? AND ?"
            gone = db.executemany(delete, _runs(ids)).rowcount
            if dropped:
                self._count_dropped(db, gone)
            db.commit()
            self._count -= gone
            self._dropped += gone if dropped else 0

    def __len__(self) -> int:
        """Outcomes waiting, as of the last successful call."""
        return self._count

    @property
    def dropped(self) -> int:
        """Outcomes dropped since the spool was made, kept over restarts."""
        return self._dropped

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    @staticmethod
    def _count_dropped(db: sqlite3.Connection, n: int) -> None:
        db.execute("UPDATE meta SET value = value + ? WHERE key = 'dropped'", (n,))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._db is None:
                    self._db = self._connect()
                yield self._db
            except (sqlite3.Error, OSError) as error:
                self._disconnect()  # rolls back
                raise SpoolError(f"spool {self._path}: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        try:
            return self._open()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
                raise
            aside = self._path.with_name(f"{self._path.name}.damaged-{int(time.time())}")
            log.error("spool %s is damaged (%s): moved to %s", self._path, error, aside.name)
            self._path.rename(aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            return self._open()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=5, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.executescript(SCHEMA)
            (self._count,) = db.execute("SELECT count(*) FROM outbox").fetchone()
            (self._dropped,) = db.execute("SELECT value FROM meta").fetchone()
        except BaseException:
            db.close()
            raise
        self._path.chmod(0o600)
        return db

    def _disconnect(self) -> None:
        if self._db is not None:
            with closing(self._db):
                self._db = None


def _runs(ids: Sequence[int]) -> list[tuple[int, int]]:
    """(first, last) of each range to delete: a batch as it was peeked at is one, if without gaps.

    ids: ascending, each once.
    """
    if ids[-1] - ids[0] == len(ids) - 1:
        return [(ids[0], ids[-1])]
    return [(i, i) for i in ids]
