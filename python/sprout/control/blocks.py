# SPDX-License-Identifier: Apache-2.0
"""The switchback as it runs: which block is now, and how each one really went.

The schedule goes by the wall's clock from its start, so it outlives restarts; seed, start and
lengths are stored, and with them every block can be worked out again (`proof/switchback.py`). What
is stored of a block is when its policy was in force, and what spoiled it: measuring is for the
report.
"""

import secrets
from collections.abc import Callable

from sprout.config import SwitchbackConfig
from sprout.control.readings import interval_s
from sprout.control.rows import BlockRow, Switchback
from sprout.control.store import Store
from sprout.proof.switchback import Block, Schedule

MAX_PENDING = 1000  # blocks, while the store fails


def schedule_of(row: Switchback) -> Schedule:
    return Schedule(*row)


class Blocks:
    """Touched on the event loop's thread, but for `flush`. ControlError where the store fails."""

    def __init__(self, config: SwitchbackConfig, store: Store, wall: Callable[[], float]) -> None:
        self._store, self._wall = store, wall
        self._schedule = self._start(config) if config.enabled else None
        self.reading_s = interval_s(config.block_s if config.enabled else None)
        # The block that this process began in: nobody knows what was served in its first part.
        self._first = None if self._schedule is None else self._schedule.index(wall())
        self._open: tuple[Block, BlockRow] | None = None  # the block whose policy is in force
        self._pending: list[BlockRow] = []

    def _start(self, config: SwitchbackConfig) -> Schedule:
        """The stored schedule where it is the one that is wanted, else a new one from now on."""
        last = self._store.last_switchback()
        wanted = (config.block_s, config.washout_s, config.share)
        if (
            last is None
            or (last.block_s, last.washout_s, last.share) != wanted
            or last.started_at > self._wall()  # the clock was set back
        ):
            last = Switchback(secrets.randbits(63), self._wall(), *wanted)
            self._store.add_switchback(last)
        return schedule_of(last)

    def now(self) -> Block | None:
        """None: no switchback runs."""
        if self._schedule is None:
            return None
        index = self._schedule.index(self._wall())
        return self._schedule.block(max(index, 0))

    def published(self, name: str, spoiled: str) -> None:
        """A policy of the block of this name is in force from now on.

        spoiled: by what, "" = nothing. A policy that came at the very end of its block is not the
        next one's: the loop publishes again at its next look.
        """
        block, now = self.now(), self._wall()
        if block is None or self._schedule is None or block.name != name:
            return
        if self._open is None or self._open[0].index != block.index:
            self._close()
            if block.index == self._first:
                spoiled = spoiled or "the control plane started in it"
            start = now + self._schedule.washout_s
            row = BlockRow(block.seed, block.index, block.arm, start, block.end_s, spoiled)
            self._open = (block, row)
        elif spoiled and not self._open[1].spoiled:
            self._open = (block, self._open[1]._replace(spoiled=spoiled))

    def _close(self) -> None:
        if self._open is None:
            return
        block, row = self._open
        if block.measured:
            if row.measured_from >= row.ended_at and not row.spoiled:
                row = row._replace(spoiled="its policy came too late")
            self._pending.append(row)
            del self._pending[:-MAX_PENDING]

    @property
    def pending(self) -> bool:
        return bool(self._pending)

    def flush(self) -> None:
        """Write the blocks that are over."""
        rows = self._pending[:]
        self._store.add_blocks(rows)
        self._pending = [row for row in self._pending if row not in rows]
