# SPDX-License-Identifier: Apache-2.0
"""Files as arrays of little-endian 64-bit words, and the hash that guards them (csrc/words.h)."""

import mmap
import os
import struct
from collections.abc import Iterable
from pathlib import Path

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix64(z: int) -> int:
    """splitmix64's finalizer."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def fold(words: Iterable[int]) -> int:
    """Words into one, by order."""
    value = 0
    for word in words:
        value = mix64(((value + GOLDEN) & MASK) ^ word)
    return value


def boot_id() -> int:
    """FNV-1a of the kernel's boot id, 36 characters; 0 where unreadable."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_bytes()[:36]
    except OSError:
        return 0
    value = 0xCBF29CE484222325
    for byte in text:
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value if len(text) == 36 else 0


def bits(value: float) -> int:
    """A double's bits."""
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def real(word: int) -> float:
    """The double of these bits."""
    return float(struct.unpack("<d", struct.pack("<Q", word))[0])


def signed(word: int) -> int:
    """A word as a signed number."""
    return word - (1 << 64) if word >> 63 else word


def spelt(text: bytes) -> list[int]:
    """The words of a text, zero-padded."""
    padded = text.ljust(-(-len(text) // 8) * 8, b"\0")
    return [int.from_bytes(padded[i : i + 8], "little") for i in range(0, len(padded), 8)]


def text_of(words: Iterable[int]) -> bytes:
    """The bytes of these words."""
    return b"".join(word.to_bytes(8, "little") for word in words)


def name_words(name: bytes) -> list[int]:
    """The three words of a tenant or task class."""
    return spelt(name.ljust(24, b"\0"))


def create(path: Path, size: int, first: Iterable[int], *, replace: bool) -> None:
    """A zeroed file of `size` bytes that starts with these words, in one step."""
    temporary = path.with_name(path.name + ".reference")
    body = b"".join(struct.pack("<Q", word) for word in first)
    temporary.write_bytes(body + bytes(size - len(body)))
    temporary.chmod(0o600)
    if replace:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink()


class Words:
    """A mapped file; index = byte offset / 8. ValueError: shorter than `least` bytes."""

    def __init__(self, path: Path, least: int) -> None:
        with path.open("r+b") as file:
            if os.fstat(file.fileno()).st_size < least:
                raise ValueError(f"{path}: too short")
            self._map = mmap.mmap(file.fileno(), 0)
        self.words = len(self._map) // 8

    def __getitem__(self, index: int) -> int:
        return int(struct.unpack_from("<Q", self._map, index * 8)[0])

    def __setitem__(self, index: int, word: int) -> None:
        struct.pack_into("<Q", self._map, index * 8, word & MASK)

    def read(self, index: int, count: int) -> list[int]:
        """`count` words from `index` on."""
        return [self[i] for i in range(index, index + count)]

    def write(self, index: int, words: Iterable[int]) -> None:
        """Words from `index` on."""
        for i, word in enumerate(words):
            self[index + i] = word

    def close(self) -> None:
        """Lets go of the file."""
        self._map.close()
