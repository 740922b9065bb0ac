# SPDX-License-Identifier: Apache-2.0
"""Intensities and the local sources: a constant, a CSV trace."""

import asyncio
import math
import re
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest

from sprout.carbon import ConstantSource, Intensity, TraceSource, make_source
from sprout.config import CarbonConfig, SourceName
from sprout.errors import ConfigError, FeedError

T0 = datetime(2023, 1, 1, tzinfo=UTC)
HEAD = "datetime_utc,gco2_per_kwh_direct,gco2_per_kwh_lifecycle\n"


def intensity(g: float = 100.0, time: datetime = T0) -> Intensity:
    return Intensity(g, "NL", "test", "direct", "average", time)


def trace(path: Path, values: list[float], step: timedelta = timedelta(hours=1)) -> Path:
    rows = [f"{(T0 + i * step).isoformat()},{v},{v + 50}\n" for i, v in enumerate(values)]
    path.write_text(HEAD + "".join(rows))
    return path


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.mark.parametrize("g", [math.nan, math.inf, -1.0, 5001.0])
def test_what_is_no_intensity(g: float) -> None:
    with pytest.raises(FeedError, match="no carbon intensity"):
        intensity(g)


def test_zero_is_an_intensity() -> None:
    assert intensity(0.0).g_per_kwh == 0


def test_age_and_series() -> None:
    value = intensity()
    assert value.age_s(T0 + timedelta(minutes=5)) == 300
    assert value.age_s(T0 - timedelta(minutes=5)) == 0
    assert value.series == ("NL", "test", "direct", "average")
    with pytest.raises(ValueError, match="time zone"):
        intensity(time=datetime(2023, 1, 1))


def test_constant_has_one_row_an_hour_and_no_history() -> None:
    now = datetime(2026, 3, 1, 12, 34, 56, tzinfo=UTC)
    source = ConstantSource(250, "DE", "lifecycle", clock=lambda: now)
    value = asyncio.run(source.now())
    assert (value.g_per_kwh, value.zone, value.factor_type) == (250, "DE", "lifecycle")
    assert value.time == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert value.estimated
    assert asyncio.run(source.history(24)) == []


def test_unset_constant_is_no_silent_default() -> None:
    with pytest.raises(FeedError, match=r"carbon\.constant_g_per_kwh is not set"):
        asyncio.run(make_source("constant", CarbonConfig()).now())


def test_trace_is_replayed_from_its_first_row(tmp_path: Path) -> None:
    clock = Clock()
    path = trace(tmp_path / "t.csv", [10, 20, 30])
    source = TraceSource(path, zone="NL", factor_type="direct", monotonic=clock)
    assert asyncio.run(source.now()).g_per_kwh == 10
    clock.s += 3599
    assert asyncio.run(source.now()).g_per_kwh == 10
    clock.s += 1
    value = asyncio.run(source.now())
    assert (value.g_per_kwh, value.time) == (20, T0 + timedelta(hours=1))
    assert source.clock() == T0 + timedelta(hours=1)


def test_trace_from_a_start_at_speed(tmp_path: Path) -> None:
    clock = Clock()
    source = TraceSource(
        trace(tmp_path / "t.csv", [10, 20, 30, 40]),
        zone="NL",
        factor_type="lifecycle",
        start="2023-01-01T01:30:00Z",
        speed=3600,
        monotonic=clock,
    )
    assert asyncio.run(source.now()).g_per_kwh == 70
    clock.s += 1.0  # an hour
    assert asyncio.run(source.now()).g_per_kwh == 80
    history = asyncio.run(source.history(2))
    assert [v.g_per_kwh for v in history] == [70, 80]
    assert [v.g_per_kwh for v in asyncio.run(source.history(1e5))] == [60, 70, 80]


def test_trace_ends_and_says_so(tmp_path: Path) -> None:
    clock = Clock()
    path = trace(tmp_path / "t.csv", [10, 20])
    source = TraceSource(path, zone="NL", factor_type="direct", monotonic=clock)
    clock.s += 7199
    assert asyncio.run(source.now()).g_per_kwh == 20
    clock.s += 1
    with pytest.raises(FeedError, match="the trace ended at 2023-01-01T02:00:00"):
        asyncio.run(source.now())


