# SPDX-License-Identifier: Apache-2.0
"""vLLM under the drivers: Llama-2-shaped random weights, requests of exact lengths in token ids."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

VOCABULARY = 32_000
LONGEST = 4096  # tokens of prompt and answer together
TOGETHER = 128  # requests that the engine runs at once …
BATCHED = 8192  # … and tokens of a step: vLLM's own choice for a server on this class of GPU

# hidden size, intermediate size, layers, heads: those of the published Llama-2 models
SHAPES = {"7b": (4096, 11_008, 32, 32), "13b": (5120, 13_824, 40, 40)}


class Step(NamedTuple):
    key: str
    tokens: int  # new ones
    ended: bool


class Engine(Protocol):
    def submit(self, key: str, prompt_tokens: int, output_tokens: int) -> None: ...

    def step(self) -> list[Step]:
        """Waits for the engine's next answers; only to be called while a request is at work."""

    def abort(self, keys: Iterable[str]) -> None: ...


def config(shape: str) -> dict[str, Any]:
    """config.json of a Llama of that shape; KeyError for another."""
    hidden, intermediate, layers, heads = SHAPES[shape]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": LONGEST,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }


class Vllm:
    """Prefix caching is off: prompts are random ids, and a prompt's own cost is measured."""

    def __init__(self, shape: str, folder: Path, seed: int) -> None:
        """folder: an empty one, for config.json. Takes a minute or so."""
        from vllm import EngineArgs, SamplingParams  # noqa: PLC0415  # the rest runs without a GPU
        from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415
        from vllm.v1.engine.llm_engine import LLMEngine  # noqa: PLC0415

        (folder / "config.json").write_text(json.dumps(config(shape)))
        self._sampling = lambda tokens: SamplingParams(
            temperature=0.0,
            ignore_eos=True,
            min_tokens=tokens,
            max_tokens=tokens,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        self._rng = np.random.default_rng(seed)
        self._engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=str(folder),
                load_format="dummy",
                skip_tokenizer_init=True,
                dtype="bfloat16",
                max_model_len=LONGEST,
                max_num_seqs=TOGETHER,
                max_num_batched_tokens=BATCHED,
                enable_prefix_caching=False,
                gpu_memory_utilization=0.9,
                disable_log_stats=True,
                seed=seed,
            )
        )

    def submit(self, key: str, prompt_tokens: int, output_tokens: int) -> None:
        ids = self._rng.integers(3, VOCABULARY, prompt_tokens).tolist()
        self._engine.add_request(key, {"prompt_token_ids": ids}, self._sampling(output_tokens))

    def step(self) -> list[Step]:
        return [
            Step(out.request_id, len(out.outputs[0].token_ids), out.finished)
            for out in self._engine.step()
        ]

    def abort(self, keys: Iterable[str]) -> None:
        self._engine.abort_request(list(keys))
