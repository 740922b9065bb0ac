# SPDX-License-Identifier: Apache-2.0
"""What the node's energy is read from.

A meter is a cumulative counter in joules. It starts at nought once and goes on over restarts of
the agent, so that the interval in which no agent ran is metered too.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sprout.energy.tally import NOTHING, Memory

log = logging.getLogger(__name__)

SAVE_S = 1.0
MAX_SAID = 253  # characters that a status has for its meter
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Meter(Protocol):
    """Read by one thread."""

    @property
    def name(self) -> str: ...

    @property
    def estimated(self) -> bool:
        """True: at least in part computed from a declared model, not measured."""

    @property
    def prior_watts(self) -> float:
        """What the node is assumed to draw for a request before anything has been metered."""

    @property
    def problem(self) -> str:
        """Why some of its energy stands still at the moment; empty = none does."""

    @property
    def whole(self) -> bool:
        """Whether the last reading had all that was used up to then. If not, the joules since the
        one before are too few, and those up to the next whole one are of another time."""

    def read(self) -> float:
        """Joules since the meter's start; never falls, never raises."""

    def close(self) -> None:
        """Leave the state that the next meter goes on from."""


class Part(Meter, Protocol):
    """One source of readings: NVML, RAPL, Triton, the declared model."""

    def memory(self) -> Memory:
        """What the same part goes on from after a restart."""


OpenPart = Callable[[str, Memory], Part]  # by kind; PrerequisiteError where it can't be had


class NodeMeter:
    """The sum of the parts that are configured; estimated if any of them is.

    `state` (a small file on memory-backed storage) carries sums and readings over a restart of the
    agent. One that was left by other parts, or in an earlier boot, is not gone on from: the meter
    starts at nought, as the settlement expects of another meter.
    """

    def __init__(
        self,
        kinds: Sequence[str],
        open_part: OpenPart,
        *,
        state: Path | None = None,
        note: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """note: how these parts were chosen, for people. PrerequisiteError as the parts'."""
        self._state, self._note, self._clock = state, note, clock
        self._saved_at = float("-inf")
        self._save_failed = False
        remembered = {} if state is None else restore(state, kinds)
        self._parts: dict[str, Part] = {}
        try:
            for kind in kinds:
                self._parts[kind] = open_part(kind, remembered.get(kind, NOTHING))
        except BaseException:
            for part in self._parts.values():
                part.close()
            raise
        self.name = " + ".join(part.name for part in self._parts.values())
        self.estimated = any(part.estimated for part in self._parts.values())
        self.prior_watts = math.fsum(part.prior_watts for part in self._parts.values())

    @property
    def said(self) -> str:
        """For the log and the status: what is read, why that, and what is wrong with it now."""
        text = self.name + (f"; {self.problem}" if self.problem else "") + self._note
        return short(text)

    @property
    def problem(self) -> str:
        return "; ".join(part.problem for part in self._parts.values() if part.problem)

    @property
    def whole(self) -> bool:
        return all(part.whole for part in self._parts.values())

    def read(self) -> float:
        joules = math.fsum(part.read() for part in self._parts.values())
        now = self._clock()
        if now - self._saved_at >= SAVE_S:
            self._saved_at = now
            self._save()
        return joules

    def close(self) -> None:
        self.read()
        self._save()
        for part in self._parts.values():
            part.close()

    def _save(self) -> None:
        if self._state is None:
            return
        parts = {}
        for kind, part in self._parts.items():
            memory = part.memory()
            parts[kind] = {
                "joules": memory.joules,
                "counters": dict(memory.counters),
                "lows": dict(memory.lows),
                "since_ticks": memory.since_ticks,
            }
        fresh = self._state.with_suffix(".new")
        try:
            fresh.write_text(json.dumps({"boot": boot_id(), "parts": parts}))
            fresh.replace(self._state)
        except OSError as error:  # only a restart of the agent would miss it
            if not self._save_failed:
                log.warning("meter: can't write %s: %s", self._state, error.strerror)
            self._save_failed = True
        else:
            self._save_failed = False


def short(text: str) -> str:
    """As much of it as a status takes."""
    return text if len(text) <= MAX_SAID else f"{text[: MAX_SAID - 1]}…"


def restore(state: Path, kinds: Sequence[str]) -> dict[str, Memory]:
    """What a meter of these kinds left in this boot, by kind; {} = nothing to go on from."""
    if not state.exists():
        return {}
    try:
        body = json.loads(state.read_text())
        if body["boot"] != boot_id():
            return {}
        found = {kind: _memory(part) for kind, part in body["parts"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("meter: %s is unreadable, starting at 0 J: %s", state, error)
        return {}
    if set(found) != set(kinds):
        log.warning("meter: another one was read here before; starting at 0 J")
        return {}
    return found


def boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def _memory(body: Mapping[str, Any]) -> Memory:
    counters = {str(name): float(raw) for name, raw in body["counters"].items()}
    lows = {str(name): float(raw) for name, raw in body.get("lows", {}).items()}
    memory = Memory(float(body["joules"]), counters, body["since_ticks"], lows)
    values = (memory.joules, *counters.values(), *lows.values())
    if not all(math.isfinite(v) and v >= 0 for v in values):
        raise ValueError("it holds what no meter can have read")
    if not isinstance(memory.since_ticks, int | None):
        raise ValueError("since_ticks is no number of ticks")
    return memory
