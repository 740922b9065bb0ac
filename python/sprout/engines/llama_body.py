# SPDX-License-Identifier: Apache-2.0
"""A Generation as the body of llama.cpp's POST /completion.

Every sampling value is written out: llama.cpp's own defaults (temperature 0.8, top_k 40, top_p
0.95, min_p 0.05) are not TensorRT-LLM's. Here, as there: greedy unless asked otherwise, seed 0,
penalties over the whole sequence, temperature before top_p.
"""

from dataclasses import dataclass
from typing import Any

from sprout.engines.base import Generation
from sprout.engines.body import check_length, either, is_greedy
from sprout.errors import RequestError

_RANDOM_SEED = 0xFFFFFFFF  # llama.cpp takes this one for "draw a seed"
_SPM = 1  # llama.cpp's number of SentencePiece vocabularies


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the running engine says of its model."""

    vocabulary: int  # token ids are below
    context_tokens: int  # prompt + answer, per slot
    end_ids: frozenset[int]  # tokens that end an answer by themselves
    sentencepiece: bool


def model_info(models: Any, probe: Any) -> ModelInfo:
    """models: the answer of /v1/models; probe: of one token with `ignore_eos`, whose biases name
    the tokens that were banned. Raises KeyError, TypeError, IndexError for anything else.
    """
    meta = models["data"][0]["meta"]
    banned = probe["generation_settings/logit_bias"]
    return ModelInfo(
        vocabulary=int(meta["n_vocab"]),
        context_tokens=int(meta["n_ctx"]),
        end_ids=frozenset(int(entry["token"]) for entry in banned),
        sentencepiece=meta["vocab_type"] == _SPM,
    )


INFO_PROBE = {
    "prompt": [0],
    "n_predict": 1,
    "ignore_eos": True,
    "response_fields": ["generation_settings/logit_bias"],
}


def check(generation: Generation, info: ModelInfo, context_tokens: int) -> None:
    """Raises PromptTooLong or RequestError for what this model can't take.

    context_tokens: the configured limit per slot; the model's own applies too.
    """
    check_length(generation, min(context_tokens, info.context_tokens))
    highest = int(generation.input_ids.max())
    for name, token in (("input_ids", highest), ("end_id", generation.end_id or 0)):
        if token >= info.vocabulary:
            raise RequestError(f"{name}: {token} is outside the vocabulary of {info.vocabulary}")
    for word in generation.stop_words:
        if not all(0 <= token < info.vocabulary for token in word):
            raise RequestError(f"stop_words_list: {list(word)} holds ids outside the vocabulary")


def body(
    generation: Generation,
    info: ModelInfo,
    *,
    stop: list[str],
    repetition_penalty: float,
    cache_prompt: bool,
) -> dict[str, Any]:
    """Everything but `prompt` and `n_predict`.

    stop: the stop words as text. repetition_penalty: where the client gives none.
    """
    g = generation
    return {
        "stream": True,
        "return_tokens": True,
        # The last event would carry 2 KB of settings.
        "response_fields": ["stop", "stop_type", "tokens_predicted"],
        "cache_prompt": cache_prompt,
        "ignore_eos": g.end_id is not None and g.end_id not in info.end_ids,
        "stop": stop,
        "repeat_penalty": either(g.repetition_penalty, repetition_penalty),
        "presence_penalty": either(g.presence_penalty, 0.0),
        "frequency_penalty": either(g.frequency_penalty, 0.0),
        "repeat_last_n": info.context_tokens,
        **_sampling(g),
    }


def _sampling(g: Generation) -> dict[str, Any]:
    if is_greedy(g):
        return {"temperature": 0.0, "top_k": 1, "samplers": ["penalties", "top_k"]}
    return {
        "temperature": either(g.temperature, 1.0),
        "top_k": g.top_k or 0,
        "top_p": either(g.top_p, 1.0),
        "min_p": 0.0,
        "seed": fold_seed(g.seed or 0),
        # top_k first saves work and changes nothing: temperature keeps the order of the logits.
        "samplers": ["penalties", "top_k", "temperature", "top_p"],
    }


def fold_seed(seed: int) -> int:
    """64 bits to the 32 that llama.cpp takes, seeds below 2^32 - 1 unchanged."""
    folded = (seed ^ (seed >> 32)) & 0xFFFFFFFF
    return 0 if folded == _RANDOM_SEED else folded
