# SPDX-License-Identifier: Apache-2.0
"""Token ids to text, in chunks whose concatenation is the text of all ids.

Every token stands for fixed bytes, so a stream of tokens is a stream of bytes, and an incremental
UTF-8 decoder gives out characters as they become whole. Bytes that can't become one are U+FFFD at
once: nothing stalls and nothing grows. (`tokenizers.DecodeStream` holds a stream back while it ends
in U+FFFD and decodes all that it holds again at each step.)

Of the two families of vocabularies one spells bytes in a printable alphabet (GPT-2, Llama-3, Qwen),
the other (SentencePiece: Llama-2, Mistral, Gemma) writes `▁` for a space and `<0xE4>` for a byte.
"""

import codecs
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Encoder

from sprout.errors import PrerequisiteError
from sprout.request.tokenizer import read_definition

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_new_utf8 = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """Bytes of every token, shared by all streams."""

    def __init__(self, definition: str, *, skip_special_tokens: bool = True) -> None:
        steps = _steps(json.loads(definition).get("decoder"))
        # SentencePiece puts a space before the first word; it is no part of the answer.
        self.strip_first = any(
            step["type"] == "Strip" or _adds_space(step) for step in steps.values()
        )
        spell = _spell_byte_level if "ByteLevel" in steps else _spell_sentencepiece
        encoder = Encoder.from_str(definition)
        self._bytes = {i: spell(token) for token, i in encoder.get_vocab().items()}
        if skip_special_tokens:
            for i, token in encoder.get_added_tokens_decoder().items():
                if token.special:
                    self._bytes[i] = b""

    def stream(self) -> "Stream":
        """A new stream of chunks."""
        return Stream(self)

    def decode(self, ids: Iterable[int], *, first: bool = True) -> str:
        """The text of a whole answer, or of a piece of one: its first, or a later one."""
        stream = Stream(self, first=first)
        return stream.push(ids) + stream.finish()

    def spell(self, ids: Iterable[int]) -> bytes:
        """Bytes of ids; ids that the vocabulary does not have (padding) are nothing."""
        table = self._bytes
        return b"".join([table.get(i, b"") for i in ids])


class Stream:
    """One answer in the making. Holds at most three bytes."""

    __slots__ = ("_owner", "_strip", "_utf8")

    def __init__(self, owner: Detokenizer, *, first: bool = True) -> None:
        self._owner = owner
        self._strip = first and owner.strip_first
        self._utf8 = _new_utf8("replace")

    def push(self, ids: Iterable[int]) -> str:
        """The characters that these ids make whole."""
        return self._clean(self._utf8.decode(self._owner.spell(ids)))

    def finish(self) -> str:
        """What is left at the end: U+FFFD for an unfinished character, or nothing."""
        return self._clean(self._utf8.decode(b"", final=True))

    def _clean(self, text: str) -> str:
        if self._strip and text:
            self._strip = False
            return text.removeprefix(" ")
        return text


def load(directory: Path, *, skip_special_tokens: bool = True) -> Detokenizer:
    """The detokenizer of a checkpoint directory."""
    return Detokenizer(read_definition(directory), skip_special_tokens=skip_special_tokens)


def _steps(decoder: Any) -> dict[str, dict[str, Any]]:
    """The decoder's steps by type. PrerequisiteError names one that is not of the two families."""
    kind = decoder["type"] if decoder else "none"
    steps = decoder["decoders"] if kind == "Sequence" else [decoder]
    known = {"ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
    for step in steps:
        if step is None or step["type"] not in known or not _known_form(step):
            raise PrerequisiteError(
                f"tokenizer.json has a decoder that can't be streamed: {json.dumps(step)}"
            )
    return {step["type"]: step for step in steps}


def _known_form(step: dict[str, Any]) -> bool:
    if step["type"] == "Replace":
        return bool(step["pattern"] == {"String": "▁"} and step["content"] == " ")
    if step["type"] == "Strip":
        return (step["content"], step["start"], step["stop"]) == (" ", 1, 0)
    return True


def _adds_space(step: dict[str, Any]) -> bool:
    return bool(step["type"] == "Metaspace" and step.get("prepend_scheme") != "never")


def _spell_sentencepiece(token: str) -> bytes:
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()


def _alphabet() -> dict[str, int]:
    """GPT-2's printable spelling of the 256 bytes (openai/gpt-2 `encoder.py`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}


_ALPHABET = _alphabet()


def _spell_byte_level(token: str) -> bytes:
    try:
        return bytes([_ALPHABET[character] for character in token])
    except KeyError:  # an added token, spelt as it is
        return token.encode()
