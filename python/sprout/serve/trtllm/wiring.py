# SPDX-License-Identifier: Apache-2.0
"""What differs in config.pbtxt from the repository that Sprout's own engines are served from.

TensorRT-LLM's C++ backend knows stock tensors alone, and more of them than the others: log
probabilities, logits, LoRA, guided decoding. They cost where they are wired, so the local stack
leaves them out. It can't echo a flight's ticket either, so `flight` goes.
"""

import re
from dataclasses import dataclass

from sprout.errors import ConfigError

# One tensor a line in tensorrt_llm's file.
_FLIGHT_LINE = re.compile(r',\n(?:\s*#[^\n]*\n)*\s*\{ name: "flight"[^\n]*\}(?=\n)')
_FLIGHT_MAP = re.compile(
    r'\n\s*(?:in|out)put_map \{\s*key: "(?:flight|FLIGHT)"\s*value: "\w+"\s*\}'
)
_ENGINE_STEP = 'model_name: "tensorrt_llm"\n      model_version: -1\n'


@dataclass(frozen=True, slots=True)
class Tensor:
    """One more tensor of the ensemble, of the same name in the engine."""

    name: str
    dtype: str
    dims: str
    ragged: bool = False  # in the ensemble, as stock has it
    scalar: bool = False  # reshaped to [ ] in tensorrt_llm_bls, as stock has it
    unary: bool = True  # tensorrt_llm_bls has it too


INPUTS = (
    Tensor("return_context_logits", "BOOL", "1", scalar=True),
    Tensor("return_generation_logits", "BOOL", "1", scalar=True),
    Tensor("lora_task_id", "UINT64", "1", scalar=True),
    # Two dimensions: tensorrt_llm_bls passes rows on. Load an adapter through `ensemble` once.
    Tensor("lora_weights", "FP16", "-1, -1", ragged=True, unary=False),
    Tensor("lora_config", "INT32", "-1, 3", ragged=True, unary=False),
    Tensor("guided_decoding_guide_type", "STRING", "1", ragged=True),
    Tensor("guided_decoding_guide", "STRING", "1", ragged=True),
)
OUTPUTS = (
    Tensor("cum_log_probs", "FP32", "-1"),
    Tensor("output_log_probs", "FP32", "-1, -1"),
    Tensor("context_logits", "logits_datatype", "-1, -1"),
    Tensor("generation_logits", "logits_datatype", "-1, -1, -1"),
    Tensor("kv_cache_alloc_new_blocks", "INT32", "1"),
    Tensor("kv_cache_reused_blocks", "INT32", "1"),
    Tensor("kv_cache_alloc_total_blocks", "INT32", "1"),
    Tensor("acceptance_rate", "FP32", "1"),
    Tensor("total_accepted_draft_tokens", "INT32", "1"),
    Tensor("total_draft_tokens", "INT32", "1"),
)


def tensorrtllm(model: str, text: str) -> str:
    """config.pbtxt of one model, for the C++ backend."""
    if model == "ensemble":
        text = _flightless(_FLIGHT_MAP, model, text, 4)
        return _ensemble(text) + "".join(_declared(ragged=True))
    if model == "tensorrt_llm":
        return _flightless(_FLIGHT_LINE, model, text, 2)
    if model == "tensorrt_llm_bls":
        return text + "".join(_declared(ragged=False))
    if model == "postprocessing":  # without flights, a chunk of a stream is known by this alone
        return text + _parameter("sprout_pieces", "decoupled_mode")
    return text


def llmapi(model: str, text: str) -> str:
    """config.pbtxt of one model, with the LLM API in the slot: a few more parameters."""
    if model != "tensorrt_llm":
        return text
    keys = ("sprout_llmapi_model", "sprout_llmapi_tensor_parallel", "sprout_llmapi_options")
    return text + "".join(_parameter(key, key) for key in keys)


def _parameter(key: str, placeholder: str) -> str:
    return f'parameters: {{ key: "{key}" value: {{ string_value: "${{{placeholder}}}" }} }}\n'


def _flightless(pattern: re.Pattern[str], model: str, text: str, times: int) -> str:
    text, found = pattern.subn("", text)
    if found != times:
        raise ConfigError(f"{model}/config.pbtxt: {found} places wire the flight, not {times}")
    return text


def _ensemble(text: str) -> str:
    if text.count(_ENGINE_STEP) != 1:
        raise ConfigError("ensemble/config.pbtxt: no single step of tensorrt_llm")
    maps = "".join(
        f'      {way}_map {{ key: "{tensor.name}" value: "{tensor.name}" }}\n'
        for way, tensors in (("input", INPUTS), ("output", OUTPUTS))
        for tensor in tensors
    )
    return text.replace(_ENGINE_STEP, _ENGINE_STEP + maps)


def _declared(*, ragged: bool) -> list[str]:
    """Repeated fields may stand anywhere in the file. ragged: of the ensemble, else of the BLS."""
    made = ["\n# TensorRT-LLM's own, beyond text: passed through.\n"]
    for way, tensors in (("input", INPUTS), ("output", OUTPUTS)):
        for tensor in tensors:
            if not (ragged or tensor.unary):
                continue
            placeholder = tensor.dtype.islower()
            kind = f"${{{tensor.dtype}}}" if placeholder else f"TYPE_{tensor.dtype}"
            marks = " optional: true" if way == "input" else ""
            if ragged and tensor.ragged:
                marks += " allow_ragged_batch: true"
            if not ragged and tensor.scalar and way == "input":
                marks += " reshape: { shape: [ ] }"
            row = f'name: "{tensor.name}" data_type: {kind} dims: [ {tensor.dims} ]{marks}'
            made.append(f"{way} {{ {row} }}\n")
    return made
