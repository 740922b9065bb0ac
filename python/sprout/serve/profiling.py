# SPDX-License-Identifier: Apache-2.0
"""A profiling run: conditions in random order, with cool-downs, each a few fixed windows long.

Random order and cool-downs, because a warm device draws more; fixed windows, because a fixed number
of requests would measure the slow levels for longer.
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sprout.profile.power import Window
from sprout.profile.spans import active_seconds, busy_seconds
from sprout.serve.load import Load, Shot, Target
from sprout.serve.node_energy import NodeEnergy

Floats = NDArray[np.float64]

CHECK_S = 0.1  # a failed request ends the run that soon


@dataclass(frozen=True)
class Condition:
    kind: str  # "idle", "closed" or "open"
    level: str  # "" while idle
    setting: float  # requests in flight (closed), or a second (open); 0 while idle

    def __str__(self) -> str:
        unit = {"closed": "in flight", "open": "a second"}.get(self.kind)
        return self.kind if unit is None else f"{self.level}, {self.setting:.3g} {unit}"


@dataclass(frozen=True)
class Timing:
    warm_s: float  # under load before the first window
    window_s: float
    windows: int  # one after the other
    cool_s: float  # without load before the next condition

    @property
    def condition_s(self) -> float:
        return self.warm_s + self.window_s * self.windows + self.cool_s


@dataclass(frozen=True)
class Measurement:
    """One condition as it was measured."""

    condition: Condition
    windows: tuple[Window, ...]
    shots: tuple[Shot, ...]  # all, those of the warm-up and the drain included; by start
    measured: tuple[Shot, ...]  # that ended within the windows
    settled_joules: tuple[float, ...]  # of each measured one, as its outcome has; nan: not known
    shed: int  # requests that an open loop could not send: the setting was not reached


def conditions(
    levels: Sequence[str], in_flight: Sequence[int], per_s: Sequence[float], *, seed: int
) -> list[Condition]:
    """Idle, and each level at each load; in random order."""
    made = [Condition("idle", "", 0.0)]
    made += [Condition("closed", level, float(n)) for level in levels for n in in_flight]
    made += [Condition("open", level, rate) for level in levels for rate in per_s]
    random.Random(seed).shuffle(made)  # noqa: S311
    return made


class Runner:
    """Measures conditions. `progress` is told how many seconds of the run have passed.

    settled: the joules of a request by the times that the engine worked on it, ns; None: nobody
    here can tell.
    """

    def __init__(
        self,
        target: Target,
        energy: NodeEnergy,
        prompts: Sequence[str],
        levels: Sequence[str],
        timing: Timing,
        *,
        seed: int,
        settled: Callable[[int, int], float] | None = None,
        progress: Callable[[float, str], None] = lambda seconds, what: None,
    ) -> None:
        self._target, self._energy, self._prompts = target, energy, prompts
        self._levels, self._timing, self._seed = list(levels), timing, seed
        self._settled, self._progress = settled, progress
        self._block = 0

    def capacity(self, in_flight: int) -> float:
        """Requests a second at L0 with so many in flight: what open loops are set by."""
        found = self.measure(Condition("closed", self._levels[0], float(in_flight)))
        return len(found.measured) / (self._timing.window_s * self._timing.windows)

    def measure(self, condition: Condition) -> Measurement:
        """One condition, cool-down included. Raises what a request or the meter raises."""
        timing, self._block = self._timing, self._block + 1
        index = self._levels.index(condition.level) if condition.level else 0
        load = Load(
            self._target,
            self._prompts,
            condition.level,
            index,
            seed=self._seed + self._block,
        )
        with self._applied(load, condition):
            begun = time.monotonic()
            self._wait(begun + timing.warm_s, load, condition)
            first = time.monotonic()
            edges = [first + i * timing.window_s for i in range(timing.windows + 1)]
            for edge in edges[1:]:
                self._wait(edge, load, condition)
        # Those that were at work at the last edge have ended by now, and count with their share.
        shots = tuple(sorted(load.shots, key=lambda s: s.start_s))
        windows = tuple(
            self._window(condition, shots, since, until) for since, until in pairwise(edges)
        )
        self._wait(time.monotonic() + timing.cool_s, None, condition)
        measured = tuple(s for s in shots if first <= s.end_s <= edges[-1])
        # The windows have waited for a tick of the meter, and so for all that ended in them.
        settled = tuple(map(self._joules_of, measured))
        return Measurement(condition, windows, shots, measured, settled, load.shed)

    def _joules_of(self, shot: Shot) -> float:
        at = shot.at_work_ns
        return math.nan if self._settled is None or at is None else self._settled(*at)

    @staticmethod
    def _applied(load: Load, condition: Condition) -> AbstractContextManager[None]:
        if condition.kind == "closed":
            return load.closed(int(condition.setting))
        return load.open(condition.setting) if condition.kind == "open" else nullcontext()

    def _wait(self, until_s: float, load: Load | None, condition: Condition) -> None:
        while (left := until_s - time.monotonic()) > 0:
            if load is not None:
                load.check()
            step = min(left, CHECK_S)
            time.sleep(step)
            self._progress(step, str(condition))

    def _window(
        self, condition: Condition, shots: Sequence[Shot], since: float, until: float
    ) -> Window:
        start, end = np.array([s.work_s for s in shots], np.float64).reshape(-1, 2).T
        first = np.clip(np.array([s.first_s for s in shots], np.float64), start, end)
        inputs = np.array([s.reply.input_tokens for s in shots], np.float64)
        outputs = np.array([s.reply.output_tokens for s in shots], np.float64)
        return Window(
            block=self._block,
            level=condition.level,
            kind=condition.kind,
            setting=condition.setting,
            seconds=until - since,
            joules=self._energy.joules(since, until),
            # A request that spans an edge counts with the part of its time that lies inside.
            prefill_tokens=_spread(inputs, start, first, since, until),
            decode_tokens=_spread(outputs, first, end, since, until),
            busy_seconds=busy_seconds(start, end, since, until),
            active_seconds=active_seconds(start, end, since, until),
            requests=int(((end >= since) & (end < until)).sum()),
        )


def _spread(amount: Floats, start: Floats, end: Floats, since: float, until: float) -> float:
    """The amounts, spread evenly over their spans, that fall within [since, until)."""
    length = end - start
    inside = np.clip(np.minimum(end, until) - np.maximum(start, since), 0, None)
    at_once = ((start >= since) & (start < until)).astype(np.float64)
    share = np.where(length > 0, inside / np.where(length > 0, length, 1.0), at_once)
    return float((amount * share).sum())
