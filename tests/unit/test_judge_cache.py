# SPDX-License-Identifier: Apache-2.0
"""Judgments on disk."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from sprout.errors import JudgeError
from sprout.evaluate.judges.cache import Cache, key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "judgments.sqlite"


def test_what_was_judged_is_there_after_a_restart(path: Path) -> None:
    with closing(Cache(path)) as cache:
        assert cache.get(b"1") is None
        for made, place in ((b"1", 0), (b"2", 1), (b"3", None)):
            cache.put(made, place)
    with closing(Cache(path)) as cache:
        assert [cache.get(made) for made in (b"1", b"2", b"3", b"4")] == [(0,), (1,), (None,), None]
        assert len(cache) == 3


def test_what_was_judged_outlives_a_kill(path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from sprout.evaluate.judges.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1])); cache.put(b'1', 1)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert ended.returncode == -9
    with closing(Cache(path)) as cache:
        assert cache.get(b"1") == (1,)


def test_the_first_verdict_stands(path: Path) -> None:
    with closing(Cache(path)) as cache:
        cache.put(b"1", 0)
        cache.put(b"1", 1)
        assert cache.get(b"1") == (0,)
        assert len(cache) == 1


def test_it_is_bounded_and_the_oldest_go(path: Path) -> None:
    for _ in range(2):
        with closing(Cache(path, max_rows=3)) as cache:
            for number in range(10):
                cache.put(bytes([number]), 0)
            assert len(cache) == 3
            assert [n for n in range(10) if cache.get(bytes([n]))] == [7, 8, 9]


def test_it_is_its_user_s_alone_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(Cache(path)) as cache:
            cache.put(b"1", 0)
            files = list(path.parent.iterdir())
            assert path.with_name(path.name + "-wal") in files
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_no_text_is_in_it(path: Path) -> None:
    with closing(Cache(path)) as cache:
        cache.put(key("v", "What is secret?", ["the secret", "none"]), 0)
    with closing(sqlite3.connect(path)) as db:
        assert [row[1:3] for row in db.execute("SELECT * FROM judgments")] == [
            (key("v", "What is secret?", ["the secret", "none"]), 0)
        ]
    assert b"secret" not in path.read_bytes()


def test_a_key_is_of_version_texts_and_order_and_of_where_they_end() -> None:
    keys = [
        key("v", "q", ["a", "b"]),
        key("w", "q", ["a", "b"]),
        key("v", "r", ["a", "b"]),
        key("v", "q", ["b", "a"]),
        key("v", "q", ["ab", ""]),
        key("v", "qa", ["", "b"]),
        key("v", "q", ["a", "b", ""]),
    ]
    assert len(set(keys)) == len(keys)
    assert key("v", "q", ["a", "b"]) == keys[0]


def test_threads_share_it(path: Path) -> None:
    with closing(Cache(path)) as cache:

        def put(first: int) -> None:
            for number in range(first, first + 25):
                cache.put(number.to_bytes(2, "big"), number % 2)

        threads = [threading.Thread(target=put, args=(first,)) for first in range(0, 100, 25)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(cache) == 100
        assert all(cache.get(n.to_bytes(2, "big")) == (n % 2,) for n in range(100))


def test_a_damaged_file_is_named_with_the_remedy(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all, though it is long enough to be looked at" * 100)
    with pytest.raises(JudgeError, match="remove it") as caught:
        Cache(path)
    assert str(path) in str(caught.value)


def test_a_file_that_can_t_be_made(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in the folder's place")
    with pytest.raises(JudgeError, match="can't be used"):
        Cache(tmp_path / "state" / "judgments.sqlite")
