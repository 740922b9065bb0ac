# SPDX-License-Identifier: Apache-2.0
"""TensorRT-LLM's LLM API as an engine of the slot: in Triton's own stub, in token ids.

Written against TensorRT-LLM 1.2.1's `LLM.generate_async`, `RequestOutput` and `SamplingParams`.
Everything goes by keyword: `streaming` and `lora_request` have changed places between releases.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from sprout.engines.base import Generation, Reason
from sprout.engines.body import check_length
from sprout.engines.client import EngineClient, Job
from sprout.engines.events import cut
from sprout.engines.llmapi_sampling import end_id_of, sampling
from sprout.errors import EngineUnavailable, RequestError

log = logging.getLogger(__name__)


class LlmApi(EngineClient):
    """llm: a `tensorrt_llm.LLM`, which `close` shuts down. sampling_params: `SamplingParams`.

    own_end_id: of the LLM's tokenizer; None where it was started without one. slots: its
    max_batch_size; queue: requests that may wait besides. context_tokens: its max_seq_len.
    """

    name = "llmapi"

    def __init__(
        self,
        llm: Any,
        sampling_params: Callable[..., Any],
        *,
        own_end_id: int | None,
        slots: int,
        queue: int,
        context_tokens: int,
    ) -> None:
        self._llm = llm
        self._sampling_params = sampling_params
        self._own_end_id = own_end_id
        self._context_tokens = context_tokens
        super().__init__(_Shutdown(llm), slots=slots, queue=queue)

    async def generate(self, job: Job) -> Reason:
        g = job.generation
        check_length(g, self._context_tokens)
        output = self._begin(g)
        job.scheduled()
        end_id = end_id_of(g, self._own_end_id)
        seen = 0
        try:
            steps = aiter(output)
            while (step := await _next(steps)) is not None:
                # All ids so far; at the very end the one that ended the answer may be gone again.
                fresh = step.outputs[0].token_ids[seen:]
                seen += len(fresh)
                ids, reason = cut(job.ids, fresh, end_id, g.stop_words)
                job.tokens(ids)
                if reason is not None:
                    _abort(output)
                    return reason
        except BaseException:  # a cancel too: the LLM would decode on for nobody
            _abort(output)
            raise
        return _reason(output.outputs[0].finish_reason)

    def _begin(self, generation: Generation) -> Any:
        """A RequestOutput. It belongs to the loop on which it is made."""
        asked = sampling(generation, self._own_end_id)
        try:
            return self._llm.generate_async(
                inputs=generation.input_ids.tolist(),
                sampling_params=self._sampling_params(**asked),
                streaming=True,
            )
        except ValueError as error:  # what it says of values that it can't take
            raise RequestError(f"the LLM API refused the request: {error}") from error
        except Exception as error:
            raise _unavailable(error) from error


class _Shutdown:
    """Ends the LLM, and its worker processes, once no generation is open."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm

    async def close(self) -> None:
        try:
            await asyncio.to_thread(self._llm.shutdown)
        except Exception:  # nobody is left to tell
            log.exception("the LLM did not shut down")


async def _next(steps: Any) -> Any:
    """The next step of a RequestOutput, None behind the last. Its errors come out as ours."""
    try:
        return await anext(steps, None)
    except Exception as error:
        raise _unavailable(error) from error


def _abort(output: Any) -> None:
    """Gives the LLM's place in the batch back. Of one that is over: nothing."""
    if output.finished:
        return
    try:
        output.abort()
    except Exception:
        log.exception("a request could not be aborted")


def _unavailable(error: Exception) -> EngineUnavailable:
    return EngineUnavailable(f"the LLM API failed: {type(error).__name__}: {error}")


def _reason(finish_reason: str | None) -> Reason:
    """Of an answer that the LLM ended: stop words are found here, so "stop" is the end id."""
    if finish_reason == "stop":
        return Reason.END_ID
    if finish_reason == "length":
        return Reason.LENGTH
    raise EngineUnavailable(f"the LLM API gave the answer up: {finish_reason}")
