# SPDX-License-Identifier: Apache-2.0
"""Options: the table covers the contract, refusals name the option, stop words parse."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprout.engines.options import OPTIONS, parse_word_list, refuse_unsupported
from sprout.errors import RequestError, UnsupportedOption

CONFIG = Path(__file__).parents[2] / "model_repository" / "tensorrt_llm" / "config.pbtxt"


def test_table_and_config_hold_the_same_inputs() -> None:
    text = CONFIG.read_text()
    inputs = text[text.index("\ninput [") : text.index("\noutput [")]
    assert sorted(re.findall(r'name: "(\w+)"', inputs)) == sorted(OPTIONS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beam_width", np.array([2], np.int32)),
        ("num_return_sequences", np.array([3], np.int32)),
        ("len_penalty", np.array([0.5], np.float32)),
        ("return_log_probs", np.array([True])),
        ("return_context_logits", np.array([True])),
        ("return_generation_logits", np.array([True])),
        ("bad_words_list", np.array([[[5], [1]]], np.int32)),
        ("embedding_bias", np.array([[0.0, 1.5]], np.float32)),
        ("draft_input_ids", np.array([[1]], np.int32)),
        ("prompt_embedding_table", np.zeros((1, 2, 3), np.float16)),
        ("lora_task_id", np.array([0], np.uint64)),
        ("guided_decoding_guide_type", np.array([[b"json"]], np.object_)),
        ("runtime_top_p_decay", np.array([0.9], np.float32)),
        ("lookahead_window_size", np.array([[4]], np.int32)),
    ],
)
@pytest.mark.parametrize("engine", ["llama_cpp", "openai", "echo"])
def test_refused_by_name(engine: str, name: str, value: np.ndarray) -> None:
    with pytest.raises(UnsupportedOption, match=f"^{name}.*{engine}"):
        refuse_unsupported(engine, {name: value})


def test_neutral_values_pass() -> None:
    refuse_unsupported(
        "llama_cpp",
        {
            "beam_width": np.array([1], np.int32),
            "len_penalty": np.array([1.0], np.float32),
            "return_log_probs": np.array([False]),
            "bad_words_list": np.zeros((1, 2, 0), np.int32),
            "embedding_bias": np.zeros((1, 7), np.float32),
            "decoder_input_ids": np.array([[2]], np.int32),
            "pad_id": np.array([2], np.int32),
            "temperature": np.array([0.3], np.float32),
        },
    )


def test_unknown_input() -> None:
    with pytest.raises(RequestError, match=r"^nonsense"):
        refuse_unsupported("echo", {"nonsense": np.array([1])})


def layout(words: list[list[int]], padding: int = 0) -> np.ndarray:
    """As stock preprocessing writes it."""
    ids = [token for word in words for token in word]
    ends = np.cumsum([len(word) for word in words]).tolist()
    length = max(1, len(ids)) + padding
    rows = [ids + [0] * (length - len(ids)), ends + [-1] * (length - len(ends))]
    return np.array([rows], np.int32)


@given(
    st.lists(st.lists(st.integers(0, 50_000), min_size=1, max_size=6), max_size=6),
    st.integers(0, 3),
)
def test_word_list_round_trip(words: list[list[int]], padding: int) -> None:
    assert parse_word_list("stop_words_list", layout(words, padding)) == tuple(map(tuple, words))


@pytest.mark.parametrize(
    "value",
    [
        [[[1, 2], [3, -1]]],  # beyond the ids
        [[[1, 2], [2, 1]]],  # not growing
        [[[1, 2], [-1, 1]]],  # after the end
        [[[1, 2], [0, -1]]],  # an empty word
        [[1, 2], [1, 2]],  # no batch dimension
        [[[1, 2]]],  # no offsets
        [[[1], [1]], [[1], [1]]],  # batch of two
    ],
)
def test_word_list_refused(value: list) -> None:
    with pytest.raises(RequestError, match=r"^stop_words_list"):
        parse_word_list("stop_words_list", np.array(value, np.int32))


def test_word_list_empty() -> None:
    assert parse_word_list("stop_words_list", np.zeros((1, 2, 0), np.int32)) == ()
