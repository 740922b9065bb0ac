# SPDX-License-Identifier: Apache-2.0
"""Keeps a stack's processes alive: ordered start, readiness, restart with back-off, ordered stop.

One thread (the main one) starts, watches and stops; slow checks run on worker threads, so that a
hanging server never delays the look at the others. A process that keeps failing is tried again for
ever, at growing intervals, and reported each time. Only the first start gives up: a stack that
never came up has a fault that a restart does not heal.
"""

import abc
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from sprout.errors import SproutError, StackError
from sprout.serve.process import Process, describe_exit, log_tail, reaped
from sprout.serve.state import StackPaths

log = logging.getLogger(__name__)

_TICK_S = 0.1
_FIRST_START_TRIES = 2


class Service(abc.ABC):
    """What the supervisor must know of one process. A subclass says its `name` and `command`."""

    name: str
    start_timeout_s: float = 30.0
    check_interval_s: float = 2.0
    tolerated_failures: int = 2  # checks in a row that may fail before a restart
    stop_grace_s: float = 0.8

    @abc.abstractmethod
    def command(self) -> Sequence[str]:
        """What is started."""

    def environment(self) -> Mapping[str, str] | None:
        """None: the supervisor's own."""
        return None

    def prepare(self) -> None:  # noqa: B027 - for who needs it
        """Before each start."""

    def ready(self, process: Process) -> str | None:
        """None once it serves, else what is missing. On a worker thread; bounded in time."""
        return None

    def check(self, process: Process) -> str | None:
        """None while it serves, else what is wrong. On a worker thread; bounded in time."""
        return self.ready(process)

    def watch(self, process: Process) -> str | None:
        """A quick look on every tick; what it returns is final. On the main thread."""
        return None

    def cleanup(self) -> None:  # noqa: B027
        """After each end, however it came."""

    def last_words(self, log: Path) -> str:
        """What its log says of a start that failed."""
        return log_tail(log)


class Phase(StrEnum):
    WAITING = "waiting"  # for those before it
    STARTING = "starting"
    READY = "ready"
    BACKOFF = "restarting"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Backoff:
    """Seconds until restart n: first · 2^n, at most `most`; n is forgotten after `healthy`."""

    first_s: float = 0.2
    most_s: float = 30.0
    healthy_s: float = 30.0

    def delay_s(self, failures: int) -> float:
        return float(min(self.most_s, self.first_s * 2 ** min(failures, 30)))


@dataclass
class Unit:
    """A service and what is going on with it."""

    service: Service
    phase: Phase = Phase.WAITING
    process: Process | None = None
    restarts: int = 0
    problem: str = ""  # the last one that it was started again for
    missing: str = ""  # what its last check found
    failures: int = 0  # in a row, for the back-off
    since: float = field(default_factory=time.monotonic)  # of the phase
    bad_checks: int = 0
    next_check: float = 0.0
    running_check: Future[str | None] | None = None

    def enter(self, phase: Phase) -> None:
        self.phase, self.since = phase, time.monotonic()
        self.bad_checks, self.next_check, self.running_check = 0, 0.0, None


