# SPDX-License-Identifier: Apache-2.0
"""What keeps a stack's files and memory to its user."""

import os
import resource
import stat
from pathlib import Path

from sprout.errors import StackError


def private_folder(folder: Path) -> None:
    """Make a folder of this user alone, or see to it that it is one.

    StackError where it can't be made or is somebody else's: /dev/shm is open to all, and a folder
    that another user put there is a trap.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise StackError(f"can't make {folder}: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise StackError(f"{folder} is not a folder of this user; remove it")
    folder.chmod(0o700)


def no_core_dumps() -> None:
    """For a process that holds people's prompts, and for what it starts: a core is a file.

    A limit of 1 byte and not of 0: the kernel pipes a core to a handler (systemd-coredump, apport)
    whatever the limit, unless it is 1 (`do_coredump` in fs/coredump.c, where 1 marks the handler's
    own crash); as a file a core of 1 byte is none either way. The soft limit alone, since the hard
    one could not be raised again (where it is 0, so is this); PR_SET_DUMPABLE would also make
    /proc/PID root's, and with it the environment by which `sprout down` finds a stack's processes.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    most = 1 if hard == resource.RLIM_INFINITY else min(1, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (most, hard))
