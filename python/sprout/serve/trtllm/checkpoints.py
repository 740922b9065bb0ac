# SPDX-License-Identifier: Apache-2.0
"""What a Hugging Face checkpoint's config.json says against a deployment."""

import json
from pathlib import Path
from typing import Any

from sprout.errors import ConfigError

_LLAMA = "LlamaForCausalLM"


def check(folder: Path, *, tensor_parallel: int, max_seq_len: int, convert: bool) -> None:
    """Raises ConfigError for what TensorRT-LLM, or Sprout's tokenizer, would fail at later.

    convert: it is to go through examples/models/core/llama/convert_checkpoint.py.
    """
    shape = _read(folder)
    if not (folder / "tokenizer.json").is_file():
        raise ConfigError(
            f"{folder} has no tokenizer.json: Sprout takes fast tokenizers alone; transformers' "
            "AutoTokenizer.from_pretrained(…).save_pretrained(…) writes one"
        )
    architectures = shape.get("architectures") or []
    if convert and _LLAMA not in architectures:
        raise ConfigError(
            f"{folder} is {', '.join(architectures) or 'of no stated architecture'}; the build "
            f"commands are for {_LLAMA}. Use --engine llmapi, which takes the checkpoint as it is"
        )
    heads = shape.get("num_attention_heads")
    if not isinstance(heads, int):
        raise ConfigError(f"{folder}/config.json does not say num_attention_heads")
    kv_heads = shape.get("num_key_value_heads") or heads
    if heads % tensor_parallel:
        raise ConfigError(
            f"tensor_parallel {tensor_parallel} does not divide the {heads} attention heads"
        )
    if kv_heads % tensor_parallel and tensor_parallel % kv_heads:
        raise ConfigError(
            f"tensor_parallel {tensor_parallel} does not divide the {kv_heads} key-value heads"
        )
    context = shape.get("max_position_embeddings")
    if isinstance(context, int) and max_seq_len > context and not shape.get("rope_scaling"):
        raise ConfigError(f"max_seq_len {max_seq_len} is beyond the model's context of {context}")


def _read(folder: Path) -> dict[str, Any]:
    try:
        shape = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"checkpoint {folder}: config.json: {error}") from None
    if not isinstance(shape, dict):
        raise ConfigError(f"checkpoint {folder}: config.json holds no object")
    return shape
