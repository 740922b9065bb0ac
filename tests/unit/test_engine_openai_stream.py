# SPDX-License-Identifier: Apache-2.0
"""The event stream of /v1/completions: ids, ends, and what is none."""

from typing import Any

import pytest

from sprout.engines.base import Reason
from sprout.engines.openai_stream import Tokens
from sprout.errors import EngineError, EngineUnavailable


def event(
    *ids: int, finish: str | None = None, stop_reason: int | str | None = None
) -> dict[str, Any]:
    choice = {"token_ids": [*ids], "finish_reason": finish, "stop_reason": stop_reason}
    return {"choices": [{"text": "x" * len(ids), **choice}]}


def run(*events: dict[str, Any]) -> tuple[list[list[int]], Reason | None]:
    tokens = Tokens()
    return [tokens.take(e) for e in events], tokens.reason


def test_several_tokens_in_an_event_and_the_limit() -> None:
    assert run(event(1, 2), event(3, finish="length")) == ([[1, 2], [3]], Reason.LENGTH)


def test_the_end_token_is_left_out() -> None:
    """vLLM's own end, and a `stop_token_ids` that comes with its id."""
    assert run(event(1), event(2, finish="stop")) == ([[1], []], Reason.END_ID)
    assert run(event(1, 9, finish="stop", stop_reason=9)) == ([[1]], Reason.END_ID)


def test_a_stop_token_that_the_server_left_out_takes_no_other_along() -> None:
    """trtllm-serve does so."""
    assert run(event(1, finish="stop", stop_reason=9)) == ([[1]], Reason.END_ID)
    assert run(event(1), event(finish="stop")) == ([[1], []], Reason.END_ID)


def test_a_stop_word_stays_in() -> None:
    assert run(event(1, 2, finish="stop", stop_reason="b")) == ([[1, 2]], Reason.STOP_WORD)


def test_events_without_a_choice_are_counts() -> None:
    used = {"choices": [], "usage": {"completion_tokens": 1}}
    assert run(used, event(1, finish="length"), used) == ([[], [1], []], Reason.LENGTH)


@pytest.mark.parametrize("finish", ["abort", "cancelled"])
def test_an_answer_that_the_server_cut_off_is_none(finish: str) -> None:
    with pytest.raises(EngineUnavailable, match=finish):
        run(event(1, finish=finish))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({}, "no completion"),
        ({"choices": [7]}, "no completion"),
        ({"choices": [{"token_ids": ["a"]}]}, "no completion"),
        ({"choices": [{"token_ids": [2**31]}]}, "no completion"),
        ({"choices": [{"token_ids": [2**70]}]}, "no completion"),
        ({"choices": [{"token_ids": [-1]}]}, "no completion"),
        ({"choices": [{"token_ids": [float("inf")]}]}, "no completion"),
        ({"choices": [{"text": "a"}]}, "without token ids"),
        ({"choices": [{"token_ids": [1], "finish_reason": "tool_calls"}]}, "tool_calls"),
    ],
)
def test_what_is_no_completion_in_ids(broken: dict[str, Any], said: str) -> None:
    with pytest.raises(EngineError, match=said):
        run(broken)
