# SPDX-License-Identifier: Apache-2.0
"""A tokenizer directory from a GGUF file, written once at set-up.

The embedded engine brings its tokenizer inside the weights; the request path wants the two files
that any Hugging Face checkpoint has (tokenizer.json, tokenizer_config.json). Ids equal llama.cpp's
own, which a test checks against its server.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from sprout.chat import DEFAULT_SYSTEM_KEY, default_system_prompt
from sprout.errors import PrerequisiteError
from sprout.serve.weights import sha256

log = logging.getLogger(__name__)

# tokenizer.ggml.token_type (llama.cpp, llama_token_type)
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4

# Part of the folder's name: a folder that an older writer left is not used.
_FORMAT = 1

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

Keys = Callable[[str, Any], Any]  # (key after "tokenizer.", default) -> value


def tokenizer_dir(model: Path, cache: Path) -> Path:
    """`cache/<sha256[:12]>`, written if it is not there yet.

    Takes some seconds the first time and what hashing the file takes after that. Raises
    PrerequisiteError if the file can't be read, or has a tokenizer of a kind that is not supported.
    """
    try:
        digest = sha256(model)
    except OSError as error:
        raise PrerequisiteError(f"can't read the model {model}: {error.strerror}") from None
    target = cache / digest[:12]
    source = {"format": _FORMAT, "sha256": digest}
    if _source(target) == source:
        return target
    definition, config = convert(model)
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Written aside and moved in whole: a second process sees all of it or nothing.
    aside = Path(tempfile.mkdtemp(prefix=".tokenizer-", dir=cache))
    try:
        (aside / "tokenizer.json").write_text(definition, encoding="utf-8")
        (aside / "tokenizer_config.json").write_text(json.dumps(config, indent=1, sort_keys=True))
        (aside / "source.json").write_text(json.dumps(source))
        if target.exists() and _source(target) != source:
            shutil.rmtree(target)
        os.rename(aside, target)
    except OSError:
        if _source(target) != source:  # unless another process was first
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    log.info("wrote the tokenizer of %s to %s", model.name, target)
    return target


def convert(model: Path) -> tuple[str, dict[str, Any]]:
    """(text of tokenizer.json, content of tokenizer_config.json)."""
    keys = _reader(model)
    kind = keys("ggml.model", None)
    tokens: list[str] = keys("ggml.tokens", [])
    types: list[int] = keys("ggml.token_type", None) or [1] * len(tokens)
    if kind == "gpt2":
        tokenizer = _byte_level(keys, tokens)
    elif kind == "llama":
        tokenizer = _sentencepiece(keys, tokens, types)
    else:
        raise PrerequisiteError(
            f"{model.name} has a tokenizer of type {kind!r}; from a GGUF file, gpt2 and llama are"
            " supported: give the tokenizer directory of its checkpoint as engine.tokenizer_dir"
        )
    for special in (True, False):
        wanted = (CONTROL, UNKNOWN) if special else (USER_DEFINED,)
        added = [t for t, type_ in zip(tokens, types, strict=True) if type_ in wanted]
        new = [AddedToken(token, special=special, normalized=False) for token in added]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(new)
    if tokenizer.get_vocab_size() != len(tokens):
        raise PrerequisiteError(f"{model.name}: its tokenizer has tokens that occur twice")
    names = {
        name: tokens[index]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
        if (index := keys(f"ggml.{key}_token_id", None)) is not None
    }
    if keys("ggml.add_bos_token", kind == "llama") and "bos" in names:
        bos = names["bos"]
        tokenizer.post_processor = TemplateProcessing(
            single=f"{bos}:0 $A:0", special_tokens=[(bos, tokens.index(bos))]
        )
    template = keys("chat_template", None)
    config: dict[str, Any] = {f"{name}_token": token for name, token in names.items()}
    config |= {"chat_template": template, DEFAULT_SYSTEM_KEY: default_system_prompt(template)}
    return tokenizer.to_str(), config


def _byte_level(keys: Keys, tokens: list[str]) -> Tokenizer:
    pre = keys("ggml.pre", "default")
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if pre == "smollm":
        steps = [pre_tokenizers.Digits(individual_digits=True), whole]
    elif pre == "gpt-2":
        steps = [whole]
    elif pre in ("qwen2", "deepseek-r1-qwen"):
        split = pre_tokenizers.Split(Regex(_QWEN2), behavior="isolated")
        steps = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    else:
        raise PrerequisiteError(
            f"the pre-tokenizer {pre!r} is not supported from a GGUF file (smollm, gpt-2, qwen2"
            " are): give the tokenizer directory of its checkpoint as engine.tokenizer_dir"
        )
    merges = [tuple(merge.split(" ", 1)) for merge in keys("ggml.merges", [])]
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(keys: Keys, tokens: list[str], types: list[int]) -> Tokenizer:
    """Llama-2's kind: pieces with scores, which say in which order neighbours merge."""
    scores: list[float] = keys("ggml.scores", [])
    vocab = {token: i for i, token in enumerate(tokens)}
    pairs = []
    for index, (token, type_) in enumerate(zip(tokens, types, strict=True)):
        if type_ == 1:
            pairs += [
                (-scores[index], vocab[token[:cut]], vocab[token[cut:]], token[:cut], token[cut:])
                for cut in range(1, len(token))
                if token[:cut] in vocab and token[cut:] in vocab
            ]
    merges = [(left, right) for *_, left, right in sorted(pairs)]
    unknown = next((t for t, type_ in zip(tokens, types, strict=True) if type_ == UNKNOWN), None)
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    spaces = normalizers.Replace(" ", "▁")
    prefix = keys("ggml.add_space_prefix", True)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), spaces] if prefix else [spaces]
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(
        [*steps, decoders.Strip(" ", 1, 0)] if prefix else list(steps)
    )
    return tokenizer


def _reader(model: Path) -> Keys:
    try:
        from gguf import GGUFReader  # noqa: PLC0415 - heavy, and needed at set-up alone
    except ImportError:
        raise PrerequisiteError(
            "reading a GGUF file needs the gguf package: install sprout-serve[local]"
        ) from None
    try:
        fields = GGUFReader(model).fields
    except Exception as error:  # it raises what its parsing happens to raise
        raise PrerequisiteError(f"{model} is no readable GGUF file: {error}") from None

    def get(key: str, default: Any) -> Any:
        field = fields.get(f"tokenizer.{key}")
        return default if field is None else field.contents()

    return get


def _source(target: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((target / "source.json").read_text())
    except (OSError, ValueError):
        return None
    return found
