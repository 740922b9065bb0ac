# SPDX-License-Identifier: Apache-2.0
"""A key in a file. It is read at each use, so that it can be rotated, and never shown."""

from pathlib import Path

from sprout.channel import read_secret
from sprout.errors import ConfigError


class Secret:
    """ConfigError, naming setting and file, where the file can't be used."""

    def __init__(self, path: Path, setting: str) -> None:
        self._path, self._setting = path, setting
        self.read()

    def read(self) -> str:
        text = read_secret(self._path, self._setting).decode(errors="replace").strip()
        # It goes into a header; what a header can't hold, httpx would quote in its error.
        if not text.isascii() or not text.isprintable():
            raise ConfigError(f"{self._setting}: {self._path} holds more than printable ASCII")
        return text

    def __repr__(self) -> str:
        return f"Secret({str(self._path)!r})"
