# SPDX-License-Identifier: Apache-2.0
"""Judgments on disk, so that none is paid for twice and an evaluation goes on after a kill.

A row is a hash of what was shown and who judged, and the verdict; no text is kept. SQLite in WAL
mode with synchronous=NORMAL: what was committed outlives the process.
"""

import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from sprout.errors import JudgeError

FILE = "judgments.sqlite"  # in the stack's state folder
MAX_ROWS = 1_000_000  # the newest; about 100 bytes each

SCHEMA = """
CREATE TABLE IF NOT EXISTS judgments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL UNIQUE,
    place INTEGER NOT NULL,  -- that won, in the order shown; -1 a tie
    judged_at INTEGER NOT NULL  -- s since 1970
);
"""
_TIE = -1


def key(version: str, question: str, shown: Sequence[str]) -> bytes:
    """Of what a judge of this version is asked: texts, in the order shown."""
    digest = hashlib.sha256()
    for part in (version, question, *shown):
        content = part.encode()
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()


class Cache:
    """Any thread may call. JudgeError where the file can't be used."""

    def __init__(self, path: Path, *, max_rows: int = MAX_ROWS) -> None:
        self._path, self._max_rows = path, max_rows
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Made before SQLite would, whose mode follows the umask; its other files take after it.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            path.chmod(0o600)
            self._db = sqlite3.connect(path, timeout=10, check_same_thread=False)
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.executescript(SCHEMA)
                (self._rows,) = self._db.execute("SELECT count(*) FROM judgments").fetchone()
            except BaseException:
                self._db.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from None

    def get(self, found: bytes) -> tuple[int | None] | None:
        """(place,), None in it for a tie; None: not judged yet."""
        with self._lock:
            try:
                row = self._db.execute(
                    "SELECT place FROM judgments WHERE key = ?", (found,)
                ).fetchone()
            except sqlite3.Error as error:
                raise self._unusable(error) from None
        return None if row is None else (None if row[0] == _TIE else row[0],)

    def put(self, made: bytes, place: int | None) -> None:
        """It is committed on return. The first verdict stands."""
        row = (made, _TIE if place is None else place, int(time.time()))
        with self._lock:
            try:
                with self._db as db:
                    insert = (
                        "INSERT OR IGNORE INTO judgments (key, place, judged_at) VALUES (?,?,?)"
                    )
                    self._rows += db.execute(insert, row).rowcount
                    if self._rows > self._max_rows:
                        self._rows -= db.execute(
                            "DELETE FROM judgments WHERE id IN "
                            "(SELECT id FROM judgments ORDER BY id LIMIT ?)",
                            (self._rows - self._max_rows,),
                        ).rowcount
            except sqlite3.Error as error:
                raise self._unusable(error) from None

    def __len__(self) -> int:
        return int(self._rows)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _unusable(self, error: Exception) -> JudgeError:
        return JudgeError(
            f"the judgments kept in {self._path} can't be used: {error}; where it is damaged, "
            "remove it: what it holds is judged again"
        )
