# SPDX-License-Identifier: Apache-2.0
"""The ring of sampled prompts over its bytes (csrc/ring.h).

Words: 0 magic, 1 layout (1 | 128 << 32), 2 uid, 3 pid | stub index << 32, 4 start time of the
owner, 5 node id, 6 slots | bytes of the longest prompt << 32, 7 tag, 8 checksum = fold(0-7); the
writer's: 16 written, 17 too long, 18 refused, 19 unknown; the reader's: 24 read, 25 missed; from 32
on slots, each a multiple of 8 words:
 0 state = number << 2 | mark (0 empty, 1 writing, 2 whole, 3 claimed), 1 level | flags << 16,
   2 policy version, 3 propensity, 4 bytes of the text | max_tokens << 32, 5 opened_ns, 6-8 task,
   9-11 tenant, 16 … text
"""

import os
import secrets
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from sprout_ext.reference.ledger import process_started
from sprout_ext.reference.words import Words, bits, create, fold, real, signed
from sprout_ext.ring import RingCounts

MAGIC = int.from_bytes(b"SPRRNG01", "little")
LAYOUT = 1 | 128 << 32
FIRST, HEAD = 32, 16  # words: where slots begin, and before a slot's text
EMPTY, WRITING, WHOLE, CLAIMED = range(4)
_WRITTEN, _TOO_LONG, _REFUSED, _UNKNOWN, _READ, _MISSED = 16, 17, 18, 19, 24, 25


@dataclass(frozen=True)
class RingPrompt:
    """As the core's."""

    number: int
    level: int
    flags: int
    policy_version: int
    propensity: float
    max_tokens: int
    opened_ns: int
    task: bytes
    tenant: bytes
    text: bytes


def _words(text: bytes) -> list[int]:
    padded = text.ljust(-(-len(text) // 8) * 8, b"\0")
    return [int.from_bytes(padded[i : i + 8], "little") for i in range(0, len(padded), 8)]


def _bytes(words: list[int]) -> bytes:
    return b"".join(word.to_bytes(8, "little") for word in words)


class _Slots:
    """An open ring."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.words = Words(path, FIRST * 8)
        head = self.words.read(0, 9)
        if head[0] != MAGIC or head[1] != LAYOUT or head[8] != fold(head[:8]):
            raise ValueError(f"{path}: not a ring")
        self.head = head
        self.slots, self.prompt_bytes = head[6] & 0xFFFFFFFF, head[6] >> 32
        self.stride = HEAD + -(-self.prompt_bytes // 64) * 8

    def at(self, number: int) -> int:
        """The word at which the slot of a prompt begins."""
        return FIRST + (number - 1) % self.slots * self.stride

    def held(self, at: int) -> int:
        """Words of the text in a slot."""
        return -(-min(self.words[at + 4] & 0xFFFFFFFF, self.prompt_bytes) // 8)

    def wipe(self, at: int) -> None:
        """The text, and whose it was."""
        self.words.write(at + HEAD, [0] * self.held(at))
        self.words.write(at + 6, [0] * 6)
        self.words[at + 4] = 0

    def counts(self) -> RingCounts:
        """Of the writer and of the reader."""
        return RingCounts(*self.words.read(_WRITTEN, 4), *self.words.read(_READ, 2))


class Ring:
    """The owner's side; opens a ring that there is, or `create`s one."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._slots = _Slots(self.path)

    @classmethod
    def create(
        cls,
        directory: str | PathLike[str],
        stub_index: int,
        node_id: int,
        *,
        slots: int,
        prompt_bytes: int,
    ) -> "Ring":
        """A new ring."""
        tag, pid = 1 + secrets.randbelow(0xFFFF), os.getpid()
        head = [MAGIC, LAYOUT, secrets.randbits(64), pid | stub_index << 32, process_started(pid)]
        head += [node_id, slots | prompt_bytes << 32, tag]
        path = Path(directory) / f"prompts-{tag:04x}"
        size = FIRST * 8 + slots * (HEAD * 8 + -(-prompt_bytes // 64) * 64)
        create(path, size, [*head, fold(head)], replace=False)
        return cls(path)

    def write(
        self,
        text: bytes,
        *,
        level: int,
        flags: int,
        policy_version: int,
        propensity: float,
        max_tokens: int,
        opened_ns: int,
        task: bytes,
        tenant: bytes,
    ) -> bool:
        """False: too long, or the reader is in the slot."""
        slots, words = self._slots, self._slots.words
        if max(len(task), len(tenant)) > 23:
            raise ValueError("task and tenant: at most 23 bytes")
        if len(text) > slots.prompt_bytes:
            words[_TOO_LONG] += 1
            return False
        number = words[_WRITTEN] + 1
        at = slots.at(number)
        if words[at] & 3 == CLAIMED:
            words[_WRITTEN] = number
            return False
        words[at] = number << 2 | WRITING
        held, spelt = slots.held(at), _words(text)
        facts = [level | flags << 16, policy_version, bits(propensity)]
        facts += [len(text) | max_tokens << 32, opened_ns]
        names = _words(task.ljust(24, b"\0")) + _words(tenant.ljust(24, b"\0"))
        words.write(at + 1, facts + names)
        words.write(at + HEAD, spelt + [0] * (held - len(spelt)))
        words[at] = number << 2 | WHOLE
        words[_WRITTEN] = number
        return True

    def refused(self) -> None:
        """Counts."""
        self._slots.words[_REFUSED] += 1

    def unknown(self) -> None:
        """Counts."""
        self._slots.words[_UNKNOWN] += 1

    def close(self, unlink: bool = False) -> None:
        """Lets go of the file."""
        self._slots.words.close()
        if unlink:
            self.path.unlink(missing_ok=True)


class RingReader:
    """The agent's side."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._slots = slots = _Slots(self.path)
        for number in range(1, slots.slots + 1):
            at = slots.at(number)
            if slots.words[at] & 3 == CLAIMED:
                slots.wipe(at)
                slots.words[at] &= ~3

    def drain(self) -> list[RingPrompt]:
        """What was written and not yet read; wiped."""
        slots, words = self._slots, self._slots.words
        written, read, missed = words[_WRITTEN], words[_READ], words[_MISSED]
        first = max(read, written - slots.slots)
        missed += first - read
        prompts = []
        for number in range(first + 1, written + 1):
            at = slots.at(number)
            if words[at] != number << 2 | WHOLE:
                missed += 1
            else:
                words[at] = number << 2 | CLAIMED
                prompts.append(self._read(number, at))
                slots.wipe(at)
                words[at] = number << 2 | EMPTY
            words[_MISSED] = missed
            words[_READ] = number
        return prompts

    def _read(self, number: int, at: int) -> RingPrompt:
        words, size = self._slots.words, self._slots.words[at + 4] & 0xFFFFFFFF
        return RingPrompt(
            number=number,
            level=words[at + 1] & 0xFF,
            flags=words[at + 1] >> 16 & 0xFFFF,
            policy_version=words[at + 2],
            propensity=real(words[at + 3]),
            max_tokens=words[at + 4] >> 32,
            opened_ns=signed(words[at + 5]),
            task=_bytes(words.read(at + 6, 3)).rstrip(b"\0"),
            tenant=_bytes(words.read(at + 9, 3)).rstrip(b"\0"),
            text=_bytes(words.read(at + HEAD, self._slots.held(at)))[:size],
        )

    def counts(self) -> RingCounts:
        """Of the writer and of the reader."""
        return self._slots.counts()

    def unlink(self) -> None:
        """Takes the file away."""
        self.path.unlink(missing_ok=True)
