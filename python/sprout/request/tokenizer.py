# SPDX-License-Identifier: Apache-2.0
"""Text to token ids, exact: built once from `tokenizer_dir`, a Hugging Face checkpoint directory.

Text is encoded with special tokens switched off, so that `<|im_end|>` in a prompt is nine
characters of text. Special tokens come from `Tag` parts alone.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken
from tokenizers import Tokenizer as Encoder

from sprout.chat import DEFAULT_SYSTEM_KEY, default_system_prompt
from sprout.errors import PrerequisiteError
from sprout.request.templates import Part, Tag

Ids = NDArray[np.int32]  # (tokens,)
# One piece of a prompt: ids that stand already, or text that is still to be encoded.
Piece = Ids | str


class Tokenizer:
    """`config` is tokenizer_config.json, `definition` the text of tokenizer.json."""

    def __init__(self, definition: str, config: Mapping[str, Any]) -> None:
        self._encoder = Encoder.from_str(definition)
        self._encoder.no_truncation()
        self._encoder.no_padding()
        self._encoder.encode_special_tokens = True
        # Only for words that operators or clients give as words: stop, bad and bias words.
        self._special_encoder = Encoder.from_str(definition)
        self._special_encoder.no_truncation()
        self._special_encoder.no_padding()
        template = config.get("chat_template")
        if isinstance(template, list):  # several named ones
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
        self.chat_template: str | None = template
        self._config = config
        self._tags: dict[str, Ids] = {}
        self.prefix, self.suffix = self._around()
        self.eos_id = self._named_id("eos_token")
        # As the stock model does: without a pad token, the end token pads.
        pad = self._named_id("pad_token")
        self.pad_id = self.eos_id if pad is None else pad
        self.word = lru_cache(maxsize=4096)(self._word)

    @property
    def vocab_size(self) -> int:
        """Special tokens included."""
        return int(self._encoder.get_vocab_size(with_added_tokens=True))

    @property
    def default_system(self) -> str | None:
        """The system prompt that the model's template puts in where there is none."""
        if DEFAULT_SYSTEM_KEY in self._config:
            stated = self._config[DEFAULT_SYSTEM_KEY]
            return None if stated is None else str(stated)
        return default_system_prompt(self.chat_template)

    def tag(self, tag: str) -> Ids:
        """The id of one special token, shape (1,). PrerequisiteError if there is no such token.

        From its first use on, text can't spell it, even if the checkpoint calls it an ordinary one.
        """
        if tag not in self._tags:
            found = self._encoder.token_to_id(tag)
            if found is None:
                raise PrerequisiteError(
                    f"the tokenizer has no token {tag!r}, which the chat template needs:"
                    " choose another sprout_chat_template"
                )
            self._encoder.add_special_tokens([AddedToken(tag, special=True, normalized=False)])
            self._tags[tag] = np.array([found], np.int32)
        return self._tags[tag]

    def pieces(self, parts: Sequence[Part]) -> list[Piece]:
        """Parts with their tags turned into ids; the text is left as it is."""
        return [self.tag(part) if isinstance(part, Tag) else part for part in parts]

    def fixed(self, parts: Sequence[Part]) -> Ids:
        """Ids of parts that are all known beforehand, shape (tokens,)."""
        return self.encode([self.pieces(parts)])[0] if parts else np.empty(0, np.int32)

    def encode(self, prompts: Sequence[Sequence[Piece]]) -> list[Ids]:
        """Ids of each prompt, shape (tokens,). One call for a whole batch: it runs on all cores."""
        texts = [piece for prompt in prompts for piece in prompt if isinstance(piece, str)]
        encodings = iter(self._encoder.encode_batch_fast(texts, add_special_tokens=False))
        found: list[Ids] = []
        for prompt in prompts:
            arrays = [
                np.array(next(encodings).ids, np.int32) if isinstance(piece, str) else piece
                for piece in prompt
            ]
            found.append(np.concatenate(arrays) if len(arrays) > 1 else arrays[0])
        return found

    def encode_marked(self, text: str) -> Ids:
        """Ids of text whose special tokens count as such, as the stock model encodes it."""
        encoding = self._special_encoder.encode(text, add_special_tokens=False)
        return np.array(encoding.ids, np.int32)

    def _word(self, word: str) -> tuple[int, ...]:
        """Ids of a word that stands for itself; a special token's text is that token."""
        encoding = self._special_encoder.encode(word, add_special_tokens=False)
        return tuple(encoding.ids)

    def _around(self) -> tuple[Ids, Ids]:
        """What the tokenizer puts before and after a text (BOS, EOS), shapes (n,)."""
        bare = self._encoder.encode("a", add_special_tokens=False).ids
        full = self._encoder.encode("a", add_special_tokens=True).ids
        at = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        return np.array(full[:at], np.int32), np.array(full[at + len(bare) :], np.int32)

    def _named_id(self, key: str) -> int | None:
        token = self._config.get(key)
        text = token.get("content") if isinstance(token, Mapping) else token
        return None if text is None else self._encoder.token_to_id(text)


def read_definition(directory: Path) -> str:
    """The text of tokenizer.json. PrerequisiteError says how to get one."""
    try:
        return (directory / "tokenizer.json").read_text(encoding="utf-8")
    except OSError as error:
        raise PrerequisiteError(
            f"no readable tokenizer.json in {directory} ({error.strerror}): tokenizer_dir must be a"
            " Hugging Face checkpoint with a fast tokenizer; transformers'"
            " AutoTokenizer.from_pretrained(…).save_pretrained(…) writes one"
        ) from None


def load(directory: Path) -> Tokenizer:
    """The tokenizer of a checkpoint directory."""
    definition = read_definition(directory)
    try:
        config = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        config = {}
    except (OSError, ValueError) as error:
        raise PrerequisiteError(f"{directory}/tokenizer_config.json: {error}") from None
    # Newer checkpoints keep the template in a file of its own.
    separate = directory / "chat_template.jinja"
    if "chat_template" not in config and separate.exists():
        config["chat_template"] = separate.read_text(encoding="utf-8")
    try:
        return Tokenizer(definition, config)
    except PrerequisiteError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise PrerequisiteError(f"{directory}/tokenizer.json: {error}") from None
