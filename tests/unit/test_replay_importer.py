# SPDX-License-Identifier: Apache-2.0
"""A clone of the published artifact becomes a bundle; here a made-up clone of its shape."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from sprout.cli import run
from sprout.errors import ConfigError
from sprout.replay.bundle import UNKNOWN, read
from sprout.replay.importer import CONFIGS, JUDGMENTS, TASKS, drawn_mix, import_clone

DATA = Path(os.environ.get("SPROUT_DATA", Path(__file__).parents[3] / "shared" / "data"))
COUNT = 3  # prompts a task


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    root = tmp_path / "clone"
    for task in TASKS:
        stem = "math_all" if task == "math" else f"{task}_5000"
        texts = [f"{task} one ", f"{task} two", f"{task} two"]
        chats = [[{"role": "user", "content": text}] for text in texts]
        _json(root / f"prompt_sweeping/prompts/prompt_{stem}.json", chats)
        for k, config in enumerate(CONFIGS.values(), start=1):
            numbers = {
                "energy": [i * 1e-4 / k for i in range(1, COUNT + 1)],
                "time": [i / k for i in range(1, COUNT + 1)],
                "other": "ignored",
            }
            _json(root / f"prompt_sweeping/request_carbon/data/{stem}_{config}.json", numbers)
    judged = {
        task: [
            {"instruction": f" {task} two\n", "assistance_lvl": 2},
            {"instruction": f"{task} two", "assistance_lvl": 1},
            {"instruction": "of no prompt", "assistance_lvl": 0},
        ]
        for task in TASKS
    }
    _json(root / JUDGMENTS, judged)
    grid = root / "sprout/carbon_intensity/GB_2023_hourly.csv"
    grid.parent.mkdir(parents=True)
    grid.write_text(
        "Datetime (UTC),Country,Carbon Intensity gCO2eq/kWh (direct),"
        "Carbon Intensity gCO2eq/kWh (LCA)\n"
        "2023-01-01 00:00:00,GB,71.5,103.5\n2023-01-01 01:00:00,GB,65.2,95.6\n"
    )
    jobs = root / "sprout/system/pai.csv"
    jobs.parent.mkdir(parents=True)
    rows = "\n".join(f"{h},{100 + h}" for h in range(1224))
    jobs.write_text(f"hour,job_name\n{rows}\n")
    return root


def test_a_clone_becomes_a_bundle_that_can_be_read(clone: Path, tmp_path: Path) -> None:
    said = import_clone(clone, tmp_path / "out")
    bundle = read(tmp_path / "out")
    assert bundle.tasks == TASKS
    assert bundle.zones == ("GB",)
    assert bundle.levels == 3
    assert len(bundle.ids) == len(TASKS) * COUNT
    assert bundle.ids[:2] == ("alpaca-00000", "alpaca-00001")
    assert bundle.energy_kwh[1] == pytest.approx([2e-4, 1e-4, 2e-4 / 3], rel=1e-5)
    assert bundle.seconds[2] == pytest.approx([3, 1.5, 1], rel=1e-5)
    assert bundle.small_energy_kwh is not None
    assert bundle.small_energy_kwh[0] == pytest.approx(0.25e-4, rel=1e-5)
    # Equal texts take their judgments in turn; the last one joins nothing.
    assert bundle.preferred[:3].tolist() == [UNKNOWN, 2, 1]
    assert "6 judgments join no prompt and are left out" in said
    assert len(bundle.mix) == 720
    assert bundle.meta.starts == (800, 3900, 7000)
    assert bundle.meta.embodied_g_per_s == 1.6715e-4
    grid = (tmp_path / "out/carbon/GB.csv").read_text().splitlines()
    assert grid[1] == "2023-01-01T00:00:00Z,71.5,103.5"


def test_without_judgments_and_jobs(clone: Path, tmp_path: Path) -> None:
    (clone / JUDGMENTS).unlink()
    (clone / "sprout/system/pai.csv").unlink()
    said = " | ".join(import_clone(clone, tmp_path / "out"))
    assert "no judgments" in said
    assert "mixed evenly" in said
    assert not read(tmp_path / "out").judged


def test_what_can_t_be_read_is_named_and_nothing_is_written(clone: Path, tmp_path: Path) -> None:
    path = clone / "prompt_sweeping/request_carbon/data/math_all_brief+_13b-chat.json"
    path.write_text(json.dumps({"energy": [1], "time": [1]}))
    with pytest.raises(ConfigError, match="1 energies and 1 times for 3 prompts"):
        import_clone(clone, tmp_path / "out")
    path.unlink()
    with pytest.raises(ConfigError, match=r"brief\+_13b-chat.json"):
        import_clone(clone, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="no clone"):
        import_clone(tmp_path / "none", tmp_path / "out")
    with pytest.raises(ConfigError, match="name a new folder"):
        import_clone(clone, tmp_path)


def test_the_command(clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", "import", str(clone), str(tmp_path / "out")]) == 0
    assert "18 prompts of 6 tasks, 12 judged" in capsys.readouterr().out
    assert run(["replay", "import", str(clone), str(tmp_path / "out")]) == 2


def test_the_mix_stands_for_about_a_day_then_every_row_is_the_next() -> None:
    jobs = np.random.default_rng(1).integers(1, 1000, 1224).astype(float)
    mix = drawn_mix(jobs, 6, 720)
    assert mix.sum(axis=1) == pytest.approx(1)
    changes = np.flatnonzero((np.diff(mix, axis=0) != 0).any(axis=1)) + 1
    lengths = np.diff([0, *changes])
    assert 20 < lengths.mean() < 28
    first = np.random.RandomState(0).randint(0, 1224 - 30, size=6)
    assert mix[changes[2]] == pytest.approx(jobs[first + 3] / jobs[first + 3].sum())
    with pytest.raises(ConfigError, match="too few"):
        drawn_mix(jobs[:30], 6, 720)
    with pytest.raises(ConfigError, match="the jobs end"):
        drawn_mix(jobs, 6, 40_000)


@pytest.mark.data
@pytest.mark.skipif(
    not (DATA / "sprout2023").is_dir(), reason=f"no replay data at {DATA} (SPROUT_DATA)"
)
def test_the_published_mix_follows_from_the_published_jobs() -> None:
    with (DATA / "sprout2023/hourly_jobs.csv").open() as file:
        jobs = np.array([float(row["jobs"]) for row in csv.DictReader(file)])
    with (DATA / "sprout2023/mix.csv").open() as file:
        published = np.array([[float(row[task]) for task in TASKS] for row in csv.DictReader(file)])
    assert drawn_mix(jobs, len(TASKS), 720) == pytest.approx(published, abs=1e-6)


def _json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
