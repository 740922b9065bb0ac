# SPDX-License-Identifier: Apache-2.0
"""The LLM API's surface as TensorRT-LLM 1.2.1 documents it, for tests: no model behind it.

Stricter than the original: everything is by keyword, what is not documented is a TypeError, and a
RequestOutput may be read only on the loop that it was made on. What it is asked is recorded.
"""

import asyncio
import threading
from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

EOS = 2


@dataclass(kw_only=True)
class SamplingParams:
    n: int = 1
    best_of: int | None = None
    use_beam_search: bool = False
    max_tokens: int = 32
    min_tokens: int | None = None
    end_id: int | None = None
    pad_id: int | None = None
    seed: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    length_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    bad: list[str] | None = None
    bad_token_ids: list[int] | None = None
    logits_processor: Any = None
    guided_decoding: Any = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    ignore_eos: bool = False
    detokenize: bool = True
    add_special_tokens: bool = True
    skip_special_tokens: bool = True
    exclude_input_from_output: bool = True
    return_perf_metrics: bool = False

    def __post_init__(self) -> None:
        if self.pad_id is None:
            self.pad_id = self.end_id
        if self.temperature is not None and self.temperature <= 0:
            raise ValueError(f"require temperature > 0, got temperature={self.temperature}")
        if self.top_p is not None and not 0 <= self.top_p <= 1:
            raise ValueError(f"require 0 <= top_p <= 1, got top_p={self.top_p}")


@dataclass(kw_only=True)
class KvCacheConfig:
    enable_block_reuse: bool = True
    max_tokens: int | None = None
    max_attention_window: list[int] | None = None
    sink_token_length: int | None = None
    free_gpu_memory_fraction: float | None = None
    host_cache_size: int | None = None
    onboard_blocks: bool = True
    cross_kv_cache_fraction: float | None = None
    secondary_offload_min_priority: int | None = None
    event_buffer_max_size: int = 0
    enable_partial_reuse: bool = True
    copy_on_partial_reuse: bool = True
    use_uvm: bool = False
    dtype: str = "auto"


@dataclass
class Plan:
    """What one request does: `steps` of ids, then `finish`, or `error`, or nothing until abort."""

    steps: list[list[int]] = field(default_factory=list)
    finish: str | None = "length"
    error: Exception | None = None
    hold: bool = False


@dataclass
class Call:
    """What `generate_async` was given."""

    inputs: list[int]
    sampling_params: SamplingParams
    streaming: bool
    output: "RequestOutput"


class RequestOutput:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._steps = iter(plan.steps)
        self._loop = asyncio.get_running_loop()
        self._aborted = asyncio.Event()
        self.aborts = 0
        self.finished = False
        self.begun = threading.Event()
        # `token_ids` holds all ids so far.
        self.outputs = [SimpleNamespace(index=0, text="", token_ids=[], finish_reason=None)]

    def abort(self) -> None:
        assert not self.finished, "of one that is over"
        self.aborts += 1
        self._aborted.set()

    def __aiter__(self) -> "RequestOutput":
        return self

    async def __anext__(self) -> "RequestOutput":
        assert asyncio.get_running_loop() is self._loop
        if self.finished:
            raise StopAsyncIteration
        await asyncio.sleep(0)
        step = next(self._steps, None)
        if step is None:
            return await self._last()
        self.outputs[0].token_ids.extend(step)
        if not self._plan.hold and self._plan.error is None and self._is_last():
            self._finish(self._plan.finish)
        self.begun.set()
        return self

    def _is_last(self) -> bool:
        """The real one sends the end with the last ids."""
        return sum(map(len, self._plan.steps)) == len(self.outputs[0].token_ids)

    async def _last(self) -> "RequestOutput":
        self.begun.set()
        if self._plan.error is not None:
            raise self._plan.error
        if self._plan.hold:
            await self._aborted.wait()
            self._finish("cancelled")
        else:
            self._finish(self._plan.finish)
        return self

    def _finish(self, reason: str | None) -> None:
        self.finished = True
        self.outputs[0].finish_reason = reason


class LLM:
    """Without a plan a request gets 10, 11, … up to `max_tokens`."""

    _KWARGS = frozenset(
        (
            *("pipeline_parallel_size", "context_parallel_size", "enable_lora", "lora_config"),
            *("guided_decoding_backend", "speculative_config", "kv_cache_config"),
            *("max_batch_size", "max_input_len", "max_seq_len", "max_beam_width"),
            *("max_num_tokens", "load_format", "enable_chunked_prefill", "stream_interval"),
            "batched_logits_processor",
        )
    )

    def __init__(
        self,
        *,
        model: str,
        tokenizer: str | None = None,
        tokenizer_mode: str = "auto",
        skip_tokenizer_init: bool = False,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        if unknown := kwargs.keys() - self._KWARGS:
            raise ValueError(f"{min(unknown)}: extra inputs are not permitted")
        if not model.startswith("/"):
            raise RuntimeError(f"{model} is no folder")
        self.arguments = kwargs | {"model": model, "tensor_parallel_size": tensor_parallel_size}
        self.tokenizer = None if skip_tokenizer_init else SimpleNamespace(eos_token_id=EOS)
        self.plans: deque[Plan] = deque()
        self.refusal: Exception | None = None
        self.calls: list[Call] = []
        self.shut_down = 0

    def generate_async(
        self,
        *,
        inputs: list[int],
        sampling_params: SamplingParams | None = None,
        lora_request: Any = None,
        prompt_adapter_request: Any = None,
        streaming: bool = False,
    ) -> RequestOutput:
        assert isinstance(sampling_params, SamplingParams)
        assert all(type(token) is int for token in inputs), "NumPy's integers can't be sent"
        if self.refusal is not None:
            raise self.refusal
        count = range(10, 10 + sampling_params.max_tokens)
        plan = self.plans.popleft() if self.plans else Plan([[token] for token in count])
        output = RequestOutput(plan)
        self.calls.append(Call(inputs, sampling_params, streaming, output))
        return output

    def shutdown(self) -> None:
        self.shut_down += 1


__version__ = "1.2.1"
llmapi = SimpleNamespace(KvCacheConfig=KvCacheConfig)
