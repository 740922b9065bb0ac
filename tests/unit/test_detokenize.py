# SPDX-License-Identifier: Apache-2.0
"""Chunks put together are the text of all ids, whatever the cuts."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from sprout.errors import PrerequisiteError
from sprout.request.detokenize import _ALPHABET, Detokenizer

# Every byte is a token, and some words are.
_SPELT = {byte: character for character, byte in _ALPHABET.items()}


def spelt(text: str) -> str:
    return "".join(_SPELT[byte] for byte in text.encode())


WORDS = [" the", " a", "Hello", " world", "\n\n", " é", "日本", " 😀", "\ufffd", "  "]


def byte_level() -> Tokenizer:
    tokens = ["<|end|>", *(_SPELT[b] for b in range(256)), *(spelt(word) for word in WORDS)]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    tokenizer.add_tokens([AddedToken("<tool call>", special=False)])
    return tokenizer


def sentencepiece() -> Tokenizer:
    pieces = ["▁the", "▁a", "Hello", "▁world", "▁", "é", "日", "本", "▁▁", "\n", "x"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *pieces]
    vocab = {t: i for i, t in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")]
    )
    return tokenizer


BYTE_LEVEL, SENTENCEPIECE = byte_level(), sentencepiece()
BYTES, PIECES = Detokenizer(BYTE_LEVEL.to_str()), Detokenizer(SENTENCEPIECE.to_str())


def chunks_of(ids, cuts):
    edges = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    return [ids[a:b] for a, b in pairwise(edges)]


def streamed(detokenizer, chunks):
    stream = detokenizer.stream()
    return [stream.push(chunk) for chunk in chunks] + [stream.finish()]


def ids_of(tokenizer):
    return st.lists(st.integers(0, tokenizer.get_vocab_size() - 1), max_size=60)


cuts = st.lists(st.integers(0, 60), max_size=20)
# Text as its bytes, one token each: every character is cut everywhere.
texts = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from("😀👍🏽日本語 é\u200d\ufe0f")),
    max_size=30,
)


@given(ids_of(BYTE_LEVEL), cuts)
def test_byte_level_chunks_are_the_whole(ids, cut):
    chunks = chunks_of(ids, cut)
    assert "".join(streamed(BYTES, chunks)) == BYTE_LEVEL.decode(ids, skip_special_tokens=True)


@given(texts, cuts)
def test_byte_level_text_of_any_language(text, cut):
    ids = [byte + 1 for byte in text.encode()]
    assert "".join(streamed(BYTES, chunks_of(ids, cut))) == text


@given(texts, cuts)
def test_byte_fallback_text_of_any_language(text, cut):
    ids = [byte + 3 for byte in text.encode()]
    parts = streamed(PIECES, chunks_of(ids, cut))
    assert "".join(parts) == SENTENCEPIECE.decode(ids) == text.removeprefix(" ")


@given(ids_of(SENTENCEPIECE), cuts)
def test_sentencepiece_chunks_are_the_whole(ids, cut):
    got = "".join(streamed(PIECES, chunks_of(ids, cut)))
    want = SENTENCEPIECE.decode(ids, skip_special_tokens=True)
    if "\ufffd" not in want:
        assert got == want
    # Where bytes are broken the library gives up the whole run of byte tokens; a stream, which has
    # given out its whole characters already, replaces the broken ones.
    assert got == PIECES.spell(ids).decode("utf-8", "replace").removeprefix(" ")


@given(st.lists(st.integers(1, 256), max_size=60), cuts)
def test_no_chunk_holds_a_part_of_a_character(ids, cut):
    # A chunk that ended inside a character would show as U+FFFD that the whole does not have.
    whole = BYTE_LEVEL.decode(ids)
    assert sum(part.count("\ufffd") for part in streamed(BYTES, chunks_of(ids, cut))) == (
        whole.count("\ufffd")
    )


def test_spaces_between_chunks_survive():
    ids = [SENTENCEPIECE.token_to_id(t) for t in ("▁the", "▁world", "▁", "x")]
    assert streamed(PIECES, [[i] for i in ids]) == ["the", " world", " ", "x", ""]


def test_special_tokens_are_skipped_unless_asked_for():
    end, tool = BYTE_LEVEL.token_to_id("<|end|>"), BYTE_LEVEL.token_to_id("<tool call>")
    assert BYTES.decode([end, tool]) == "<tool call>"
    shown = Detokenizer(BYTE_LEVEL.to_str(), skip_special_tokens=False)
    assert shown.decode([end, tool]) == "<|end|><tool call>"


def test_special_token_inside_a_character_does_not_split_it():
    e, c = (byte + 1 for byte in "é".encode())
    assert streamed(BYTES, [[e], [0], [c]]) == ["", "", "é", ""]


def test_ids_outside_the_vocabulary_are_nothing():
    assert BYTES.decode([-1, 10**6, BYTE_LEVEL.token_to_id(spelt("Hello"))]) == "Hello"


def test_unfinished_character_shows_at_the_end_only():
    assert streamed(BYTES, [[0xE6 + 1], [0x97 + 1]]) == ["", "", "\ufffd"]


@pytest.mark.parametrize("detokenizer", [BYTES, PIECES])
def test_broken_bytes_neither_stall_nor_grow(detokenizer):
    offset = 1 if detokenizer is BYTES else 3
    stream = detokenizer.stream()
    shown = [stream.push([0xFF + offset]) for _ in range(100_000)]  # quadratic would be hours
    assert all(part == "\ufffd" for part in shown)


def test_unknown_decoder_is_refused_by_name():
    definition = json.loads(BYTE_LEVEL.to_str())
    definition["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    with pytest.raises(PrerequisiteError, match="WordPiece"):
        Detokenizer(json.dumps(definition))
