# SPDX-License-Identifier: Apache-2.0
"""A Generation as the body of /v1/completions: nothing is left to a server's own defaults."""

from typing import Any

import pytest
from engine_fakes import generation

from sprout.engines.openai_body import ServedModel, body, check, probe, served_model, signed
from sprout.errors import PromptTooLong

MODEL = ServedModel("m", context_tokens=64, owned_by="vllm")
TRTLLM = ServedModel("m", context_tokens=None, owned_by="tensorrt_llm")


def ask(stop: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return body(generation(**more), MODEL, stop=[*stop], repetition_penalty=1.0)


def test_prompt_and_length() -> None:
    asked = ask(max_tokens=8)
    assert asked["prompt"] == [1, 2, 3]
    assert (asked["max_tokens"], asked["min_tokens"], asked["stream"]) == (8, 0, True)
    assert all(type(token) is int for token in asked["prompt"])  # JSON knows no other


def test_nothing_asked_is_greedy() -> None:
    asked = ask()
    assert (asked["temperature"], asked["top_k"], asked["top_p"]) == (0, 0, 1)
    assert (asked["repetition_penalty"], asked["min_p"]) == (1, 0)
    assert (asked["presence_penalty"], asked["frequency_penalty"]) == (0, 0)
    assert "seed" not in asked


@pytest.mark.parametrize("more", [{"temperature": 0.0, "top_p": 0.5}, {"top_k": 1, "seed": 3}])
def test_greedy_by_value(more: dict[str, Any]) -> None:
    assert ask(**more)["temperature"] == 0


def test_sampling_is_explicit() -> None:
    asked = ask(temperature=0.5, seed=7)
    assert (asked["temperature"], asked["top_k"], asked["top_p"]) == (0.5, 0, 1.0)
    assert asked["seed"] == 7
    asked = ask(top_p=0.9, top_k=40)
    assert (asked["temperature"], asked["top_p"], asked["top_k"]) == (1.0, 0.9, 40)
    assert "seed" not in asked  # a seeded request slows its batch


def test_penalties() -> None:
    asked = ask(repetition_penalty=1.3, presence_penalty=0.0, frequency_penalty=-0.5)
    penalties = [asked[f"{name}_penalty"] for name in ("repetition", "presence", "frequency")]
    assert penalties == [1.3, 0.0, -0.5]


@pytest.mark.parametrize(
    ("end_id", "ignore", "stops"), [(None, False, []), (-1, True, []), (0, True, [0])]
)
def test_end_id(end_id: int | None, ignore: bool, stops: list[int]) -> None:
    asked = ask(end_id=end_id)
    assert (asked["ignore_eos"], asked["stop_token_ids"]) == (ignore, stops)


def test_stop_words_only_where_there_are_any() -> None:
    assert "stop" not in ask()
    assert ask(stop=("END",))["stop"] == ["END"]


def test_min_tokens_above_the_length_mean_the_length() -> None:
    assert ask(min_tokens=9, max_tokens=4)["min_tokens"] == 4


def test_each_server_is_asked_for_ids_in_its_own_way() -> None:
    assert ask()["return_token_ids"] is True
    assert "detokenize" not in ask()
    for asked in (
        body(generation(), TRTLLM, stop=[], repetition_penalty=1.0),
        probe(TRTLLM),
    ):
        assert asked["detokenize"] is False
        assert "return_token_ids" not in asked


@pytest.mark.parametrize(
    ("seed", "sent"), [(0, 0), (2**63 - 1, 2**63 - 1), (2**63, -(2**63)), (2**64 - 1, -1), (-1, -1)]
)
def test_seeds_keep_their_64_bits(seed: int, sent: int) -> None:
    assert signed(seed) == sent


def test_what_does_not_fit() -> None:
    check(generation(max_tokens=61), MODEL, 2048)
    with pytest.raises(PromptTooLong, match=r"3 tokens and max_tokens 62 .* at most 64"):
        check(generation(max_tokens=62), MODEL, 2048)
    check(generation(max_tokens=7), TRTLLM, 10)
    with pytest.raises(PromptTooLong, match="at most 10"):
        check(generation(max_tokens=8), TRTLLM, 10)


def test_the_model_that_is_served() -> None:
    listed = {"data": [{"id": "a", "owned_by": "vllm", "max_model_len": 64}, {"id": "b"}]}
    assert served_model(listed, "") == ServedModel("a", 64, "vllm")
    assert served_model(listed, "b") == ServedModel("b", None, "")
    with pytest.raises(LookupError, match="it serves a, b, not 'c'"):
        served_model(listed, "c")
    with pytest.raises(LookupError, match="no model"):
        served_model({"data": []}, "")
