# SPDX-License-Identifier: Apache-2.0
"""HTTP towards llama.cpp's server: requests that outlive its restart, vendor errors translated."""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import httpx

from sprout.engines.llama_body import INFO_PROBE, ModelInfo, model_info
from sprout.errors import EngineError, EngineUnavailable, PromptTooLong, RequestError

log = logging.getLogger(__name__)

_CONNECT_S = 2.0
_FIRST_DELAY_S, _LAST_DELAY_S = 0.05, 0.5
_CACHE = 1024

_K = TypeVar("_K")
_V = TypeVar("_V")


class LlamaHttp:
    """One server. All coroutines belong to one event loop.

    retry_s: how long after the engine has gone requests wait for its return; then each is tried
    once and fails at once.
    stall_s: silence on an open stream after which the engine counts as hung; a prompt may wait and
    be read that long before its first token.
    """

    def __init__(self, url: str, *, connections: int, retry_s: float, stall_s: float) -> None:
        self.url = url
        self._retry_s = retry_s
        self._down_since: float | None = None
        self._info: ModelInfo | None = None
        self._asking = asyncio.Lock()
        self._texts: OrderedDict[tuple[int, ...], str] = OrderedDict()
        self._ids: OrderedDict[str, list[int]] = OrderedDict()
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=httpx.Timeout(stall_s, connect=_CONNECT_S, pool=None),
            # No connection is used twice: the server hangs up on idle ones when it is busy, which
            # can't be told from an engine that dies, and on loopback a new one costs 0.1 ms.
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=0),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._http.aclose()

    @contextlib.asynccontextmanager
    async def stream(
        self, body: dict[str, Any], on_sent: Callable[[], None]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """POST /completion; yields the body's bytes. Leaving early closes the connection, which
        frees the server's slot. on_sent: called once, as the request goes out.

        Raises RequestError, PromptTooLong, EngineUnavailable.
        """

        async def trace(event: str, _info: object) -> None:
            if event == "http11.send_request_headers.started":
                on_sent()

        response = await self._send("/completion", body, {"trace": trace})
        try:
            yield response.aiter_raw()
        except httpx.HTTPError as error:
            raise self._gone(error) from None
        finally:
            await response.aclose()

    async def info(self) -> ModelInfo:
        """Of the model behind the server; asked once. Raises EngineUnavailable."""
        if self._info is not None:
            return self._info
        async with self._asking:  # all first requests ask as one
            return self._info or await self._ask()

    async def _ask(self) -> ModelInfo:
        probe = await self._json("/completion", INFO_PROBE)
        models = await self._json("/v1/models", None)
        try:
            self._info = model_info(models, probe)
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise EngineUnavailable(f"{self.url} is no llama.cpp server: {error!r}") from None
        log.info("engine at %s: %s", self.url, self._info)
        return self._info

    async def detokenize(self, ids: list[int]) -> str:
        """Text of ids, special tokens included; remembered."""
        key = tuple(ids)
        if key not in self._texts:
            answer = await self._json("/detokenize", {"tokens": ids})
            _remember(self._texts, key, str(answer["content"]))
        self._texts.move_to_end(key)
        return self._texts[key]

    async def retokenize(self, text: str) -> list[int]:
        """Ids of text that stands inside a text; remembered."""
        if text not in self._ids:
            info = await self.info()
            # SentencePiece puts a space before a text: a line break takes it, and goes.
            lead = await self._tokenize("\n") if info.sentencepiece else []
            ids = await self._tokenize(("\n" if lead else "") + text)
            _remember(self._ids, text, ids[len(lead) :])
        self._ids.move_to_end(text)
        return self._ids[text]

    async def _tokenize(self, text: str) -> list[int]:
        question = {"content": text, "add_special": False, "parse_special": False}
        answer = await self._json("/tokenize", question)
        return [int(token) for token in answer["tokens"]]

    async def _json(self, path: str, body: Any) -> Any:
        response = await self._send(path, body, {})
        try:
            await response.aread()
            return response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise self._gone(error) from None
        finally:
            await response.aclose()

    async def _send(self, path: str, body: Any, extensions: dict[str, Any]) -> httpx.Response:
        """The response, its body unread. Tries again while nobody is there to answer, and once if
        the engine died before it answered: not more, for the prompt may be what kills it.
        """
        now = asyncio.get_running_loop().time
        delay, lost = _FIRST_DELAY_S, False
        while True:
            request = self._http.build_request(
                "GET" if body is None else "POST", path, json=body, extensions=extensions
            )
            try:
                response = await self._http.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                why = "nobody answers"
                self._info = None  # whoever comes back may be another model
            except httpx.HTTPError as error:
                if lost or isinstance(error, httpx.TimeoutException):
                    raise self._gone(error) from None
                why, lost, self._info = "it went away", True, None
            else:
                if response.status_code == httpx.codes.OK:
                    self._down_since = None
                    return response
                why = await self._refused(response)
            self._down_since = self._down_since or now()
            away_s = now() - self._down_since
            if away_s + delay > self._retry_s:
                raise EngineUnavailable(f"no engine at {self.url} for {away_s:.0f} s: {why}")
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LAST_DELAY_S)

    async def _refused(self, response: httpx.Response) -> str:
        """Why to try again; raises if there is no use in it."""
        try:
            await response.aread()
            error = response.json()["error"]
            message, kind = str(error["message"]), str(error.get("type", ""))
        except httpx.HTTPError as gone:
            raise self._gone(gone) from None
        except (ValueError, KeyError, TypeError):
            message, kind = response.text[:200], ""
        finally:
            await response.aclose()
        if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return message  # loading its model
        if kind == "exceed_context_size_error":
            raise PromptTooLong(message)
        if response.is_client_error:
            raise RequestError(f"the engine refused the request: {message}")
        raise EngineError(f"the engine failed: {message}")

    def _gone(self, error: Exception) -> EngineUnavailable:
        self._info = None
        if isinstance(error, httpx.TimeoutException):
            return EngineUnavailable(f"the engine at {self.url} hangs: {type(error).__name__}")
        return EngineUnavailable(
            f"the engine at {self.url} went away during the request ({type(error).__name__})"
        )


def _remember(cache: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    cache[key] = value
    if len(cache) > _CACHE:
        cache.popitem(last=False)
