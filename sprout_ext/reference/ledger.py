# SPDX-License-Identifier: Apache-2.0
"""The flight ledger over its bytes (csrc/ledger.h).

Words: 0-15 head (see head.py; 1 = 2 | 384 << 32, 3 pid | role << 32, 6 records | stub index << 32),
16-47 counters; then records of 48 words, one line of 8 (the opener's: 16) per writer, each led by
its state word generation << 32 | mark:
 0 opened (mark 1 writing, 2 open): 1 level | flags << 16, 2 policy version, 3 policy seed,
   4 sequence, 5-7 task, 8 opened_ns, 9 input_tokens | max_tokens << 32, 10 intensity, 11 pue,
   12 embodied, 13-15 tenant
16 live (mark = phase): 17 scheduled_ns, 18 first_token_ns, 19 heartbeat_ns, 20 output_tokens
24 end (mark = phase): 25 scheduled_ns, 26 first_token_ns, 27 last_token_ns, 28 input | output << 32
32 closed (mark 1): 33 closed_ns, 34 receipt joules · 40 released (mark 1)
"""

import math
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprout_ext.ledger import FLIGHT, Counter, Phase
from sprout_ext.reference.head import FileKind, process_started
from sprout_ext.reference.words import Words, bits, name_words, real, signed, text_of

SEGMENT = FileKind("segment", "segment-", b"SPRSEG01", 2 | 384 << 32)
HEAD, RECORD = 48, 48  # words
_LIVE, _END, _CLOSED, _RELEASED = 16, 24, 32, 40


def _pack(low: int, high: int) -> int:
    return low | high << 32


def _low(word: int) -> int:
    return word & 0xFFFFFFFF


def _marked(word: int, first: int, last: int) -> int:
    return word >> 32 if first <= _low(word) <= last else 0


def _open(path: Path) -> tuple[Words, list[int]]:
    words, head = SEGMENT.open(path, HEAD * 8)
    if _low(head[6]) > 65536 or words.words < HEAD + RECORD * _low(head[6]):
        words.close()
        raise ValueError(f"{path}: shorter than its table")
    return words, head


def _row(words: Words, tag: int, slot: int) -> NDArray[Any] | None:
    """The flight in a slot, if one is opened and not released: shape (1,)."""
    at = HEAD + slot * RECORD
    r = words.read(at, RECORD)
    generation = _marked(r[0], 2, 2)
    if not generation or _marked(r[_RELEASED], 1, 1) == generation:
        return None
    row = np.zeros(1, FLIGHT)
    row["ticket"] = tag << 48 | slot << 32 | generation
    row["slot"], row["generation"] = slot, generation
    row["level"], row["flags"] = r[1] & 0xFF, r[1] >> 16 & 0xFFFF
    row["policy_version"], row["policy_seed"], row["sequence"] = r[2:5]
    row["task"], row["tenant"] = text_of(r[5:8]), text_of(r[13:16])
    row["opened_ns"] = signed(r[8])
    row["input_tokens"], row["max_tokens"] = _low(r[9]), r[9] >> 32
    row["intensity_g_per_kwh"], row["pue"], row["embodied_g_per_s"] = map(real, r[10:13])
    if _marked(r[_LIVE], Phase.OPENED, Phase.FIRST_TOKEN) == generation:
        row["phase"] = _low(r[_LIVE])
        if _low(r[_LIVE]) >= Phase.SCHEDULED:
            row["scheduled_ns"] = signed(r[_LIVE + 1])
        if _low(r[_LIVE]) == Phase.FIRST_TOKEN:
            row["first_token_ns"] = signed(r[_LIVE + 2])
        row["heartbeat_ns"] = signed(r[_LIVE + 3])
        row["output_tokens"] = _low(r[_LIVE + 4])
    if _marked(r[_END], Phase.FINISHED, Phase.CANCELLED) == generation:
        row["phase"] = _low(r[_END])
        for offset, name in ((1, "scheduled_ns"), (2, "first_token_ns")):
            row[name] = signed(r[_END + offset]) or row[name]
        row["last_token_ns"] = signed(r[_END + 3])
        row["input_tokens"] = _low(r[_END + 4]) or row["input_tokens"]
        row["output_tokens"] = r[_END + 4] >> 32
    if _marked(r[_CLOSED], 1, 1) == generation:
        row["closed"] = True
        row["closed_ns"] = signed(r[_CLOSED + 1])
        row["receipt_joules"] = real(r[_CLOSED + 2])
    return row


