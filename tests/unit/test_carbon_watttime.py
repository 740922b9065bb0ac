# SPDX-License-Identifier: Apache-2.0
"""WattTime v3 with answers of the documented shape from a real socket."""

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from carbon_api import Api, serving
from loopback_api import Answer, answer

from sprout.carbon import WattTimeSource
from sprout.carbon.secret import Secret
from sprout.errors import (
    FeedError,
    FeedForbidden,
    FeedMalformed,
    FeedRateLimited,
    FeedUnauthorized,
    FeedUnavailable,
    FeedZoneError,
)

NOW = datetime(2026, 11, 22, 13, 17, tzinfo=UTC)
PASSWORD = "pa55word-that-nobody-sees"
TOKEN = "t0ken-that-nobody-sees"


def answered(*values: Any, first: int = 15, **meta: Any) -> Answer:
    """From minute `first` of the hour on, every 5 minutes."""
    start = datetime(2026, 11, 22, 13, tzinfo=UTC)
    data = [
        {"point_time": (start + timedelta(minutes=first + 5 * i)).isoformat(), "value": value}
        for i, value in enumerate(values)
    ]
    about = {
        "region": "CAISO_NORTH",
        "signal_type": "co2_moer",
        "units": "lbs_co2_per_mwh",
        "data_point_period_seconds": 300,
        "model": {"date": "2026-03-01"},
        "generated_at": "2026-11-22T13:10:00+00:00",
        "generated_at_period_seconds": 300,
    }
    return answer({"data": data, "meta": about | meta})


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as server:
        server.answers["/login"] = answer({"token": TOKEN})
        yield server


class Clock:
    s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source(api: Api, clock: Clock, tmp_path: Path) -> WattTimeSource:
    path = tmp_path / "password"
    path.write_text(PASSWORD)
    return WattTimeSource(
        api.url,
        "me",
        Secret(path, "carbon.watttime_password_file"),
        region="CAISO_NORTH",
        timeout_s=10,
        clock=lambda: NOW,
        monotonic=clock,
    )


def test_pounds_per_mwh_become_grams_per_kwh(api: Api, source: WattTimeSource) -> None:
    api.answers["/v3/forecast"] = answered(1000.0)
    value = asyncio.run(source.now())
    assert value.g_per_kwh == pytest.approx(453.59237)
    assert value.series == ("CAISO_NORTH", "watttime", "direct", "marginal")
    assert value.time == datetime(2026, 11, 22, 13, 15, tzinfo=UTC)
    assert value.estimated
    login, asked = api.asked
    assert (login.path, login.headers["authorization"].partition(" ")[0]) == ("/login", "Basic")
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert asked.query == {
        "region": "CAISO_NORTH",
        "signal_type": "co2_moer",
        "horizon_hours": "0",
    }


def test_one_log_in_serves_until_it_is_old(api: Api, source: WattTimeSource, clock: Clock) -> None:
    api.answers["/v3/forecast"] = answered(800)
    for minute in (0, 5, 24):
        clock.s = 1000 + 60 * minute
        asyncio.run(source.now())
    assert api.paths.count("/login") == 1
    clock.s = 1000 + 60 * 25
    asyncio.run(source.now())
    assert api.paths.count("/login") == 2


def test_a_token_that_is_refused_is_renewed_once(api: Api, source: WattTimeSource) -> None:
    api.answers["/v3/forecast"] = answered(800)
    asyncio.run(source.now())
    api.answers["/login"] = answer({"token": "new"})
    api.answers["/v3/forecast"] = [Answer(status=401), answered(900)]
    assert asyncio.run(source.now()).g_per_kwh == pytest.approx(900 * 0.45359237)
    assert api.asked[-1].headers["authorization"] == "Bearer new"
    assert api.paths.count("/login") == 2
    api.answers["/v3/forecast"] = Answer(status=401)
    before = len(api.asked)
    with pytest.raises(FeedUnauthorized):
        asyncio.run(source.now())
    assert api.paths[before:] == ["/v3/forecast", "/login", "/v3/forecast"]


