# SPDX-License-Identifier: Apache-2.0
"""The embedded engine, seen from the slot: a client of llama.cpp's server, in token ids.

One asyncio loop on one thread serves every open generation. As many are sent as the server has
slots, so `first_scheduled` is the time at which the engine really began; the others wait here, in
order, up to a bound. Cancelling closes the connection, and that frees the server's slot.
"""

import asyncio
import logging
import threading
import time
from typing import Any

from sprout.engines.base import Chunk, End, Generation, Reason, Sink
from sprout.engines.llama_body import body, check
from sprout.engines.llama_http import LlamaHttp
from sprout.engines.llama_stream import EventParser, Tokens, cut
from sprout.errors import EngineBusy, EngineError, EngineUnavailable, SproutError

log = logging.getLogger(__name__)

_CHARACTER = 3  # tokens that one more character can need beyond its first


class _Job:
    """One generation, from `submit` to its end. Everything but `cancel` belongs to the loop."""

    def __init__(self, client: "LlamaClient", generation: Generation, sink: Sink) -> None:
        self.generation = generation
        self.sink = sink
        self.ids: list[int] = []  # of the answer, so far
        self.arrival_ns = time.monotonic_ns()
        self.scheduled_ns = self.first_ns = self.last_ns = 0
        self.cancelled = False
        self.task: asyncio.Task[Reason] | None = None
        self._client = client

    def cancel(self) -> None:
        self._client.post(self._cancel)

    def _cancel(self) -> None:
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()

    def scheduled(self) -> None:
        if not self.scheduled_ns:
            self.scheduled_ns = time.monotonic_ns()
            self.sink.on_scheduled(self.scheduled_ns)

    def tokens(self, ids: list[int]) -> None:
        if ids:
            self.last_ns = time.monotonic_ns()
            self.first_ns = self.first_ns or self.last_ns
            self.ids += ids
            self.sink.on_chunk(Chunk(ids), self.last_ns)

    def end(self, reason: Reason) -> None:
        now = time.monotonic_ns()
        end = End(
            reason,
            input_tokens=len(self.generation.input_ids),
            output_tokens=len(self.ids),
            arrival_ns=self.arrival_ns,
            first_scheduled_ns=self.scheduled_ns,
            first_token_ns=self.first_ns,
            last_token_ns=self.last_ns or now,
        )
        self.sink.on_chunk(Chunk([], end), now)


class LlamaClient:
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
        stall_s: float = 120.0,
    ) -> None:
        self._slots, self._queue = slots, queue
        self._context_tokens = context_tokens
        self._repetition_penalty = repetition_penalty
        self._cache_prompt = cache_prompt
        self._lock = threading.Lock()
        self._jobs: set[_Job] = set()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        # Two more connections than slots: questions about tokens must not wait for a stream.
        self._http = LlamaHttp(url, connections=slots + 2, retry_s=retry_s, stall_s=stall_s)
        self._free = asyncio.Semaphore(slots)
        self._thread = threading.Thread(target=self._run, name="llama-client", daemon=True)
        self._thread.start()

    def submit(self, generation: Generation, sink: Sink) -> _Job:
        job = _Job(self, generation, sink)
        refusal: SproutError | None = None
        with self._lock:
            if self._closed:
                refusal = EngineUnavailable("the engine client is closed")
            elif len(self._jobs) >= self._slots + self._queue:
                refusal = EngineBusy(
                    f"{self._slots} slots are decoding and the queue of {self._queue} is full: "
                    "try again later"
                )
            else:
                self._jobs.add(job)
                # Under the lock: `close` posts its stop after the last job.
                self._loop.call_soon_threadsafe(self._start, job)
        if refusal is not None:
            sink.on_error(refusal)
        return job

    def cancel(self, request_id: str) -> int:
        with self._lock:
            found = [job for job in self._jobs if job.generation.request_id == request_id]
        for job in found:
            job.cancel()
        return len(found)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def post(self, call: Any) -> None:
        """Runs something on the loop, unless it is closed."""
        with self._lock:
            if not self._closed:
                self._loop.call_soon_threadsafe(call)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._shut_down())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    async def _shut_down(self) -> None:
        for job in self._jobs:
            if job.task is not None:
                job.task.cancel()
        while self._jobs:
            await asyncio.sleep(0.001)
        await self._http.close()

    def _start(self, job: _Job) -> None:
        job.task = self._loop.create_task(self._serve(job))
        # A callback and no `try` around the work: a task that is cancelled before its first step
        # never reaches its first line.
        job.task.add_done_callback(lambda task: self._ended(job, task))

    async def _serve(self, job: _Job) -> Reason:
        async with self._free:
            return await self._generate(job)

    def _ended(self, job: _Job, task: "asyncio.Task[Reason]") -> None:
        """The one place from which an end reaches a sink."""
        with self._lock:
            self._jobs.discard(job)  # first: who is told may ask again at once
        if task.cancelled():
            if job.cancelled:
                job.end(Reason.CANCELLED)
            else:
                job.sink.on_error(EngineUnavailable("the engine client was closed"))
            return
        error = task.exception()
        if error is None:
            job.end(task.result())
        elif isinstance(error, SproutError):
            job.sink.on_error(error)
        else:
            log.error("request %r", job.generation.request_id, exc_info=error)
            job.sink.on_error(EngineError(f"{type(error).__name__}: {error}"))

    async def _generate(self, job: _Job) -> Reason:
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

    async def _least(self, job: _Job, ask: dict[str, Any], least: int) -> Reason:
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
        self, job: _Job, ask: dict[str, Any], count: int, watched: int | None
    ) -> Reason:
        """One completion of up to `count` tokens after the prompt and what is there already."""
        prompt = job.generation.input_ids.tolist() + job.ids
        tokens = Tokens(self._http.retokenize, self._http.detokenize)
        parser = EventParser()
        ask = {**ask, "prompt": prompt, "n_predict": count}
        async with self._http.stream(ask, job.scheduled) as pieces:
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
