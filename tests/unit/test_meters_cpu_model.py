# SPDX-License-Identifier: Apache-2.0
"""The declared CPU model, on real processes that burn a known amount of CPU time."""

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sprout.energy.cpu_model import REFRESH_S, CpuModelMeter, cpu_seconds, start_ticks
from sprout.energy.meters import NodeMeter
from sprout.energy.tally import Memory

WATTS = 10.0
# Burns argv[1] CPU seconds (with argv[2] in a child as well), says so, and then as asked on stdin.
BURNER = """
import os, sys, time
def burn(cpu_s):
    until = time.process_time() + cpu_s
    while time.process_time() < until:
        pass
cpu_s = float(sys.argv[1])
if sys.argv[2:]:
    done, tell = os.pipe()
    if os.fork() == 0:
        burn(cpu_s)
        os.write(tell, b"x")
        os.read(0, 1)  # until the test closes it
        os._exit(0)
    os.read(done, 1)
burn(cpu_s)
print("burnt", flush=True)
for line in sys.stdin:
    burn(float(line))
    print("burnt", flush=True)
"""


class Burner:
    def __init__(self, cpu_s: float, *, child: bool = False) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", BURNER, str(cpu_s), *(["child"] if child else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        self._burnt()

    def _burnt(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "burnt\n"

    def burn(self, cpu_s: float) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{cpu_s}\n")
        self.process.stdin.flush()
        self._burnt()

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def burner() -> Iterator[Callable[..., Burner]]:
    made: list[Burner] = []

    def make(cpu_s: float, *, child: bool = False) -> Burner:
        made.append(Burner(cpu_s, child=child))
        return made[-1]

    yield make
    for one in made:
        if one.process.returncode is None:
            one.stop()


def make_meter(pids: Path, state: Path | None = None) -> NodeMeter:
    """A meter that looks for processes, and saves what it knows, at every reading."""
    ticks = itertools.count(0, 2 * REFRESH_S)

    def clock() -> float:
        return next(ticks)

    def opened(_: str, memory: Memory) -> CpuModelMeter:
        return CpuModelMeter(pids, WATTS, memory, clock=clock)

    return NodeMeter(["cpu_model"], opened, state=state, clock=clock)


def name(pids: Path, process: str, pid: int) -> None:
    (pids / f"{process}.pid").write_text(f"{pid}\n")


def test_nothing_runs_nothing_is_metered(tmp_path: Path) -> None:
    made = make_meter(tmp_path)
    assert made.read() == 0.0
    (tmp_path / "engine.pid").write_text("not a pid")
    (tmp_path / "triton.pid").write_text("999999999")
    assert made.read() == 0.0
    assert made.estimated
    assert made.name == "cpu_model"


def test_a_process_counts_from_its_birth_with_its_children(
    tmp_path: Path, burner: Callable[..., Burner]
) -> None:
    made = make_meter(tmp_path)
    one = burner(0.15, child=True)
    name(tmp_path, "triton", one.pid)
    assert 2 * 0.15 * WATTS <= made.read() < 2.0 * WATTS  # + the interpreters' start


def test_an_older_process_counts_from_when_it_is_seen(
    tmp_path: Path, burner: Callable[..., Burner]
) -> None:
    one = burner(0.3)
    name(tmp_path, "engine", one.pid)
    made = make_meter(tmp_path)
    before = made.read()
    assert before < 0.1 * WATTS
    one.burn(0.1)
    assert 0.1 * WATTS <= made.read() - before < 0.2 * WATTS


def test_never_falls_while_processes_come_and_go(
    tmp_path: Path, burner: Callable[..., Burner]
) -> None:
    made = make_meter(tmp_path)
    readings = [made.read()]
    for _ in range(3):
        one = burner(0.05)
        name(tmp_path, "engine", one.pid)
        readings.append(made.read())
        assert readings[-1] - readings[-2] >= 0.05 * WATTS
        one.stop()
        readings.append(made.read())
    assert readings == sorted(readings)
    assert readings[-1] == readings[-2]  # the dead use nothing


def test_goes_on_after_a_restart_with_what_was_used_meanwhile(
    tmp_path: Path, burner: Callable[..., Burner]
) -> None:
    state = tmp_path / "meter.json"
    first = make_meter(tmp_path, state)
    one = burner(0.05)
    name(tmp_path, "engine", one.pid)
    before = first.read()  # and no close(): killed
    one.burn(0.1)
    second = make_meter(tmp_path, state)
    assert 0.1 * WATTS <= second.read() - before < 0.2 * WATTS
    one.stop()
    third = make_meter(tmp_path, state)
    assert third.read() >= before + 0.1 * WATTS


def test_looks_for_processes_once_a_second(tmp_path: Path, burner: Callable[..., Burner]) -> None:
    now = 0.0
    made = CpuModelMeter(tmp_path, WATTS, clock=lambda: now)
    one = burner(0.05)
    name(tmp_path, "engine", one.pid)
    now = REFRESH_S / 2
    assert made.read() == 0.0
    now = REFRESH_S
    assert made.read() >= 0.05 * WATTS


def test_a_dead_process_has_no_clock(burner: Callable[..., Burner]) -> None:
    one = burner(0.02)
    assert (cpu_seconds(one.pid) or 0) >= 0.02
    assert (start_ticks(one.pid) or 0) > 0
    one.stop()
    assert cpu_seconds(one.pid) is None
    assert start_ticks(one.pid) is None
