# SPDX-License-Identifier: Apache-2.0
"""What the node's meter said at any time of a run: readings in the background, looked up after.

Readings come from the energy clock where the agent runs on this machine (ten a second), else from
the control plane's status (one a second or so, by the agents' own clocks).
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sprout.errors import ControlError, SproutError
from sprout.v1 import control_pb2 as pb
from sprout_ext.clock import ClockReader

POLL_S = 0.1
SILENCE_S = 10.0  # without a new reading: no meter to profile with
GONE_S = 15.0  # agents report about once a second
SKEW_S = 3.0  # agents report once a second


@dataclass(frozen=True)
class Reading:
    time_s: float  # CLOCK_MONOTONIC
    joules: float  # cumulative, idle included
    unmetered_until_s: float = -math.inf  # CLOCK_MONOTONIC: a meter stood still before it


def from_clock(path: Path) -> Callable[[], Reading | None]:
    """Reads the energy clock of this machine's agent; None where there is none."""
    reader = ClockReader(path)

    def read() -> Reading | None:
        state = reader.state()
        if state is None or state.t_ns == 0:
            return None
        until_ns = (state.unmetered_until_ns or -math.inf) if state.whole else state.t_ns
        return Reading(state.t_ns / 1e9, state.metered, until_ns / 1e9)

    return read


def settled_by(path: Path) -> Callable[[int, int], float]:
    """What a flight with these times (CLOCK_MONOTONIC, ns) has cost by the energy clock of this
    machine's agent, once it has ticked behind them: the outcome's joules. nan: it can't tell."""
    reader = ClockReader(path)

    def settled(start_ns: int, end_ns: int) -> float:
        joules, provisional = reader.energy(start_ns, end_ns)
        return math.nan if provisional else joules

    return settled


def from_nodes(nodes: Callable[[], Sequence[pb.NodeStatus]]) -> Callable[[], Reading | None]:
    """Adds up what the agents last reported. ControlError where their clocks are not this one's."""

    def read() -> Reading | None:
        now = time.time()
        aged = [(node, now - node.time.ToNanoseconds() / 1e9) for node in nodes()]
        # One that was silent for long is gone; the control plane remembers it all the same.
        aged = [(node, age_s) for node, age_s in aged if age_s < GONE_S]
        if not aged:
            return None
        found, ages = zip(*aged, strict=True)
        if min(ages) < -SKEW_S:
            raise ControlError("an agent's clock runs ahead of this machine's: set both by NTP")
        # Reports of several nodes differ by up to a second; their mean time is that of the sum.
        at_s = time.monotonic() - sum(ages) / len(ages)
        stands_still = any(node.meter_problem for node in found)
        return Reading(
            at_s, sum(node.metered_joules for node in found), at_s if stands_still else -math.inf
        )

    return read


class NodeEnergy:
    """`joules` between two times, by linear interpolation between readings."""

    def __init__(self, read: Callable[[], Reading | None], *, poll_s: float = POLL_S) -> None:
        self._read, self._poll_s = read, poll_s
        self._readings: list[Reading] = []
        self._changed = threading.Condition()
        self._error: SproutError | None = None
        self._stop = threading.Event()

    @contextmanager
    def recording(self) -> Iterator[None]:
        thread = threading.Thread(target=self._record, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def joules(self, since_s: float, until_s: float) -> float:
        """Waits for a reading past the end. ControlError where none comes or the meter fell."""
        with self._changed:
            while self._error is None and not (
                self._readings and self._readings[-1].time_s >= until_s
            ):
                if not self._changed.wait(SILENCE_S):
                    raise ControlError(f"no reading of the node's energy for {SILENCE_S:g} s")
            if self._error is not None:
                raise self._error
            times = np.array([r.time_s for r in self._readings])
            joules = np.array([r.joules for r in self._readings])
            stood_still = any(r.unmetered_until_s >= times[0] for r in self._readings)
        if stood_still:
            raise ControlError("the node's meter stood still during the run (`sprout status`)")
        if times[0] > since_s:
            raise ControlError("the node's energy was not read yet when the window began")
        if (np.diff(joules) < 0).any():
            raise ControlError("the node's meter fell: its agent was restarted during the run")
        low, high = np.interp((since_s, until_s), times, joules)
        return float(high - low)

    def wait_first(self) -> None:
        """Until there is a reading. ControlError where none comes."""
        with self._changed:
            ready = self._changed.wait_for(lambda: self._readings or self._error, SILENCE_S)
        if self._error is not None:
            raise self._error
        if not ready:
            raise ControlError("no agent reports energy: is the stack up?")

    def _record(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                reading = self._read()
            except SproutError as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                last = self._readings[-1].time_s if self._readings else -np.inf
                if reading is not None and reading.time_s > last:
                    self._readings.append(reading)
                    self._changed.notify_all()