class Supervisor:
    """`run` starts the services in order and returns after `stop` was asked for."""

    def __init__(
        self,
        services: Sequence[Service],
        paths: StackPaths,
        *,
        backoff: Backoff | None = None,
        on_change: Callable[["Supervisor"], None] = lambda _: None,
    ) -> None:
        self.units = [Unit(service) for service in services]
        self._paths = paths
        self._backoff = backoff or Backoff()
        self._on_change = on_change
        self._stop = threading.Event()
        self._up = False

    def request_stop(self) -> None:
        """Safe in a signal handler and on any thread."""
        self._stop.set()

    @property
    def ready(self) -> bool:
        return all(unit.phase is Phase.READY for unit in self.units)

    def run(self) -> None:
        """Blocks. Raises StackError if the first start fails; nothing is left running then."""
        services = [unit.service for unit in self.units]
        grace_s = max((service.stop_grace_s for service in services), default=0.0)
        with (
            reaped([service.name for service in services], self._paths, grace_s),
            ThreadPoolExecutor(len(self.units) or 1, "check") as self._workers,
        ):
            try:
                while not self._stop.is_set():
                    self._start_next()
                    for unit in self.units:
                        self._look(unit)
                    self._stop.wait(_TICK_S)
            finally:
                self._stop_all()

    # --- starting ----------------------------------------------------------------------------

    def _start_next(self) -> None:
        for unit in self.units:
            if unit.phase is Phase.WAITING:
                self._launch(unit)
                return
            if not self._up and unit.phase is not Phase.READY:
                return
        if not self._up and self.ready:
            self._up = True
            log.info("all processes are ready")
            self._on_change(self)

    def _launch(self, unit: Unit) -> None:
        service = unit.service
        unit.enter(Phase.STARTING)
        try:
            service.prepare()
            unit.process = Process.start(
                service.name, service.command(), self._paths, service.environment()
            )
        except (SproutError, OSError) as error:
            if not self._up:
                raise
            self._failed(unit, f"can't be started: {error}")
            return
        log.info("%s: starting (process %d)", service.name, unit.process.pid)
        self._on_change(self)

    # --- watching ----------------------------------------------------------------------------

    def _look(self, unit: Unit) -> None:
        now = time.monotonic()
        if unit.phase is Phase.BACKOFF:
            if now - unit.since >= self._backoff.delay_s(unit.failures - 1):
                unit.restarts += 1
                self._launch(unit)
        elif unit.phase in (Phase.STARTING, Phase.READY):
            process = unit.process
            if process is None:
                raise AssertionError(f"{unit.service.name} is {unit.phase} without a process")
            status = process.poll()
            if status is not None:
                self._failed(unit, describe_exit(status))
            elif unit.phase is Phase.STARTING:
                self._look_starting(unit, process, now)
            else:
                self._look_ready(unit, process, now)

    def _look_starting(self, unit: Unit, process: Process, now: float) -> None:
        done, problem = self._checked(unit, process, unit.service.ready, _TICK_S)
        if done and problem is None:
            log.info("%s: ready after %.1f s", unit.service.name, now - unit.since)
            unit.enter(Phase.READY)
            unit.next_check = now + unit.service.check_interval_s
            self._on_change(self)
        elif now - unit.since > unit.service.start_timeout_s:
            why = unit.missing or "no answer"
            self._failed(unit, f"not ready within {unit.service.start_timeout_s:g} s ({why})")

    def _look_ready(self, unit: Unit, process: Process, now: float) -> None:
        if unit.failures and now - unit.since > self._backoff.healthy_s:
            unit.failures = 0
        final = unit.service.watch(process)
        if final is not None:
            self._failed(unit, final)
            return
        done, problem = self._checked(
            unit, process, unit.service.check, unit.service.check_interval_s
        )
        if done:
            unit.bad_checks = 0 if problem is None else unit.bad_checks + 1
            if unit.bad_checks > unit.service.tolerated_failures:
                self._failed(unit, problem or "")

    def _checked(
        self,
        unit: Unit,
        process: Process,
        check: Callable[[Process], str | None],
        interval_s: float,
    ) -> tuple[bool, str | None]:
        """(a check has come to its end, what it found)"""
        future, now = unit.running_check, time.monotonic()
        if future is None:
            if now >= unit.next_check:
                unit.running_check = self._workers.submit(check, process)
            return False, None
        if not future.done():
            return False, None
        unit.running_check, unit.next_check = None, now + interval_s
        error = future.exception()
        found = f"{type(error).__name__}: {error}" if error else future.result()
        unit.missing = found or ""
        return True, found

    def _failed(self, unit: Unit, problem: str) -> None:
        name = unit.service.name
        if unit.process is not None:
            unit.process.kill()
        unit.service.cleanup()
        unit.process, unit.problem = None, problem
        unit.failures += 1
        unit.enter(Phase.BACKOFF)
        if not self._up and unit.failures >= _FIRST_START_TRIES:
            log_file = self._paths.log(name)
            words = unit.service.last_words(log_file)
            raise StackError(f"{name} {problem}; from {log_file}:\n{words}")
        delay = self._backoff.delay_s(unit.failures - 1)
        log.warning("%s %s; starting it again in %.1f s", name, problem, delay)
        self._on_change(self)

    # --- stopping ----------------------------------------------------------------------------

    def _stop_all(self) -> None:
        """In reverse order: whoever reports outlives whoever produces."""
        for unit in reversed(self.units):
            if unit.process is not None:
                unit.process.stop(unit.service.stop_grace_s)
                try:
                    unit.service.cleanup()
                except Exception:  # the others must still be stopped
                    log.exception("%s: clean-up failed", unit.service.name)
                log.info("%s: stopped", unit.service.name)
                unit.process = None
            unit.enter(Phase.STOPPED)
        self._on_change(self)
