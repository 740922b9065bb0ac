# SPDX-License-Identifier: Apache-2.0
"""Who changed what, from what, to what. Entries are only ever added; the store sees to it.

A change is noted as it happens and written behind it, so that the kill switch waits for no
database; what could not be written yet is kept and tried again. No entry holds a secret: there is
none in what operators can change.
"""

import json
from collections import deque
from threading import Lock
from typing import Any

from sprout.control.peer import Caller
from sprout.control.rows import AuditEntry
from sprout.control.store import Store

MAX_PENDING = 10_000  # entries, some MB: far more than people make while a disk is full


class Audit:
    """Touched on the event loop's thread, but for `flush`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: deque[AuditEntry] = deque()
        self._one = Lock()  # two that flush would write an entry twice
        self.dropped = 0  # entries that there was no room for while the store failed

    @property
    def pending(self) -> bool:
        return bool(self._pending)

    def note(self, time: float, by: Caller, action: str, before: Any, after: Any) -> None:
        """Keep a change; `flush` writes it."""
        texts = (json.dumps(value, allow_nan=False) for value in (before, after))
        self._pending.append(AuditEntry(time, by.who, by.basis, by.claimed, action, *texts))
        if len(self._pending) > MAX_PENDING:
            self._pending.popleft()
            self.dropped += 1

    def flush(self) -> None:
        """Write what is kept, one by one and oldest first. ControlError where the store fails."""
        with self._one:
            while self._pending:
                entry = self._pending[0]
                self._store.add_audit(entry)
                # It was the first when it was written, unless it had to make room meanwhile.
                if self._pending and self._pending[0] is entry:
                    self._pending.popleft()
