# SPDX-License-Identifier: Apache-2.0
"""No process is left behind: of a supervisor that is killed, of a server whose children hang."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from waiting import wait_for

from sprout.serve import reaper
from sprout.serve.process import Process, start_time
from sprout.serve.stack import clean_stale
from sprout.serve.state import StackPaths

# As an engine: a server with a core that does not heed SIGTERM, and a helper with its own session.
SERVER = """
import os, signal, sys, time
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
pids = [os.getpid()]
for setup in (lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), os.setsid):
    ready, said = os.pipe()
    if (pid := os.fork()) == 0:
        setup()
        os.write(said, b"1")
        time.sleep(600)
        os._exit(0)
    os.read(ready, 1)
    pids.append(pid)
with open(sys.argv[1] + ".new", "w") as file:
    print(*pids, file=file)
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""

SUPERVISOR = """
import signal, sys
from pathlib import Path
from sprout.serve.stack import clean_stale
from sprout.serve.state import StackPaths
from sprout.serve.supervisor import Backoff, Service, Supervisor
folder = Path(sys.argv[1])
class Engine(Service):
    name = "engine"
    stop_grace_s = float(sys.argv[4])
    def command(self):
        return [sys.executable, "-I", "-S", str(folder / "server.py"), *sys.argv[2:4]]
    def ready(self, process):
        return None if Path(sys.argv[2]).exists() else "not yet"
    def cleanup(self):
        Path(sys.argv[2]).unlink(missing_ok=True)
paths = StackPaths(folder / "state", folder / "shm")
paths.ensure()
clean_stale(paths, ["engine"])
supervisor = Supervisor([Engine()], paths, backoff=Backoff(first_s=0.05))
signal.signal(signal.SIGTERM, lambda *_: supervisor.request_stop())
supervisor.run()
"""


@dataclass
class Running:
    supervisor: subprocess.Popen[bytes]
    members: list[int]  # server, core, helper
    pids: Path
    paths: StackPaths

    @property
    def reaper(self) -> int:
        [pid] = [pid for pid in children(self.supervisor.pid) if pid != self.members[0]]
        return pid

    def gone(self) -> bool:
        return [start_time(pid) for pid in self.members] == [None] * len(self.members)


def children(parent: int) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if (seen := reaper.look(pid)) and seen.parent == parent]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    (tmp_path / "server.py").write_text(SERVER)
    pids = tmp_path / "members"
    started: list[Running] = []

    def start(kind: str, grace_s: float = 0.2) -> Running:
        pids.unlink(missing_ok=True)
        arguments = [str(tmp_path), str(pids), kind, str(grace_s)]
        supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, *arguments])
        paths = StackPaths(tmp_path / "state", tmp_path / "shm")
        started.append(Running(supervisor, [], pids, paths))
        wait_for(pids.exists)
        started[-1].members += said(pids)
        return started[-1]

    yield start
    for running in started:
        running.supervisor.kill()
        running.supervisor.wait()
        for pid in running.members + (said(pids) if pids.exists() else []):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(params=["heeds SIGTERM", "deaf"])
def running(request: pytest.FixtureRequest, start: Callable[..., Running]) -> Running:
    return start(request.param)


def said(pids: Path) -> list[int]:
    return [int(text) for text in pids.read_text().split()]


@pytest.mark.parametrize("stopped", [[], [0], [1], [0, 1, 2]], ids=["none", "it", "core", "all"])
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_supervisor(
    running: Running, stopped: list[int], blow: signal.Signals
) -> None:
    watch = running.reaper
    for index in stopped:
        os.kill(running.members[index], signal.SIGSTOP)
    running.supervisor.send_signal(blow)
    running.supervisor.wait()
    wait_for(running.gone)
    wait_for(lambda: start_time(watch) is None)


def test_children_of_a_server_that_was_killed_go_before_it_comes_back(running: Running) -> None:
    server, core, helper = running.members
    os.killpg(server, signal.SIGSTOP)
    os.kill(server, signal.SIGKILL)
    wait_for(lambda: running.pids.exists() and server not in said(running.pids))
    assert (start_time(core), start_time(helper)) == (None, None)


def test_a_stack_that_is_up_again_at_once_is_let_be(start: Callable[..., Running]) -> None:
    """The reaper of the one before is still at work."""
    before = start("deaf", grace_s=3.0)
    os.killpg(before.members[0], signal.SIGSTOP)
    watch = before.reaper
    before.supervisor.kill()
    now = start("deaf")
    assert before.gone()
    wait_for(lambda: start_time(watch) is None)
    assert None not in [start_time(pid) for pid in now.members]


def test_the_next_start_finds_what_a_killed_guard_could_not_end(running: Running) -> None:
    """The others are known by the log: the server, whose pid is on file, is gone."""
    server, core, helper = running.members
    os.kill(core, signal.SIGSTOP)
    os.kill(running.reaper, signal.SIGKILL)
    running.supervisor.kill()
    os.kill(server, signal.SIGKILL)
    wait_for(lambda: start_time(server) is None)
    assert start_time(core) is not None
    clean_stale(running.paths, ["engine"])
    assert (start_time(core), start_time(helper)) == (None, None)
    assert not running.paths.pid("engine").exists()


def test_a_stranger_with_the_pid_on_file_is_let_be(tmp_path: Path) -> None:
    paths = StackPaths(tmp_path / "state", tmp_path / "shm")
    paths.ensure()
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        paths.pid("engine").write_text(f"{stranger.pid}\n")
        clean_stale(paths, ["engine"])
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_is_killed_with_its_family_and_waited_for(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    paths = StackPaths(tmp_path / "state", tmp_path / "shm")
    paths.ensure()
    pids = tmp_path / "members"
    command = [sys.executable, "-I", "-S", str(tmp_path / "server.py"), str(pids), "deaf"]
    process = Process.start("engine", command, paths)
    try:
        wait_for(pids.exists)
        members = said(pids)
        assert set(reaper.family(process.pid, paths.log("engine"))) == set(members)
        os.killpg(process.pid, signal.SIGSTOP)
    finally:
        process.kill()
    assert [start_time(pid) for pid in members] == [None] * 3
    assert not paths.pid("engine").exists()


def test_what_sigkill_does_not_end_is_told_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a process is inside a driver that never answers."""
    paths = StackPaths(tmp_path / "state", tmp_path / "shm")
    paths.ensure()
    process = Process.start("engine", ["sleep", "600"], paths)
    monkeypatch.setattr(reaper, "KILL_S", 0.1)
    with monkeypatch.context() as deaf:
        deaf.setattr(os, "kill", lambda *_: None)
        process.kill()
    try:
        assert f"SIGKILL does not end [{process.pid}]" in caplog.text
        assert paths.pid("engine").exists()  # the next start will look again
    finally:
        process.kill()
    assert start_time(process.pid) is None


def test_a_zombie_whose_threads_go_on_is_not_gone(tmp_path: Path) -> None:
    """Its leader's end shows as Z, while another thread keeps what it has on a GPU."""
    log = tmp_path / "engine.log"
    body = (
        "import threading, time, ctypes; threading.Thread(target=time.sleep, args=(600,)).start(); "
    )
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", body + "ctypes.CDLL(None).pthread_exit(None)"],
        start_new_session=True,
    )
    try:
        stat = Path(f"/proc/{child.pid}/stat")
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")
        assert child.pid in reaper.family(child.pid, log)
        assert reaper.kill(child.pid, log) == set()
    finally:
        child.kill()
        child.wait()
    assert reaper.look(child.pid) is None
