# SPDX-License-Identifier: Apache-2.0
"""The outbox: order, bound, restarts, full and damaged disks, kill -9."""

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sprout.agent.spool import Spool
from sprout.errors import SpoolError


def bodies(n: int, start: int = 0) -> list[bytes]:
    return [b"outcome %d" % i for i in range(start, start + n)]


def waiting(spool: Spool) -> list[bytes]:
    return [body for _, body in spool.peek(1_000_000)]


def test_oldest_first_until_acknowledged(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.sqlite", 100)
    spool.append([])
    spool.append(bodies(5))
    rows = spool.peek(3)
    assert [body for _, body in rows] == bodies(3)
    assert spool.peek(3) == rows
    spool.ack([i for i, _ in rows])
    spool.ack([i for i, _ in rows])  # twice is once
    assert waiting(spool) == bodies(2, 3)
    assert (len(spool), spool.dropped) == (2, 0)
    spool.close()


def test_full_spool_drops_the_oldest_and_counts_them_for_good(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.sqlite", 10)
    spool.append(bodies(8))
    spool.append(bodies(5, 8))
    assert waiting(spool) == bodies(10, 3)
    assert (len(spool), spool.dropped) == (10, 3)
    spool.append(bodies(25, 13))  # more than fits at all
    assert waiting(spool) == bodies(10, 28)
    assert spool.dropped == 28
    spool.close()
    again = Spool(tmp_path / "spool.sqlite", 10)
    assert waiting(again) == bodies(10, 28)
    assert (len(again), again.dropped) == (10, 28)
    again.close()


def test_only_what_is_acknowledged_goes(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.sqlite", 1000)
    spool.append(bodies(600))  # more than one statement takes
    assert waiting(spool) == bodies(600)
    ids = [i for i, _ in spool.peek(600)]
    spool.ack([ids[0], ids[2]])
    spool.ack(ids[4:])
    assert waiting(spool) == [b"outcome 1", b"outcome 3"]
    spool.close()


def test_what_the_control_plane_refuses_is_counted_as_dropped(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.sqlite", 10)
    spool.append(bodies(3))
    spool.ack([spool.peek(1)[0][0]], dropped=True)
    assert (len(spool), spool.dropped) == (2, 1)
    spool.close()


def test_full_disk_is_an_error_and_all_or_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.sqlite", 100_000)
    spool.append(bodies(3))
    assert spool._db is not None
    spool._db.execute("PRAGMA max_page_count = 8")  # SQLITE_FULL, as from a full disk
    big = [bytes(4000)] * 50
    with pytest.raises(SpoolError, match="full"):
        spool.append(big)
    assert waiting(spool) == bodies(3)
    spool.append(big)  # there is room again
    assert len(spool) == 53
    spool.close()


def test_a_state_directory_that_is_away_comes_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "away" / "spool.sqlite", 10)
    with pytest.raises(SpoolError):
        spool.append(bodies(1))
    (tmp_path / "away").mkdir()
    spool.append(bodies(1))
    assert waiting(spool) == bodies(1)
    spool.close()


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    path.write_bytes(b"no database" * 1000)
    spool = Spool(path, 10)
    spool.append(bodies(1))
    assert waiting(spool) == bodies(1)
    (aside,) = tmp_path.glob("spool.sqlite.damaged-*")
    assert aside.read_bytes().startswith(b"no database")
    spool.close()


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.sqlite", 10)
    spool.append(bodies(1))
    assert (tmp_path / "spool.sqlite").stat().st_mode & 0o777 == 0o600
    spool.close()


APPENDER = """
import sys
from pathlib import Path
from sprout.agent.spool import Spool
spool = Spool(Path(sys.argv[1]), 10**6)
for i in range(10**6):
    spool.append([b"%d-%d" % (i, j) for j in range(3)])
    print(i, flush=True)
"""


def test_kill_9_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    for delay_s in (0.0, 0.03, 0.1):
        writer = subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delay_s)
        writer.send_signal(signal.SIGKILL)
        said = writer.communicate()[0].split()
        spool = Spool(path, 10**6)
        rows = spool.peek(10**6)
        told = int(said[-1]) if said else 0
        kept = [body for _, body in rows]
        assert len(kept) % 3 == 0  # batches are whole
        assert kept == [b"%d-%d" % (i, j) for i in range(len(kept) // 3) for j in range(3)]
        assert len(kept) // 3 > told
        spool.ack([i for i, _ in rows])
        spool.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
