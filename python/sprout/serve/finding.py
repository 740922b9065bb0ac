# SPDX-License-Identifier: Apache-2.0
"""One line of the doctor's report."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Mark(StrEnum):
    OK = "ok"
    NOTE = "note"  # works without
    BAD = "bad"  # `sprout up` fails, or serves wrongly


@dataclass(frozen=True)
class Finding:
    """What was looked at, and what to do about it."""

    what: str
    mark: Mark
    found: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
