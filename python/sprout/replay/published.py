# SPDX-License-Identifier: Apache-2.0
"""published.csv of a bundle: figures that others reported for its windows."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from sprout.errors import ConfigError

# The first columns of results.csv too.
COLUMNS = (
    "zone",
    "start_hour",
    "xi",
    "scheme",
    "carbon_saving_pct",
    "normalised_preference_pct",
    "base_mg_per_request",
    "mean_level_mix",
)


@dataclass(frozen=True)
class Published:
    zone: str
    start_hour: int
    xi: float
    scheme: str
    saving_pct: float
    preference_pct: float
    base_mg: float  # per request, all at L0; nan: not stated in this row
    mix: tuple[float, ...]  # mean shares, (levels,); of MODEL_OPT (large, small)

    @property
    def key(self) -> tuple[str, int, float, str]:
        return self.zone, self.start_hour, round(self.xi, 6), self.scheme


def read_published(path: Path) -> tuple[Published, ...]:
    """Empty where there is no such file; ConfigError for a line that is none."""
    if not path.is_file():
        return ()
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
                raise ConfigError(f"{path} has no column {', '.join(missing)}")
            return tuple(_row(row, f"{path}:{reader.line_num}") for row in reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"can't read {path}: {error}") from None


def _row(row: dict[str, str], where: str) -> Published:
    try:
        return Published(
            row["zone"],
            int(row["start_hour"]),
            float(row["xi"]),
            row["scheme"],
            float(row["carbon_saving_pct"]),
            float(row["normalised_preference_pct"]),
            float(row["base_mg_per_request"] or math.nan),
            tuple(float(share) for share in row["mean_level_mix"].split()),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{where}: {error}") from None
