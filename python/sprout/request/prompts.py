# SPDX-License-Identifier: Apache-2.0
"""A client's text under a level, as pieces that are ready to be encoded."""

import logging
from dataclasses import dataclass

import numpy as np

from sprout import chat
from sprout.directives import Pack
from sprout.errors import RequestError
from sprout.request.templates import ChatML, Directive, Llama2, Raw, Template
from sprout.request.tokenizer import Ids, Piece, Tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Frame:
    """A level's surroundings of a user's text, encoded beforehand."""

    before: Ids
    opening: str
    closing: str
    after: Ids


class Prompter:
    """Knows the template, the texts of the levels and the tokenizer's own BOS and EOS."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        pack: Pack,
        *,
        chat_template: str = "auto",
        accept_rendered: bool = True,
        add_special_tokens: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = _template(chat_template, tokenizer)
        self._accept_rendered = accept_rendered
        for tag in self._template.tags:  # before any text is encoded
            tokenizer.tag(tag)
        nothing = np.empty(0, np.int32)
        self._prefix = tokenizer.prefix if add_special_tokens else nothing
        self._suffix = tokenizer.suffix if add_special_tokens else nothing
        self._directives = [
            Directive(text, pack.base_system_prompt) if text else None for text in pack.directives
        ]
        self._frames = [self._frame(directive) for directive in self._directives]

    def pieces(self, text: str, level: int) -> list[Piece]:
        """The prompt. An empty text is an empty user turn; without a template, a RequestError."""
        template = self._template
        if self._accept_rendered:
            parts = template.rendered(text, self._directives[level])
            if parts is not None:
                return [self._prefix, *self._tokenizer.pieces(parts), self._suffix]
        frame = self._frames[level]
        if isinstance(template, Raw):
            if not text:
                raise RequestError("text_input is empty, and there is no chat template around it")
            if self._accept_rendered:
                # In a template that we don't know: its special tokens must stay what they are.
                marked = self._tokenizer.encode_marked(frame.opening + text)
                return [frame.before, marked, frame.after]
        return [frame.before, frame.opening + template.user(text) + frame.closing, frame.after]

    def _frame(self, directive: Directive | None) -> _Frame:
        frame = self._template.frame(directive)
        encode = self._tokenizer.fixed
        return _Frame(
            np.concatenate((self._prefix, encode(frame.before))),
            frame.opening,
            frame.closing,
            np.concatenate((encode(frame.after), self._suffix)),
        )


def _template(named: str, tokenizer: Tokenizer) -> Template:
    """The template family that is configured, or that of the model's own chat template."""
    family = chat.family(tokenizer.chat_template) if named == "auto" else named
    if family == "chatml":
        return ChatML(tokenizer.default_system)
    if family == "llama2":
        return Llama2()
    if named == "auto":
        log.warning(
            "the model's chat template is of no known family (ChatML, Llama-2): prompts pass as"
            " they are, with the directive as a line in front"
        )
    return Raw()
