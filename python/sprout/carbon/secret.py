# SPDX-License-Identifier: Apache-2.0
"""A key in a file. It is read at each use, so that it can be rotated, and never shown."""

from pathlib import Path

from sprout.channel import read_key


class Secret:
    """ConfigError, naming setting and file, where the file can't be used."""

    def __init__(self, path: Path, setting: str) -> None:
        self._path, self._setting = path, setting
        self.read()

    def read(self) -> str:
        return read_key(self._path, self._setting)

    def __repr__(self) -> str:
        return f"Secret({str(self._path)!r})"
