# SPDX-License-Identifier: Apache-2.0
"""One child process: own session, log file, pid file, dead when its parent is."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sprout.errors import StackError
from sprout.serve import reaper, tether
from sprout.serve.state import StackPaths, write_private

log = logging.getLogger(__name__)

_LOG_BYTES = 16 << 20  # a log that has grown past this is set aside when its process starts


class Process:
    """A running child. Made by `start`; `kill` reaches its whole session, and who left that."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], paths: StackPaths) -> None:
        self.name = name
        self._popen = popen
        self._pid_file, self._log = paths.pid(name), paths.log(name)

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        paths: StackPaths,
        environment: Mapping[str, str] | None = None,
    ) -> "Process":
        """Must be called on the main thread: the kernel's parent-death signal follows the thread.

        Raises StackError where the system refuses.
        """
        log = paths.log(name)
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        try:
            with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)) as output:
                popen = subprocess.Popen(
                    tied(command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(os.environ if environment is None else environment),
                    start_new_session=True,  # Ctrl-C reaches the supervisor alone
                )
        except OSError as error:
            raise StackError(f"{name}: can't start: {error}") from None
        write_private(paths.pid(name), f"{popen.pid}\n")
        return cls(name, popen, paths)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def poll(self) -> int | None:
        """Exit status if it has ended: negative for a signal."""
        return self._popen.poll()

    def signal(self, signum: int) -> None:
        """To the process alone: its children are its own business while it lives."""
        self._popen.send_signal(signum)

    def kill(self) -> None:
        """SIGKILL to all of its family. Waits until they are gone, and what they held is free.

        Not for ever: a process inside a driver that never answers does not end.
        """
        left = reaper.kill(self.pid, self._log)
        if left:
            log.warning("%s: SIGKILL does not end %s", self.name, sorted(left))
        else:
            self._pid_file.unlink(missing_ok=True)
        if self.pid not in left:
            self._popen.wait()

    def stop(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL to whatever is left of the family after `grace_s`."""
        if self.poll() is None:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(grace_s)
        self.kill()


@contextlib.contextmanager
def reaped(names: Sequence[str], paths: StackPaths, grace_s: float) -> Iterator[None]:
    """Within the block, processes of these names end with this one, however it ends.

    grace_s: what they have from the tether's SIGTERM to the SIGKILL. Raises StackError where the
    system refuses.
    """
    python = [sys.executable, "-I", "-S", reaper.__file__]
    folders = [str(paths.pid("").parent), str(paths.log("").parent)]
    try:
        popen = subprocess.Popen(
            [*python, str(grace_s), *folders, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise StackError(f"the reaper of the processes can't start: {error}") from None
    with popen:  # closes its input and waits
        yield


def tied(command: Sequence[str]) -> list[str]:
    """The command, sent SIGTERM as this process dies. To be started on the main thread."""
    python = [sys.executable, "-I", "-S", tether.__file__]
    return [*python, str(os.getpid()), str(int(signal.SIGTERM)), *command]


def describe_exit(status: int) -> str:
    """`ended with status 1`, `was killed by SIGKILL`."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def log_tail(path: Path, lines: int = 12, limit_bytes: int = 16_384) -> str:
    """The last lines of a log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - limit_bytes))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def start_time(pid: int) -> int | None:
    """Start of a process in clock ticks since boot; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def wait_gone(pid: int, timeout_s: float) -> bool:
    """Waits for a process that is not this one's child."""
    deadline = time.monotonic() + timeout_s
    while start_time(pid) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
