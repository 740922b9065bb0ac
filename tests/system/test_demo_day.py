# SPDX-License-Identifier: Apache-2.0
"""`sprout demo --day` as a script runs it, shortened: everything real, and the exit code tells."""

import csv
import json
import math
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

ZONE = "XX-MADE-UP"


def write_trace(folder: Path) -> Path:
    """Twelve days of a sunny grid: clean around noon UTC, dirty at night."""
    path = folder / "sprout2023" / "carbon" / f"{ZONE}.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("datetime_utc", "gco2_per_kwh_direct", "gco2_per_kwh_lifecycle"))
        for hour in range(12 * 24):
            time = datetime(2024, 5, 1) + timedelta(hours=hour)
            sun = max(0.0, math.sin(math.pi * (time.hour - 6) / 12))
            direct = 420 - 330 * sun + hour % 7
            writer.writerow((f"{time.isoformat()}Z", f"{direct:.1f}", f"{direct + 40:.1f}"))
    return path


def sprout(*arguments: str, data: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "sprout.cli", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
        env=os.environ | {"SPROUT_DATA": str(data)},
    )


def test_a_day_really_happens_and_the_mix_follows_the_grid(tmp_path: Path) -> None:
    trace, picture = write_trace(tmp_path), tmp_path / "day.png"
    where = ("--picture", str(picture), "--json")
    done = sprout("--day", ZONE, "--seconds", "60", *where, data=tmp_path)
    assert done.stdout, done.stderr[-3000:]
    day = json.loads(done.stdout)
    assert [check for check in day["checks"] if not check["ok"]] == [], done.stderr[-3000:]
    assert day["ok"]
    assert done.returncode == 0
    assert (day["zone"], day["data"], day["factor_type"]) == (ZONE, "recorded", "lifecycle")
    assert day["energy_estimated"] is True
    with trace.open(newline="") as file:
        values = {float(row["gco2_per_kwh_lifecycle"]) for row in csv.DictReader(file)}
    receipts = [r["answer"]["receipt"] for r in day["requests"]]
    for receipt in receipts:
        assert min(abs(receipt["intensity_g_per_kwh"] - value) for value in values) < 0.1
    # The dirtier the hour, the less L0 in the policy: exactly so, for q and the range are fixed.
    steps = sorted(day["steps"], key=lambda step: step["g_per_kwh"])
    assert steps[0]["shares"][0] > 0.9
    assert steps[-1]["shares"][0] < 0.1
    own = [r for r in day["requests"] if not r["held_out"]]
    total_g = sum(r["answer"]["receipt"]["carbon_g"] for r in own)
    assert day["saving"]["carbon_g"] == pytest.approx(total_g)
    assert sum(part["requests"] for part in day["quarters"]) == len(own)
    assert sum(part["carbon_g"] for part in day["quarters"]) == pytest.approx(total_g)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_zone_without_data_is_refused_before_anything_starts(tmp_path: Path) -> None:
    done = sprout("--day", "ZZ", "--picture", str(tmp_path / "x.png"), data=tmp_path)
    assert done.returncode == 2
    assert "no trace of ZZ" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.png").exists()


def test_a_zone_needs_the_day(tmp_path: Path) -> None:
    done = sprout("GB", data=tmp_path)
    assert done.returncode == 2
    assert "--day" in done.stderr
