# SPDX-License-Identifier: Apache-2.0
"""A Generation as llama.cpp's request body: nothing is left to llama.cpp's own defaults."""

from typing import Any

import numpy as np
import pytest

from sprout.engines.base import Generation
from sprout.engines.llama_body import ModelInfo, body, check, fold_seed, model_info
from sprout.errors import PromptTooLong, RequestError

INFO = ModelInfo(vocabulary=100, context_tokens=64, end_ids=frozenset({0, 2}), sentencepiece=False)


def generation(**more: Any) -> Generation:
    given = {"request_id": "", "input_ids": np.array([1, 2, 3], np.int32), "max_tokens": 8}
    return Generation(**(given | more))


def ask(**more: Any) -> dict[str, Any]:
    g = generation(**more)
    return body(g, INFO, stop=[], repetition_penalty=1.1, cache_prompt=False)


def test_nothing_asked_is_greedy() -> None:
    asked = ask()
    assert (asked["temperature"], asked["top_k"]) == (0, 1)
    assert asked["samplers"] == ["penalties", "top_k"]
    assert (asked["repeat_penalty"], asked["repeat_last_n"]) == (1.1, 64)
    assert (asked["presence_penalty"], asked["frequency_penalty"]) == (0, 0)
    assert asked["cache_prompt"] is False


@pytest.mark.parametrize("more", [{"temperature": 0.0, "top_p": 0.5}, {"top_k": 1, "seed": 3}])
def test_greedy_by_value(more: dict[str, Any]) -> None:
    assert ask(**more)["top_k"] == 1
    assert ask(**more)["temperature"] == 0


def test_sampling_is_explicit() -> None:
    asked = ask(temperature=0.5, seed=7)
    assert (asked["temperature"], asked["top_k"], asked["top_p"]) == (0.5, 0, 1.0)
    assert (asked["min_p"], asked["seed"]) == (0, 7)
    assert "min_p" not in asked["samplers"]
    asked = ask(top_p=0.9)
    assert (asked["temperature"], asked["top_p"], asked["seed"]) == (1.0, 0.9, 0)
    asked = ask(top_k=40, repetition_penalty=1.0)
    assert (asked["top_k"], asked["repeat_penalty"]) == (40, 1.0)


@pytest.mark.parametrize(("end_id", "ignore"), [(None, False), (-1, True), (2, False), (50, True)])
def test_end_id(end_id: int | None, ignore: bool) -> None:
    assert ask(end_id=end_id)["ignore_eos"] is ignore


def test_seed_folds_to_32_bits_and_never_means_random() -> None:
    assert fold_seed(5) == 5
    assert fold_seed(2**32) == 1
    assert fold_seed(2**64 - 1) == 0
    assert fold_seed(0xFFFFFFFF) == 0
    assert len({fold_seed(seed << 20) for seed in range(10_000)}) == 10_000


def test_what_does_not_fit() -> None:
    check(generation(max_tokens=61), INFO, 2048)
    with pytest.raises(PromptTooLong, match=r"3 tokens and max_tokens 62 .* at most 64"):
        check(generation(max_tokens=62), INFO, 2048)
    with pytest.raises(PromptTooLong, match="at most 10"):
        check(generation(), INFO, 10)


@pytest.mark.parametrize(
    "more",
    [
        {"input_ids": np.array([1, 100], np.int32)},
        {"end_id": 100},
        {"stop_words": ((1, 100),)},
        {"stop_words": ((-3,),)},
    ],
)
def test_ids_outside_the_vocabulary(more: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="vocabulary"):
        check(generation(**more), INFO, 2048)


def test_model_info() -> None:
    models = {"data": [{"meta": {"n_vocab": 49152, "n_ctx": 2048, "vocab_type": 2}}]}
    probe = {"generation_settings/logit_bias": [{"bias": None, "token": 0}, {"token": 2}]}
    assert model_info(models, probe) == ModelInfo(49152, 2048, frozenset({0, 2}), False)
