# SPDX-License-Identifier: Apache-2.0
"""The embedded engine, seen from the slot: a client of llama.cpp's server, in token ids."""

from typing import Any

from sprout.engines.base import Reason
from sprout.engines.client import EngineClient, Job
from sprout.engines.events import EventParser, cut
from sprout.engines.http import STALL_S
from sprout.engines.llama_body import body, check
from sprout.engines.llama_http import LlamaHttp
from sprout.engines.llama_stream import Tokens
from sprout.errors import EngineUnavailable

_CHARACTER = 3  # tokens that one more character can need beyond its first


class LlamaClient(EngineClient):
    """url: of the server. slots: requests that it decodes at once; queue: that may wait besides.

    context_tokens: prompt + answer of one request. repetition_penalty: where the client asks for
    none. cache_prompt: reuse of earlier prompts' KV cache; faster, but an answer may then depend
    in its last bits on what was asked before.
    """

    name = "llama_cpp"

    def __init__(
        self,
        url: str,
        *,
        slots: int,
        queue: int,
        context_tokens: int,
        repetition_penalty: float = 1.0,
        cache_prompt: bool = False,
        retry_s: float = 10.0,
        stall_s: float = STALL_S,
    ) -> None:
        self._context_tokens = context_tokens
        self._repetition_penalty = repetition_penalty
        self._cache_prompt = cache_prompt
        # Two more connections than slots: questions about tokens must not wait for a stream.
        self._http = LlamaHttp(url, connections=slots + 2, retry_s=retry_s, stall_s=stall_s)
        super().__init__(self._http, slots=slots, queue=queue)

    async def generate(self, job: Job) -> Reason:
        g = job.generation
        info = await self._http.info()
        check(g, info, self._context_tokens)
        stop = [text for word in g.stop_words if (text := await self._http.detokenize([*word]))]
        ask = body(
            g,
            info,
            stop=stop,
            repetition_penalty=self._repetition_penalty,
            cache_prompt=self._cache_prompt,
        )
        # llama.cpp knows its model's own end tokens; any other is looked for here.
        other = g.end_id is not None and g.end_id >= 0 and g.end_id not in info.end_ids
        watched = g.end_id if other else None
        least = min(g.min_tokens or 0, g.max_tokens)
        if least and (other or not ask["ignore_eos"]):
            reason = await self._least(job, ask, least)
            if reason is not Reason.LENGTH or len(job.ids) >= g.max_tokens:
                return reason
            # The cached prompt is now our own answer's; other draws than those of its beginning.
            seed = ask.get("seed", 0) ^ len(job.ids)
            ask = {**ask, "cache_prompt": True, "seed": seed}
        return await self._complete(job, ask, g.max_tokens - len(job.ids), watched)

    async def _least(self, job: Job, ask: dict[str, Any], least: int) -> Reason:
        """The tokens before any end token may come: LENGTH once they are there."""
        end_id = job.generation.end_id
        banned = [] if end_id is None else [[end_id, False]]
        ask = {**ask, "ignore_eos": True, "logit_bias": banned}
        reason = await self._complete(job, ask, least, None)
        missing = least - len(job.ids)
        if reason is Reason.LENGTH and missing > 0:
            # It ended inside a character, whose ids are unknown: once more, to the character's end.
            room = job.generation.max_tokens - len(job.ids)
            ask = {**ask, "cache_prompt": True}
            reason = await self._complete(job, ask, min(missing + _CHARACTER, room), None)
        return reason

    async def _complete(
        self, job: Job, ask: dict[str, Any], count: int, watched: int | None
    ) -> Reason:
        """One completion of up to `count` tokens after the prompt and what is there already."""
        prompt = job.generation.input_ids.tolist() + job.ids
        tokens = Tokens(self._http.retokenize, self._http.detokenize)
        parser = EventParser(len(prompt))
        ask = {**ask, "prompt": prompt, "n_predict": count}
        async with self._http.stream("/completion", ask, job.scheduled) as pieces:
            async for piece in pieces:
                for event in parser.feed(piece):
                    ids, reason = cut(
                        job.ids, await tokens.take(event), watched, job.generation.stop_words
                    )
                    job.tokens(ids)
                    if reason is not None:
                        return reason
        if tokens.reason is None:
            raise EngineUnavailable("the engine went away during the answer")
        return tokens.reason
