# SPDX-License-Identifier: Apache-2.0
"""WattTime, API v3: what the next kilowatt-hour emits (marginal operating rate), every 5 minutes.

    GET /login                     basic authentication → {"token"}, good for 30 minutes
    GET /v3/forecast?region&signal_type&horizon_hours     0 = the running 5 minutes alone
    GET /v3/historical?region&signal_type&start&end       at most 32 days
        → {"data": [{"point_time", "value"}], "meta": {"region", "signal_type", "units", …}}

`co2_moer` counts what the plants emit as they run (direct), in pounds per MWh. `signal-index`, the
free signal, is a percentile and no intensity. Every value is a model's: estimated.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sprout.carbon.http import get_json
from sprout.carbon.intensity import Intensity, Series, ahead, utc_now
from sprout.carbon.parse import iso, moment, number, shape
from sprout.carbon.secret import Secret
from sprout.errors import (
    FeedError,
    FeedForbidden,
    FeedMalformed,
    FeedUnauthorized,
    FeedZoneError,
)

SIGNAL = "co2_moer"
UNITS = "lbs_co2_per_mwh"
# 453.59237 g in a pound (by its definition), 1,000 kWh in a MWh.
G_PER_KWH = 0.45359237
TOKEN_S = 25 * 60.0
MAX_HISTORY_HOURS = 31 * 24.0


class WattTimeSource:
    """Always marginal and direct, whatever `carbon.factor_type` says."""

    name = "watttime"
    remote = True
    live = True
    step_s = 300.0
    forecast_basis = "WattTime's forecast"

    def __init__(
        self,
        url: str,
        username: str,
        password: Secret,
        *,
        region: str,
        timeout_s: float,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url, self._timeout_s = url.rstrip("/"), timeout_s
        self._username, self._password = username, password
        self._token: str | None = None
        self._token_until = 0.0
        self._monotonic = monotonic
        self.series: Series = (region, self.name, "direct", "marginal")
        self.clock = clock

    async def now(self) -> Intensity:
        values = self._values(await self._get("/v3/forecast", horizon_hours="0"))
        if not values:
            raise FeedError(f"{self.name}: no value for {self.series[0]} at present")
        return values[0]

    async def history(self, hours: float) -> list[Intensity]:
        end = self.clock()
        start = end - timedelta(hours=min(hours, MAX_HISTORY_HOURS))
        limits = {"start": iso(start), "end": iso(end)}
        values = self._values(await self._get("/v3/historical", **limits))
        return [value for value in values if value.time <= end]

    async def forecast(self, hours: float) -> list[Intensity]:
        whole = str(min(72, int(hours) + (hours > int(hours))))
        values = self._values(await self._get("/v3/forecast", horizon_hours=whole))
        return ahead(values, self.clock(), hours)

    async def _get(self, path: str, **params: str) -> Any:
        """Logs in where there is no token, and once again where the one there is was refused.

        Not where the account may not have what was asked for: another token may not either, and
        log-ins are limited as well.
        """
        kept = self._token is not None and self._monotonic() < self._token_until
        if not kept:
            await self._login()
        try:
            return await self._ask(path, params)
        except FeedForbidden:
            raise
        except FeedUnauthorized:
            self._token = None
            if not kept:
                raise
        await self._login()
        return await self._ask(path, params)

    async def _ask(self, path: str, params: dict[str, str]) -> Any:
        return await get_json(
            self.name,
            self._url + path,
            timeout_s=self._timeout_s,
            params={"region": self.series[0], "signal_type": SIGNAL, **params},
            headers={"Authorization": f"Bearer {self._token}"},
        )

    async def _login(self) -> None:
        url, auth = f"{self._url}/login", (self._username, self._password.read())
        answer = await get_json(self.name, url, timeout_s=self._timeout_s, auth=auth)
        with shape(self.name):
            token = answer["token"]
        # As for any secret that goes into a header.
        if not isinstance(token, str) or not (token.isascii() and token.isprintable() and token):
            raise FeedMalformed(f"{self.name}: the log-in gave no usable token")
        self._token, self._token_until = token, self._monotonic() + TOKEN_S

    def _values(self, answer: Any) -> list[Intensity]:
        with shape(self.name):
            meta = answer["meta"]
            if meta["region"] != self.series[0]:
                raise FeedZoneError(
                    f"{self.name}: asked for region {self.series[0]}, answered for another"
                )
            if (meta["signal_type"], meta["units"]) != (SIGNAL, UNITS):
                raise FeedMalformed(f"{self.name}: the answer is not {SIGNAL} in {UNITS}")
            found = [
                Intensity(
                    number(point["value"]) * G_PER_KWH,
                    *self.series,
                    moment(point["point_time"]),
                    estimated=True,
                )
                for point in answer["data"]
                if point["value"] is not None
            ]
        return sorted(found, key=lambda value: value.time)
