# SPDX-License-Identifier: Apache-2.0
"""The ring of sampled prompts: preprocessing writes, the agent drains (csrc/ring.h).

One file per stub, in memory alone. The oldest prompt goes where the agent lags; one that was
drained is wiped from the ring. Neither side ever waits for the other.
"""

from os import PathLike, fspath
from pathlib import Path
from typing import NamedTuple, Self

from sprout_ext import _core
from sprout_ext._core import RingPrompt

__all__ = ["Ring", "RingCounts", "RingPrompt", "RingReader", "rings"]


class RingCounts(NamedTuple):
    """Of one ring, since it was made."""

    written: int
    too_long: int  # prompts that no slot holds
    refused: int  # by the request or for its tenant
    unknown: int  # the policy that they were drawn under was gone already
    read: int  # the missed ones too
    missed: int  # overwritten before they were read, or never whole


class Ring(_core.Ring):
    """A stub's own ring; made by `Ring.create`.

    `write(text, …)` is False where the text is longer than a slot (counted) or the reader is in the
    slot at this moment (the reader counts it as missed). ValueError: task or tenant has over 23
    bytes. `refused()` and `unknown()` count prompts that were not written. `close(unlink)` lets go
    of the file; a ring that is not unlinked stays for the agent, which takes it away once this
    process is dead.
    """

    @classmethod
    def create(
        cls,
        directory: str | PathLike[str],
        stub_index: int,
        node_id: int,
        *,
        slots: int,
        prompt_bytes: int,
    ) -> Self:
        """A new ring of `slots` (≤ 65536) prompts of at most `prompt_bytes` (≤ 1048576).

        OSError: can't be made; with errno ENOTSUP, the folder is not memory-backed.
        """
        return cls(fspath(directory), stub_index, node_id, slots, prompt_bytes)

    @property
    def path(self) -> Path:
        """Where the file is."""
        return Path(self._path)


class RingReader(_core.RingReader):
    """The agent's side of a ring; one at a time.

    `drain()` gives what was written and not yet read, oldest first, and wipes it from the ring.
    OSError: no such file, or not ours. ValueError: not a ring of this version, or corrupt.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        super().__init__(fspath(path))

    @property
    def path(self) -> Path:
        """Where the file is."""
        return Path(self._path)

    def counts(self) -> RingCounts:
        """Of the writer and of the reader."""
        return RingCounts(*self._counts())


def rings(directory: str | PathLike[str]) -> list[RingReader]:
    """All rings in a directory; what is corrupt, foreign or just going is left out."""
    found = []
    for path in sorted(Path(directory).glob("prompts-????")):
        try:
            found.append(RingReader(path))
        except (OSError, ValueError):
            continue
    return found
