# SPDX-License-Identifier: Apache-2.0
"""The ring of sampled prompts over its bytes (csrc/ring.h).

Words: 0-15 head (see head.py; 1 = 1 | 128 << 32, 3 pid | stub index << 32, 6 slots | bytes of the
longest prompt << 32); the writer's: 16 written, 17 too long, 18 refused, 19 unknown; the reader's:
24 read, 25 missed; from 32 on slots, each a multiple of 8 words:
 0 state = number << 2 | mark (0 empty, 1 writing, 2 whole, 3 claimed), 1 level | flags << 16,
   2 policy version, 3 propensity, 4 bytes of the text | max_tokens << 32, 5 opened_ns, 6-8 task,
   9-11 tenant, 16 … text
"""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from sprout_ext.reference.head import FileKind
from sprout_ext.reference.words import bits, name_words, real, signed, spelt, text_of
from sprout_ext.ring import RingCounts

RING = FileKind("ring", "prompts-", b"SPRRNG01", 1 | 128 << 32)
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


class _Slots:
    """An open ring."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.words, head = RING.open(path, FIRST * 8)
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
        size = FIRST * 8 + slots * (HEAD * 8 + -(-prompt_bytes // 64) * 64)
        shape = slots | prompt_bytes << 32
        return cls(RING.create(directory, size, upper=stub_index, node_id=node_id, shape=shape))

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
        held, written = slots.held(at), spelt(text)
        facts = [level | flags << 16, policy_version, bits(propensity)]
        facts += [len(text) | max_tokens << 32, opened_ns]
        words.write(at + 1, facts + name_words(task) + name_words(tenant))
        words.write(at + HEAD, written + [0] * (held - len(written)))
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
            task=text_of(words.read(at + 6, 3)).rstrip(b"\0"),
            tenant=text_of(words.read(at + 9, 3)).rstrip(b"\0"),
            text=text_of(words.read(at + HEAD, self._slots.held(at)))[:size],
        )

    def counts(self) -> RingCounts:
        """Of the writer and of the reader."""
        return self._slots.counts()

    def unlink(self) -> None:
        """Takes the file away."""
        self.path.unlink(missing_ok=True)
