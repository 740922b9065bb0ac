# SPDX-License-Identifier: Apache-2.0
"""How a file of one stub process begins (csrc/head.h).

Words: 0 magic, 1 layout, 2 uid, 3 pid | the kind's own << 32, 4 start time of the owner, 5 node id,
6 the kind's shape, 7 tag, 8 checksum = fold(0-7), 9-15 unused.
"""

import os
import secrets
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from sprout_ext.reference.words import Words, create, fold


@dataclass(frozen=True)
class FileKind:
    """What tells the files of one kind from others."""

    what: str
    prefix: str  # of its name
    magic: bytes
    layout: int  # layout version | size of a row << 32

    @property
    def start(self) -> list[int]:
        """The first two words."""
        return [int.from_bytes(self.magic, "little"), self.layout]

    def path(self, directory: str | PathLike[str], tag: int) -> Path:
        """Where the file of a tag is."""
        return Path(directory) / f"{self.prefix}{tag:04x}"

    def create(
        self, directory: str | PathLike[str], size: int, *, upper: int, node_id: int, shape: int
    ) -> Path:
        """A new file of this process. upper: half of word 3."""
        tag, pid = 1 + secrets.randbelow(0xFFFF), os.getpid()
        head = [*self.start, secrets.randbits(64), pid | upper << 32, process_started(pid)]
        head += [node_id, shape, tag]
        path = self.path(directory, tag)
        create(path, size, [*head, fold(head)], replace=False)
        return path

    def open(self, path: Path, least: int) -> tuple[Words, list[int]]:
        """The file and words 0-8 of it. ValueError: not of this kind, or under `least` bytes."""
        words = Words(path, least)
        head = words.read(0, 9)
        if head[:2] != self.start or head[8] != fold(head[:8]):
            words.close()
            raise ValueError(f"{path}: not a {self.what}")
        return words, head


def process_started(pid: int) -> int:
    """Start time in ticks since boot; 0 = no such process, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat[stat.rindex(")") + 1 :].split()  # from field 3
    return 0 if fields[0] in "ZX" else int(fields[22 - 3])
