# SPDX-License-Identifier: Apache-2.0
"""What a Generation means, whatever dialect its request body is written in."""

from sprout.engines.base import Generation
from sprout.errors import PromptTooLong

# By engine, where neither client nor operator says; 1 else. llama.cpp's is for the small model that
# it is started with by default, which repeats itself without.
REPETITION_PENALTY = {"llama_cpp": 1.1}


def check_length(generation: Generation, limit_tokens: int) -> None:
    """Raises PromptTooLong where prompt and answer do not fit together, with the limit."""
    prompt = len(generation.input_ids)
    if prompt + generation.max_tokens > limit_tokens:
        raise PromptTooLong(
            f"the prompt of {prompt} tokens and max_tokens {generation.max_tokens} do not fit: "
            f"together at most {limit_tokens} tokens"
        )


def is_greedy(generation: Generation) -> bool:
    """As in TensorRT-LLM, an answer is greedy unless sampling is asked for."""
    g = generation
    sampled = g.temperature is not None or g.top_k is not None or g.top_p is not None
    return not sampled or g.temperature == 0 or g.top_k == 1


def either(value: float | None, default: float) -> float:
    """Zero is a value."""
    return default if value is None else value
