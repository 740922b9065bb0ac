# SPDX-License-Identifier: Apache-2.0
"""One GET of a carbon API: bounded in time and size, every failure a FeedError of its kind.

No error quotes the answer or a header: an API may echo the key that it was sent.
"""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from sprout.errors import (
    FeedError,
    FeedForbidden,
    FeedMalformed,
    FeedRateLimited,
    FeedUnauthorized,
    FeedUnavailable,
    FeedZoneError,
)

MAX_ANSWER_BYTES = 4 << 20  # a month of 5-minute points takes 1 MB
MAX_RETRY_AFTER_S = 86_400.0  # a slip in a header shall not silence a source for ever


async def get_json(
    name: str,
    url: str,
    *,
    timeout_s: float,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    auth: tuple[str, str] | None = None,
) -> Any:
    """The answer's JSON. FeedError, that begins with the source's `name`, within the time-out.

    The time-out is for the whole exchange: httpx's own is per read, which dripping bytes never
    trip. Redirects are not followed, so the key goes to the configured host alone.
    """
    try:
        async with asyncio.timeout(timeout_s):
            body = await _read(
                name, url, timeout_s=timeout_s, params=params, headers=headers, auth=auth
            )
    except TimeoutError:
        raise FeedUnavailable(f"{name}: no answer within {timeout_s:g} s") from None
    except httpx.ConnectError as error:  # before anything was sent, so it can quote nothing
        raise FeedUnavailable(f"{name}: no connection: {error}") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FeedUnavailable(f"{name}: {type(error).__name__}") from None
    except (OSError, ValueError, ImportError) as error:  # a proxy or certificates that can't be
        raise FeedUnavailable(
            f"{name}: {type(error).__name__}: are proxy and certificates of this machine right?"
        ) from None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise FeedMalformed(f"{name}: the answer is no JSON") from None


async def _read(
    name: str,
    url: str,
    *,
    timeout_s: float,
    params: Mapping[str, str] | None,
    headers: Mapping[str, str] | None,
    auth: tuple[str, str] | None,
) -> bytes:
    # Uncompressed: a small body could unpack to more than the bound before one could look.
    sent = {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}
    # A client per call: at one call in minutes a kept connection would be stale anyway.
    async with (
        httpx.AsyncClient(timeout=timeout_s) as client,
        client.stream("GET", url, params=params, headers=sent, auth=auth) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            raise _refusal(name, answer.status_code, answer.headers.get("Retry-After"))
        body = bytearray()
        async for part in answer.aiter_raw():
            body += part
            if len(body) > MAX_ANSWER_BYTES:
                raise FeedMalformed(f"{name}: the answer is larger than {MAX_ANSWER_BYTES} bytes")
        return bytes(body)


def _refusal(name: str, status: int, retry_after: str | None) -> FeedError:
    said = f"{name}: HTTP {status}"
    wait_s = None if retry_after is None else retry_after_s(retry_after, datetime.now(UTC))
    match status:
        case 401:
            return FeedUnauthorized(f"{said}: the key is refused")
        case 403:
            return FeedForbidden(f"{said}: the key does not cover this zone, or this call")
        case 400 | 404 | 422:
            return FeedZoneError(f"{said}: it has nothing for this zone")
        case 429:
            return FeedRateLimited(f"{said}: asked too often", retry_after_s=wait_s)
        case _ if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            return FeedUnavailable(f"{said}: an error of its own", retry_after_s=wait_s)
        case _:
            return FeedMalformed(f"{said}: not what the API promises; is its address right?")


def retry_after_s(header: str, now: datetime) -> float | None:
    """Seconds to wait, from seconds or an HTTP date (RFC 9110, 10.2.3); None if it is neither."""
    text = header.strip()
    if text.isascii() and text.isdigit():
        wait_s = float(text)
    else:
        try:
            until = parsedate_to_datetime(text)
        except ValueError:
            return None
        if until.tzinfo is None:  # "-0000"
            until = until.replace(tzinfo=UTC)
        wait_s = (until - now).total_seconds()
    return min(max(0.0, wait_s), MAX_RETRY_AFTER_S)
