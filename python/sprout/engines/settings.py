# SPDX-License-Identifier: Apache-2.0
"""Settings of the engine slot, from the parameters of its Triton model config.

Stock parameters keep their stock meaning; Sprout's begin with `sprout_`. A value that is empty or
still a `${placeholder}` counts as unset.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sprout.engines.base import Engine
from sprout.engines.body import REPETITION_PENALTY, either
from sprout.engines.echo import EchoEngine
from sprout.engines.llama_client import LlamaClient
from sprout.engines.llmapi_load import LlmApiSettings, load
from sprout.engines.openai_client import OpenAIClient
from sprout.errors import ConfigError

ENGINES = ("llama_cpp", "openai", "llmapi", "echo")


@dataclass(frozen=True, slots=True)
class SlotSettings:
    """Defaults are those of `sprout.config.EngineConfig`."""

    engine: str = "llama_cpp"
    engine_url: str = ""
    engine_model: str = ""
    engine_key_file: Path | None = None
    engine_ca_file: Path | None = None
    engine_slots: int = 4
    engine_queue: int = 256
    engine_context_tokens: int = 2048
    chunk_interval_ms: float = 20
    chunks_per_s: float = 1000
    repetition_penalty: float | None = None  # default: 1.1 with llama_cpp, else 1
    echo_tokens_per_s: float = 0
    llmapi_model: Path | None = None
    llmapi_tensor_parallel: int = 1
    llmapi_options: Path | None = None
    shm_dir: Path | None = None
    node_id: int = 0
    # Stock parameters that mean something here.
    exclude_input_in_output: bool = True  # stock: false, which would show clients the directive
    enable_kv_cache_reuse: bool = False
    kv_cache_free_gpu_mem_fraction: float | None = None
    cancellation_check_period_ms: int = 100
    decoupled: bool = True

    @classmethod
    def from_model_config(cls, config: Mapping[str, Any]) -> "SlotSettings":
        """config: `json.loads(args["model_config"])`. Raises ConfigError naming the parameter."""
        given = {
            key: value["string_value"]
            for key, value in config.get("parameters", {}).items()
            if value.get("string_value") and not value["string_value"].startswith("${")
        }
        values: dict[str, Any] = {}
        for name, kind in _KINDS.items():
            key = name if name in _STOCK else f"sprout_{name}"
            if key in given:
                values[name] = _cast(key, given[key], kind)
        policy = config.get("model_transaction_policy", {})
        settings = cls(**values, decoupled=bool(policy.get("decoupled", False)))
        if settings.engine not in ENGINES:
            known = ", ".join(ENGINES)
            raise ConfigError(f"sprout_engine: {settings.engine!r} is unknown; there are {known}")
        if settings.engine not in ("echo", "llmapi") and not settings.engine_url:
            raise ConfigError("sprout_engine_url: missing; the address of the engine's server")
        return settings

    def make_engine(self) -> Engine:
        penalty = either(self.repetition_penalty, REPETITION_PENALTY.get(self.engine, 1.0))
        if self.engine == "echo":
            return EchoEngine(self.echo_tokens_per_s)
        if self.engine == "openai":
            return OpenAIClient(
                self.engine_url,
                slots=self.engine_slots,
                queue=self.engine_queue,
                context_tokens=self.engine_context_tokens,
                model=self.engine_model,
                key_file=self.engine_key_file,
                ca_file=self.engine_ca_file,
                repetition_penalty=penalty,
            )
        if self.engine == "llmapi":
            return load(self._llmapi())
        return LlamaClient(
            self.engine_url,
            slots=self.engine_slots,
            queue=self.engine_queue,
            context_tokens=self.engine_context_tokens,
            repetition_penalty=penalty,
            cache_prompt=self.enable_kv_cache_reuse,
        )

    def _llmapi(self) -> LlmApiSettings:
        if self.llmapi_model is None:
            raise ConfigError("sprout_llmapi_model: missing; the folder of the checkpoint")
        return LlmApiSettings(
            self.llmapi_model,
            tensor_parallel=self.llmapi_tensor_parallel,
            slots=self.engine_slots,
            queue=self.engine_queue,
            context_tokens=self.engine_context_tokens,
            reuse=self.enable_kv_cache_reuse,
            memory_fraction=self.kv_cache_free_gpu_mem_fraction,
            options=self.llmapi_options,
        )


_STOCK = {
    "exclude_input_in_output",
    "enable_kv_cache_reuse",
    "kv_cache_free_gpu_mem_fraction",
    "cancellation_check_period_ms",
}
_KINDS: Mapping[str, type] = {
    "engine": str,
    "engine_url": str,
    "engine_model": str,
    "engine_key_file": Path,
    "engine_ca_file": Path,
    "engine_slots": int,
    "engine_queue": int,
    "engine_context_tokens": int,
    "chunk_interval_ms": float,
    "chunks_per_s": float,
    "repetition_penalty": float,
    "echo_tokens_per_s": float,
    "llmapi_model": Path,
    "llmapi_tensor_parallel": int,
    "llmapi_options": Path,
    "shm_dir": Path,
    "node_id": int,
    "exclude_input_in_output": bool,
    "enable_kv_cache_reuse": bool,
    "kv_cache_free_gpu_mem_fraction": float,
    "cancellation_check_period_ms": int,
}
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def _cast(key: str, text: str, kind: type) -> Any:
    try:
        return _BOOLEANS[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise ConfigError(f"{key}: {text!r} is no {kind.__name__}") from None
