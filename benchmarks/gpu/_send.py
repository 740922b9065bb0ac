# SPDX-License-Identifier: Apache-2.0
"""Requests to a stack over gRPC, hundreds at a time from one process, and what came back.

A stream for each request, as clients have: so an error ends one, and letting go of it cancels one.
Times are of `time.monotonic`; those of the engine too, since the slot dates its tokens by the same
clock of the same machine.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from math import nan
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as aio
from _drive import Feed
from _lengths import ENSEMBLE
from tritonclient.utils import InferenceServerException

# Errors of a stream with their status, which otherwise is text alone. Triton ends the stream then.
_HEADERS = {"triton_grpc_error": "true"}
_NS = 1e9
DRAIN_S = 60.0
FAILED_S = 0.2  # a request that failed counts as in flight: a closed loop must not race on errors


@dataclass(frozen=True)
class Ask:
    """One request."""

    text: str
    max_tokens: int  # without `lengths`
    lengths: tuple[int, ...] = ()  # tokens of the answer by level; () where the model has its own
    level: str | None = None  # pinned, by name; None: the policy's
    stream: bool = False
    key: int = -1  # the caller's own, e.g. the prompt's number
    parameters: tuple[tuple[str, str | bool | int], ...] = ()


@dataclass(slots=True)
class Sent:
    """One request and what became of it. nan: that never came."""

    key: int
    due: float
    target: int = 0  # which of the stacks
    sent: float = nan
    scheduled: float = nan  # the engine's, by the slot
    first: float = nan  # the first token, by the slot
    last: float = nan  # the last token, by the slot
    first_chunk: float = nan  # here
    ended: float = nan  # here; nan with `error`
    chunks: int = 0
    level: int = -1
    input_tokens: int = 0
    tokens: int = 0
    policy: int = 0
    joules: float = nan
    grams: float = nan
    intensity: float = nan
    error: str = ""

    @property
    def latency_s(self) -> float:
        """From when it was due."""
        return self.ended - self.due


@dataclass
class Log:
    """Of one drive."""

    started: float
    until: float = nan  # no request was sent after it …
    ended: float = nan  # … and none was in flight after it
    requests: list[Sent] = field(default_factory=list)

    def done(self, since: float = -math.inf, until: float = math.inf) -> list[Sent]:
        """Those that ended within, without an error."""
        return [r for r in self.requests if since <= r.ended < until]

    def errors(self) -> dict[str, int]:
        """How often each was said."""
        found: dict[str, int] = {}
        for r in self.requests:
            if r.error:
                found[r.error] = found.get(r.error, 0) + 1
        return found

    def rows(self) -> list[dict[str, Any]]:
        """For JSON: None where nothing came."""
        return [
            {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(r).items()}
            for r in self.requests
        ]


def drive(targets: str | Sequence[str], feed: Feed[Ask], seconds: float, **options: Any) -> Log:
    """`send`, for callers that have no loop of their own."""
    return asyncio.run(send(targets, feed, seconds, **options))


async def send(
    targets: str | Sequence[str],
    feed: Feed[Ask],
    seconds: float,
    *,
    model: str = ENSEMBLE,
    drain_s: float = DRAIN_S,
    on_end: Callable[[Sent], None] = lambda _: None,
) -> Log:
    """Sends what the feed has for `seconds`, or until it has no more, then waits for what is in
    flight, `drain_s` at most, and cancels the rest.

    targets: "host:port" of each stack's gRPC; a request goes to the one with the fewest in flight,
    in turn where they have the same. An open feed's requests count from when they were due, not
    from when this process came round to them. What a request fails with stands in its `error`.
    """
    addresses = [targets] if isinstance(targets, str) else list(targets)
    clients = [aio.InferenceServerClient(address) for address in addresses]
    flying: dict[asyncio.Task[None], int] = {}
    load = [0] * len(clients)
    turned = asyncio.Event()
    log = Log(time.monotonic())

    def landed(task: asyncio.Task[None]) -> None:
        load[flying.pop(task)] -= 1
        turned.set()

    async def one(sent: Sent, ask: Ask) -> None:
        await _fly(clients[sent.target], model, ask, sent)
        on_end(sent)
        if sent.error:
            await asyncio.sleep(FAILED_S)

    try:
        while (now := time.monotonic() - log.started) < seconds:
            turned.clear()
            while (found := feed.due(now, len(flying))) is not None:
                due, ask = found
                at = len(log.requests)
                target = min(range(len(load)), key=lambda i: (load[i], (i - at) % len(load)))
                sent = Sent(ask.key, log.started + due, target)
                log.requests.append(sent)
                task = asyncio.create_task(one(sent, ask))
                flying[task] = target
                load[target] += 1
                task.add_done_callback(landed)
            gap = feed.wait(now)
            if math.isinf(gap) and not flying:
                break
            # A closed feed waits for an end, an open one for the next arrival or an end.
            timeout = min(gap if gap > 0 else math.inf, seconds - now)
            try:
                await asyncio.wait_for(turned.wait(), max(timeout, 0.0))
            except TimeoutError:
                continue
        log.until = time.monotonic()
        left = [*flying]
        if left:
            await asyncio.wait(left, timeout=drain_s)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        log.ended = time.monotonic()
    finally:
        for client in clients:
            await client.close()
    return log


async def _fly(client: Any, model: str, ask: Ask, sent: Sent) -> None:
    sent.sent = time.monotonic()
    stream = client.stream_infer(_once(_request(model, ask)), headers=_HEADERS)
    try:
        async for result, error in stream:
            if error is not None:
                raise error
            _take(result, sent)
        sent.ended = time.monotonic()
        if sent.level < 0 and model == ENSEMBLE:
            sent.error, sent.ended = "an answer without a receipt", nan
    except asyncio.CancelledError:
        sent.error = "not ended in time"
        stream.cancel()
        raise
    except (InferenceServerException, grpc.RpcError) as error:
        code, said = (
            (error.code(), error.details())
            if isinstance(error, grpc.RpcError)
            else (error.status(), error.message())
        )
        sent.error = f"{code}: {said}"
    except Exception as error:  # one request's: the others go on, and it stands in the result
        sent.error = f"{type(error).__name__}: {error}"


async def _once(request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield request


def _request(model: str, ask: Ask) -> dict[str, Any]:
    parameters: dict[str, Any] = dict(ask.parameters)
    if ask.lengths:
        parameters["lengths"] = ",".join(map(str, ask.lengths))
    if ask.level is not None:
        parameters["sprout_level"] = ask.level
    inputs = [
        _tensor("text_input", "BYTES", np.array([[ask.text.encode()]], object)),
        _tensor("max_tokens", "INT32", np.array([[ask.max_tokens]], np.int32)),
        _tensor("stream", "BOOL", np.array([[ask.stream]])),
        *_ALWAYS,
    ]
    return {"model_name": model, "inputs": inputs, "parameters": parameters}


def _tensor(name: str, dtype: str, array: Any) -> triton.InferInput:
    tensor = triton.InferInput(name, array.shape, dtype)
    tensor.set_data_from_numpy(array)
    return tensor


# No end but the length's, and what the records are made of.
_ALWAYS = [
    _tensor("end_id", "INT32", np.array([[-1]], np.int32)),
    *(
        _tensor(f"return_{what}", "BOOL", np.array([[True]]))
        for what in ("num_input_tokens", "num_output_tokens", "perf_metrics")
    ),
]

_TIMES = {
    "first_scheduled_time_ns": "scheduled",
    "first_token_time_ns": "first",
    "last_token_time_ns": "last",
}
_VALUES = {
    "num_input_tokens": "input_tokens",
    "num_output_tokens": "tokens",
    "directive_level": "level",
    "policy_version": "policy",
    "energy_joules": "joules",
    "carbon_grams": "grams",
    "carbon_intensity": "intensity",
}


def _take(result: Any, sent: Sent) -> None:
    """Adds one response; an empty final one has no outputs."""
    names = [output.name for output in result.get_response().outputs]
    if not names:
        return
    sent.chunks += 1
    if sent.chunks == 1:
        sent.first_chunk = time.monotonic()
    if "directive_level" not in names and "num_output_tokens" not in names:
        return  # all else comes with the last
    for name in names:
        if name in _VALUES or name in _TIMES:
            values = result.as_numpy(name)
            if values.size:
                value = values.reshape(-1)[0].item()
                if name in _TIMES:
                    setattr(sent, _TIMES[name], value / _NS)
                else:
                    setattr(sent, _VALUES[name], value)


def asks(texts: Sequence[str], lengths: Iterable[Sequence[int]], **more: Any) -> list[Ask]:
    """One for each text, with its answer's tokens by level; keys are their numbers."""
    return [
        Ask(text, max_tokens=max(own), lengths=tuple(map(int, own)), key=key, **more)
        for key, (text, own) in enumerate(zip(texts, lengths, strict=True))
    ]
