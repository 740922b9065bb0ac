# SPDX-License-Identifier: Apache-2.0
"""Great Britain, from the National Energy System Operator: no key, CC BY 4.0.

`GET /intensity` answers with the running half-hour, `GET /intensity/{from}/{to}` with up to 14
days: {"data": [{"from", "to", "intensity": {"forecast", "actual" | null, "index"}}]}. Operational
(direct) emissions, average signal. `actual` is null while the slot runs: the forecast stands in,
marked estimated.
"""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from sprout.carbon.intensity import Intensity, Series
from sprout.errors import FeedError

MAX_HISTORY_HOURS = 13 * 24.0  # the API refuses more than 14 days
MAX_ANSWER_BYTES = 1 << 20
TIME_FORMAT = "%Y-%m-%dT%H:%MZ"


class GbSource:
    """Always zone GB, direct, average, whatever `carbon.zone` and `carbon.factor_type` say."""

    remote = True
    series: Series = ("GB", "gb", "direct", "average")

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._url, self._timeout_s = url.rstrip("/"), timeout_s
        self.clock = clock

    async def now(self) -> Intensity:
        slots = _slots(await self._get("/intensity"))
        if not slots:
            raise FeedError("gb: the answer holds no half-hour")
        return slots[-1]

    async def history(self, hours: float) -> list[Intensity]:
        end = self.clock()
        start = end - timedelta(hours=min(hours, MAX_HISTORY_HOURS))
        path = f"/intensity/{start.strftime(TIME_FORMAT)}/{end.strftime(TIME_FORMAT)}"
        slots = _slots(await self._get(path))
        return sorted((s for s in slots if s.time <= end), key=lambda slot: slot.time)

    async def _get(self, path: str) -> Any:
        """The answer's JSON, or FeedError, within the time-out.

        It is for the whole exchange: httpx's own is per read, which dripping bytes never trip.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._read(path)
        except TimeoutError:
            raise FeedError(f"gb: no answer within {self._timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise FeedError(f"gb: {type(error).__name__}: {error}") from None
        try:
            return json.loads(body)
        except ValueError as error:
            raise FeedError(f"gb: the answer is no JSON: {error}") from None

    async def _read(self, path: str) -> bytes:
        headers = {"Accept": "application/json"}
        # A client per call: at one call in minutes a kept connection would be stale anyway.
        async with (
            httpx.AsyncClient(timeout=self._timeout_s, headers=headers) as client,
            client.stream("GET", self._url + path) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise FeedError(f"gb: HTTP {answer.status_code}")
            body = b""
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    raise FeedError(f"gb: the answer is larger than {MAX_ANSWER_BYTES} bytes")
            return body


def _slots(answer: Any) -> list[Intensity]:
    """The half-hours of an answer that have a value. FeedError if it has another shape."""
    try:
        found = []
        for slot in answer["data"]:
            values = slot["intensity"]
            actual, forecast = values.get("actual"), values.get("forecast")
            value = forecast if actual is None else actual
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"intensity {value!r}")
            time = datetime.strptime(slot["from"], TIME_FORMAT).replace(tzinfo=UTC)
            found.append(Intensity(float(value), *GbSource.series, time, estimated=actual is None))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FeedError(f"gb: unexpected answer: {type(error).__name__}: {error}") from None
    return found
