# SPDX-License-Identifier: Apache-2.0
"""Yearly averages, from a table laid out as the package's."""

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sprout.carbon import CountrySource
from sprout.carbon.country import PACKAGE
from sprout.errors import ConfigError, PrerequisiteError

HEAD = "alpha-2,Year,Entity,Code,Carbon intensity of electricity (gCO2eq/kWh)\n"
Install = Callable[[str | None], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a package of this name and table before any other."""

    def made(table: str | None) -> None:
        about = tmp_path / f"{PACKAGE}-9.1.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 9.1\n")
        data = tmp_path / PACKAGE / "data"
        data.mkdir(parents=True)
        (tmp_path / PACKAGE / "__init__.py").write_text("raise SystemExit('it was imported')")
        if table is not None:
            (data / "carbon-intensities.csv").write_text(table)
        monkeypatch.syspath_prepend(tmp_path)

    return made


def test_the_year_is_in_the_series_and_in_the_time(install: Install) -> None:
    install(HEAD + "DE,2024,Germany,DEU,344.1\nFR,2023,France,FRA,56\n")
    source = CountrySource("DE", clock=lambda: datetime(2026, 11, 22, tzinfo=UTC))
    value = asyncio.run(source.now())
    assert value.g_per_kwh == 344.1
    assert value.series == (
        *("DE", f"yearly average 2024 ({PACKAGE} 9.1)", "lifecycle", "average"),
    )
    assert value.time == datetime(2024, 1, 1, tzinfo=UTC)
    assert value.estimated
    assert not source.live
    assert asyncio.run(source.history(24)) == asyncio.run(source.forecast(24)) == []
    assert PACKAGE not in sys.modules


def test_a_country_that_is_not_in_the_table(install: Install) -> None:
    install(HEAD + "DE,2024,Germany,DEU,344.1\n")
    with pytest.raises(ConfigError, match=r"carbon\.country: .* has no average of XK"):
        CountrySource("XK")


@pytest.mark.parametrize(
    "table",
    [
        None,
        "country,value\nDE,344\n",
        HEAD + "DE,2024,Germany,DEU,high\n",
        HEAD + "DE,,Germany,DEU,344\n",
        HEAD + "DE,2024\n",
        HEAD + "DE,2024,Germany,DEU,-1\n",
    ],
)
def test_a_table_that_is_another(install: Install, table: str | None) -> None:
    install(table)
    with pytest.raises(PrerequisiteError):
        CountrySource("DE")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sprout.carbon.country.PACKAGE", "sprout-no-such-package")
    with pytest.raises(PrerequisiteError, match="pip install --no-deps"):
        CountrySource("DE")
