# SPDX-License-Identifier: Apache-2.0
"""Great Britain, from the National Energy System Operator: no key, CC BY 4.0.

`GET /intensity` answers with the running half-hour, `/intensity/{from}/{to}` with up to 14 days,
`/intensity/{from}/fw48h` with the next two: {"data": [{"from", "to", "intensity": {"forecast",
"actual" | null, "index"}}]}. Operational (direct) emissions, average signal. `actual` is null while
the slot runs: the forecast stands in, marked estimated.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sprout.carbon.http import get_json
from sprout.carbon.intensity import Intensity, Series, ahead, utc_now
from sprout.carbon.parse import number, shape
from sprout.errors import FeedError

MAX_HISTORY_HOURS = 13 * 24.0  # the API refuses more than 14 days
TIME_FORMAT = "%Y-%m-%dT%H:%MZ"


class GbSource:
    """Always zone GB, direct, average, whatever `carbon.factor_type` says."""

    name = "gb"
    remote = True
    live = True
    step_s = 1800.0
    forecast_basis = "the system operator's forecast"
    series: Series = ("GB", "gb", "direct", "average")

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        clock: Callable[[], datetime] = utc_now,
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

    async def forecast(self, hours: float) -> list[Intensity]:
        start = self.clock()
        slots = _slots(await self._get(f"/intensity/{start.strftime(TIME_FORMAT)}/fw48h"))
        found = (slot for slot in ahead(slots, start, hours) if slot.estimated)
        return sorted(found, key=lambda slot: slot.time)

    async def _get(self, path: str) -> Any:
        return await get_json(self.name, self._url + path, timeout_s=self._timeout_s)


def _slots(answer: Any) -> list[Intensity]:
    """The half-hours of an answer that have a value. FeedMalformed if it has another shape."""
    found = []
    with shape("gb"):
        for slot in answer["data"]:
            values = slot["intensity"]
            actual, forecast = values.get("actual"), values.get("forecast")
            value = forecast if actual is None else actual
            if value is None:
                continue
            time = datetime.strptime(slot["from"], TIME_FORMAT).replace(tzinfo=UTC)
            g = number(value)
            found.append(Intensity(g, *GbSource.series, time, estimated=actual is None))
    return found
