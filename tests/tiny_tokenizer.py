# SPDX-License-Identifier: Apache-2.0
"""A tokenizer in which every byte is a token: ids can be read, and nothing is needed on disk."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from sprout.request.detokenize import _ALPHABET

CHATML = "{{'<|im_start|>system\nYou are Tiny<|im_end|>\n'}}…{{'<|im_start|>assistant\n'}}"
LLAMA2 = "{{ '[INST] ' + content + ' [/INST]' }}"


def definition(specials: tuple[str, ...], *, bos: str | None = None) -> str:
    """Text of tokenizer.json. Special tokens come first, then byte b is id len(specials) + b."""
    spelt = {byte: character for character, byte in _ALPHABET.items()}
    tokens = [*specials, *(spelt[byte] for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in specials])
    if bos:
        tokenizer.post_processor = TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, specials.index(bos))]
        )
    return tokenizer.to_str()


def chatml(directory: Path) -> Path:
    """A checkpoint directory: ids 0 and 1 are <|im_start|> and <|im_end|>, bytes from 2."""
    specials = ("<|im_start|>", "<|im_end|>")
    config = {
        "chat_template": CHATML,
        "eos_token": "<|im_end|>",
        "sprout_default_system_prompt": "You are Tiny",
    }
    return _write(directory, definition(specials), config)


def llama2(directory: Path) -> Path:
    """A checkpoint directory: ids 0, 1, 2 are <unk>, <s>, </s>, bytes from 3; <s> comes first."""
    config = {"chat_template": LLAMA2, "bos_token": {"content": "<s>"}, "eos_token": "</s>"}
    return _write(directory, definition(("<unk>", "<s>", "</s>"), bos="<s>"), config)


def raw(directory: Path) -> Path:
    """A checkpoint directory without a chat template: id 0 is <|end|>, bytes from 1."""
    return _write(directory, definition(("<|end|>",)), {"eos_token": "<|end|>"})


def _write(directory: Path, text: str, config: dict[str, object]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(text)
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory
