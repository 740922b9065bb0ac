# SPDX-License-Identifier: Apache-2.0
"""An agent of which a part died ends, so that its supervisor starts a whole one."""

import threading
from pathlib import Path

import pytest

from sprout.agent.drain import Drain
from sprout.agent.relay import Reporter, Watcher
from sprout.agent.run import serve
from sprout.config import Config
from sprout.errors import ConfigError, StackError
from sprout_ext.board import BoardWriter

pytestmark = pytest.mark.system


def config(tmp_path: Path, port: int = 9) -> Config:  # discard: nobody there
    return Config.model_validate(
        {
            "stack": {"state_dir": tmp_path / "state", "shm_dir": tmp_path / "shm"},
            "control": {"port": port},
            "agent": {"report_interval_s": 0.05},
        }
    )


@pytest.mark.parametrize(
    ("part", "method", "thread"),
    [(Drain, "tick", "ticker"), (Watcher, "run", "watcher"), (Reporter, "report", "reporter")],
)
def test_a_part_that_dies_ends_the_agent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: type,
    method: str,
    thread: str,
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(part, method, dies)
    with pytest.raises(StackError, match=f"{thread}: no room"):
        serve(config(tmp_path))


def test_a_part_that_returns_ends_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watcher, "run", lambda *_: None)
    with pytest.raises(StackError, match="watcher returned"):
        serve(config(tmp_path))


def test_serves_until_it_is_told_to_stop_without_a_control_plane(tmp_path: Path) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    serve(config(tmp_path), stop=stop)
    assert stop.is_set()  # not before it was told to
    serve(config(tmp_path), stop=stop)  # board, clock, spool and lock were let go of


def test_shared_memory_of_another_agent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shm").mkdir()
    board = BoardWriter(tmp_path / "shm" / "policy.board")
    with pytest.raises(StackError, match=r"policy\.board"):
        serve(config(tmp_path))
    board.close()


def test_the_control_planes_port_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"control\.port"):
        serve(config(tmp_path, port=0))


def test_what_it_makes_is_the_owners_alone(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    serve(config(tmp_path), stop=stop)
    for path in (tmp_path / "state", tmp_path / "shm"):
        assert path.stat().st_mode & 0o777 == 0o700
    for path in (*(tmp_path / "state").iterdir(), tmp_path / "shm" / "policy.board"):
        assert path.stat().st_mode & 0o077 == 0, path
