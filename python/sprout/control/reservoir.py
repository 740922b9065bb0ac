# SPDX-License-Identifier: Apache-2.0
"""The prompts that evaluations draw from: in memory alone, bounded, forgotten in time.

Prompts are kept by task class. Each has a number u in [0, 1) of its own, from its id; a class keeps
the prompts whose u lies under its chance, and where room is short the class that has most gives up
the prompt with the largest u, which becomes its chance. So what is kept is a simple random sample
of what came, each with that chance (bottom-k sampling: Cohen and Kaplan, "Summarizing data using
bottom-k sketches", PODC 2007), and to divide by the chance gives unbiased totals.

Where a class has become rare its chance is raised again, for prompts from then on. Draws use the
lowest chance within the retention alone, so that older and newer prompts are drawn alike; what a
raised chance keeps on top is drawn once the older prompts are forgotten.

Prompts whose level the client chose are not kept: no policy decides on their like, so they must
neither be drawn nor counted in what a drawn one stands for.
"""

import logging
import math
import secrets
import time
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from operator import attrgetter

from sprout.control.draw import Drawable, Stock
from sprout.v1 import control_pb2 as pb

LOG = logging.getLogger(__name__)

MAX_CLASSES = 64  # with "", where further ones are pooled
POOL = ""


@dataclass(frozen=True, slots=True)
class _Kept:
    u: float
    at: float  # seconds since 1970
    prompt: pb.SampledPrompt


@dataclass(slots=True)
class _Class:
    """Of one task class; times in seconds since 1970."""

    newest: float
    oldest: float = math.inf  # nothing that is kept is older; it may be younger
    kept: list[_Kept] = field(default_factory=list)  # by u
    # (since, chance), both rising: prompts from then on are kept if their u is under it. The first
    # also holds for all before.
    steps: deque[tuple[float, float]] = field(default_factory=lambda: deque([(0.0, 1.0)]))

    @property
    def chance(self) -> float:
        """That holds for every prompt within the retention."""
        return self.steps[0][1]

    def drawable(self) -> list[_Kept]:
        return [each for each in self.kept if each.u < self.chance]

    def offer(self, new: _Kept) -> bool:
        """Keep it, if its u is under the chance of its time."""
        chance = next((c for since, c in reversed(self.steps) if since <= new.at), self.chance)
        if new.u >= chance:
            return False
        insort(self.kept, new, key=attrgetter("u"))
        self.oldest = min(self.oldest, new.at)
        return True

    def give_up(self) -> _Kept:
        """The prompt with the largest u; the chance is lowered to it."""
        last = self.kept.pop()
        since = 0.0
        while self.steps and self.steps[-1][1] >= last.u:
            since, _ = self.steps.pop()
        self.steps.append((since, last.u))
        return last

    def raise_chance(self, now: float) -> None:
        chance = self.steps[-1][1]
        if chance < 1:
            self.steps.append((now, min(1.0, 2 * chance)))

    def forget(self, before: float) -> list[_Kept]:
        """What is as old; the steps that held for it alone go too."""
        old: list[_Kept] = []
        if self.oldest <= before:  # else there is nothing to look through
            old = [each for each in self.kept if each.at <= before]
            self.kept = [each for each in self.kept if each.at > before]
            self.oldest = min((each.at for each in self.kept), default=math.inf)
        while len(self.steps) > 1 and self.steps[1][0] <= before:
            self.steps.popleft()
        return old


class Reservoir:
    """Touched on the event loop's thread alone."""

    def __init__(
        self,
        prompts: int,
        retention_s: float,
        *,
        wall: Callable[[], float] = time.time,
        salt: bytes | None = None,
    ) -> None:
        """prompts: at most so many in all. salt: of which prompts are kept; default: random."""
        self._most, self._retention_s, self._wall = prompts, retention_s, wall
        self._classes: dict[str, _Class] = {}
        self._ids: set[int] = set()
        self._salt = secrets.token_bytes(16) if salt is None else salt
        self.pooled = 0  # prompts of classes that there was no room for
        self.chosen = 0  # prompts that were not kept because the client chose their level

    def add(self, prompts: Iterable[pb.SampledPrompt]) -> int:
        """How many of them are kept now. One that came before counts and changes nothing."""
        now = self.forget()
        ids: list[int] = []
        for prompt in prompts:
            at = min(prompt.sampled_at.ToNanoseconds() / 1e9, now)
            if at <= now - self._retention_s:
                continue
            if prompt.pinned or prompt.off:
                self.chosen += 1
                continue
            ids.append(prompt.id)
            if prompt.id in self._ids:
                continue
            group = self._class_of(prompt.task, at)
            if len(group.kept) <= self._most / (2 * len(self._classes)):
                group.raise_chance(now)
            if group.offer(_Kept(self._u(prompt.id), at, prompt)):
                self._ids.add(prompt.id)
            while len(self._ids) > self._most:
                most = max(self._classes.values(), key=lambda each: len(each.kept))
                self._ids.remove(most.give_up().prompt.id)
        return sum(i in self._ids for i in ids)

    def stock(self) -> Stock:
        """What there is to draw from, as of now; for any thread."""
        self.forget()
        found = {}
        for name, group in self._classes.items():
            prompts = [each.prompt for each in group.drawable()]
            found[name] = Drawable(group.chance, prompts)
        return Stock(found)

    def counts(self) -> dict[str, int]:
        """Prompts that are kept, by class."""
        self.forget()
        return {name: len(group.kept) for name, group in sorted(self._classes.items())}

    def size(self) -> int:
        """Prompts that are kept."""
        self.forget()
        return len(self._ids)

    def tell(self, status: pb.EvaluationStatus) -> None:
        """Adds them to where q stands."""
        status.prompts.update(self.counts())

    def forget(self) -> float:
        """Let go of what is older than the retention; returns the time."""
        now = self._wall()
        before = now - self._retention_s
        for name, group in list(self._classes.items()):
            self._ids.difference_update(each.prompt.id for each in group.forget(before))
            if group.newest <= before:
                del self._classes[name]
        return now

    def _class_of(self, task: str, at: float) -> _Class:
        # Room for the pool is kept, whether or not there is one yet.
        full = len(self._classes.keys() - {POOL}) >= MAX_CLASSES - 1
        if full and task != POOL and task not in self._classes:
            if self.pooled == 0:
                LOG.warning("over %d task classes: further ones are pooled", MAX_CLASSES - 1)
            self.pooled += 1
            task = POOL
        group = self._classes.setdefault(task, _Class(at))
        group.newest = max(group.newest, at)
        return group

    def _u(self, number: int) -> float:
        """In [0, 1): the same for the same id, and nobody outside can tell which."""
        digest = blake2b(number.to_bytes(8, "little"), key=self._salt, digest_size=7).digest()
        return (int.from_bytes(digest, "little") >> 3) / 2**53