class Segment:
    """A stub's own segment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._words, head = _open(path)
        self.uid, self.tag = head[2], head[7]
        self._records, self._cursor = _low(head[6]), 0

    @classmethod
    def create(
        cls,
        directory: str | PathLike[str],
        role: int,
        stub_index: int,
        node_id: int,
        records: int = 0,
    ) -> "Segment":
        """A new segment."""
        size, shape = (HEAD + RECORD * records) * 8, _pack(records, stub_index)
        return cls(SEGMENT.create(directory, size, upper=role, node_id=node_id, shape=shape))

    def open_flight(
        self,
        *,
        level: int,
        flags: int,
        policy_version: int,
        policy_seed: int,
        sequence: int,
        task: bytes,
        input_tokens: int,
        max_tokens: int,
        opened_ns: int,
        intensity_g_per_kwh: float,
        pue: float,
        embodied_g_per_s: float,
        tenant: bytes = b"",
    ) -> int:
        """A ticket, or 0 if the table is full."""
        for what, name in (("task", task), ("tenant", tenant)):
            if len(name) > 23:
                raise ValueError(f"{what}: at most 23 bytes")
        for _ in range(self._records):
            slot, self._cursor = self._cursor, (self._cursor + 1) % self._records
            at = HEAD + slot * RECORD
            last = self._words[at] >> 32
            if last and _marked(self._words[at + _RELEASED], 1, 1) != last:
                continue
            generation = (last + 1) & 0xFFFFFFFF or 1
            line = [level | flags << 16, policy_version, policy_seed, sequence]
            line += [*name_words(task), opened_ns, _pack(input_tokens, max_tokens)]
            line += [bits(intensity_g_per_kwh), bits(pue), bits(embodied_g_per_s)]
            line += name_words(tenant)
            self._words[at] = _pack(1, generation)
            self._words.write(at + 1, line)
            self._words[at] = _pack(2, generation)
            return int(self.tag << 48 | slot << 32 | generation)
        self.count(Counter.LEDGER_FULL)
        return 0

    def count(self, counter: int, n: int = 1) -> None:
        """Adds to a counter."""
        self._words[16 + counter] += n

    def close(self, unlink: bool = False) -> None:
        """Lets go of the file."""
        self._words.close()
        if unlink:
            self.path.unlink(missing_ok=True)


class Flights:
    """Opens the segment anew for each call."""

    def __init__(self, directory: str | PathLike[str]) -> None:
        self._directory = Path(directory)

    def _find(self, ticket: int) -> tuple[Words, int] | None:
        tag, slot, generation = ticket >> 48, ticket >> 32 & 0xFFFF, _low(ticket)
        try:
            words, head = _open(SEGMENT.path(self._directory, tag))
        except (OSError, ValueError):
            return None
        at = HEAD + slot * RECORD
        if tag and head[7] == tag and slot < _low(head[6]) and generation:
            over = _marked(words[at + _RELEASED], 1, 1) == generation
            if words[at] == _pack(2, generation) and not over:
                return words, at
        words.close()
        return None

    def _live(self, ticket: int, phase: Phase, now_ns: int, output_tokens: int | None) -> bool:
        found = self._find(ticket)
        if found is None:
            return False
        words, at = found
        generation, line = _low(ticket), at + _LIVE
        if words[at + _END] >> 32 != generation:
            mark = _low(words[line])
            if words[line] >> 32 != generation:
                words[line + 4] = 0
                mark = Phase.OPENED
            if phase >= Phase.SCHEDULED and mark < Phase.SCHEDULED:
                words[line + 1] = now_ns
            if phase is Phase.FIRST_TOKEN and mark < phase:
                words[line + 2] = now_ns
            words[line + 3] = now_ns
            words[line] = _pack(max(mark, phase), generation)
            if output_tokens is not None:
                words[line + 4] = output_tokens
        words.close()
        return True

    def arrived(self, ticket: int, now_ns: int) -> bool:
        """The slot has it; it may wait there."""
        return self._live(ticket, Phase.OPENED, now_ns, None)

    def scheduled(self, ticket: int, now_ns: int) -> bool:
        """The engine has taken it up."""
        return self._live(ticket, Phase.SCHEDULED, now_ns, None)

    def first_token(self, ticket: int, now_ns: int) -> bool:
        """Its first token is there."""
        return self._live(ticket, Phase.FIRST_TOKEN, now_ns, None)

    def progress(self, ticket: int, output_tokens: int, now_ns: int) -> bool:
        """That many tokens by now."""
        phase = Phase.FIRST_TOKEN if output_tokens else Phase.SCHEDULED
        return self._live(ticket, phase, now_ns, output_tokens)

    def finished(
        self,
        ticket: int,
        phase: int,
        *,
        input_tokens: int,
        output_tokens: int,
        first_scheduled_ns: int,
        first_token_ns: int,
        last_token_ns: int,
    ) -> bool:
        """The engine is done with it; the first end stands."""
        found = self._find(ticket)
        if found is None:
            return False
        words, at = found
        if words[at + _END] >> 32 != _low(ticket):
            times = [first_scheduled_ns, first_token_ns, last_token_ns]
            words.write(at + _END + 1, [*times, _pack(input_tokens, output_tokens)])
            words[at + _END] = _pack(phase, _low(ticket))
        words.close()
        return True

    def close(self, ticket: int, now_ns: int, receipt_joules: float) -> bool:
        """The client has its receipt."""
        found = self._find(ticket)
        if found is None:
            return False
        words, at = found
        if _marked(words[at + _CLOSED], 1, 1) != _low(ticket):
            words.write(at + _CLOSED + 1, [now_ns, bits(receipt_joules)])
            words[at + _CLOSED] = _pack(1, _low(ticket))
        words.close()
        return True

    def land(
        self, ticket: int, now_ns: int, clock: Any
    ) -> tuple[int, int, float, float, float] | None:
        """Closed, with its receipt: level, version, joules, grams, g/kWh."""
        row = self.view(ticket)
        if row is None:
            return None
        start, end = int(row.scheduled_ns), int(row.last_token_ns)
        joules = math.nan
        if clock is not None and start > 0 and end >= start:
            joules = clock.energy(start, end)[0]
        grams = joules / 3.6e6 * row.intensity_g_per_kwh * row.pue
        grams += row.embodied_g_per_s * ((end - start) / 1e9)
        self.close(ticket, now_ns, joules)
        version, intensity = int(row.policy_version), float(row.intensity_g_per_kwh)
        return int(row.level), version, float(joules), float(grams), intensity

    def view(self, ticket: int) -> Any:
        """A copy of dtype FLIGHT, or None."""
        found = self._find(ticket)
        if found is None:
            return None
        words, _ = found
        row = _row(words, ticket >> 48, ticket >> 32 & 0xFFFF)
        words.close()
        return None if row is None else row.view(np.recarray)[0]


class SegmentReader:
    """The agent's side."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._words, head = _open(self.path)
        self.uid, self.tag, self.node_id = head[2], head[7], head[5]
        self.pid, self.role = _low(head[3]), head[3] >> 32
        self.records, self.stub_index = _low(head[6]), head[6] >> 32
        self._started = head[4]

    @property
    def alive(self) -> bool:
        """Is the owner still the process that made it?"""
        return process_started(self.pid) == self._started != 0

    def scan(self) -> NDArray[Any]:
        """All flights opened and not released."""
        rows = [_row(self._words, self.tag, slot) for slot in range(self.records)]
        return np.concatenate([np.zeros(0, FLIGHT), *(row for row in rows if row is not None)])

    def release(self, slot: int, generation: int) -> bool:
        """Gives the slot back."""
        at = HEAD + slot * RECORD
        if not generation or self._words[at] >> 32 != generation:
            return False
        self._words[at + _RELEASED] = _pack(1, generation)
        return True

    def counters(self) -> NDArray[np.uint64]:
        """(32,)."""
        return np.array(self._words.read(16, 32), dtype=np.uint64)

    def unlink(self) -> None:
        """Takes the file away."""
        self.path.unlink(missing_ok=True)
