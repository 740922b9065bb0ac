# SPDX-License-Identifier: Apache-2.0
"""Starts a `tensorrt_llm.LLM` for the slot. TensorRT-LLM is imported here and nowhere else."""

import importlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sprout.engines.llmapi import LlmApi
from sprout.errors import ConfigError, EngineUnavailable, PrerequisiteError

log = logging.getLogger(__name__)

WRITTEN_AGAINST = "1.2.1"  # what containers 26.04 to 26.07 carry


@dataclass(frozen=True, slots=True)
class LlmApiSettings:
    """What the slot's parameters say of the LLM."""

    model: Path  # a Hugging Face checkpoint
    tensor_parallel: int = 1  # GPUs
    slots: int = 64  # its max_batch_size
    queue: int = 256
    context_tokens: int = 4096  # its max_seq_len
    reuse: bool = True  # KV blocks of earlier prompts, directives first of all
    memory_fraction: float | None = None  # of what the weights leave free; None: the LLM's 0.9
    options: Path | None = None  # a JSON object of further keywords of LLM


def load(settings: LlmApiSettings, module: Any = None) -> LlmApi:
    """An engine whose model is in memory. Takes as long as TensorRT-LLM does.

    module: `tensorrt_llm`, where it is imported already. Raises PrerequisiteError without it,
    ConfigError for options that can't be, EngineUnavailable if the LLM does not start.
    """
    trtllm = _import() if module is None else module
    version = str(trtllm.__version__)
    if version != WRITTEN_AGAINST:
        log.warning("TensorRT-LLM %s; this was written against %s", version, WRITTEN_AGAINST)
    arguments = llm_arguments(settings)
    cache = arguments.pop("kv_cache_config")
    try:
        llm = trtllm.LLM(**arguments, kv_cache_config=trtllm.llmapi.KvCacheConfig(**cache))
    except Exception as error:
        message = f"the LLM did not start: {type(error).__name__}: {error}"
        raise EngineUnavailable(message) from error
    own_end_id = getattr(getattr(llm, "tokenizer", None), "eos_token_id", None)
    return LlmApi(
        llm,
        trtllm.SamplingParams,
        own_end_id=None if own_end_id is None else int(own_end_id),
        slots=settings.slots,
        queue=settings.queue,
        context_tokens=settings.context_tokens,
    )


def llm_arguments(settings: LlmApiSettings) -> dict[str, Any]:
    """Keywords of LLM; under `kv_cache_config` those of KvCacheConfig."""
    cache: dict[str, Any] = {"enable_block_reuse": settings.reuse}
    if settings.memory_fraction is not None:
        cache["free_gpu_memory_fraction"] = settings.memory_fraction
    own: dict[str, Any] = {
        "model": str(settings.model),
        "tensor_parallel_size": settings.tensor_parallel,
        "max_batch_size": settings.slots,
        "max_seq_len": settings.context_tokens,
        "max_input_len": settings.context_tokens,  # else 1,024; the slot checks prompt + answer
    }
    if settings.options is None:
        return own | {"kv_cache_config": cache}
    more = _options(settings.options)
    more_cache = more.pop("kv_cache_config", {})
    if not isinstance(more_cache, dict):
        raise ConfigError(f"{settings.options}: kv_cache_config is no JSON object")
    _no_twice(settings.options, own, more)
    _no_twice(settings.options, cache, more_cache)
    return own | more | {"kv_cache_config": cache | more_cache}


def _import() -> Any:
    try:
        importlib.import_module("tensorrt_llm.llmapi")
        return importlib.import_module("tensorrt_llm")
    except ImportError as error:
        raise PrerequisiteError(
            f"tensorrt_llm can't be imported ({error}): the LLM API engine runs in a container "
            "nvcr.io/nvidia/tritonserver:26.04- to 26.07-trtllm-python-py3 alone"
        ) from error


def _options(path: Path) -> dict[str, Any]:
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"sprout_llmapi_options: {path}: {error}") from None
    if not isinstance(options, dict):
        raise ConfigError(f"sprout_llmapi_options: {path} holds no JSON object")
    return options


def _no_twice(path: Path, own: Mapping[str, Any], more: Mapping[str, Any]) -> None:
    if twice := sorted(own.keys() & more.keys()):
        raise ConfigError(f"{path}: {twice[0]} is set by the model's own parameters")
