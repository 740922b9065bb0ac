# SPDX-License-Identifier: Apache-2.0
"""The evaluation that q rests on now: taken in, kept over restarts, shown in the status."""

from collections.abc import Callable
from typing import Any

from sprout.control import quality
from sprout.control.quality import Quality
from sprout.control.store import Store
from sprout.directives import Pack
from sprout.v1 import control_pb2 as pb

# Puts into the status what its owner knows: whether one is due and why, the prompts that are kept,
# what drifted. Called on the event loop's thread at each status: no I/O.
Teller = Callable[[pb.EvaluationStatus], None]


class Evaluations:
    """Of one pack: the newest by when they ended. ControlError where the store fails.

    `take` in one thread at a time; the rest on the event loop's.
    """

    def __init__(self, store: Store, pack: Pack) -> None:
        self._store, self._pack = store, pack
        self.latest: pb.Evaluation | None = None
        self.before: pb.Evaluation | None = None  # the one before it, to compare with
        self.quality: Quality | None = None  # of the latest
        self.tellers: list[Teller] = []
        self._read()

    def check(self, message: pb.Evaluation, now: float) -> None:
        """ValueError says what is wrong. now: seconds since 1970."""
        quality.checked(message, self._pack, now)

    def take(self, message: pb.Evaluation, now: float) -> bool:
        """Store a checked one; whether q rests on another one now than before.

        An evaluation that is there already changes nothing; ValueError where it says something
        else. One that ended before the latest is stored, and q does not rest on it.
        """
        self._store.add_evaluation(message, now)
        old = "" if self.latest is None else self.latest.id
        self._read()
        return self.latest is not None and self.latest.id != old

    def _read(self) -> None:
        newest = [
            pb.Evaluation.FromString(message)
            for message in self._store.evaluations(2, pack_hash=self._pack.hash)
        ]
        self.before = newest[1] if len(newest) > 1 else None
        self.latest = newest[0] if newest else None
        self.quality = None if self.latest is None else quality.quality(self.latest)

    def status(self) -> pb.EvaluationStatus:
        found = pb.EvaluationStatus(latest=self.latest)
        if self.latest is not None:
            found.latest.ClearField("by_prompt")
        for tell in self.tellers:
            tell(found)
        return found


def as_json(message: pb.Evaluation | None) -> dict[str, Any] | None:
    """What the audit keeps of one; the rest is stored under its id."""
    if message is None:
        return None
    of_all = next(c for c in message.classes if not c.task)
    q = dict(zip(message.levels, of_all.preference, strict=True))
    return {"id": message.id, "judge": message.judge, "judged": of_all.judged, "preference": q}
