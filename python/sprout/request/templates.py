# SPDX-License-Identifier: Apache-2.0
"""Chat templates: where a directive goes in a prompt, and what a client can't write there.

A prompt is a sequence of parts: `Tag` is one special token, a `str` is text that is encoded with
special tokens switched off, so that no text can become a tag. Two adjacent parts are never both
text: how text is cut changes its tokens.

Three cases. Plain text becomes the user turn of a new conversation. A prompt that is a whole
conversation already, rendered in the model's template from its opening to its generation prompt,
keeps all of its text and gets the directive inside its own system block. Anything else is plain
text, however much of a template it may hold.
"""

import re
from dataclasses import dataclass
from typing import Protocol


class Tag(str):
    """One special token, by its text."""

    __slots__ = ()


Part = str | Tag


@dataclass(frozen=True, slots=True)
class Directive:
    """What a level adds. `base` precedes the text where the client has no system prompt."""

    text: str
    base: str = ""

    @property
    def alone(self) -> str:
        """As a system prompt of its own."""
        return f"{self.base} {self.text}".strip()

    def after(self, system: str) -> str:
        """As an addition to the client's system prompt."""
        return f"{system}\n\n{self.text}" if system else self.alone


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around the user's text: before, opening + text + closing, after."""

    before: tuple[Part, ...]
    opening: str
    closing: str
    after: tuple[Part, ...]


class Template(Protocol):
    """A family of chat templates. `directive` None is L0: the model's own behaviour."""

    tags: tuple[Tag, ...]  # every special token that it writes

    def frame(self, directive: Directive | None) -> Frame:
        """Of a single user turn."""

    def user(self, text: str) -> str:
        """User text in which no tag of this family is left, changed as little as possible."""

    def rendered(self, text: str, directive: Directive | None) -> list[Part] | None:
        """A conversation that came rendered, with the directive; None if `text` is not one."""


class ChatML:
    """`<|im_start|>role\\ncontent<|im_end|>\\n` … The tags are special tokens."""

    START, END = Tag("<|im_start|>"), Tag("<|im_end|>")
    tags: tuple[Tag, ...] = (START, END)
    _HEADS = tuple((role, "\n") for role in ("system", "user", "assistant", "tool"))
    _TAG = re.compile(r"<\|im_(?:start|end)\|>")

    def __init__(self, default_system: str | None = None) -> None:
        self.default_system = default_system

    def frame(self, directive: Directive | None) -> Frame:
        system = self.default_system if directive is None else directive.alone
        block = () if system is None else (self.START, f"system\n{system}", self.END, "\n")
        after = (self.END, "\n", self.START, "assistant\n")
        return Frame((*block, self.START), "user\n", "", after)

    def user(self, text: str) -> str:
        return text  # the encoder makes no special token of text

    def rendered(self, text: str, directive: Directive | None) -> list[Part] | None:
        if not text.startswith(self.START):
            return None
        parts = _split(self._TAG, text)
        # START message END gap START message END gap … START message
        messages, gaps = parts[1::4], parts[3::4]
        if any(tag != self.START for tag in parts[0::4]) or any(
            tag != self.END for tag in parts[2::4]
        ):
            return None
        if parts[-2] != self.START or messages[-1].rstrip("\n") != "assistant":
            return None
        if any(gap.strip("\n") for gap in gaps):
            return None
        if any(m.partition("\n")[:2] not in self._HEADS for m in messages[:-1]):
            return None
        if directive is not None:
            role, _, system = messages[0].partition("\n")
            if role == "system":
                parts[1] = "system\n" + directive.after(system)
            else:
                parts[:0] = [self.START, f"system\n{directive.alone}", self.END, "\n"]
        return [part for part in parts if part]


class Llama2:
    """`[INST] <<SYS>>\\nsystem\\n<</SYS>>\\n\\nuser [/INST]`. The tags are plain text.

    After meta-llama/llama `llama/generation.py`: content is stripped, each turn has its own BOS and
    EOS, there is no system prompt by default. The tokenizer puts the first BOS.
    """

    BOS, EOS = Tag("<s>"), Tag("</s>")
    tags: tuple[Tag, ...] = (BOS, EOS)
    _TAG = re.compile(r"<s>|</s>|\[INST\]|\[/INST\]|<<SYS>>|<</SYS>>")
    # A tag is undone by one space behind its first bracket(s); nothing is taken away, so that
    # what is left can't close up to form another one.
    _UNDO = re.compile(r"(\[)(?=/?INST\])|(<<)(?=/?SYS>>)")

    def frame(self, directive: Directive | None) -> Frame:
        block = "" if directive is None else f"<<SYS>>\n{directive.alone}\n<</SYS>>\n\n"
        return Frame((), f"[INST] {block}", " [/INST]", ())

    def user(self, text: str) -> str:
        text = text.strip()
        return self._UNDO.sub(r"\g<0> ", text) if "[" in text or "<<" in text else text

    def rendered(self, text: str, directive: Directive | None) -> list[Part] | None:
        if not text.startswith(("[INST]", "<s>[INST]", "<s> [INST]")):
            return None
        parts = _split(self._TAG, text)
        if parts[0] == self.BOS:  # the tokenizer puts it
            if parts[1].strip():
                return None
            del parts[:2]
        tags = parts[0::2]
        system = tags[1:3] == ["<<SYS>>", "<</SYS>>"]
        if system:
            if parts[1].strip():
                return None
            tags = [tags[0], *tags[3:]]
        # [INST] [/INST] (EOS BOS [INST] [/INST])*, and after the last one nothing
        turn = ["[INST]", "[/INST]"]
        turns, rest = divmod(len(tags) + 2, 4)
        if rest or tags != turn + [self.EOS, self.BOS, *turn] * (turns - 1):
            return None
        if parts[-1].strip() or any(
            gap.strip() for tag, gap in zip(parts[0::2], parts[1::2], strict=True) if _bare(tag)
        ):
            return None
        if directive is not None:
            if system:
                body = parts[3].strip("\n")
                parts[3] = f"\n{directive.after(body)}\n"
            else:
                block = f" <<SYS>>\n{directive.alone}\n<</SYS>>\n\n"
                parts[1] = block + parts[1].lstrip()
        return _joined(parts, (self.BOS, self.EOS))


class Raw:
    """No template: the directive is a line in front of the text."""

    tags: tuple[Tag, ...] = ()

    def frame(self, directive: Directive | None) -> Frame:
        return Frame((), "" if directive is None else f"{directive.text}\n", "", ())

    def user(self, text: str) -> str:
        return text

    def rendered(self, text: str, directive: Directive | None) -> list[Part] | None:
        return None


def _split(tag: re.Pattern[str], text: str) -> list[str]:
    """[tag, text, tag, text, …]; `text` starts with a tag."""
    parts: list[str] = []
    end = 0
    for match in tag.finditer(text):
        if parts:
            parts.append(text[end : match.start()])
        parts.append(Tag(match.group()))
        end = match.end()
    parts.append(text[end:])
    return parts


def _bare(tag: str) -> bool:
    """Nothing but space follows it."""
    return tag in (Llama2.BOS, Llama2.EOS)


def _joined(parts: list[str], special: tuple[Tag, ...]) -> list[Part]:
    """Tags that are no special tokens become text again, and adjacent text becomes one."""
    joined: list[Part] = []
    for part in parts:
        if part in special and isinstance(part, Tag):
            joined.append(part)
        elif joined and not isinstance(joined[-1], Tag):
            joined[-1] += part
        elif part:
            joined.append(str(part))
    return joined
