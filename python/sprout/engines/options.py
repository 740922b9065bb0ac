# SPDX-License-Identifier: Apache-2.0
"""The generation options of TensorRT-LLM's Triton contract, and what each engine does with them.

One table: a tensor of the contract that is not in it is an error of this file, which a test finds
by comparing it with `model_repository/tensorrt_llm/config.pbtxt`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprout.errors import RequestError, UnsupportedOption


class Treatment(Enum):
    """What becomes of an option."""

    SLOT = "the slot itself acts on it"
    ENGINE = "the engine honours it"
    IGNORED = "has no meaning here, any value is accepted"
    REFUSED = "a value other than the neutral one is refused by name"


@dataclass(frozen=True, slots=True)
class Option:
    """A tensor of the contract. `neutral`: values that ask for nothing, as an empty tensor does."""

    model: Treatment  # by the engines that have one: all but echo
    echo: Treatment
    neutral: tuple[float, ...] = ()


_SLOT = Option(Treatment.SLOT, Treatment.SLOT)
_SAMPLING = Option(Treatment.ENGINE, Treatment.IGNORED)  # echo has nothing to sample from
_IGNORED = Option(Treatment.IGNORED, Treatment.IGNORED)


def _refused(*neutral: float) -> Option:
    return Option(Treatment.REFUSED, Treatment.REFUSED, neutral)


OPTIONS: Mapping[str, Option] = {
    "input_ids": _SLOT,
    "input_lengths": _SLOT,
    "request_output_len": _SLOT,
    "streaming": _SLOT,
    "stop": _SLOT,
    "exclude_input_in_output": _SLOT,
    "return_perf_metrics": _SLOT,
    "return_num_input_tokens": _SLOT,
    "return_num_output_tokens": _SLOT,
    "flight": _SLOT,
    "end_id": _SAMPLING,
    "stop_words_list": _SAMPLING,
    "temperature": _SAMPLING,
    "runtime_top_k": _SAMPLING,
    "runtime_top_p": _SAMPLING,
    "seed": _SAMPLING,
    "min_tokens": _SAMPLING,
    "repetition_penalty": _SAMPLING,
    "presence_penalty": _SAMPLING,
    "frequency_penalty": _SAMPLING,
    # Padding is cut off by input_lengths; a decoder-only model has no other decoder input, and
    # stock preprocessing sends one always.
    "pad_id": _IGNORED,
    "decoder_input_ids": _IGNORED,
    "decoder_input_lengths": _IGNORED,
    "beam_width": _refused(0, 1),
    "num_return_sequences": _refused(0, 1),
    "len_penalty": _refused(0, 1),
    "early_stopping": _refused(0),
    "beam_search_diversity_rate": _refused(0),
    "runtime_top_p_min": _refused(0),
    "runtime_top_p_decay": _refused(0, 1),
    "runtime_top_p_reset_ids": _refused(-1),
    "bad_words_list": _refused(),
    "embedding_bias": _refused(0),
    "return_log_probs": _refused(0),
    "return_context_logits": _refused(0),
    "return_generation_logits": _refused(0),
    "draft_input_ids": _refused(),
    "draft_logits": _refused(),
    "draft_acceptance_threshold": _refused(0),
    "encoder_input_features": _refused(),
    "encoder_output_lengths": _refused(0),
    "cross_attention_mask": _refused(),
    "skip_cross_attn_blocks": _refused(0),
    "prompt_embedding_table": _refused(),
    "prompt_table_extra_ids": _refused(),
    "prompt_vocab_size": _refused(0),
    "mrope_rotary_cos_sin": _refused(),
    "mrope_position_deltas": _refused(),
    "lora_task_id": _refused(),
    "lora_weights": _refused(),
    "lora_config": _refused(),
    "context_phase_params": _refused(),
    "retention_token_range_starts": _refused(),
    "retention_token_range_ends": _refused(),
    "retention_token_range_priorities": _refused(),
    "retention_token_range_durations_ms": _refused(),
    "retention_decode_priority": _refused(),
    "retention_decode_duration_ms": _refused(),
    "guided_decoding_guide_type": _refused(),
    "guided_decoding_guide": _refused(),
    "lookahead_window_size": _refused(),
    "lookahead_ngram_size": _refused(),
    "lookahead_verification_set_size": _refused(),
}


def refuse_unsupported(engine: str, inputs: Mapping[str, NDArray[Any]]) -> None:
    """Raises UnsupportedOption for the first input that `engine` can't honour, by its name."""
    for name, value in inputs.items():
        option = OPTIONS.get(name)
        if option is None:
            raise RequestError(f"{name}: unknown input")
        treatment = option.echo if engine == "echo" else option.model
        if treatment is Treatment.REFUSED and not _is_neutral(option, value):
            said = f" = {value.flat[0]}" if value.size == 1 and value.dtype != np.object_ else ""
            raise UnsupportedOption(f"{name}{said}: not supported by the {engine} engine")


def _is_neutral(option: Option, value: NDArray[Any]) -> bool:
    if value.size == 0:
        return True
    if value.dtype == np.object_:
        return False
    return bool(option.neutral) and bool(np.isin(value, option.neutral).all())


def parse_word_list(name: str, value: NDArray[np.int32]) -> tuple[tuple[int, ...], ...]:
    """Words of TensorRT-LLM's layout: INT32 (1, 2, length).

    Row 0: token ids of all words one after the other; row 1: where each word ends, then -1.
    Raises RequestError for another shape, ends that do not grow, or that exceed the length.
    """
    if value.size == 0:
        return ()
    if value.ndim != 3 or value.shape[:2] != (1, 2):
        raise RequestError(f"{name}: shape {list(value.shape)}, expected [1, 2, length]")
    ids, ends = value[0].tolist()
    words: list[tuple[int, ...]] = []
    start = 0
    closed = False
    for end in ends:
        if end == -1:
            closed = True
        elif closed or not start < end <= len(ids):
            raise RequestError(f"{name}: row 1 must hold growing offsets up to {len(ids)}, then -1")
        else:
            words.append(tuple(ids[start:end]))
            start = end
    return tuple(words)
