# SPDX-License-Identifier: Apache-2.0
"""The ledger as the agent sees it: its segments, and the sum of their counters."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sprout.agent.stub_files import StubFiles
from sprout_ext.ledger import COUNTERS, SegmentReader


class Segments:
    """Of one directory. One thread; `counters` may be called from any."""

    def __init__(self, directory: Path) -> None:
        self._files = StubFiles(directory, "segment", "segment", SegmentReader)
        self._retired = np.zeros(len(COUNTERS), np.uint64)

    def refresh(self) -> list[SegmentReader]:
        """All segments, as `StubFiles.refresh`."""
        return self._files.refresh()

    def retire(self, reader: SegmentReader) -> None:
        """Unlink a drained segment whose owner is dead; its counters stay in the sum."""
        counters = reader.counters()
        self._files.retire(reader)
        self._retired = self._retired + counters[: len(COUNTERS)]

    def counters(self) -> dict[str, int]:
        """Counters by name, summed over the living and, since the agent's start, the dead."""
        total: NDArray[np.uint64] = self._retired.copy()
        for reader in self._files.mapped:
            total += reader.counters()[: len(COUNTERS)]
        return dict(zip(COUNTERS, total.tolist(), strict=True))
