# SPDX-License-Identifier: Apache-2.0
"""A Generation as the body of POST /v1/completions, in token ids.

Every sampling value is written out: a server takes what is missing from its model's
`generation_config.json` (vLLM) or from its own command line. Here, as in TensorRT-LLM: greedy
unless asked otherwise, and no penalties.

Two servers are known to return token ids, each when asked in its own way: `return_token_ids` is
vLLM's (0.10.2 and later), `detokenize: false` is trtllm-serve's, which refuses fields of others.
"""

from dataclasses import dataclass
from typing import Any

from sprout.engines.base import Generation
from sprout.engines.body import check_length, either, is_greedy

_TRTLLM = "tensorrt_llm"  # what trtllm-serve says in `owned_by`


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What the server says of the model that is asked for."""

    name: str
    context_tokens: int | None  # prompt + answer; None: it does not say
    owned_by: str  # the server's own name, in vLLM and trtllm-serve

    @property
    def ids_field(self) -> dict[str, bool]:
        """The field that makes the server return token ids."""
        if self.owned_by == _TRTLLM:
            return {"detokenize": False}
        return {"return_token_ids": True}


def served_model(models: Any, wanted: str) -> ServedModel:
    """models: the answer of GET /v1/models. wanted: a name; empty: the first that is listed.

    Raises KeyError, TypeError, ValueError, IndexError for anything else, LookupError with the names
    that there are where `wanted` is not among them.
    """
    listed = {str(entry["id"]): entry for entry in models["data"]}
    if wanted and wanted not in listed:
        raise LookupError(f"it serves {', '.join(sorted(listed)) or 'no model'}, not {wanted!r}")
    name = wanted or next(iter(listed), "")
    if not name:
        raise LookupError("it serves no model")
    limit = listed[name].get("max_model_len")
    return ServedModel(
        name=name,
        context_tokens=None if limit is None else int(limit),
        owned_by=str(listed[name].get("owned_by", "")),
    )


def probe(model: ServedModel) -> dict[str, Any]:
    """A completion of one token, which shows whether ids come back. Not streamed."""
    ask: dict[str, Any] = {"model": model.name, "prompt": [1], "max_tokens": 1, "temperature": 0.0}
    return ask | model.ids_field


def check(generation: Generation, model: ServedModel, context_tokens: int) -> None:
    """Raises PromptTooLong. context_tokens: the configured limit; the server's applies too."""
    check_length(generation, min(context_tokens, model.context_tokens or context_tokens))


def body(
    generation: Generation, model: ServedModel, *, stop: list[str], repetition_penalty: float
) -> dict[str, Any]:
    """stop: the stop words as text. repetition_penalty: where the client gives none."""
    g = generation
    body: dict[str, Any] = {
        "model": model.name,
        "prompt": g.input_ids.tolist(),
        "max_tokens": g.max_tokens,
        "min_tokens": min(g.min_tokens or 0, g.max_tokens),
        "stream": True,
        # TensorRT-LLM's end_id takes the place of the model's own; -1 is none at all.
        "ignore_eos": g.end_id is not None,
        "stop_token_ids": [g.end_id] if g.end_id is not None and g.end_id >= 0 else [],
        "repetition_penalty": either(g.repetition_penalty, repetition_penalty),
        "presence_penalty": either(g.presence_penalty, 0.0),
        "frequency_penalty": either(g.frequency_penalty, 0.0),
        "min_p": 0.0,
        **_sampling(g),
        **model.ids_field,
    }
    if stop:
        body["stop"] = stop
    return body


def _sampling(g: Generation) -> dict[str, Any]:
    if is_greedy(g):
        return {"temperature": 0.0, "top_k": 0, "top_p": 1.0}
    sampling: dict[str, Any] = {
        "temperature": either(g.temperature, 1.0),
        "top_k": g.top_k or 0,
        "top_p": either(g.top_p, 1.0),
    }
    # None unless it is asked for: a seeded request is drawn by a generator of its own at each
    # step, which the whole batch waits for.
    if g.seed is not None:
        sampling["seed"] = signed(g.seed)
    return sampling


def signed(seed: int) -> int:
    """The same 64 bits as a signed number, which is what servers take."""
    seed &= (1 << 64) - 1
    return seed - (1 << 64) if seed >= 1 << 63 else seed
