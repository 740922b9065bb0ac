# SPDX-License-Identifier: Apache-2.0
"""The energy clock over its bytes (csrc/clock.h).

Words: 0 magic, 1 layout, 2 boot id, 3 active state, 4-7 unused; two states of 16 words from 8 on:
0 sequence (odd while written), 1-12 payload, 13 checksum = fold(sequence, payload), 14-15 unused;
from 40 on 8192 corners (t_ns, C). Payload: t_ns, C, rate, metered, settled, idle, meter reading,
unattributed, unmetered from, unmetered until, corners ever written, bits (estimated | rated << 1 |
measured << 2 | flat << 3 | not whole << 4).
"""

import math
from bisect import bisect_right
from dataclasses import astuple, dataclass, replace
from os import PathLike
from pathlib import Path

from sprout_ext.clock import ClockState
from sprout_ext.reference.words import Words, bits, boot_id, create, fold, real, signed

MAGIC = int.from_bytes(b"SPRCLK01", "little")
RING = 8192
WINDOW = RING - 1
SIZE = 320 + 16 * RING
LAYOUT = 2
_STATE, _STATE_WORDS, _PAYLOAD, _CORNERS = 8, 16, 12, 40


_REALS = ("integral", "rate", "metered", "settled", "idle", "meter", "unattributed")


@dataclass(frozen=True)
class _Now:
    t_ns: int = 0
    integral: float = 0.0
    rate: float = 0.0
    metered: float = 0.0
    settled: float = 0.0
    idle: float = 0.0
    meter: float = 0.0
    unattributed: float = 0.0
    unmetered_from: int = 0
    unmetered_until: int = 0
    corners: int = 0
    bits: int = 0

    @property
    def rated(self) -> bool:
        return bool(self.bits >> 1 & 1)

    @property
    def measured(self) -> bool:
        return bool(self.bits >> 2 & 1)

    @property
    def flat(self) -> bool:
        return bool(self.bits >> 3 & 1)

    @property
    def whole(self) -> bool:
        return not self.bits >> 4 & 1


def _read(words: Words) -> _Now:
    magic, layout, _, active = words.read(0, 4)
    if (magic, layout) != (MAGIC, LAYOUT) or active > 1:
        raise ValueError("not an energy clock")
    at = _STATE + active * _STATE_WORDS
    sequence, *payload = words.read(at, 1 + _PAYLOAD)
    if sequence & 1 or words[at + 1 + _PAYLOAD] != fold([sequence, *payload]):
        raise ValueError("the energy clock is corrupt")
    reals = dict(zip(_REALS, map(real, payload[1:8]), strict=True))
    return _Now(
        t_ns=signed(payload[0]),
        unmetered_from=signed(payload[8]),
        unmetered_until=signed(payload[9]),
        corners=payload[10],
        bits=payload[11],
        **reals,
    )


def _write(words: Words, now: _Now, corner: _Now | None) -> None:
    idle = 1 - (words[3] & 1)
    at = _STATE + idle * _STATE_WORDS
    odd = (words[at] + 1) | 1
    words[at] = odd
    if corner is not None:
        ring = _CORNERS + 2 * (corner.corners % RING)
        words.write(ring, (corner.t_ns, bits(corner.integral)))
    t_ns, *reals = astuple(now)[:8]
    stretch = (now.unmetered_from, now.unmetered_until)
    payload = [t_ns, *map(bits, reals), *stretch, now.corners, now.bits]
    words.write(at + 1, payload)
    words[at + 1 + _PAYLOAD] = fold([odd + 1, *payload])
    words[at] = odd + 1
    words[3] = idle


def _integral(words: Words, now: _Now, t_ns: int) -> float:
    """C at a time up to the last tick, from all the corners at once."""
    indices = range(now.corners - min(now.corners, WINDOW), now.corners)
    points = [
        (signed(words[_CORNERS + 2 * (i % RING)]), real(words[_CORNERS + 2 * (i % RING) + 1]))
        for i in indices
    ]
    points.append((now.t_ns, now.integral))
    after = bisect_right([t for t, _ in points], t_ns)
    if after == 0 or after == len(points):
        return points[min(after, len(points) - 1)][1]
    (t0, c0), (t1, c1) = points[after - 1 : after + 1]
    return c0 + (c1 - c0) * (((t_ns - t0) * 1e-9) / ((t1 - t0) * 1e-9))


def _energy(words: Words, start_ns: int, end_ns: int) -> tuple[float, bool]:
    now = _read(words)
    provisional = end_ns > now.t_ns
    if end_ns <= start_ns:
        return 0.0, provisional
    begun = now.unmetered_until and end_ns > now.unmetered_from
    if begun and (not now.whole or start_ns < now.unmetered_until):
        return math.nan, True
    if provisional and not now.rated:
        return math.nan, True
    joules, settled_end = 0.0, min(end_ns, now.t_ns)
    if now.t_ns and start_ns < settled_end:
        joules = _integral(words, now, settled_end) - _integral(words, now, start_ns)
    if provisional:
        begin = max(start_ns, now.t_ns) if now.t_ns else start_ns
        joules += now.rate * ((end_ns - begin) * 1e-9)
    return joules, provisional


