# SPDX-License-Identifier: Apache-2.0
"""The node's rings of sampled prompts: those of living stubs, and those that the dead left."""

import logging
import os
import re
from pathlib import Path

from sprout_ext.ring import RingCounts, RingPrompt, RingReader

log = logging.getLogger(__name__)

# Nothing else of that beginning: a ring that is being made may have another name for a moment.
NAME = re.compile(r"prompts-[0-9a-f]{4}")
NOTHING = RingCounts(0, 0, 0, 0, 0, 0)

FileKey = tuple[str, int]  # (name, inode): a name may come back


class Rings:
    """Rings of one directory, mapped once each. One thread; `counts` may be called from any."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._readers: dict[FileKey, RingReader] = {}
        self._foreign: set[FileKey] = set()
        self._retired = NOTHING

    def drain(self) -> list[RingPrompt]:
        """What was sampled since the last time, by ring; rings of the dead are taken away."""
        prompts: list[RingPrompt] = []
        for key, reader in self._refresh():
            alive = reader.alive  # before the prompts: the dead write no more
            prompts += reader.drain()
            if not alive:
                self._retire(key, reader)
        return prompts

    def sweep(self) -> None:
        """Take away what the dead left, unread."""
        for key, reader in self._refresh():
            if not reader.alive:
                self._retire(key, reader)

    def counts(self) -> RingCounts:
        """Summed over the living and, since the agent's start, the dead."""
        total = self._retired
        for reader in list(self._readers.values()):
            total = _sum(total, reader.counts())
        return total

    def _refresh(self) -> list[tuple[FileKey, RingReader]]:
        try:
            with os.scandir(self._directory) as entries:
                found = {(e.name, e.inode()) for e in entries if NAME.fullmatch(e.name)}
        except OSError as error:
            # `sprout down` was faster, or no descriptors are left: at the next look.
            log.debug("%s: %s", self._directory, error)
            return list(self._readers.items())
        self._foreign &= found
        for key in found - self._readers.keys() - self._foreign:
            try:
                self._readers[key] = RingReader(self._directory / key[0])
            except OSError as error:  # gone again, or no descriptors are left
                log.debug("%s: %s", key[0], error)
            except ValueError as error:
                log.warning("%s is no ring of this version, left alone: %s", key[0], error)
                self._foreign.add(key)
        return list(self._readers.items())

    def _retire(self, key: FileKey, reader: RingReader) -> None:
        reader.unlink()
        self._readers = {k: r for k, r in self._readers.items() if k != key}
        self._retired = _sum(self._retired, reader.counts())
        log.info("took %s of dead process %d away", key[0], reader.pid)


def _sum(one: RingCounts, other: RingCounts) -> RingCounts:
    return RingCounts(*(a + b for a, b in zip(one, other, strict=True)))
