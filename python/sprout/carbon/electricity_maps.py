# SPDX-License-Identifier: Apache-2.0
"""Electricity Maps, API v3 and v4: flow-traced average of what a zone consumes, by the hour.

    GET /{version}/carbon-intensity/latest      {"zone", "carbonIntensity", "datetime",
                                                 "emissionFactorType", "isEstimated", …}
        …/history     the last 24 h             {"zone", "history": [the same]}
        …/past-range  up to 10 days a call      {"zone", "data": [the same]}, paid plans
        …/forecast    up to 72 h                {"zone", "forecast": [{"carbonIntensity",
                                                 "datetime"}], …}, paid plans

Header `auth-token`. Lifecycle factors unless `emissionFactorType=direct`. Where it knows no such
zone it may answer for the zone of the caller's address: that look-up is switched off, under its
name of either version, and the zone of each answer is checked.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Literal

from sprout.carbon.http import get_json
from sprout.carbon.intensity import FactorType, Intensity, Series, ahead, utc_now
from sprout.carbon.parse import iso, moment, number, shape
from sprout.carbon.secret import Secret
from sprout.errors import FeedError, FeedMalformed, FeedUnauthorized, FeedZoneError

FREE_HISTORY_HOURS = 24.0
RANGE = timedelta(days=10)  # most of one past-range


class ElectricityMapsSource:
    name = "electricity_maps"
    remote = True
    live = True
    step_s = 3600.0
    forecast_basis = "Electricity Maps' forecast"

    def __init__(
        self,
        url: str,
        key: Secret,
        *,
        version: Literal["v3", "v4"],
        zone: str,
        factor_type: FactorType,
        timeout_s: float,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._url = f"{url.rstrip('/')}/{version}/carbon-intensity/"
        self._key, self._timeout_s = key, timeout_s
        # Its versions count alike, so they are one series.
        self.series: Series = (zone, self.name, factor_type, "average")
        self.clock = clock

    async def now(self) -> Intensity:
        answer = await self._get("latest")
        with shape(self.name):
            found = self._value(answer)
        if found is None:
            raise FeedError(f"{self.name}: no value for {self.series[0]} at present")
        return found

    async def history(self, hours: float) -> list[Intensity]:
        """What the plan allows: `past-range`, else the last 24 h."""
        if hours > FREE_HISTORY_HOURS:
            try:
                return await self._past(hours)
            except (FeedUnauthorized, FeedZoneError):
                pass  # not in this plan, or not in this version
        return self._values(await self._get("history"), "history")

    async def forecast(self, hours: float) -> list[Intensity]:
        asked = next((step for step in (24, 48) if hours <= step), 72)
        values = self._values(await self._get("forecast", horizonHours=str(asked)), "forecast")
        return ahead(values, self.clock(), hours)

    async def _past(self, hours: float) -> list[Intensity]:
        end = self.clock()
        start, found = end - timedelta(hours=hours), []
        while start < end:
            until = min(start + RANGE, end)
            limits = {"start": iso(start), "end": iso(until)}
            found += self._values(await self._get("past-range", **limits), "data")
            start = until
        return found

    async def _get(self, what: str, **params: str) -> Any:
        zone, _, factor_type, _ = self.series
        answer = await get_json(
            self.name,
            self._url + what,
            timeout_s=self._timeout_s,
            params={
                "zone": zone,
                "emissionFactorType": factor_type,
                "temporalGranularity": "hourly",
                "disableCallerLookup": "true",
                "shouldUseFallbackCallerLookup": "false",
                **params,
            },
            headers={"auth-token": self._key.read()},
        )
        with shape(self.name):
            answered = answer["zone"]
        if answered != zone:
            raise FeedZoneError(f"{self.name}: asked for zone {zone}, answered for another")
        return answer

    def _values(
        self, answer: Any, field: Literal["history", "data", "forecast"]
    ) -> list[Intensity]:
        def found() -> Iterator[Intensity]:
            for item in answer[field]:
                value = self._value(item, forecast=field == "forecast")
                if value is not None:
                    yield value

        with shape(self.name):
            return sorted(found(), key=lambda value: value.time)

    def _value(self, item: Any, *, forecast: bool = False) -> Intensity | None:
        """None where it is null: a gap."""
        zone, _, factor_type, _ = self.series
        if item.get("zone", zone) != zone:
            raise FeedZoneError(f"{self.name}: asked for zone {zone}, answered for another")
        if item.get("emissionFactorType", factor_type) != factor_type:
            raise FeedMalformed(f"{self.name}: asked for {factor_type} factors, got others")
        if item["carbonIntensity"] is None:
            return None
        # Not said is not measured.
        estimated = forecast or item.get("isEstimated") is not False
        time = moment(item["datetime"])
        return Intensity(number(item["carbonIntensity"]), *self.series, time, estimated=estimated)
