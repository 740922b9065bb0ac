# SPDX-License-Identifier: Apache-2.0
"""An engine that exists already, seen from the slot: a client of OpenAI's completions API.

vLLM, trtllm-serve, or any other server of POST /v1/completions that takes a prompt as token ids and
returns token ids. Closing the connection ends a request there.
"""

from pathlib import Path

from sprout.engines.base import Reason
from sprout.engines.client import EngineClient, Job
from sprout.engines.events import EventParser, cut
from sprout.engines.http import STALL_S
from sprout.engines.openai_body import body, check
from sprout.engines.openai_http import NotServed, OpenAIHttp
from sprout.engines.openai_stream import Tokens
from sprout.errors import EngineUnavailable


class OpenAIClient(EngineClient):
    """url: up to and with /v1. slots: requests that the server decodes at once; more would wait
    there, and count as work. queue: that may wait here besides.

    context_tokens: prompt + answer of one request; the server's own limit applies too.
    model, key_file, ca_file: see OpenAIHttp. repetition_penalty: where the client asks for none.
    """

    name = "openai"

    def __init__(
        self,
        url: str,
        *,
        slots: int,
        queue: int,
        context_tokens: int,
        model: str = "",
        key_file: Path | None = None,
        ca_file: Path | None = None,
        repetition_penalty: float = 1.0,
        retry_s: float = 10.0,
        stall_s: float = STALL_S,
    ) -> None:
        self._context_tokens = context_tokens
        self._repetition_penalty = repetition_penalty
        # Two more connections than slots: questions about tokens must not wait for a stream.
        self._http = OpenAIHttp(
            url,
            model=model,
            key_file=key_file,
            ca_file=ca_file,
            connections=slots + 2,
            retry_s=retry_s,
            stall_s=stall_s,
        )
        super().__init__(self._http, slots=slots, queue=queue)

    async def generate(self, job: Job) -> Reason:
        try:
            return await self._complete(job)
        except NotServed:
            # It came back with another model while nobody asked.
            self._http.forget()
            return await self._complete(job)

    async def _complete(self, job: Job) -> Reason:
        g = job.generation
        model = await self._http.info()
        check(g, model, self._context_tokens)
        stop = [text for word in g.stop_words if (text := await self._http.text(word, model))]
        ask = body(g, model, stop=stop, repetition_penalty=self._repetition_penalty)
        tokens = Tokens()
        parser = EventParser(len(g.input_ids))
        async with self._http.stream("/v1/completions", ask, job.scheduled) as pieces:
            async for piece in pieces:
                for event in parser.feed(piece):
                    ids = tokens.take(event)
                    left = g.max_tokens - len(job.ids)
                    limit = Reason.LENGTH if len(ids) > left else None  # whatever it was asked for
                    # The server knows end_id; it may find a stop word's text, but not its ids.
                    ids, reason = cut(job.ids, ids[:left], None, g.stop_words)
                    job.tokens(ids)
                    if reason := reason or limit:
                        return reason
                    if tokens.reason is not None:
                        await self._http.let_finish(pieces)
                        return tokens.reason
        raise EngineUnavailable("the engine went away during the answer")
