# SPDX-License-Identifier: Apache-2.0
"""The flight ledger: what each request did, from preprocessing to postprocessing (csrc/ledger.h).

One segment (a file) per stub process: counters, and for preprocessing a table of flights. Each part
of a flight's record has one writer; the agent reads all and releases what is done with. All times
are CLOCK_MONOTONIC in nanoseconds, as `time.monotonic_ns()`; 0 = not yet.
"""

from enum import IntEnum
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sprout_ext import _core
from sprout_ext._core import Flight

__all__ = [
    "COUNTERS",
    "FLIGHT",
    "Counter",
    "Flight",
    "Flights",
    "Phase",
    "Role",
    "Segment",
    "SegmentReader",
    "segments",
]


class Counter(IntEnum):
    """Number of a counter in a segment, for `Segment.count`."""

    REQUESTS = 0
    REFUSED = 1
    HINTS_IGNORED = 2
    POLICY_ABSENT = 3
    POLICY_EXPIRED = 4
    POLICY_CORRUPT = 5
    POLICY_PACK = 6
    LEDGER_FULL = 7
    ENGINE_REQUESTS = 8
    ENGINE_FAILED = 9
    ENGINE_CANCELLED = 10
    ENGINE_BUSY = 11
    CHUNKS = 12
    UNATTRIBUTED = 13
    DELIVERED = 14
    BLS_REQUESTS = 15
    BLS_CANCELLED = 16
    PROMPT_UNSCORED = 17


# Their names; the index is the number.
COUNTERS: tuple[str, ...] = tuple(counter.name.lower() for counter in Counter)


class Role(IntEnum):
    """Whose segment it is."""

    PREPROCESSING = 1
    ENGINE = 2
    POSTPROCESSING = 3
    BLS = 4


class Phase(IntEnum):
    """How far the engine is with a flight."""

    OPENED = 0
    SCHEDULED = 1
    FIRST_TOKEN = 2
    FINISHED = 3
    FAILED = 4
    CANCELLED = 5


# One flight as `SegmentReader.scan` gives it; the fields of `Flight` are the same.
FLIGHT = np.dtype(
    [
        ("ticket", "u8"),
        ("slot", "u2"),
        ("generation", "u4"),
        ("level", "u1"),
        ("flags", "u2"),
        ("phase", "u1"),
        ("closed", "?"),
        ("policy_version", "u8"),
        ("policy_seed", "u8"),
        ("sequence", "u8"),
        ("task", "S24"),
        ("tenant", "S24"),
        ("opened_ns", "i8"),
        ("input_tokens", "u4"),
        ("max_tokens", "u4"),
        ("output_tokens", "u4"),
        ("scheduled_ns", "i8"),
        ("first_token_ns", "i8"),
        ("last_token_ns", "i8"),
        ("heartbeat_ns", "i8"),
        ("closed_ns", "i8"),
        ("receipt_joules", "f4"),
        ("intensity_g_per_kwh", "f8"),
        ("pue", "f8"),
        ("embodied_g_per_s", "f8"),
    ],
    align=True,
)


class Segment(_core.Segment):
    """A stub's own segment; made by `Segment.create`.

    `open_flight(...)` gives a ticket, or 0 if the table is full (counted as `ledger_full`).
    `count(counter, n)` adds to a counter. `close(unlink)` lets go of the file; a segment that is
    not unlinked stays for the agent, which takes it away once this process is dead.
    """

    @classmethod
    def create(
        cls,
        directory: str | PathLike[str],
        role: int,
        stub_index: int,
        node_id: int,
        records: int = 0,
    ) -> Self:
        """A new segment with `records` (≤ 65536) flight records. OSError: can't be made."""
        return cls(fspath(directory), role, stub_index, node_id, records)

    @property
    def path(self) -> Path:
        """Where the file is."""
        return Path(self._path)


class Flights(_core.Flights):
    """Finds flights by ticket: what the engine slot and postprocessing use. Each call takes well
    under a microsecond, and gives False (`view`: None) for a ticket that is unknown or over.

    `land(ticket, now_ns, clock)` closes a flight and gives its receipt: (level, policy version,
    joules, grams of CO2e, intensity in g/kWh), NaN for what is not known; None: no such flight.
    """

    def __init__(self, directory: str | PathLike[str]) -> None:
        super().__init__(fspath(directory))


class SegmentReader(_core.SegmentReader):
    """The agent's side of a segment.

    OSError: no such file, or not ours. ValueError: not a segment of this version, or corrupt.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        super().__init__(fspath(path))

    @property
    def path(self) -> Path:
        """Where the file is."""
        return Path(self._path)

    def scan(self) -> NDArray[Any]:
        """A copy (n,) of dtype FLIGHT: every flight opened and not released."""
        return super().scan()


def segments(directory: str | PathLike[str]) -> list[SegmentReader]:
    """All segments in a directory; what is corrupt, foreign or just going is left out."""
    found = []
    for path in sorted(Path(directory).glob("segment-????")):
        try:
            found.append(SegmentReader(path))
        except (OSError, ValueError):
            continue
    return found
