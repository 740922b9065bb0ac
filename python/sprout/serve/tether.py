# SPDX-License-Identifier: Apache-2.0
"""Ties a process to its parent's life, then becomes the command: `tether.py PARENT SIGNAL COMMAND…`

Run as a file by a bare interpreter, standard library only. The kernel sends SIGNAL when the parent
dies (PR_SET_PDEATHSIG survives exec). Done here and not in `preexec_fn`, because running Python
between fork and exec is unsafe in a parent with threads.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    parent, signum, command = int(argv[1]), int(argv[2]), argv[3:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it died before the kernel knew
        sys.exit("the parent is gone")
    try:
        os.execvp(command[0], command)  # noqa: S606 - that is what it is for
    except OSError as error:
        sys.exit(f"can't run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv)