def test_extent_is_of_the_whole_trace(tmp_path: Path) -> None:
    path = trace(tmp_path / "t.csv", [30, 10, 90, 20])
    source = TraceSource(path, zone="NL", factor_type="direct")
    assert source.extent() == (10, 90)


def test_gap_keeps_the_row_before(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "t.csv"
    path.write_text(
        HEAD + "2023-01-01T00:00:00Z,10,11\n2023-01-01T01:00:00Z,,12\n2023-01-01T02:00:00Z,30,13\n"
    )
    source = TraceSource(path, zone="NL", factor_type="direct", monotonic=clock)
    clock.s += 3600 + 60
    value = asyncio.run(source.now())
    assert value.g_per_kwh == 10
    assert value.age_s(source.clock()) == 3660


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column"),
        ("datetime_utc,other\n2023-01-01T00:00:00Z,1\n", "no column gco2_per_kwh_direct"),
        (HEAD, "holds no value"),
        (HEAD + "yesterday,1,2\n", "is no ISO 8601 time"),
        (HEAD + "2023-01-01T00:00:00Z,lots,2\n", r"t\.csv:2: 'lots' is no number"),
        (HEAD + "2023-01-01T00:00:00Z,-5,2\n", "no carbon intensity"),
        (HEAD + "2023-01-01T00:00:00Z,nan,2\n", "no carbon intensity"),
        (
            HEAD + "2023-01-01T01:00:00Z,5,2\n2023-01-01T00:00:00Z,5,2\n",
            "times must ascend",
        ),
        (HEAD + "2023-01-01T00:00:00Z\n", "holds no value"),
    ],
)
def test_unusable_traces_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        TraceSource(path, zone="NL", factor_type="direct")


def test_binary_file_is_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match="can't read"):
        TraceSource(path, zone="NL", factor_type="direct")


@pytest.mark.parametrize("start", ["2022-12-31T23:00:00Z", "2023-01-01T02:00:00Z", "soon"])
def test_start_must_be_in_the_trace(tmp_path: Path, start: str) -> None:
    path = trace(tmp_path / "t.csv", [10, 20])
    with pytest.raises(ConfigError, match="trace_start"):
        TraceSource(path, zone="NL", factor_type="direct", start=start)


def test_missing_file_is_named(tmp_path: Path) -> None:
    config = CarbonConfig(sources=("trace",), trace=tmp_path / "none.csv")
    with pytest.raises(ConfigError, match=r"can't read .*none\.csv"):
        make_source("trace", config)


def test_every_source_can_be_made(tmp_path: Path) -> None:
    """But `country`, which needs a package: test_carbon_country has it."""
    secret = tmp_path / "secret"
    secret.write_text("s")
    config = CarbonConfig(
        sources=("electricity_maps", "watttime", "gb", "trace", "constant"),
        zone="GB",
        electricity_maps_key_file=secret,
        watttime_username="me",
        watttime_password_file=secret,
        watttime_region="UK",
        trace=trace(tmp_path / "t.csv", [10, 20]),
        constant_g_per_kwh=300,
    )
    made = [make_source(name, config) for name in config.sources]
    assert [source.name for source in made] == list(config.sources)
    assert len({source.series for source in made}) == len(made)
    assert [source.remote for source in made] == [True, True, True, False, False]


def test_a_trace_foresees_only_where_that_was_said(tmp_path: Path) -> None:
    clock, path = Clock(), trace(tmp_path / "t.csv", [10, 20, 30, 40])
    blind = TraceSource(path, zone="NL", factor_type="direct", monotonic=clock)
    assert asyncio.run(blind.forecast(72)) == []
    assert not blind.forecast_basis
    seer = TraceSource(path, zone="NL", factor_type="direct", foresee=True, monotonic=clock)
    assert "clairvoyant" in seer.forecast_basis
    values = asyncio.run(seer.forecast(2))
    assert [(v.g_per_kwh, v.estimated) for v in values] == [(20, True), (30, True)]
    clock.s += 3600 * 3
    assert asyncio.run(seer.forecast(2)) == []


def test_what_the_documentation_says_to_write_can_be_written() -> None:
    page = (Path(__file__).parents[2] / "docs" / "carbon.md").read_text()
    snippets = re.findall(r"```toml\n(.*?)```", page, re.S)
    made = [CarbonConfig.model_validate(tomllib.loads(text)["carbon"]) for text in snippets]
    documented = {name for config in made for name in config.sources}
    assert documented == set(get_args(SourceName))
