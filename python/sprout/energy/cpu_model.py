# SPDX-License-Identifier: Apache-2.0
"""The declared model: CPU seconds of the stack's processes times watts per core. An estimate."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from sprout.energy.tally import NOTHING, Memory

STACK_PROCESSES = ("engine", "triton")  # whose energy a request costs; by their pid files
REFRESH_S = 1.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2


class CpuModelMeter:
    """Declared model: CPU seconds of the stack's processes times watts per core.

    The processes are those named by `<pids>/{engine,triton}.pid` and their descendants (Triton's
    stubs, where an engine may run too). None of them there means no energy, not an error. CPU
    seconds are added up as differences per (pid, start time), so a process that dies takes nothing
    back and one that is reborn adds its own; what it used after the last look is lost with it.

    A process born after the meter's start counts from its birth, an older one from when it is
    first seen.
    """

    name = "cpu_model"
    estimated = True

    def __init__(
        self,
        pids: Path,
        watts_per_core: float,
        memory: Memory = NOTHING,
        *,
        cores: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.prior_watts = watts_per_core * (cores or os.cpu_count() or 1)
        self._pids = pids
        self._watts_per_core = watts_per_core
        self._clock = clock
        self._joules = memory.joules
        self._since = _boot_ticks() if memory.since_ticks is None else memory.since_ticks
        self._seen = _living(memory)  # (pid, start ticks) -> CPU seconds counted
        self._refreshed = float("-inf")
        self.read()

    def read(self) -> float:
        """Joules since the meter's start. Microseconds; once a second it looks for processes."""
        now = self._clock()
        if now - self._refreshed >= REFRESH_S:
            self._refreshed = now
            self._look()
        cpu_s = 0.0
        for key, before in list(self._seen.items()):
            after = cpu_seconds(key[0])
            if after is None or after < before:  # dead, or its pid is another's by now
                del self._seen[key]
            else:
                cpu_s += after - before
                self._seen[key] = after
        self._joules += cpu_s * self._watts_per_core
        return self._joules

    @property
    def problem(self) -> str:
        """0 J of nobody is no measurement."""
        return "" if self._seen else f"no process of this stack runs (no pid file in {self._pids})"

    @property
    def whole(self) -> bool:
        return bool(self._seen)

    def memory(self) -> Memory:
        counters = {f"{pid}:{born}": cpu_s for (pid, born), cpu_s in self._seen.items()}
        return Memory(self._joules, counters, self._since)

    def close(self) -> None:
        """Nothing is held."""

    def _look(self) -> None:
        for pid in stack_pids(self._pids):
            born = start_ticks(pid)
            if born is None or (pid, born) in self._seen:
                continue
            counted = 0.0 if born >= self._since else cpu_seconds(pid)
            if counted is not None:
                self._seen[pid, born] = counted


def _living(memory: Memory) -> dict[tuple[int, int], float]:
    """Those of the remembered processes that are still there, under the same pid."""
    seen = {}
    for name, cpu_s in memory.counters.items():
        pid, _, born = name.partition(":")
        if pid.isdecimal() and str(start_ticks(int(pid))) == born:
            seen[int(pid), int(born)] = cpu_s
    return seen


def stack_pids(pids: Path, names: Iterable[str] = STACK_PROCESSES) -> set[int]:
    """The processes named by pid files and all their descendants, as far as they live."""
    found: set[int] = set()
    for name in names:
        try:
            pid = int((pids / f"{name}.pid").read_text())
            root = psutil.Process(pid)
            found.update([pid, *(child.pid for child in root.children(recursive=True))])
        except (OSError, ValueError, psutil.Error):
            continue  # not started, stopped, or stopping under our eyes
    return found


def cpu_seconds(pid: int) -> float | None:
    """User plus system seconds of a process, all threads, past ones too; None if it is gone.

    The process's CPU clock (clock_getcpuclockid(3)): nanoseconds where /proc counts in 10 ms.
    """
    try:
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return None


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (/proc/PID/stat field 22); None: gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def _boot_ticks() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS_PER_S)
