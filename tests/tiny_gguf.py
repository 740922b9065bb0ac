# SPDX-License-Identifier: Apache-2.0
"""GGUF files with a given vocabulary and random weights: small enough to write in a test, whole
enough for llama.cpp to load."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


def sentencepiece(path: Path) -> Path:
    """Llama-2's kind: scored pieces, byte fallback, BOS in front."""
    letters = [*"▁abcdefghijklmnopqrstuvwxyzABTHINSY0123456789.,!?[]/<>éü日本語", "\n"]
    joined = """
        ▁t he ▁the ▁th in an ▁a er on re ▁b at ▁in en nd ing ▁and ▁an ▁w or ▁s ▁f to ou ▁to is ▁h
        al it ▁he ll ▁quick ick ui ▁qu ▁q ▁qui ▁brown own row ow ▁br ▁fox ox ▁fo ▁▁ ▁▁▁▁ ab aba
        bab aa aaa aaaa 日本 日本語 ▁1 ▁12 12 123 ST INST
    """.split()  # noqa: SIM905 - a list literal would be a page
    pieces = [*joined, *letters]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    writer = _writer(path, len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(i) for i in range(len(pieces))])
    writer.add_token_types([UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(pieces)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_chat_template("{{ bos_token }}[INST] {{ messages[0]['content'] }} [/INST]")
    return _finish(writer, path, len(tokens))


def byte_level(
    path: Path, pre: str, tokens: list[str], types: list[int], merges: list[str]
) -> Path:
    """GPT-2's kind, with the pre-tokenizer that `pre` names."""
    writer = _writer(path, len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    return _finish(writer, path, len(tokens))


_WIDTH, _INNER = 32, 64


def _writer(path: Path, vocabulary: int) -> GGUFWriter:
    writer = GGUFWriter(path, "llama")
    writer.add_vocab_size(vocabulary)
    writer.add_context_length(256)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // 4)
    return writer


def _finish(writer: GGUFWriter, path: Path, vocabulary: int) -> Path:
    draw = np.random.default_rng(0)
    shapes = {
        "token_embd": (vocabulary, _WIDTH),
        "output": (vocabulary, _WIDTH),
        "output_norm": (_WIDTH,),
        "blk.0.attn_norm": (_WIDTH,),
        "blk.0.ffn_norm": (_WIDTH,),
        "blk.0.attn_q": (_WIDTH, _WIDTH),
        "blk.0.attn_k": (_WIDTH, _WIDTH),
        "blk.0.attn_v": (_WIDTH, _WIDTH),
        "blk.0.attn_output": (_WIDTH, _WIDTH),
        "blk.0.ffn_gate": (_INNER, _WIDTH),
        "blk.0.ffn_up": (_INNER, _WIDTH),
        "blk.0.ffn_down": (_WIDTH, _INNER),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draw.standard_normal(shape).astype(np.float32) * 0.02)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
