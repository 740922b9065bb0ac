# SPDX-License-Identifier: Apache-2.0
"""The command from end to end on a made-up bundle: what it writes, says and returns."""

import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from replay_synthetic import make_bundle
from scipy import stats

from sprout.cli import run
from sprout.replay.accept import check
from sprout.replay.bundle import read
from sprout.replay.published import COLUMNS, Published
from sprout.replay.run import (
    DEFAULT_TARGETS,
    Request,
    interval_of_a_run,
    interval_of_the_mean,
    plan_of,
    replay,
)
from sprout.replay.schemes import SCHEMES
from sprout.replay.tables import results

DATA = Path(os.environ.get("SPROUT_DATA", Path(__file__).parents[3] / "shared" / "data"))
ONE = ("--zone", "AA", "--start-hour", "0", "--requests", "200")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def command(bundle: Path, out: Path, *more: str) -> int:
    return run(["replay", "--bundle", str(bundle), "--out", str(out), *more])


def test_what_it_writes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    bundle, out = make_bundle(tmp_path / "b"), tmp_path / "out"
    assert command(bundle, out, *ONE, "--xi", "0.05,0.1,0.2") == 0
    found = rows(out / "results.csv")
    assert tuple(found[0])[: len(COLUMNS)] == COLUMNS
    # BASE and CO2_OPT have no xi: once. The others at each.
    assert [row["scheme"] for row in found] == [
        name for name in SCHEMES for _ in range(1 if name in ("BASE", "CO2_OPT") else 3)
    ]
    assert {row["device"] for row in found} == {"cpu"}
    by_hour = rows(out / "hourly.csv")
    assert len(by_hour) == 36 * len(found)
    sprout = next(row for row in found if row["scheme"] == "SPROUT" and row["xi"] == "0.1")
    own = [row for row in by_hour if row["scheme"] == "SPROUT" and row["xi"] == "0.1"]
    mg = sum(float(row["mg_per_request"]) for row in own)
    base = sum(float(row["base_mg_per_request"]) for row in own)
    assert 100 * (1 - mg / base) == pytest.approx(float(sprout["carbon_saving_pct"]), abs=0.01)
    preference = np.mean([float(row["normalised_preference_pct"]) for row in own])
    assert preference == pytest.approx(float(sprout["normalised_preference_pct"]), abs=0.01)
    assert sum(row["evaluated"] == "1" for row in own) == int(sprout["evaluations"]) > 0
    assert own[1]["datetime_utc"] == "2023-01-01T01:00:00Z"
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 5
    assert "src=" not in page
    assert "<link" not in page
    for name in ("saving", "xi", "mix", "energy", "models"):
        assert (out / f"{name}.svg").read_text().startswith("<svg")


def test_one_run_has_no_interval_and_eleven_have(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    for seeds in ("1", "11"):
        out = tmp_path / seeds
        assert command(bundle, out, *ONE, "--seeds", seeds, "--scheme", "SPROUT") == 0
        (found,) = rows(out / "results.csv")
        assert (found["saving_low_pct"] == "") == (seeds == "1")
    low, middle, high = (
        float(found[name]) for name in ("saving_low_pct", "carbon_saving_pct", "saving_high_pct")
    )
    assert low < middle < high


def test_what_can_t_be_run_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "b", small=False, judged=False)
    assert command(bundle, tmp_path / "out", *ONE) == 0
    said = capsys.readouterr().err
    assert "left out: MODEL_OPT" in said
    assert "left out: ORACLE: not every task has judged prompts" in said
    found = rows(tmp_path / "out" / "results.csv")
    assert [row["scheme"] for row in found] == ["BASE", "CO2_OPT"]
    assert found[0]["normalised_preference_pct"] == found[0]["static_eq_saving_pct"] == ""
    assert command(bundle, tmp_path / "none", *ONE, "--scheme", "SPROUT") == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--zone", "XX"], "no zone XX: there are AA, BB"),
        (["--scheme", "MAGIC"], "no scheme MAGIC"),
        (["--xi", "2"], "xi must be in [0, 1]"),
        (["--xi", "much"], "--xi must be numbers"),
        (["--xi", "published"], "has no published.csv"),
        (["--start-hour", "60"], "does not fit into the 72 h"),
        (["--factor", "lifecycle"], "no column gco2_per_kwh_lifecycle"),
        (["--factor", "marginal"], "direct or lifecycle"),
        (["--device", "tpu"], "cpu or cuda"),
        (["--check"], "none of these runs has a published figure"),
    ],
)
def test_wrong_usage(
    tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "b")
    arguments = ["--requests", "10", *more]
    assert command(bundle, tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("built", "message"), [(False, "built without CUDA"), (True, "no NVIDIA GPU found")]
)
def test_cuda_is_refused_where_there_is_none(
    built: bool,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sprout.console.replay.cuda_built", lambda: built)
    monkeypatch.setattr("sprout.console.replay.cuda_available", lambda: False)
    bundle = make_bundle(tmp_path / "b")
    assert command(bundle, tmp_path / "out", *ONE, "--device", "cuda") == 1
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_bundle_and_out_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay"]) == 2
    assert "both are needed" in capsys.readouterr().err


def test_the_bank_has_a_row_for_each_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "b")
    more = ("--scheme", "BANK", "--target", "0.9,0.95", "--target", "1", "--json")
    assert command(bundle, tmp_path / "out", *ONE, *more) == 0
    document = json.loads(capsys.readouterr().out)
    targets = [row["target_pct"] for row in document["results"]]
    assert targets == pytest.approx([90, 95, 100])
    savings = [row["carbon_saving_pct"] for row in document["results"]]
    assert savings == sorted(savings, reverse=True)
    assert DEFAULT_TARGETS[0] == 0.9
    assert DEFAULT_TARGETS[-1] == 1.05
    assert len(DEFAULT_TARGETS) == 16


