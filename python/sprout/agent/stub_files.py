# SPDX-License-Identifier: Apache-2.0
"""Files that stubs keep in shared memory: those of living stubs, and those that the dead left."""

import errno
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

log = logging.getLogger(__name__)

# There is not enough of something for now, which says nothing of the file.
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

FileKey = tuple[str, int]  # (name, inode): a name may come back


class StubFile(Protocol):
    """A mapped file."""

    @property
    def pid(self) -> int:
        """Of the stub that made it."""

    def unlink(self) -> None: ...


Reader = TypeVar("Reader", bound=StubFile)


class StubFiles(Generic[Reader]):
    """Files of one kind in one directory, mapped once each by `open_file`.

    One thread calls `refresh` and `retire`; `mapped` may be asked from any.
    """

    def __init__(
        self, directory: Path, what: str, prefix: str, open_file: Callable[[Path], Reader]
    ) -> None:
        self._directory, self._what, self._open_file = directory, what, open_file
        # Nothing else of that beginning: one that is being made may have another name for a moment.
        self._name = re.compile(rf"{prefix}-[0-9a-f]{{4}}")
        self._readers: dict[FileKey, Reader] = {}
        self._foreign: set[FileKey] = set()

    @property
    def mapped(self) -> list[Reader]:
        """Those of the last `refresh` that were not retired since."""
        return list(self._readers.values())

    def refresh(self) -> list[Reader]:
        """All files; new ones are mapped, unlinked ones stay until they are retired.

        Without descriptors or memory left it goes on with those that are mapped.
        """
        try:
            with os.scandir(self._directory) as entries:
                found = {(e.name, e.inode()) for e in entries if self._name.fullmatch(e.name)}
        except FileNotFoundError:  # `sprout down` was faster
            found = set()
        except OSError as error:
            if error.errno not in _SHORT:
                raise
            return self.mapped
        self._foreign &= found
        for key in found - self._readers.keys() - self._foreign:
            try:
                self._readers[key] = self._open_file(self._directory / key[0])
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno in _SHORT:
                    continue  # at the next look
                log.warning(
                    "%s is no %s of this version, left alone: %s", key[0], self._what, error
                )
                self._foreign.add(key)
        return self.mapped

    def retire(self, reader: Reader) -> None:
        """Unlink the file of a dead stub, from which everything was taken."""
        key = next(key for key, known in self._readers.items() if known is reader)
        reader.unlink()
        self._readers = {k: r for k, r in self._readers.items() if k != key}
        log.info("reclaimed %s of dead process %d", key[0], reader.pid)
