# SPDX-License-Identifier: Apache-2.0
"""What the node's energy is read from.

A meter is a cumulative counter in joules. It starts at nought once and goes on over restarts of
the agent, so that the interval in which no agent ran is metered too.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import psutil

from sprout.config import Config

log = logging.getLogger(__name__)

STACK_PROCESSES = ("engine", "triton")  # whose energy a request costs; by their pid files
STATE_FILE = "meter.json"
REFRESH_S = 1.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2


class Meter(Protocol):
    """Read by one thread."""

    @property
    def name(self) -> str: ...

    @property
    def estimated(self) -> bool:
        """True: computed from a declared model, nothing was measured."""

    @property
    def prior_watts(self) -> float:
        """What the node is assumed to draw for a request before anything has been metered."""

    def read(self) -> float:
        """Joules since the meter's start; never falls."""

    def close(self) -> None:
        """Leave the state that the next meter goes on from."""


class CpuModelMeter:
    """Declared model: CPU seconds of the stack's processes times watts per core.

    The processes are those named by `<pids>/{engine,triton}.pid` and their descendants (Triton's
    stubs, where an engine may run too). None of them there means no energy, not an error. CPU
    seconds are added up as differences per (pid, start time), so a process that dies takes nothing
    back and one that is reborn adds its own; what it used after the last look is lost with it.

    A process born after the meter's start counts from its birth, an older one from when it is
    first seen. `state` (a small file on memory-backed storage) carries sum and readings over.
    """

    name = "cpu_model"
    estimated = True

    def __init__(
        self,
        pids: Path,
        watts_per_core: float,
        *,
        state: Path | None = None,
        cores: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.prior_watts = watts_per_core * (cores or os.cpu_count() or 1)
        self._pids = pids
        self._watts_per_core = watts_per_core
        self._state = state
        self._clock = clock
        self._joules = 0.0
        self._since = _boot_ticks()
        self._seen: dict[tuple[int, int], float] = {}  # (pid, start ticks) -> CPU seconds counted
        self._refreshed = float("-inf")
        self._save_failed = False
        self._restore()
        self.read()

    def read(self) -> float:
        """Joules since the meter's start. Microseconds; once a second it looks for processes."""
        now = self._clock()
        refresh = now - self._refreshed >= REFRESH_S
        if refresh:
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
        if refresh:
            self._save()
        return self._joules

    def close(self) -> None:
        self.read()
        self._save()

    def _look(self) -> None:
        for pid in stack_pids(self._pids):
            born = start_ticks(pid)
            if born is None or (pid, born) in self._seen:
                continue
            counted = 0.0 if born >= self._since else cpu_seconds(pid)
            if counted is not None:
                self._seen[pid, born] = counted

    def _save(self) -> None:
        if self._state is None:
            return
        body = {
            "since": self._since,
            "joules": self._joules,
            "seen": [[pid, born, cpu_s] for (pid, born), cpu_s in self._seen.items()],
        }
        fresh = self._state.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(body))
            fresh.replace(self._state)
        except OSError as error:  # only a restart of the agent would miss it
            if not self._save_failed:
                log.warning("meter: can't write %s: %s", self._state, error.strerror)
            self._save_failed = True
        else:
            self._save_failed = False

    def _restore(self) -> None:
        if self._state is None or not self._state.exists():
            return
        try:
            body = json.loads(self._state.read_text())
            since, joules = int(body["since"]), float(body["joules"])
            seen = {(int(p), int(b)): float(c) for p, b, c in body["seen"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("meter: %s is unreadable, starting at 0 J: %s", self._state, error)
            return
        if since > self._since or joules < 0:  # from before a reboot
            return
        self._since, self._joules = since, joules
        self._seen = {key: c for key, c in seen.items() if start_ticks(key[0]) == key[1]}


def meter(cfg: Config) -> Meter:
    """The meter that the configuration names."""
    return CpuModelMeter(
        cfg.stack.state / "pids",
        cfg.energy.watts_per_core,
        state=cfg.stack.shm / STATE_FILE,
        cores=cfg.engine.threads or None,
    )


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
