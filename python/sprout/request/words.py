# SPDX-License-Identifier: Apache-2.0
"""Stop, bad and bias words in the layout that TensorRT-LLM takes them in."""

import numpy as np
from numpy.typing import NDArray

from sprout.errors import RequestError
from sprout.request.tensors import Array, texts
from sprout.request.tokenizer import Tokenizer


def word_list(tokenizer: Tokenizer, words: Array, name: str) -> NDArray[np.int32] | None:
    """`words` (n,) of bytes -> (1, 2, L); None if there is nothing in them.

    Row 0 holds the ids of all words in a line; row 1 where each ends, padded with -1; L is the
    number of ids. Empty words are skipped.
    """
    ids: list[int] = []
    ends: list[int] = []
    for word in texts(words, name):
        found = tokenizer.word(word)
        if found:
            ids += found
            ends.append(len(ids))
    if not ids:
        return None
    listed = np.full((1, 2, len(ids)), -1, np.int32)
    listed[0, 0] = ids
    listed[0, 1, : len(ends)] = ends
    return listed


def bias(tokenizer: Tokenizer, words: Array, weights: Array) -> NDArray[np.float32] | None:
    """`words` (n,) of bytes, `weights` (n,) -> (1, vocabulary); None if there are none.

    Every token of a word gets the word's weight.
    """
    if words.size != weights.size:
        raise RequestError(
            f"embedding_bias_weights has {weights.size} values for {words.size} words"
        )
    if not words.size:
        return None
    biased = np.zeros((1, tokenizer.vocab_size), np.float32)
    named = texts(words, "embedding_bias_words")
    for word, weight in zip(named, weights.ravel().tolist(), strict=True):
        for index in tokenizer.word(word):
            biased[0, index] += weight
    return biased
