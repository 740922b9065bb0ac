# SPDX-License-Identifier: Apache-2.0
"""Ends what a supervisor that is gone has left: `reaper.py GRACE_S PIDS LOGS NAME…`

Run as a file by a bare interpreter, standard library only. Its standard input is a pipe that the
supervisor holds, which ends as the supervisor ends, by SIGKILL too. The signal of the tether alone
is not enough: a process that is stopped (SIGSTOP) or deaf goes on, and so does a grandchild, with
the GPU's memory.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

KILL_S = 5.0  # a driver takes seconds to free what a process had on a GPU
_LOOK_S = 0.02


class Seen(NamedTuple):
    """One process, of /proc/PID/stat (proc_pid_stat(5))."""

    parent: int
    session: int
    start: int  # clock ticks since boot


NOBODY: Mapping[int, Seen] = MappingProxyType({})


def look(pid: int) -> Seen | None:
    """None: there is none, or a zombie of which no thread is left."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    state, parent, session, threads, start = (fields[n] for n in (0, 1, 3, 17, 19))
    if state in "ZX" and int(threads) <= 1:
        return None
    return Seen(int(parent), int(session), int(start))


def family(session: int, log: Path | None = None) -> dict[int, Seen]:
    """Who lives of a process that led a session.

    Its session, whoever writes its log (a child that made a session of its own is known by that,
    once its parent is dead), and all descendants of these.
    """
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    table = {pid: seen for pid in pids if (seen := look(pid)) is not None}
    found = {pid for pid, seen in table.items() if seen.session == session}
    if log is not None:
        found |= {pid for pid in table if writes(pid, log.resolve())}
    while more := {p for p, s in table.items() if s.parent in found and p not in found}:
        found |= more
    return {pid: table[pid] for pid in found}


def writes(pid: int, log: Path) -> bool:
    """Whether its output or its errors go there."""
    for fd in (1, 2):
        with contextlib.suppress(OSError):  # gone, or another user's
            if Path(f"/proc/{pid}/fd/{fd}").readlink() == log:
                return True
    return False


def alive(known: Mapping[int, Seen]) -> dict[int, Seen]:
    """Those that are still there: a pid may be somebody else's by now, a start is not."""
    return {p: seen for p, seen in known.items() if (now := look(p)) and now.start == seen.start}


def kill(session: int, log: Path | None = None, known: Mapping[int, Seen] = NOBODY) -> set[int]:
    """SIGKILL to the family and those that are known, until they are gone.

    Who is left is in the kernel's hands, or not ours.
    """
    deadline = time.monotonic() + KILL_S
    while True:
        known = {**known, **family(session, log)}
        left = set(alive(known))
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(_LOOK_S)


def main(argv: list[str]) -> None:
    grace_s, pids, logs, names = float(argv[1]), Path(argv[2]), Path(argv[3]), argv[4:]
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    sys.stdin.buffer.read()
    # At once, and the logs never again: the next supervisor's processes have files of these names.
    families = {}
    for name in names:
        with contextlib.suppress(OSError, ValueError):  # it was not running
            session = int((pids / f"{name}.pid").read_text())
            families[name] = session, family(session, logs / f"{name}.log")
    deadline = time.monotonic() + grace_s
    while families and time.monotonic() < deadline:
        seen = {n: (s, alive({**known, **family(s)})) for n, (s, known) in families.items()}
        families = {name: (session, known) for name, (session, known) in seen.items() if known}
        time.sleep(_LOOK_S)
    for name, (session, known) in families.items():
        left = kill(session, known=known)
        with contextlib.suppress(OSError):  # of a terminal that is gone too
            rest = f"; SIGKILL does not end {sorted(left)}" if left else ""
            sys.stderr.write(f"{name} (process {session}) outlived its supervisor: killed{rest}\n")


if __name__ == "__main__":
    main(sys.argv)
