# SPDX-License-Identifier: Apache-2.0
"""HTTP towards an engine process: requests that outlive its restart, vendor errors translated."""

import abc
import asyncio
import contextlib
import json
import logging
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Generic, TypeVar

import httpx

from sprout.errors import EngineUnavailable

log = logging.getLogger(__name__)

# How long a slot waits for the next byte of an answer, its first one too.
STALL_S = 120.0
_CONNECT_S = 2.0
_FIRST_DELAY_S, _LAST_DELAY_S = 0.05, 0.5
_KEEPALIVE_S = 3.0  # less than uvicorn's 5 s, so that the server seldom hangs up first
_REMEMBERED = 1024
_ANSWER_BYTES = 16 << 20  # of one answer in JSON; a refusal may quote a prompt of a million tokens
_LAST_WORDS_S = 1.0
_QUOTED = 200  # bytes of a refusal that is no JSON

Info = TypeVar("Info")
_K = TypeVar("_K")
_V = TypeVar("_V")


class EngineHttp(abc.ABC, Generic[Info]):
    """One server. All coroutines belong to one event loop. `Info`: what it says of its model.

    retry_s: how long after the engine has gone requests wait for its return; then each is tried
    once and fails at once.
    stall_s: silence on an open stream after which the engine counts as hung; a prompt may wait and
    be read that long before its first token.
    tls: of an https:// address; None: this machine's certificates.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int,
        retry_s: float,
        stall_s: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.url = url
        self._retry_s = retry_s
        self._down_since: float | None = None
        self._info: Info | None = None
        self._asking = asyncio.Lock()
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=httpx.Timeout(stall_s, connect=_CONNECT_S, pool=None),
            # In the clear no connection is used twice: a server hangs up on idle ones when it is
            # busy, which can't be told from an engine that dies, and on loopback a new one costs
            # 0.1 ms. A handshake of TLS costs more than that.
            limits=httpx.Limits(
                max_connections=connections,
                max_keepalive_connections=connections if url.startswith("https:") else 0,
                keepalive_expiry=_KEEPALIVE_S,
            ),
            # The bytes of a stream are read as they come.
            headers={"Accept-Encoding": "identity"},
            # httpx's own default is a bundle of certificates that comes with Python packages.
            verify=tls or ssl.create_default_context(),
            trust_env=False,  # no proxy stands between a slot and its engine
        )

    # What a dialect says.

    @abc.abstractmethod
    async def ask_info(self) -> Info:
        """Asks the server. Raises EngineUnavailable where it is none of this dialect."""

    @abc.abstractmethod
    def refused(self, status: int, answer: Any, text: str) -> str:
        """Why to try again; raises if there is no use in it. answer: None where it is no JSON."""

    def headers(self) -> Mapping[str, str]:
        """Of each request."""
        return {}

    # What is the same in all.

    async def close(self) -> None:
        await self._http.aclose()

    async def info(self) -> Info:
        """Of the model behind the server; asked once. Raises EngineUnavailable."""
        if self._info is not None:
            return self._info
        async with self._asking:  # all first requests ask as one
            if self._info is None:
                info = await self.ask_info()
                log.info("engine at %s: %s", self.url, info)
                self._info = info
            return self._info

    def forget(self) -> None:
        """What was said of the model: it is asked for anew."""
        self._info = None

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, body: dict[str, Any], on_sent: Callable[[], None]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """POST; yields the body's bytes. Leaving early closes the connection, which ends the
        request on the server. on_sent: called once, as the request goes out.

        Raises what `refused` does, and EngineUnavailable.
        """

        async def trace(event: str, _info: object) -> None:
            if event == "http11.send_request_headers.started":
                on_sent()

        response = await self._send(path, body, {"trace": trace})
        try:
            yield response.aiter_raw()
        except httpx.HTTPError as error:
            raise self._gone(error) from None
        finally:
            await response.aclose()

    async def json(self, path: str, body: Any) -> Any:
        """The answer to a POST of `body`, or to a GET where that is None."""
        response = await self._send(path, body, {})
        try:
            return json.loads(await self._read(response))
        except (ValueError, RecursionError):
            raise EngineUnavailable(f"{self.url}{path} answers with no JSON") from None

    async def let_finish(self, pieces: AsyncIterator[bytes]) -> None:
        """To a stream whose answer is complete: its connection can be used again if it ends soon.

        Only where connections are kept; a server need not end its stream.
        """
        if not self.url.startswith("https:"):
            return
        with contextlib.suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(_LAST_WORDS_S):
                async for _ in pieces:
                    pass

    async def _read(self, response: httpx.Response) -> bytes:
        """All of an answer, which is closed then."""
        body = bytearray()
        try:
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > _ANSWER_BYTES:
                    raise EngineUnavailable(
                        f"{self.url} answers with more than {_ANSWER_BYTES} bytes"
                    )
        except httpx.HTTPError as error:
            raise self._gone(error) from None
        finally:
            await response.aclose()
        return bytes(body)

    async def _send(self, path: str, body: Any, extensions: dict[str, Any]) -> httpx.Response:
        """The response, its body unread. Tries again while nobody is there to answer, and once if
        the engine died before it answered: not more, for the prompt may be what kills it.
        """
        now = asyncio.get_running_loop().time
        delay, lost = _FIRST_DELAY_S, False
        while True:
            request = self._http.build_request(
                "GET" if body is None else "POST",
                path,
                json=body,
                headers=self.headers(),
                extensions=extensions,
            )
            try:
                response = await self._http.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                why = _connection(error)
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
        body = await self._read(response)
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        text = body[:_QUOTED].decode(errors="replace")
        return self.refused(response.status_code, answer, text)

    def _gone(self, error: Exception) -> EngineUnavailable:
        self._info = None
        if isinstance(error, httpx.TimeoutException):
            return EngineUnavailable(f"the engine at {self.url} hangs: {type(error).__name__}")
        return EngineUnavailable(
            f"the engine at {self.url} went away during the request ({type(error).__name__})"
        )


class Remembered(Generic[_K, _V]):
    """The last answers of a question, by what was asked."""

    def __init__(self) -> None:
        self._answers: OrderedDict[_K, _V] = OrderedDict()

    def get(self, key: _K) -> _V | None:
        if key in self._answers:
            self._answers.move_to_end(key)
        return self._answers.get(key)

    def put(self, key: _K, answer: _V) -> _V:
        self._answers[key] = answer
        if len(self._answers) > _REMEMBERED:
            self._answers.popitem(last=False)
        return answer


def error_of(answer: Any) -> tuple[str, str]:
    """(message, type) of an error's JSON, in the form that OpenAI's API gave it; empty if none."""
    error = answer.get("error", answer) if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return str(error or ""), ""
    return str(error.get("message", "")), str(error.get("type", ""))


def _connection(error: httpx.HTTPError) -> str:
    """A handshake that fails must not look like a port where nobody listens."""
    text = str(error)
    return text if "SSL" in text or "certificate" in text.lower() else "nobody answers"
