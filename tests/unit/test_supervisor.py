# SPDX-License-Identifier: Apache-2.0
"""The supervisor on tiny real processes."""

import itertools
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import PATIENCE_S, wait_for

from sprout.errors import StackError
from sprout.serve.process import Process, start_time
from sprout.serve.state import StackPaths
from sprout.serve.supervisor import Backoff, Phase, Service, Supervisor, Unit

SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
DEAF = [
    sys.executable,
    "-I",
    "-S",
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
]
QUICK = Backoff(first_s=0.05, most_s=0.4, healthy_s=0.5)


class Tiny(Service):
    def __init__(self, name: str, command: list[str] | None = None) -> None:
        self.name = name
        self._command = command or SLEEP
        self.stop_grace_s = 0.3
        self.check_interval_s = 0.1
        self.start_timeout_s = PATIENCE_S
        self.problem: str | None = None  # what `ready` and `check` find
        self.final: str | None = None  # what `watch` finds
        self.looks = 0
        self.cleaned = 0

    def command(self) -> list[str]:
        return self._command

    def ready(self, process: Process) -> str | None:
        self.looks += 1
        return self.problem

    def watch(self, process: Process) -> str | None:
        final, self.final = self.final, None
        return final

    def cleanup(self) -> None:
        self.cleaned += 1


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    made = StackPaths(tmp_path / "state", tmp_path / "shm")
    made.ensure()
    return made


@contextmanager
def driven(supervisor: Supervisor, act: Callable[[], None]) -> Iterator[None]:
    """Runs `act` on a thread beside `supervisor.run`, which must have the main thread."""
    failure: list[BaseException] = []

    def body() -> None:
        try:
            act()
        except BaseException as error:
            failure.append(error)
        finally:
            supervisor.request_stop()

    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield
    finally:
        thread.join(2 * PATIENCE_S)
    if failure:
        raise failure[0]


def ignores_sigterm(pid: int) -> bool:
    [ignored] = re.findall(r"^SigIgn:\s(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.M)
    return bool(int(ignored, 16) >> (signal.SIGTERM - 1) & 1)


def pid_of(unit: Unit) -> int:
    assert unit.process is not None
    return unit.process.pid


def test_a_service_says_what_is_started() -> None:
    class Silent(Service):
        name = "silent"

    with pytest.raises(TypeError, match="command"):
        Silent()


def test_starts_in_order_each_after_the_one_before_is_ready(paths: StackPaths) -> None:
    first, second = Tiny("first"), Tiny("second")
    first.problem = "warming up"
    supervisor = Supervisor([first, second], paths)

    def act() -> None:
        wait_for(lambda: supervisor.units[0].phase is Phase.STARTING)
        wait_for(lambda: first.looks > 3)
        assert supervisor.units[1].phase is Phase.WAITING
        first.problem = None
        wait_for(lambda: supervisor.ready)
        assert paths.pid("second").read_text() == f"{pid_of(supervisor.units[1])}\n"

    with driven(supervisor, act):
        supervisor.run()
    assert not list((paths.state / "pids").iterdir())


def test_a_killed_process_comes_back_and_the_others_stay(paths: StackPaths) -> None:
    one, other = Tiny("one"), Tiny("other")
    supervisor = Supervisor([one, other], paths, backoff=QUICK)

    def act() -> None:
        wait_for(lambda: supervisor.ready)
        killed, kept = pid_of(supervisor.units[0]), pid_of(supervisor.units[1])
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: supervisor.units[0].phase is Phase.BACKOFF)
        one.problem = "warming up"
        wait_for(lambda: supervisor.units[0].missing == "warming up")
        one.problem = None
        wait_for(lambda: supervisor.units[0].restarts == 1 and supervisor.ready)
        assert pid_of(supervisor.units[0]) != killed
        assert pid_of(supervisor.units[1]) == kept
        assert supervisor.units[0].problem == "was killed by SIGKILL"
        assert one.cleaned == 1

    with driven(supervisor, act):
        supervisor.run()


def test_a_crash_loop_is_slowed_down_and_never_given_up(paths: StackPaths, tmp_path: Path) -> None:
    """Starts while the file is absent; with it, each start ends at once with status 3."""
    gate = tmp_path / "crash"
    script = f"import os, sys, time; os.path.exists({str(gate)!r}) and sys.exit(3); time.sleep(600)"
    service = Tiny("looping", [sys.executable, "-I", "-S", "-c", script])
    # A look at the process comes first, so a crash on start must not be taken for ready.
    service.check_interval_s = 60
    supervisor = Supervisor([service], paths, backoff=QUICK)
    starts: list[float] = []
    launch = supervisor._launch

    def counted(unit: Unit) -> None:
        starts.append(time.monotonic())
        launch(unit)

    supervisor._launch = counted  # type: ignore[method-assign]

    def act() -> None:
        wait_for(lambda: supervisor.ready)
        gate.touch()
        service.problem = "not yet"  # what crashes was never ready
        os.kill(pid_of(supervisor.units[0]), signal.SIGKILL)
        wait_for(lambda: supervisor.units[0].restarts >= 6)
        gate.unlink()
        service.problem = None
        wait_for(lambda: supervisor.ready)

    with driven(supervisor, act):
        supervisor.run()
    gaps = [b - a for a, b in itertools.pairwise(starts[1:])]
    for n, gap in enumerate(gaps[:5]):
        assert gap > 0.9 * QUICK.delay_s(n)


