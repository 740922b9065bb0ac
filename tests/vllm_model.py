# SPDX-License-Identifier: Apache-2.0
"""A model for a real vLLM: a Llama's shape, the default weights' tokenizer, no weights of its own.

Start vLLM with `--load-format dummy`: they are random then. What it says means nothing.
"""

import json
import os
import shutil
from pathlib import Path

PYTHON = os.environ.get("VLLM_PYTHON", "")
ABSENT = "" if PYTHON else "VLLM_PYTHON names no interpreter with vLLM"
START_S = 600.0  # the first one compiles
SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 49_152,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def make(folder: Path, tokenizer_dir: Path, **shape: int) -> Path:
    """The folder, made. shape: what differs from SHAPE."""
    shutil.copytree(tokenizer_dir, folder)
    (folder / "config.json").write_text(json.dumps(SHAPE | shape))
    return folder
