# SPDX-License-Identifier: Apache-2.0
"""The ledger as the agent sees it: the segments of living stubs, and those that the dead left."""

import errno
import logging
import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sprout_ext.ledger import COUNTERS, SegmentReader

log = logging.getLogger(__name__)

# Nothing else of that beginning: a segment that is being made may have another name for a moment.
NAME = re.compile(r"segment-[0-9a-f]{4}")

# There is not enough of something for now, which says nothing of the file.
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

FileKey = tuple[str, int]  # (name, inode): a name may come back


class Segments:
    """Segments of one directory, mapped once each, and the sum of their counters.

    One thread; `counters` may be called from any.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._readers: dict[FileKey, SegmentReader] = {}
        self._foreign: set[FileKey] = set()
        self._retired = np.zeros(len(COUNTERS), np.uint64)

    def refresh(self) -> list[SegmentReader]:
        """All segments; new ones are mapped, unlinked ones stay until they are retired.

        Without descriptors or memory left it goes on with those that are mapped.
        """
        try:
            with os.scandir(self._directory) as entries:
                found = {(e.name, e.inode()) for e in entries if NAME.fullmatch(e.name)}
        except FileNotFoundError:  # `sprout down` was faster
            found = set()
        except OSError as error:
            if error.errno not in _SHORT:
                raise
            return list(self._readers.values())
        self._foreign &= found
        for key in found - self._readers.keys() - self._foreign:
            try:
                self._readers[key] = SegmentReader(self._directory / key[0])
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno in _SHORT:
                    continue  # at the next look
                log.warning("%s is no segment of this version, left alone: %s", key[0], error)
                self._foreign.add(key)
        return list(self._readers.values())

    def retire(self, reader: SegmentReader) -> None:
        """Unlink a drained segment whose owner is dead; its counters stay in the sum."""
        key = next(key for key, known in self._readers.items() if known is reader)
        counters = reader.counters()
        reader.unlink()
        self._readers = {k: r for k, r in self._readers.items() if k != key}
        self._retired = self._retired + counters[: len(COUNTERS)]
        log.info("reclaimed %s of dead process %d", key[0], reader.pid)

    def counters(self) -> dict[str, int]:
        """Counters by name, summed over the living and, since the agent's start, the dead."""
        total: NDArray[np.uint64] = self._retired.copy()
        for reader in list(self._readers.values()):
            total += reader.counters()[: len(COUNTERS)]
        return dict(zip(COUNTERS, total.tolist(), strict=True))
