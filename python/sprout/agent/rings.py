# SPDX-License-Identifier: Apache-2.0
"""The node's rings of sampled prompts, and the sum of their counts."""

from pathlib import Path

from sprout.agent.stub_files import StubFiles
from sprout_ext.ring import RingCounts, RingPrompt, RingReader

NOTHING = RingCounts(0, 0, 0, 0, 0, 0)


class Rings:
    """Of one directory. One thread; `counts` may be called from any."""

    def __init__(self, directory: Path) -> None:
        self._files = StubFiles(directory, "ring", "prompts", RingReader)
        self._retired = NOTHING

    def drain(self) -> list[RingPrompt]:
        """What was sampled since the last time, by ring; rings of the dead are taken away."""
        prompts: list[RingPrompt] = []
        for reader in self._files.refresh():
            alive = reader.alive  # before the prompts: the dead write no more
            prompts += reader.drain()
            if not alive:
                self._retire(reader)
        return prompts

    def sweep(self) -> None:
        """Take away what the dead left, unread."""
        for reader in self._files.refresh():
            if not reader.alive:
                self._retire(reader)

    def counts(self) -> RingCounts:
        """Summed over the living and, since the agent's start, the dead."""
        total = self._retired
        for reader in self._files.mapped:
            total = _sum(total, reader.counts())
        return total

    def _retire(self, reader: RingReader) -> None:
        self._files.retire(reader)
        self._retired = _sum(self._retired, reader.counts())


def _sum(one: RingCounts, other: RingCounts) -> RingCounts:
    return RingCounts(*(a + b for a, b in zip(one, other, strict=True)))
