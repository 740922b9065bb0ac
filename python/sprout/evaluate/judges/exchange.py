# SPDX-License-Identifier: Apache-2.0
"""POSTs of JSON to one address, from any thread: bounded in time and size.

An event loop in a thread of its own carries them, because only there a time-out can be for the
whole exchange: httpx's own is per read, which dripping bytes never trip. Redirects are not
followed, so the key goes to the configured host alone.
"""

import asyncio
import concurrent.futures
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from sprout.channel import is_loopback
from sprout.errors import ConfigError, RequestCancelled
from sprout.evaluate.judges.verdict import Reason

MAX_ANSWER_BYTES = 1 << 20  # a verdict takes some hundred bytes; a reasoning judge's trace more
LOOK_S = 0.1  # how often a waiting thread looks whether it is to stop


@dataclass(frozen=True, slots=True)
class Response:
    """`failed`: none came. Else `status`, and `content` where the body is JSON (None where not)."""

    failed: Reason | None = None
    why: str = ""  # for people; quotes nothing of the other side's
    status: int = 0
    content: Any = None
    retry_after: str | None = None


class Exchange:
    """connections: kept and used at once, at most."""

    def __init__(self, url: str, *, timeout_s: float, connections: int) -> None:
        self._url, self._timeout_s = url, timeout_s
        try:
            self._client = httpx.AsyncClient(
                timeout=timeout_s,
                limits=httpx.Limits(
                    max_connections=connections, max_keepalive_connections=connections
                ),
                # A proxy of this machine's is for what is beyond it.
                trust_env=not is_loopback(urlsplit(url).hostname or ""),
            )
        except (OSError, ValueError, ImportError) as error:  # it may quote a proxy's password
            raise ConfigError(
                f"{type(error).__name__}: are proxy and certificates of this machine right?"
            ) from None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="sprout-judge", daemon=True
        )
        self._thread.start()

    def post(
        self, body: Mapping[str, Any], headers: Mapping[str, str], stop: threading.Event
    ) -> Response:
        """RequestCancelled once `stop` is set or it is closed, also while it waits."""
        if self._loop.is_closed():
            raise RequestCancelled("the evaluation was stopped")
        future = asyncio.run_coroutine_threadsafe(self._post(body, headers), self._loop)
        while not concurrent.futures.wait((future,), timeout=LOOK_S).done:
            if stop.is_set():
                future.cancel()
                raise RequestCancelled("the evaluation was stopped")
        if future.cancelled():
            raise RequestCancelled("the evaluation was stopped")
        return future.result()

    def close(self) -> None:
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._client.aclose()

    async def _post(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._read(body, headers)
        except (TimeoutError, httpx.TimeoutException):
            return Response(Reason.TIMEOUT, f"no answer within {self._timeout_s:g} s")
        except httpx.ConnectError as error:  # before anything was sent, so it can quote nothing
            return Response(Reason.UNAVAILABLE, f"no connection: {error}")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError) as error:
            return Response(Reason.UNAVAILABLE, type(error).__name__)

    async def _read(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
        sent = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            # A small body could unpack to more than the bound before one could look.
            "Accept-Encoding": "identity",
            **headers,
        }
        content = json.dumps(body).encode()
        async with self._client.stream("POST", self._url, content=content, headers=sent) as answer:
            found = bytearray()
            async for part in answer.aiter_raw():
                found += part
                if len(found) > MAX_ANSWER_BYTES:
                    return Response(
                        Reason.OVERSIZED, f"the answer is larger than {MAX_ANSWER_BYTES} bytes"
                    )
            try:
                parsed = json.loads(found)
            except (ValueError, RecursionError):
                parsed = None
            return Response(
                status=answer.status_code,
                content=parsed,
                retry_after=answer.headers.get("Retry-After"),
            )