def test_what_the_account_may_not_have_is_not_asked_for_with_another_token(
    api: Api, source: WattTimeSource
) -> None:
    """403 is the plan's or the region's; the token is as good as ever."""
    api.answers["/v3/forecast"] = answered(800)
    asyncio.run(source.now())
    api.answers["/v3/historical"] = Answer(status=403)
    with pytest.raises(FeedForbidden, match="does not cover"):
        asyncio.run(source.history(24))
    asyncio.run(source.now())
    assert api.paths == ["/login", "/v3/forecast", "/v3/historical", "/v3/forecast"]


def test_a_fresh_token_that_is_refused_is_not_renewed(api: Api, source: WattTimeSource) -> None:
    api.answers["/v3/forecast"] = Answer(status=401)
    with pytest.raises(FeedUnauthorized):
        asyncio.run(source.now())
    assert api.paths == ["/login", "/v3/forecast"]


def test_history_is_asked_for_by_time(api: Api, source: WattTimeSource) -> None:
    api.answers["/v3/historical"] = answered(1000, None, 1200, first=5)
    values = asyncio.run(source.history(24))
    assert [round(v.g_per_kwh) for v in values] == [454, 544]
    query = api.asked[-1].query
    assert (query["start"], query["end"]) == ("2026-11-21T13:17:00Z", "2026-11-22T13:17:00Z")


def test_forecast_is_what_lies_ahead(api: Api, source: WattTimeSource) -> None:
    api.answers["/v3/forecast"] = answered(*range(500, 520), first=10)
    values = asyncio.run(source.forecast(0.5))
    assert values[0].time == datetime(2026, 11, 22, 13, 20, tzinfo=UTC)
    assert values[-1].time == datetime(2026, 11, 22, 13, 45, tzinfo=UTC)
    assert all(v.estimated for v in values)
    assert api.asked[-1].query["horizon_hours"] == "1"


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (Answer(status=401), FeedUnauthorized),
        (Answer(status=403), FeedForbidden),
        (Answer(status=404), FeedZoneError),
        (Answer(status=429, headers={"Retry-After": "300"}), FeedRateLimited),
        (Answer(status=500), FeedUnavailable),
        (answered(800, region="PJM_DC"), FeedZoneError),
        (answered(800, units="g_co2_per_kwh"), FeedMalformed),
        (answered(50, signal_type="signal-index", units="percentile"), FeedMalformed),
        (answered("800"), FeedMalformed),
        (answer({"data": []}), FeedMalformed),
        (answer({"data": [{}], "meta": None}), FeedMalformed),
        (answered(), FeedError),
        (answered(None), FeedError),
        (answered(-5), FeedError),
    ],
)
def test_what_goes_wrong_is_named(
    api: Api, source: WattTimeSource, told: Answer, kind: type[FeedError]
) -> None:
    api.answers["/v3/forecast"] = told
    with pytest.raises(FeedError, match="watttime: ") as error:
        asyncio.run(source.now())
    assert type(error.value) is kind


@pytest.mark.parametrize(
    "told", [answer({}), answer([]), *(answer({"token": t}) for t in ("", None, "a\nb", "é"))]
)
def test_a_log_in_without_a_token(api: Api, source: WattTimeSource, told: Answer) -> None:
    api.answers["/login"] = told
    with pytest.raises(FeedMalformed):
        asyncio.run(source.now())
    assert api.paths == ["/login"]


def test_nothing_secret_is_to_be_seen(
    api: Api, source: WattTimeSource, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    api.answers["/v3/forecast"] = [answered(800), Answer(f"{TOKEN} {PASSWORD}".encode())]
    asyncio.run(source.now())
    shown = []
    for _ in range(2):
        with pytest.raises(FeedError) as error:
            asyncio.run(source.now())
        shown.append(repr(error.value))
        api.answers["/login"] = Answer(PASSWORD.encode(), status=401)
        source._token_until = 0
    assert "HTTP 401" in shown[1]
    for secret in (PASSWORD, TOKEN):
        assert secret not in caplog.text + "".join(shown) + repr(source)
