# SPDX-License-Identifier: Apache-2.0
"""Writes synthetic-day.csv: one invented day of carbon intensity, for the demo and for tests.

No grid ever had these values. They follow, for hour h of the day (UTC),

    direct(h)    = 260 + 90 cos(2 pi (h - 19) / 24) - 130 exp(-((h - 12.5) / 3)^2)
    lifecycle(h) = direct(h) + 35

in gCO2/kWh: an evening peak when demand is high, a dip at noon when the sun shines, and 35 g for
building and fuelling the plants.
"""

import csv
import math
import sys
from typing import TextIO

STEP_H = 0.5


def rows() -> list[tuple[str, str, str]]:
    """(datetime_utc, direct, lifecycle), 48 of them."""
    out = []
    for i in range(int(24 / STEP_H)):
        h = i * STEP_H
        evening = 90 * math.cos(2 * math.pi * (h - 19) / 24)
        sun = 130 * math.exp(-(((h - 12.5) / 3) ** 2))
        direct = 260 + evening - sun
        at = f"2000-01-01T{int(h):02}:{int(60 * (h % 1)):02}:00Z"
        out.append((at, f"{direct:.1f}", f"{direct + 35:.1f}"))
    return out


def write(file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("datetime_utc", "gco2_per_kwh_direct", "gco2_per_kwh_lifecycle"))
    writer.writerows(rows())


if __name__ == "__main__":
    write(sys.stdout)