def _check(value: float, name: str) -> None:
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name}: not a finite number >= 0")


class ClockWriter:
    """Writes as the core does; a new file unless there is one."""

    def __init__(self, path: str | PathLike[str]) -> None:
        target = Path(path)
        fresh = not target.exists()
        if fresh:
            create(target, SIZE, (MAGIC, LAYOUT, boot_id(), 0), replace=True)
        self._words = Words(target, SIZE)
        if fresh:
            _write(self._words, _Now(), None)

    def tick(
        self,
        t_ns: int,
        active_seconds: float,
        joules: float,
        meter_joules: float,
        estimated: bool,
        *,
        whole: bool = True,
    ) -> None:
        """The interval since the last tick."""
        for name, value in (
            ("active_seconds", active_seconds),
            ("joules", joules),
            ("meter_joules", meter_joules),
        ):
            _check(value, name)
        before = _read(self._words)
        if t_ns <= before.t_ns:
            raise ValueError("t_ns: not after the last tick")
        first = before.t_ns == 0
        known = before.whole and whole
        active = active_seconds > 0 and not first and known
        nobodys = not first and not known
        begun = before.t_ns if before.unmetered_until != before.t_ns else before.unmetered_from
        stretch = (before.unmetered_from, before.unmetered_until)
        if nobodys:
            stretch = (begun, t_ns)
        elif first and not whole:
            stretch = (t_ns, t_ns)
        flat = not active and not first
        rate = joules / active_seconds if active else before.rate
        straight = first or (before.flat and flat)
        now = _Now(
            t_ns=t_ns,
            integral=before.integral + (rate * ((t_ns - before.t_ns) * 1e-9) if active else 0.0),
            rate=rate,
            metered=before.metered + joules,
            settled=before.settled + (joules if active else 0.0),
            idle=before.idle + (0.0 if active or nobodys else joules),
            meter=meter_joules,
            unattributed=before.unattributed + (joules if nobodys else 0.0),
            unmetered_from=stretch[0],
            unmetered_until=stretch[1],
            corners=before.corners + (not straight),
            bits=estimated
            | (before.rated or active) << 1
            | (before.measured or active) << 2
            | flat << 3
            | (not whole) << 4,
        )
        _write(self._words, now, None if straight else before)

    def prior_rate(self, joules_per_active_second: float) -> None:
        """Serves until something was measured."""
        _check(joules_per_active_second, "joules_per_active_second")
        now = _read(self._words)
        if not now.measured:
            changed = replace(now, rate=joules_per_active_second, bits=now.bits | 2)
            _write(self._words, changed, None)

    @property
    def last_t_ns(self) -> int:
        """The last tick."""
        return _read(self._words).t_ns

    @property
    def last_meter_joules(self) -> float:
        """The meter's reading at the last tick."""
        return _read(self._words).meter

    @property
    def metered_joules(self) -> float:
        """Since the clock was made."""
        return _read(self._words).metered

    @property
    def settled_joules(self) -> float:
        """While any flight was active."""
        return _read(self._words).settled

    @property
    def idle_joules(self) -> float:
        """While none was."""
        return _read(self._words).idle

    @property
    def unattributed_joules(self) -> float:
        """Of intervals that were not metered whole."""
        return _read(self._words).unattributed

    @property
    def last_whole(self) -> bool:
        """Whether the last reading had everything that was used."""
        return _read(self._words).whole

    @property
    def unmetered_ns(self) -> tuple[int, int]:
        """The latest stretch that was not metered whole; (0, 0): there was none."""
        now = _read(self._words)
        return now.unmetered_from, now.unmetered_until

    def energy(self, start_ns: int, end_ns: int) -> tuple[float, bool]:
        """As the reader's."""
        return _energy(self._words, start_ns, end_ns)

    def close(self) -> None:
        """Lets go of the file."""
        self._words.close()


class ClockReader:
    """Opens the file anew for each call."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path)

    def energy(self, start_ns: int, end_ns: int) -> tuple[float, bool]:
        """(joules, provisional); (nan, True) if the clock is absent or corrupt."""
        try:
            words = Words(self._path, SIZE)
        except (OSError, ValueError):
            return math.nan, True
        try:
            return _energy(words, start_ns, end_ns)
        except ValueError:
            return math.nan, True
        finally:
            words.close()

    def state(self) -> ClockState | None:
        """The clock at its last tick."""
        try:
            words = Words(self._path, SIZE)
        except (OSError, ValueError):
            return None
        try:
            now = _read(words)
        except ValueError:
            return None
        finally:
            words.close()
        return ClockState(
            *(now.t_ns, now.rate, now.metered, now.settled, now.idle, bool(now.bits & 1)),
            *(now.unattributed, now.unmetered_until, now.whole),
        )
