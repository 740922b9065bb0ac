# SPDX-License-Identifier: Apache-2.0
"""The GB source against a real HTTP server with answers of the recorded shape."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from carbon_api import Api, serving
from loopback_api import Answer, answer

from sprout.carbon import GbSource
from sprout.errors import FeedError, FeedMalformed, FeedUnavailable

NOW = datetime(2026, 11, 22, 1, 17, tzinfo=UTC)


def slot(start: str, end: str, forecast: int | None, actual: int | None) -> dict[str, Any]:
    values = {"forecast": forecast, "actual": actual, "index": "moderate"}
    return {"from": start, "to": end, "intensity": values}


RUNNING = slot("2026-11-22T01:00Z", "2026-11-22T01:30Z", 182, None)
ENDED = slot("2026-11-22T00:30Z", "2026-11-22T01:00Z", 175, 171)


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as server:
        yield server


def source(api: Api, timeout_s: float = 5.0) -> GbSource:
    return GbSource(api.url, timeout_s=timeout_s, clock=lambda: NOW)


def slots(*data: dict[str, Any]) -> Answer:
    return answer({"data": data})


def test_actual_where_there_is_one(api: Api) -> None:
    api.any = slots(ENDED)
    value = asyncio.run(source(api).now())
    assert api.paths == ["/intensity"]
    assert (value.g_per_kwh, value.estimated) == (171, False)
    assert value.series == ("GB", "gb", "direct", "average")
    assert value.time == datetime(2026, 11, 22, 0, 30, tzinfo=UTC)


def test_running_half_hour_is_its_forecast(api: Api) -> None:
    api.any = slots(RUNNING)
    value = asyncio.run(source(api).now())
    assert (value.g_per_kwh, value.estimated) == (182, True)


def test_actual_of_zero_is_not_null(api: Api) -> None:
    api.any = slots(slot("2026-11-22T01:00Z", "2026-11-22T01:30Z", 20, 0))
    value = asyncio.run(source(api).now())
    assert (value.g_per_kwh, value.estimated) == (0, False)


def test_neither_actual_nor_forecast_is_an_error(api: Api) -> None:
    api.any = slots(slot("2026-11-22T01:00Z", "2026-11-22T01:30Z", None, None))
    with pytest.raises(FeedError, match="no half-hour"):
        asyncio.run(source(api).now())


def test_history_is_asked_for_by_time_and_sorted(api: Api) -> None:
    later = slot("2026-11-22T01:30Z", "2026-11-22T02:00Z", 190, None)  # in the future
    api.any = slots(RUNNING, ENDED, later)
    values = asyncio.run(source(api).history(24))
    assert api.paths == ["/intensity/2026-11-21T01:17Z/2026-11-22T01:17Z"]
    assert [v.g_per_kwh for v in values] == [171, 182]


def test_history_stays_within_what_the_api_allows(api: Api) -> None:
    api.any = slots()
    assert asyncio.run(source(api).history(9999)) == []
    assert api.paths == ["/intensity/2026-11-09T01:17Z/2026-11-22T01:17Z"]


@pytest.mark.parametrize(
    "shape",
    [
        [],
        {"data": None},
        {"data": [None]},
        {"data": [{"from": "2026-11-22T01:00Z"}]},
        {"data": [{"from": "2026-11-22T01:00Z", "intensity": None}]},
        {"data": [{"from": "2026-11-22T01:00Z", "intensity": {"actual": "171"}}]},
        {"data": [{"from": "2026-11-22T01:00Z", "intensity": {"actual": True}}]},
        {"data": [{"from": "noon", "intensity": {"actual": 171}}]},
        {"data": [{"from": 5, "intensity": {"actual": 171}}]},
    ],
)
def test_wrong_shapes(api: Api, shape: object) -> None:
    api.any = answer(shape)
    with pytest.raises(FeedError, match="unexpected answer"):
        asyncio.run(source(api).now())


def test_impossible_value(api: Api) -> None:
    api.any = slots(slot("2026-11-22T01:00Z", "2026-11-22T01:30Z", -4, None))
    with pytest.raises(FeedError, match="no carbon intensity"):
        asyncio.run(source(api).now())


def test_an_answer_that_is_cut_off(api: Api) -> None:
    whole = slots(RUNNING).body
    api.any = Answer(whole[:-20])
    with pytest.raises(FeedMalformed, match="gb: the answer is no JSON"):
        asyncio.run(source(api).now())
    api.any = Answer(whole[:-20], declared=len(whole))
    with pytest.raises(FeedUnavailable, match="gb: RemoteProtocolError"):
        asyncio.run(source(api).now())


def test_an_error_of_the_api_is_named(api: Api) -> None:
    api.any = Answer(b'{"error": {"code": "x"}}', status=503)
    with pytest.raises(FeedUnavailable, match="gb: HTTP 503"):
        asyncio.run(source(api).now())


def test_forecast_is_what_lies_ahead(api: Api) -> None:
    later = [
        slot(f"2026-11-22T{h:02}:00Z", f"2026-11-22T{h:02}:30Z", 100 + h, None) for h in (4, 2, 3)
    ]
    api.any = slots(ENDED, RUNNING, *later)
    values = asyncio.run(source(api).forecast(2))
    assert api.paths == ["/intensity/2026-11-22T01:17Z/fw48h"]
    assert [v.g_per_kwh for v in values] == [102, 103]
    assert all(v.estimated for v in values)
