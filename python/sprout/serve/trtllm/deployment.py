# SPDX-License-Identifier: Apache-2.0
"""What is rendered for: engine, container, GPUs, sizes. What can't be is refused by name."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sprout.errors import ConfigError
from sprout.serve.trtllm import checkpoints, versions

# tensorrtllm: the C++ backend on an engine that is built first; llmapi: the LLM API in Python.
Engine = Literal["tensorrtllm", "llmapi"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
_DTYPES = ("float16", "bfloat16")
_UNARY_MODELS = ("ensemble", "tensorrt_llm_bls")
_GPU = re.compile(r"0|[1-9][0-9]*|(GPU|MIG)-[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Deployment:
    """One engine on one node. None: what the engine's own default below says.

    Sizes are tokens. Raises ConfigError on construction.
    """

    engine: Engine
    container: str = versions.DEFAULT
    tensor_parallel: int = 1
    gpus: tuple[str, ...] = ()  # indices or UUIDs, as the container runtime takes them
    checkpoint: Path | None = None  # a Hugging Face checkpoint here, to check against
    decoupled: bool = True
    unary_model: str | None = None  # that clients without streams are to call
    postprocessing_instances: int = 1
    max_batch_size: int = 64
    max_seq_len: int = 4096  # prompt and answer; Llama-2's context
    max_input_len: int | None = None
    max_num_tokens: int | None = None  # of all requests in one step
    dtype: str | None = None
    kv_cache_fraction: float = 0.9  # of what the weights leave free
    reuse: bool = True  # of KV blocks: the directive is a prefix that many prompts share

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(f"engine {self.engine!r} is none of {', '.join(ENGINES)}")
        versions.container(self.container)
        object.__setattr__(self, "gpus", tuple(gpu.strip() for gpu in self.gpus))
        self._check_gpus()
        self._check_transport()
        self._check_sizes()
        if self.checkpoint is not None:
            checkpoints.check(
                self.checkpoint,
                tensor_parallel=self.tensor_parallel,
                max_seq_len=self.max_seq_len,
                convert=self.engine == "tensorrtllm",
            )

    @property
    def image(self) -> str:
        return versions.container(self.container).image

    @property
    def devices(self) -> tuple[str, ...]:
        return self.gpus or tuple(map(str, range(self.tensor_parallel)))

    @property
    def unary(self) -> str:
        """The model for unary calls."""
        return self.unary_model or ("tensorrt_llm_bls" if self.decoupled else "ensemble")

    @property
    def precision(self) -> str:
        return self.dtype or "float16"

    @property
    def input_len(self) -> int:
        return self.max_input_len or self.max_seq_len * 3 // 4

    @property
    def num_tokens(self) -> int:
        return self.max_num_tokens or max(8192, self.input_len)

    def _check_gpus(self) -> None:
        if self.tensor_parallel < 1:
            raise ConfigError(f"tensor_parallel {self.tensor_parallel}: at least 1")
        if not self.gpus:
            return
        # "all" too: how many that is, nobody knows here.
        if odd := [gpu for gpu in self.gpus if not _GPU.fullmatch(gpu)]:
            raise ConfigError(
                f"gpus {','.join(self.gpus)}: {odd[0]!r} is neither an index nor a UUID "
                "(GPU-…, MIG-…)"
            )
        if len(set(self.gpus)) < len(self.gpus):
            raise ConfigError(f"gpus {','.join(self.gpus)}: each once, by index or UUID")
        if len(self.gpus) != self.tensor_parallel:
            raise ConfigError(
                f"tensor_parallel {self.tensor_parallel} needs as many GPUs, one a rank; gpus names"
                f" {len(self.gpus)} ({','.join(self.gpus)})"
            )

    def _check_transport(self) -> None:
        if self.unary_model not in (None, *_UNARY_MODELS):
            raise ConfigError(
                f"unary_model {self.unary_model!r} is none of {', '.join(_UNARY_MODELS)}"
            )
        if self.decoupled and self.unary == "ensemble":
            raise ConfigError(
                "unary_model ensemble while decoupled: Triton answers unary calls to a decoupled "
                "chain with UNIMPLEMENTED. Use tensorrt_llm_bls, or render coupled (no streams)"
            )
        if self.postprocessing_instances < 1:
            raise ConfigError("postprocessing_instances: at least 1")
        if self.decoupled and self.postprocessing_instances > 1:
            raise ConfigError(
                f"postprocessing_instances {self.postprocessing_instances} while decoupled: several"
                " instances deliver the chunks of a stream out of order"
            )

    def _check_sizes(self) -> None:
        if self.engine == "llmapi":
            if self.max_input_len is not None:
                raise ConfigError(
                    "max_input_len is trtllm-build's; llmapi takes what fits into max_seq_len"
                )
            given = {"dtype": self.dtype, "max_num_tokens": self.max_num_tokens}
            if named := [name for name, value in given.items() if value is not None]:
                raise ConfigError(
                    f"{named[0]} is trtllm-build's; for llmapi write it into the JSON file of"
                    " further LLM keywords (options.json)"
                )
        if self.precision not in _DTYPES:
            raise ConfigError(f"dtype {self.dtype!r} is none of {', '.join(_DTYPES)}")
        if not 0 < self.kv_cache_fraction <= 1:
            raise ConfigError(f"kv_cache_fraction {self.kv_cache_fraction:g}: above 0, at most 1")
        if not 0 < self.input_len < self.max_seq_len:
            raise ConfigError(
                f"max_input_len {self.input_len} leaves no room for an answer within max_seq_len"
                f" {self.max_seq_len}"
            )
        if self.num_tokens < self.input_len:
            raise ConfigError(
                f"max_num_tokens {self.num_tokens} is less than max_input_len {self.input_len}: a "
                "prompt is worked through in one step"
            )
