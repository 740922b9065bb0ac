# SPDX-License-Identifier: Apache-2.0
"""Electricity Maps, both versions, with answers of the documented shape from a real socket."""

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from carbon_api import Api, serving
from loopback_api import Answer, answer

from sprout.carbon import ElectricityMapsSource
from sprout.carbon.secret import Secret
from sprout.errors import (
    ConfigError,
    FeedError,
    FeedForbidden,
    FeedMalformed,
    FeedRateLimited,
    FeedUnauthorized,
    FeedUnavailable,
    FeedZoneError,
)

NOW = datetime(2026, 11, 22, 13, 17, tzinfo=UTC)
KEY = "k3y-that-nobody-sees"


def point(hour: int, g: Any = 322, **other: Any) -> dict[str, Any]:
    when = datetime(2026, 11, 22, tzinfo=UTC) + timedelta(hours=hour)
    return {
        "zone": "DE",
        "carbonIntensity": g,
        "datetime": when.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "updatedAt": "2026-11-22T13:05:11.002Z",
        "createdAt": "2026-11-20T13:55:00.000Z",
        "emissionFactorType": "lifecycle",
        "isEstimated": False,
        "estimationMethod": None,
        "temporalGranularity": "hourly",
        **other,
    }


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as server:
        yield server


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    return path


def source(
    api: Api,
    key_file: Path,
    *,
    version: Literal["v3", "v4"] = "v4",
    factor_type: Literal["direct", "lifecycle"] = "lifecycle",
    timeout_s: float = 10.0,
) -> ElectricityMapsSource:
    return ElectricityMapsSource(
        api.url + "/",
        Secret(key_file, "carbon.electricity_maps_key_file"),
        version=version,
        zone="DE",
        factor_type=factor_type,
        timeout_s=timeout_s,
        clock=lambda: NOW,
    )


@pytest.mark.parametrize("version", ["v3", "v4"])
def test_latest(api: Api, key_file: Path, version: Literal["v3", "v4"]) -> None:
    api.answers[f"/{version}/carbon-intensity/latest"] = answer(point(13))
    value = asyncio.run(source(api, key_file, version=version).now())
    assert (value.g_per_kwh, value.estimated) == (322, False)
    assert value.series == ("DE", "electricity_maps", "lifecycle", "average")
    assert value.time == datetime(2026, 11, 22, 13, tzinfo=UTC)
    asked = api.asked[0]
    assert asked.headers["auth-token"] == KEY
    assert asked.query == {
        "zone": "DE",
        "emissionFactorType": "lifecycle",
        "temporalGranularity": "hourly",
        "disableCallerLookup": "true",
        "shouldUseFallbackCallerLookup": "false",
    }


def test_direct_factors_are_asked_for_and_checked(api: Api, key_file: Path) -> None:
    api.any = answer(point(13, emissionFactorType="direct"))
    value = asyncio.run(source(api, key_file, factor_type="direct").now())
    assert api.asked[0].query["emissionFactorType"] == "direct"
    assert value.factor_type == "direct"
    api.any = answer(point(13))
    with pytest.raises(FeedMalformed, match="asked for direct factors, got others"):
        asyncio.run(source(api, key_file, factor_type="direct").now())


@pytest.mark.parametrize(
    ("other", "estimated"),
    [({"isEstimated": True, "estimationMethod": "TIME_SLICER_AVERAGE"}, True), ({}, False)],
)
def test_the_estimated_flag_is_kept(
    api: Api, key_file: Path, other: dict[str, Any], estimated: bool
) -> None:
    api.any = answer(point(13, **other))
    assert asyncio.run(source(api, key_file).now()).estimated is estimated


def test_not_said_to_be_measured_is_estimated(api: Api, key_file: Path) -> None:
    told = point(13)
    del told["isEstimated"]
    api.any = answer(told)
    assert asyncio.run(source(api, key_file).now()).estimated


def test_an_answer_for_another_zone_is_an_error(api: Api, key_file: Path) -> None:
    api.any = answer(point(13, zone="FR"))
    for ask in (source(api, key_file).now(), source(api, key_file).forecast(24)):
        with pytest.raises(FeedZoneError, match="asked for zone DE, answered for another"):
            asyncio.run(ask)
    api.any = answer({"zone": "DE", "history": [point(12), point(11, zone="FR")]})
    with pytest.raises(FeedZoneError):
        asyncio.run(source(api, key_file).history(24))


def test_null_is_no_value(api: Api, key_file: Path) -> None:
    api.any = answer(point(13, None))
    with pytest.raises(FeedError, match="no value for DE at present"):
        asyncio.run(source(api, key_file).now())


def test_history_is_sorted_and_its_gaps_left_out(api: Api, key_file: Path) -> None:
    api.answers["/v4/carbon-intensity/history"] = answer(
        {"zone": "DE", "history": [point(12, 300), point(10, 280), point(11, None)]}
    )
    values = asyncio.run(source(api, key_file).history(24))
    assert [v.g_per_kwh for v in values] == [280, 300]
    assert api.paths == ["/v4/carbon-intensity/history"]


