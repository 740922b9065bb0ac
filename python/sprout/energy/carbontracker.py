# SPDX-License-Identifier: Apache-2.0
"""CarbonTracker around a span of time, for profiling runs: another pair of eyes, at arm's length.

It runs in a process, a session and an environment of its own, because inside a server it could end
it (`os._exit(70)` on an error) and it brings NumPy 2. Only its log is read. Its figure has a fixed
power usage effectiveness in it, which is taken out again; which one, its log says.
"""

import contextlib
import os
import re
import select
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sprout.errors import PrerequisiteError
from sprout.units import JOULES_PER_KWH

START_TIMEOUT_S = 60.0  # it imports pandas, and looks for devices
STOP_TIMEOUT_S = 30.0
# Run with -I: else its folder, and in it this very file, would stand before the real package.
_SCRIPT = Path(__file__).with_name("carbontracker_span.py")
# It asks a web service where it is, for an intensity that nobody reads. This keeps it at home.
_NOWHERE = "http://127.0.0.1:9"
_OFFLINE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), _NOWHERE)
# "The following components were found: GPU with device(s) A, B. CPU with device(s) C."
_DEVICES = re.compile(r"\b([A-Z]+) with device\(s\) (.*?)\.(?= [A-Z]+ with device|\s|$)")


@dataclass(frozen=True)
class Reading:
    """What its log says of the span, PUE taken out."""

    joules: float  # of every component that it found, the whole node's, idle included
    seconds: float
    watts: dict[str, float]  # mean power by component: "gpu", "cpu"
    pue: float  # that it had multiplied in
    estimated: bool  # a component's power is a share of its TDP, not a measurement
    version: str


@dataclass(frozen=True)
class Unmeasured:
    """There is no reading, and why."""

    reason: str


@dataclass
class Span:
    """Filled in when it is over."""

    result: Reading | Unmeasured = Unmeasured("the span is not over")


class CarbonTracker:
    """python: the interpreter of the environment that it is installed in.

    Raises PrerequisiteError if there is no such file. Nothing after that raises: what goes wrong
    with a measurement is its result.
    """

    def __init__(
        self,
        python: Path,
        *,
        start_timeout_s: float = START_TIMEOUT_S,
        stop_timeout_s: float = STOP_TIMEOUT_S,
    ) -> None:
        if not os.access(python, os.X_OK):
            raise PrerequisiteError(
                f"energy.carbontracker_python is no interpreter ({python}): python3 -m venv DIR && "
                "DIR/bin/pip install carbontracker, then name DIR/bin/python"
            )
        self._python = python
        self._start_timeout_s, self._stop_timeout_s = start_timeout_s, stop_timeout_s

    @contextlib.contextmanager
    def span(self) -> Iterator[Span]:
        """Tracks the node while the body runs."""
        span = Span()
        with tempfile.TemporaryDirectory(prefix="sprout-carbontracker-") as name:
            folder = Path(name)
            process, problem = self._start(folder)
            try:
                yield span
            finally:
                if process is not None:
                    problem = problem or self._stop(process)
                    kill_group(process)
                span.result = Unmeasured(problem) if problem else parse(folder)

    def _start(self, folder: Path) -> tuple[subprocess.Popen[bytes] | None, str]:
        """Waits until it tracks: (its process, what is wrong)."""
        ready, told = os.pipe()
        try:
            with (folder / "said.log").open("wb") as said:
                process = subprocess.Popen(
                    [self._python, "-I", _SCRIPT, folder, str(told)],
                    stdin=subprocess.PIPE,
                    stdout=said,
                    stderr=said,
                    pass_fds=(told,),
                    cwd=folder,
                    env={**os.environ, **_OFFLINE},
                    start_new_session=True,
                )
        except OSError as error:
            os.close(ready)
            return None, f"carbontracker does not start: {error}"
        finally:
            os.close(told)  # so that its end is the pipe's end
        try:
            readable, _, _ = select.select([ready], [], [], self._start_timeout_s)
            if not readable:
                return process, f"carbontracker was not ready within {self._start_timeout_s:g} s"
            if not os.read(ready, 1):
                return process, f"carbontracker died at its start: {_tail(folder / 'said.log')}"
            return process, ""
        finally:
            os.close(ready)

    def _stop(self, process: subprocess.Popen[bytes]) -> str:
        """Lets it end and write its log; what was wrong with that."""
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            status = process.wait(self._stop_timeout_s)
        except subprocess.TimeoutExpired:
            return f"carbontracker did not end within {self._stop_timeout_s:g} s"
        return f"carbontracker ended with status {status}" if status else ""


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """The process and whatever it started, at once."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with process:  # closes its pipe, waits
        pass


def parse(folder: Path) -> Reading | Unmeasured:
    """Its log, output log and error log of one span (carbontracker 2.x)."""
    log, output, errors, said = (
        _newest(folder, pattern)
        for pattern in (
            "*_carbontracker.log",
            "*_carbontracker_output.log",
            "*_carbontracker_err.log",
            "said.log",
        )
    )
    # A counter that it may not read is logged as critical, and counted as 0 W.
    critical = re.search(r"- CRITICAL - (.+(?:\n\s.*)*)", errors)
    if critical:
        return Unmeasured(f"carbontracker: {' '.join(critical[1].split())[:300]}")
    version = re.search(r"carbontracker version (\S+)", log)
    pue = re.search(r"PUE coefficient of ([\d.]+\d)", log)
    duration = re.search(r"- Duration: (\d+):(\d\d):([\d.]+)", log)
    energy = re.search(r"Actual consumption.*?Energy:\s*(\S+)\s+kWh", output, re.DOTALL)
    if version is None or pue is None or duration is None or energy is None:
        return Unmeasured(f"carbontracker's log says no energy: {said.strip()[-300:]}")
    crowded = [name for name, devices in _DEVICES.findall(log) if ", " in devices]
    if crowded:
        return Unmeasured(
            f"carbontracker {version[1]} takes the mean over several devices where it should add "
            f"them ({', '.join(crowded)}): its figure is one device's share; read NVML or RAPL"
        )
    watts = dict(re.findall(r"Average power usage \(W\) for (\w+): \[?([\d.e+-]+)\]?$", log, re.M))
    if not watts:
        return Unmeasured("carbontracker took no sample: the span is too short")
    hours, minutes, seconds = duration.groups()
    return Reading(
        joules=float(energy[1]) * JOULES_PER_KWH / float(pue[1]),
        seconds=int(hours) * 3600 + int(minutes) * 60 + float(seconds),
        watts={name: float(value) for name, value in watts.items()},
        pue=float(pue[1]),
        estimated="TDP of" in said,
        version=version[1],
    )


def _newest(folder: Path, pattern: str) -> str:
    found = sorted(folder.glob(pattern))
    return found[-1].read_text(errors="replace") if found else ""


def _tail(file: Path) -> str:
    lines = file.read_text(errors="replace").split("\n") if file.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")
