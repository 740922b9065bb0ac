# SPDX-License-Identifier: Apache-2.0
"""`sprout carbon …` and the doctor's look at the sources, against a real socket."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from carbon_api import Api, serving
from loopback_api import Answer, answer

from sprout.cli import run
from sprout.config import CarbonConfig, Config
from sprout.serve import doctor
from sprout.serve.doctor import Mark

KEY = "k3y-that-nobody-sees"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as server:
        yield server


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(KEY)
    return path


def hours(*values: float, first: int = 0) -> list[dict[str, Any]]:
    """One an hour, from `first` hours after the running one on."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    return [
        {
            "zone": "GB",
            "carbonIntensity": value,
            "datetime": (hour + timedelta(hours=first + i)).isoformat(),
            "emissionFactorType": "lifecycle",
            "isEstimated": True,
        }
        for i, value in enumerate(values)
    ]


@pytest.fixture
def settings(
    api: Api, key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Electricity Maps before GB, both at `api`."""
    monkeypatch.chdir(tmp_path)
    given = {
        "carbon.sources": "electricity_maps,gb",
        "carbon.zone": "GB",
        "carbon.electricity_maps_key_file": key_file,
        "carbon.electricity_maps_url": api.url,
        "carbon.gb_url": api.url,
    }
    return [part for key, value in given.items() for part in ("--set", f"{key}={value}")]


def working(api: Api) -> None:
    api.answers |= {
        "/v4/carbon-intensity/latest": answer(hours(210.4)[0]),
        "/v4/carbon-intensity/history": answer(
            {"zone": "GB", "history": hours(190, 200, first=-1)}
        ),
        "/v4/carbon-intensity/forecast": answer(
            {"zone": "GB", "forecast": hours(230, 240, first=2)}
        ),
    }


def gb(api: Api) -> None:
    start = datetime.now(UTC)
    start = start.replace(minute=start.minute // 30 * 30, second=0, microsecond=0)
    said = {"forecast": 150, "actual": None, "index": "low"}
    data = [{"from": start.strftime("%Y-%m-%dT%H:%MZ"), "intensity": said}]
    api.answers["/intensity"] = answer({"data": data})


def test_now(api: Api, settings: list[str], capsys: Capture) -> None:
    working(api)
    assert run(["carbon", "now", *settings]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("210 g/kWh in GB at ")
    assert "(electricity_maps, lifecycle, average, estimated)" in said.out
    assert said.err == ""
    assert api.paths == ["/v4/carbon-intensity/latest"]  # and nothing else is spent


def test_now_in_json(api: Api, settings: list[str], capsys: Capture) -> None:
    working(api)
    assert run(["carbon", "now", *settings, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    value = document["intensity"]
    assert 0 <= value.pop("age_s") < 2 * 3600
    assert datetime.fromisoformat(value.pop("time")).tzinfo is not None
    assert value == {
        "g_per_kwh": 210.4,
        "zone": "GB",
        "source": "electricity_maps",
        "factor_type": "lifecycle",
        "signal": "average",
        "estimated": True,
    }
    assert document["problems"] is None


def test_now_from_the_source_that_stands_in(api: Api, settings: list[str], capsys: Capture) -> None:
    api.any = Answer(status=401)
    gb(api)
    assert run(["carbon", "now", *settings]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("150 g/kWh in GB")
    assert said.err == "electricity_maps: HTTP 401: the key is refused\n"


@pytest.mark.parametrize(
    ("fallback", "message"), [("last", "goes on with"), ("none", "serves L0"), ("420", "420 g/kWh")]
)
def test_now_without_any(
    api: Api, settings: list[str], capsys: Capture, fallback: str, message: str
) -> None:
    api.any = Answer(status=503)
    assert run(["carbon", "now", *settings, "--set", f"carbon.fallback={fallback}"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert "gb: HTTP 503" in said.err
    assert run(["carbon", "now", *settings, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["intensity"] is None


@pytest.mark.parametrize(("what", "values"), [("history", [190, 200]), ("forecast", [230, 240])])
def test_history_and_forecast(
    api: Api, settings: list[str], capsys: Capture, what: str, values: list[float]
) -> None:
    working(api)
    assert run(["carbon", what, *settings, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["g_per_kwh"] for row in document[what]] == values
    assert (document[what][-1]["age_s"] < 0) == (what == "forecast")
    assert run(["carbon", what, *settings]) == 0
    assert f"{values[0]:g}" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["history", "forecast"])
def test_neither_history_nor_forecast(settings: list[str], capsys: Capture, what: str) -> None:
    assert run(["carbon", what, *settings]) == 1
    said = capsys.readouterr().err
    assert f"no source has a {what}" in said
    assert "electricity_maps: HTTP 404" in said


def test_check_names_each_source_with_its_remedy(
    api: Api, settings: list[str], capsys: Capture
) -> None:
    working(api)
    gb(api)
    assert run(["carbon", "check", *settings]) == 0
    said = capsys.readouterr().out
    assert "forecast: 2 values for the next 24 h (Electricity Maps' forecast)" in said
    assert "150 g/kWh" in said
    api.any = Answer(status=403)
    api.answers = {"/intensity": Answer(status=429)}
    assert run(["carbon", "check", *settings, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert not document["good"]
    maps, national = document["sources"]
    assert "carbon.electricity_maps_key_file" in maps["remedy"]
    assert "carbon.poll_s" in national["remedy"]
    assert (maps["final"], national["final"]) == (True, False)
    assert KEY not in json.dumps(document)


def test_check_goes_on_where_a_source_can_t_even_be_made(
    api: Api, settings: list[str], key_file: Path, capsys: Capture
) -> None:
    gb(api)
    key_file.write_text("")
    assert run(["carbon", "check", *settings]) == 1
    said = capsys.readouterr().out
    assert "BAD   electricity_maps carbon.electricity_maps_key_file" in said
    assert "is empty" in said
    assert "ok    gb" in said


@pytest.mark.parametrize(
    ("told", "mark", "remedy"),
    [
        (answer(hours(210)[0]), Mark.OK, ""),
        (Answer(status=401), Mark.BAD, "carbon.electricity_maps_key_file"),
        (Answer(status=404), Mark.BAD, "carbon.zone"),
        (answer(hours(210)[0] | {"zone": "FR"}), Mark.BAD, "carbon.zone"),
        (Answer(status=429), Mark.NOTE, "carbon.poll_s"),
        (Answer(status=500), Mark.NOTE, "can this machine reach http://127.0.0.1"),
        (answer(hours(210, first=9)[0]), Mark.NOTE, "this machine's clock"),
        (answer({}), Mark.NOTE, "carbon.electricity_maps_url"),
    ],
)
def test_the_doctor_says_what_is_to_be_done(
    api: Api, key_file: Path, told: Answer, mark: Mark, remedy: str
) -> None:
    """BAD is what waiting does not cure."""
    api.any = told
    carbon = CarbonConfig(
        sources=("electricity_maps",),
        zone="GB",
        electricity_maps_key_file=key_file,
        electricity_maps_url=api.url,
    )
    (found,) = doctor._carbon(Config(carbon=carbon))
    assert (found.what, found.mark) == ("carbon: electricity_maps", mark)
    assert remedy in found.remedy
    assert KEY not in repr(found)


def test_the_doctor_notes_a_constant_that_is_not_set() -> None:
    (found,) = doctor._carbon(Config())
    assert (found.what, found.mark) == ("carbon: constant", Mark.NOTE)
    assert "state this zone's" in found.found
