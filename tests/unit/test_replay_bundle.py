# SPDX-License-Identifier: Apache-2.0
"""Any bundle is read; what is missing is said; what is wrong is named with its place."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from replay_synthetic import TASKS, make_bundle, write_grid

from sprout.errors import ConfigError
from sprout.replay.bundle import UNKNOWN, read
from sprout.replay.grid import read_grid


def test_a_bundle_is_read(tmp_path: Path) -> None:
    bundle = read(make_bundle(tmp_path / "b"))
    assert bundle.tasks == TASKS
    assert bundle.zones == ("AA", "BB")
    assert bundle.energy_kwh.shape == bundle.seconds.shape == (120, 3)
    assert bundle.energy_kwh[:, 0] == pytest.approx(4 * bundle.energy_kwh[:, 1])
    assert 1e-4 < bundle.energy_kwh[0, 0] < 1e-3  # kWh, from Wh
    assert bundle.prompts[1] == "trivia, “1”\nplease"
    assert (bundle.preferred != UNKNOWN).sum() == 80
    assert bundle.preferences().sum(axis=1) == pytest.approx(1)
    assert bundle.mix_of(36).sum(axis=1) == pytest.approx(1)
    assert bundle.notes == ("no published.csv: there is nothing to compare with",)


def test_requests_may_be_gzipped(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    plain = read(folder)
    content = (folder / "requests.csv").read_bytes()
    (folder / "requests.csv").unlink()
    (folder / "requests.csv.gz").write_bytes(gzip.compress(content))
    assert (read(folder).energy_kwh == plain.energy_kwh).all()


@pytest.mark.parametrize("levels", [2, 5])
def test_any_number_of_levels(tmp_path: Path, levels: int) -> None:
    bundle = read(make_bundle(tmp_path / "b", levels=levels))
    assert bundle.levels == levels == len(bundle.meta.levels)
    assert bundle.preferences().shape == (2, levels)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b", small=False, judged=False, mix=False, meta=False)
    bundle = read(folder)
    assert (bundle.mix_of(5) == 0.5).all()
    assert not bundle.judged
    assert bundle.small_energy_kwh is None
    assert bundle.meta.starts == (0,)
    assert bundle.meta.embodied_g_per_s == pytest.approx(1.6715e-4, rel=1e-4)
    said = " | ".join(bundle.notes)
    for part in ("mix.csv", "meta.json", "MODEL_OPT", "published.csv", "judged prompts of sums"):
        assert part in said


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("requests.csv", "wh_l0", "wh_x", "no column wh_l0"),
        ("requests.csv", "s_l1", "s_x", "no column s_l1"),
        ("requests.csv", "sums-0,sums", "sums-0,other", "mixes sums, trivia; there are"),
        ("mix.csv", "0,0.5,0.5", "0,0.5,0.9", "mix.csv:2: shares sum to 1.4000"),
        ("mix.csv", "0,0.5,0.5", "0,0.5,", "mix.csv:2"),
        ("carbon/AA.csv", "gco2_per_kwh_direct", "co2", "no column gco2_per_kwh_direct"),
        ("meta.json", "[", "{", "can't read"),
        ("meta.json", '"xi": 0.1', '"xi": 2', "in [0, 1]"),
        ("meta.json", '["L0", "L1", "L2"]', '["L0"]', "1 levels, requests have 3"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    folder = make_bundle(tmp_path / "b")
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        _read_all(folder)
    assert message in str(error.value)


def _read_all(folder: Path) -> None:
    read_grid(folder / "carbon" / "AA.csv", "direct")
    read(folder)


@pytest.mark.parametrize("wrong", ["3", "-1", "L1", "1.5"])
def test_a_preferred_level_that_is_none(tmp_path: Path, wrong: str) -> None:
    folder = make_bundle(tmp_path / "b", prompts=4)
    lines = (folder / "requests.csv").read_text().splitlines()
    lines[-1] = lines[-1].rsplit(",", 1)[0] + f",{wrong}"
    (folder / "requests.csv").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="is no level of 0 to 2"):
        read(folder)


@pytest.mark.parametrize("wrong", ["nan", "-1", "much"])
def test_a_number_that_is_none(tmp_path: Path, wrong: str) -> None:
    folder = make_bundle(tmp_path / "b", prompts=4)
    text = (folder / "requests.csv").read_text()
    value = text.splitlines()[2].split(",")[1]
    (folder / "requests.csv").write_text(text.replace(value, wrong, 1))
    with pytest.raises(ConfigError, match=r"requests.csv:3"):
        read(folder)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder"):
        read(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"neither requests.csv.gz nor requests.csv"):
        read(tmp_path)
    folder = make_bundle(tmp_path / "b")
    for path in (folder / "carbon").iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match=r"holds no ZONE.csv"):
        read(folder)


def test_a_mix_that_is_too_short(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="36 hours, 37 are asked"):
        read(make_bundle(tmp_path / "b")).mix_of(37)


def test_an_hour_without_a_value_has_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "ZZ.csv"
    write_grid(path, [100, 200, 300])
    path.write_text(path.read_text().replace("200.000", ""))
    grid = read_grid(path, "direct")
    assert grid.g_per_kwh.tolist() == [100, 100, 300]
    assert (grid.within.low, grid.within.high) == (100, 300)
    assert grid.at(2).hour == 2


def test_published_figures(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    head = "zone,start_hour,xi,scheme,carbon_saving_pct,normalised_preference_pct,"
    head += "base_mg_per_request,mean_level_mix\n"
    (folder / "published.csv").write_text(head + "AA,0,0.1,SPROUT,50,95,,0.5 0.5 0\n")
    (found,) = read(folder).published
    assert found.key == ("AA", 0, 0.1, "SPROUT")
    assert found.mix == (0.5, 0.5, 0)
    assert np.isnan(found.base_mg)
    (folder / "published.csv").write_text(head + "AA,0,0.1,SPROUT,fifty,95,,0.5 0.5 0\n")
    with pytest.raises(ConfigError, match=r"published.csv:2"):
        read(folder)