def test_back_off_grows_to_its_bound() -> None:
    backoff = Backoff(first_s=0.2, most_s=30)
    assert [backoff.delay_s(n) for n in (0, 1, 2, 3)] == [0.2, 0.4, 0.8, 1.6]
    assert backoff.delay_s(8) == backoff.delay_s(10_000) == 30


def test_back_off_is_forgotten_after_a_healthy_while(paths: StackPaths) -> None:
    supervisor = Supervisor([Tiny("one")], paths, backoff=replace(QUICK, healthy_s=3))

    def act() -> None:
        wait_for(lambda: supervisor.ready)
        os.kill(pid_of(supervisor.units[0]), signal.SIGKILL)
        wait_for(lambda: supervisor.units[0].failures == 1)
        wait_for(lambda: supervisor.units[0].restarts == 1 and supervisor.ready)
        wait_for(lambda: supervisor.units[0].failures == 0)

    with driven(supervisor, act):
        supervisor.run()


def test_failing_checks_and_a_final_finding_restart_it(paths: StackPaths) -> None:
    service = Tiny("one")
    supervisor = Supervisor([service], paths, backoff=QUICK)

    def act() -> None:
        wait_for(lambda: supervisor.ready)
        service.problem = "hangs"
        wait_for(lambda: supervisor.units[0].restarts == 1)
        service.problem = None
        wait_for(lambda: supervisor.ready)
        service.final = "lost a part"
        wait_for(lambda: supervisor.units[0].restarts == 2 and supervisor.ready)
        assert supervisor.units[0].problem == "lost a part"

    with driven(supervisor, act):
        supervisor.run()


def test_failed_checks_are_tolerated_up_to_a_number(paths: StackPaths) -> None:
    service = Tiny("one")
    service.tolerated_failures = 600  # a minute of them: one alone, however slow this test is
    supervisor = Supervisor([service], paths, backoff=QUICK)

    def act() -> None:
        wait_for(lambda: supervisor.ready)
        service.problem = "slow"
        wait_for(lambda: supervisor.units[0].bad_checks > 0)
        service.problem = None
        wait_for(lambda: supervisor.units[0].bad_checks == 0)
        assert supervisor.units[0].restarts == 0

    with driven(supervisor, act):
        supervisor.run()


def test_a_first_start_that_fails_ends_with_the_log_and_leaves_nothing(paths: StackPaths) -> None:
    good = Tiny("good")
    bad = Tiny("bad", [sys.executable, "-I", "-S", "-c", "import sys; sys.exit('no such weights')"])
    bad.problem = "not yet"
    supervisor = Supervisor([good, bad], paths, backoff=QUICK)
    with pytest.raises(StackError, match=r"(?s)bad ended with status 1.*no such weights"):
        supervisor.run()
    assert not list((paths.state / "pids").iterdir())
    assert all(unit.process is None for unit in supervisor.units)


def test_a_start_that_never_gets_ready_says_why(paths: StackPaths) -> None:
    service = Tiny("one")
    service.problem, service.start_timeout_s = "port 1 is closed", 0.3
    with pytest.raises(StackError, match=r"not ready within 0\.3 s \(port 1 is closed\)"):
        Supervisor([service], paths, backoff=QUICK).run()


def test_stop_is_ordered_bounded_and_complete(paths: StackPaths) -> None:
    """Four processes that ignore SIGTERM for ten minutes are gone after their graces."""
    order: list[str] = []

    class Noted(Tiny):
        def cleanup(self) -> None:
            order.append(self.name)

    supervisor = Supervisor([Noted(name, DEAF) for name in "abcd"], paths)
    pids: list[int] = []

    def act() -> None:
        wait_for(lambda: supervisor.ready)
        pids.extend(pid_of(unit) for unit in supervisor.units)
        wait_for(lambda: all(map(ignores_sigterm, pids)))

    with driven(supervisor, act):
        supervisor.run()
    assert order == ["d", "c", "b", "a"]
    assert [start_time(pid) for pid in pids] == [None] * 4


def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from sprout.serve.process import Process
from sprout.serve.state import StackPaths
paths = StackPaths(Path({str(tmp_path / "state")!r}), Path({str(tmp_path / "shm")!r}))
paths.ensure()
Process.start("child", [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"], paths)
sys.stdin.read()
"""
    import subprocess

    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    pid_file = tmp_path / "state" / "pids" / "child.pid"
    try:
        wait_for(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
        child = int(pid_file.read_text())
        wait_for(lambda: b"time.sleep" in Path(f"/proc/{child}/cmdline").read_bytes())
        assert start_time(child) is not None
    finally:
        parent.kill()
        parent.communicate()
    wait_for(lambda: start_time(child) is None)
