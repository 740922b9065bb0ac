# SPDX-License-Identifier: Apache-2.0
"""Files of JSON lines that operators give: prompts, judgments."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sprout.errors import ConfigError

MAX_FILE_BYTES = 256 << 20


def read(path: Path, take: Callable[[Any, int], None], *, setting: str = "") -> bytes:
    """Gives each line that is not empty to `take`, with its number; returns the file's content.

    ConfigError names the file (and the setting that does), or the line that is no JSON or that
    `take` refuses by a ValueError, TypeError or KeyError.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB")
        content = path.read_bytes()
        lines = content.decode().split("\n")  # splitlines would cut at U+2028, inside a text
    except (OSError, UnicodeDecodeError) as error:
        what = f"{setting}: " if setting else ""
        raise ConfigError(f"{what}can't read {path}: {error}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                take(json.loads(line), number)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise ConfigError(f"{path}:{number}: {error}") from None
    return content