def test_the_check_compares_with_what_was_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_bundle(tmp_path / "b")
    more = (*ONE, "--scheme", "BASE,SPROUT_STA", "--check")
    for base_mg, code in (("0", 1), ("own", 0)):
        mg = own_base(tmp_path) if base_mg == "own" else base_mg
        (folder / "published.csv").write_text(
            f"{','.join(COLUMNS)}\nAA,0,0.1,BASE,0,100,{mg},1 0 0\n"
        )
        assert command(folder, tmp_path / "out", *more) == code
        said = capsys.readouterr().out
        assert ("MISSED BASE" in said) == bool(code)
        assert ("met    BASE" in said) != bool(code)
        assert "SPROUT_STA saving within" not in said  # nothing was published of it


def own_base(folder: Path) -> str:
    return rows(folder / "out" / "results.csv")[0]["base_mg_per_request"]


@pytest.mark.parametrize(
    ("scheme", "saving", "preference", "good"),
    [
        ("CO2_OPT", 0.6, 0, True),
        ("CO2_OPT", 0.8, 0, False),
        ("MODEL_OPT", 1.9, 0, True),
        ("MODEL_OPT", -2.1, 0, False),
        ("SPROUT_STA", 3.9, 0, True),
        ("SPROUT_STA", -4.1, 0, False),
        ("ORACLE", 3.9, 0, True),
        ("ORACLE", 4.1, 0, False),
        ("SPROUT", 4.9, 2.4, True),
        ("SPROUT", 5.1, 0, False),
        ("SPROUT", 0, -2.6, False),
    ],
)
def test_tolerances(
    tmp_path: Path, scheme: str, saving: float, preference: float, good: bool
) -> None:
    bundle = read(make_bundle(tmp_path / "b"))
    request = Request(zones=("AA",), starts=(0,), schemes=(scheme,), requests_per_hour=50)
    cases, _ = plan_of(request, bundle)
    runs = replay(bundle, cases, request)
    (row,) = results(runs, ())
    published = Published(
        "AA",
        0,
        0.1,
        scheme,
        row["carbon_saving_pct"] + saving,
        row["normalised_preference_pct"] + preference,
        math.nan,
        (0.5, 0.5, 0.0),
    )
    (found,) = check(runs, [row], [published], 0.1)
    assert found.good == good
    assert found.worst == pytest.approx(abs(saving), abs=1e-6)


def test_two_of_fifteen_points_of_sprout_may_be_off(tmp_path: Path) -> None:
    bundle = read(make_bundle(tmp_path / "b"))
    xis = tuple(round(0.05 + 0.01 * step, 2) for step in range(15))
    request = Request(zones=("AA",), starts=(0,), schemes=("SPROUT",), xis=xis, requests_per_hour=0)
    cases, _ = plan_of(request, bundle)
    runs = replay(bundle, cases, request)
    rows_ = results(runs, ())
    for off, good in ((2, True), (3, False)):
        published = [
            Published(
                "AA",
                0,
                row["xi"],
                "SPROUT",
                row["carbon_saving_pct"] + (9 if number < off else 0),
                row["normalised_preference_pct"],
                math.nan,
                (1.0, 0.0, 0.0),
            )
            for number, row in enumerate(rows_)
        ]
        (sweep,) = (each for each in check(runs, rows_, published, xi=1.0) if "sweep" in each.name)
        assert len(sweep.points) == 15
        assert (len(sweep.missed), sweep.good) == (off, good)


def test_intervals_are_student_s() -> None:
    values = np.random.default_rng(2).normal(50, 3, 20).tolist()
    spread = np.std(values, ddof=1)
    low, high = interval_of_a_run(values)
    half = stats.t.ppf(0.975, 19) * spread * math.sqrt(1 + 1 / 20)
    assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=1e-2)
    low, high = interval_of_the_mean(values)
    assert high - low == pytest.approx(
        2 * stats.t.ppf(0.975, 19) * spread / math.sqrt(20), abs=1e-2
    )
    assert math.isnan(interval_of_a_run(values[:10])[0])


needs_data = pytest.mark.skipif(
    not (DATA / "sprout2023").is_dir(), reason=f"no replay data at {DATA} (SPROUT_DATA)"
)


@pytest.mark.data
@needs_data
def test_published_figures_that_need_no_evaluator() -> None:
    """All 15 windows, in expectation: BASE's grams and CO2_OPT's saving."""
    bundle = read(DATA / "sprout2023")
    request = Request(schemes=("BASE", "CO2_OPT"), requests_per_hour=0)
    cases, left_out = plan_of(request, bundle)
    assert not left_out
    runs = replay(bundle, cases, request)
    found = check(runs, results(runs, bundle.published), bundle.published, 0.1)
    assert [len(each.points) for each in found] == [15, 15]
    assert all(each.good and not each.missed for each in found)


@pytest.mark.data
@needs_data
@pytest.mark.parametrize(("zone", "start"), [("NL", 7000), ("US-TEX-ERCO", 3900)])
def test_published_figures_of_a_window(zone: str, start: int) -> None:
    """Those that hang little on the evaluator's draw, with 10,000 requests an hour."""
    bundle = read(DATA / "sprout2023")
    schemes = ("BASE", "CO2_OPT", "MODEL_OPT", "SPROUT_STA", "ORACLE")
    request = Request(zones=(zone,), starts=(start,), schemes=schemes)
    cases, _ = plan_of(request, bundle)
    runs = replay(bundle, cases, request)
    found = check(runs, results(runs, bundle.published), bundle.published, 0.1)
    assert len(found) == len(schemes)
    assert all(each.good for each in found)
    assert sum(each.mismatches for each in runs) == 0
