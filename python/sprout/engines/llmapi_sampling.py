# SPDX-License-Identifier: Apache-2.0
"""A Generation as keywords of the LLM API's SamplingParams (TensorRT-LLM 1.2.1).

What the client left out is left out here too: the LLM's defaults are TensorRT-LLM's.
"""

from typing import Any

from sprout.engines.base import Generation
from sprout.errors import RequestError


def end_id_of(generation: Generation, own_end_id: int | None) -> int | None:
    """The token that ends the answer and is left out of it; None if none does."""
    if generation.end_id == -1:
        return None
    return own_end_id if generation.end_id is None else generation.end_id


def sampling(generation: Generation, own_end_id: int | None) -> dict[str, Any]:
    """RequestError where neither the client nor the LLM's tokenizer knows an end id."""
    g = generation
    asked: dict[str, Any] = {
        "max_tokens": g.max_tokens,
        "detokenize": False,  # `postprocessing` does
        **_ends(g, own_end_id),
    }
    given = {
        "temperature": g.temperature,
        "top_k": g.top_k,
        "top_p": g.top_p,
        "seed": g.seed,
        "min_tokens": g.min_tokens,
        "repetition_penalty": g.repetition_penalty,
        "presence_penalty": g.presence_penalty,
        "frequency_penalty": g.frequency_penalty,
    }
    asked |= {name: value for name, value in given.items() if value is not None}
    if g.temperature == 0:  # the LLM wants it above 0; what is meant is the likeliest token
        del asked["temperature"]
        asked["top_k"] = 1
        asked.pop("top_p", None)
    return asked


def _ends(g: Generation, own_end_id: int | None) -> dict[str, Any]:
    ends: dict[str, Any] = {}
    # Words of several tokens would need the LLM's tokenizer and come back as text; they are looked
    # for in the ids (`cut`), which is what TensorRT-LLM's own backend does.
    single = [word[0] for word in g.stop_words if len(word) == 1]
    if single:
        ends = {"stop_token_ids": single, "include_stop_str_in_output": True}
    if g.end_id == -1:
        ends["ignore_eos"] = True
    end_id = own_end_id if g.end_id in (None, -1) else g.end_id
    if end_id is None:
        raise RequestError("end_id: missing, and the LLM was started without a tokenizer")
    # Padding is of no concern to one sequence; SamplingParams takes the end id for it.
    ends["end_id"] = end_id
    return ends