def test_a_week_comes_from_past_range(api: Api, key_file: Path) -> None:
    api.answers["/v4/carbon-intensity/past-range"] = answer({"zone": "DE", "data": [point(9)]})
    assert len(asyncio.run(source(api, key_file).history(168))) == 1
    query = api.asked[0].query
    assert (query["start"], query["end"]) == ("2026-11-15T13:17:00Z", "2026-11-22T13:17:00Z")


def test_more_than_ten_days_take_several_calls(api: Api, key_file: Path) -> None:
    api.any = answer({"zone": "DE", "data": []})
    assert asyncio.run(source(api, key_file).history(25 * 24)) == []
    limits = [(asked.query["start"], asked.query["end"]) for asked in api.asked]
    assert len(limits) == 3
    assert [end for _, end in limits[:-1]] == [start for start, _ in limits[1:]]
    assert limits[-1][1] == "2026-11-22T13:17:00Z"


def test_a_plan_without_past_range_gives_a_day(api: Api, key_file: Path) -> None:
    api.answers["/v4/carbon-intensity/past-range"] = Answer(status=403)
    api.answers["/v4/carbon-intensity/history"] = answer({"zone": "DE", "history": [point(12)]})
    assert len(asyncio.run(source(api, key_file).history(168))) == 1


def test_forecast_is_what_lies_ahead_and_estimated(api: Api, key_file: Path) -> None:
    hours = [{"carbonIntensity": 100 + h, "datetime": point(h)["datetime"]} for h in range(12, 60)]
    api.answers["/v4/carbon-intensity/forecast"] = answer(
        {"zone": "DE", "forecast": hours, "updatedAt": "2026-11-22T13:00:00Z"}
    )
    values = asyncio.run(source(api, key_file).forecast(30))
    assert [v.g_per_kwh for v in values] == [100.0 + h for h in range(14, 44)]
    assert all(v.estimated for v in values)
    assert api.asked[0].query["horizonHours"] == "48"


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (Answer(status=401), FeedUnauthorized),
        (Answer(status=403), FeedForbidden),
        (Answer(status=404), FeedZoneError),
        (Answer(status=429, headers={"Retry-After": "60"}), FeedRateLimited),
        (Answer(status=502), FeedUnavailable),
        (Answer(deaf=True), FeedUnavailable),
        (Answer(b'{"zone": "DE", ', declared=99), FeedUnavailable),
        (answer([]), FeedMalformed),
        (answer({}), FeedMalformed),
        (answer({"zone": "DE"}), FeedMalformed),
        (answer(point(13, "322")), FeedMalformed),
        (answer(point(13, True)), FeedMalformed),
        (answer(point(13, datetime="noon")), FeedMalformed),
        (answer(point(13, datetime="2026-11-22T13:00:00")), FeedMalformed),
        (answer(point(13, datetime=5)), FeedMalformed),
        (answer(point(13, 322_000)), FeedError),  # g/MWh
        (answer(point(13, -1)), FeedError),
    ],
)
def test_what_goes_wrong_is_named(
    api: Api, key_file: Path, told: Answer, kind: type[FeedError]
) -> None:
    api.any = told
    with pytest.raises(FeedError, match="electricity_maps: ") as error:
        asyncio.run(source(api, key_file, timeout_s=0.5 if told.deaf else 10).now())
    assert type(error.value) is kind


@pytest.mark.parametrize("field", ["history", "forecast", "data"])
def test_a_list_of_another_shape(api: Api, key_file: Path, field: str) -> None:
    for content in ({"zone": "DE"}, {"zone": "DE", field: None}, {"zone": "DE", field: [None]}):
        api.any = answer(content)
        asked = source(api, key_file)
        ask = {"history": asked.history(24), "forecast": asked.forecast(24)}
        with pytest.raises(FeedMalformed, match="unexpected answer"):
            asyncio.run(ask.get(field) or asked.history(48))
        for other in ask.values():
            other.close()


def test_the_key_is_nowhere_to_be_seen(
    api: Api, key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asked = source(api, key_file)
    for status in (200, 401, 404, 500):
        api.any = Answer(KEY.encode(), status=status)
        with pytest.raises(FeedError) as error:
            asyncio.run(asked.now())
        assert KEY not in repr(error.value)
    assert api.asked[0].headers["auth-token"] == KEY
    assert KEY not in caplog.text
    assert KEY not in repr(Secret(key_file, "k"))
    assert KEY not in repr(vars(asked))


def test_a_key_that_is_replaced_is_used_from_the_next_call_on(api: Api, key_file: Path) -> None:
    api.any = answer(point(13))
    asked = source(api, key_file)
    asyncio.run(asked.now())
    key_file.write_text("another")
    asyncio.run(asked.now())
    assert [a.headers["auth-token"] for a in api.asked] == [KEY, "another"]


@pytest.mark.parametrize("content", ["", " \n", "two\nlines", "naïve", "tab\there"])
def test_a_key_that_can_t_be_one_is_refused_without_being_shown(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"carbon\.k: .*key") as error:
        Secret(path, "carbon.k")
    assert not content.strip() or content not in str(error.value)
    with pytest.raises(ConfigError, match="can't read"):
        Secret(tmp_path / "none", "carbon.k")
