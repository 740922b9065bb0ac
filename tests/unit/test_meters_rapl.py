# SPDX-License-Identifier: Apache-2.0
"""RAPL, in a tree of files like sysfs's."""

import os
from pathlib import Path

import pytest

from sprout.energy.rapl import RaplMeter, zones
from sprout.errors import PrerequisiteError

RANGE_UJ = 262_143_328_850


def zone(folder: Path, name: str, uj: int, limit_uw: int | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    if limit_uw is not None:
        (folder / "constraint_0_power_limit_uw").write_text(f"{limit_uw}\n")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two sockets as in /sys/class/powercap: links to the zones, the subzones beside them."""
    devices = tmp_path / "devices" / "intel-rapl"
    links = tmp_path / "class"
    links.mkdir()
    for n in range(2):
        package = zone(devices / f"intel-rapl:{n}", f"package-{n}", 1_000_000, 150_000_000)
        for m, part in enumerate(("core", "uncore", "dram")):
            zone(package / f"intel-rapl:{n}:{m}", part, 1_000_000)
    zone(devices / "intel-rapl:2", "psys", 1_000_000)
    (links / "intel-rapl").symlink_to(devices)
    for found in (*devices.glob("intel-rapl:*"), *devices.glob("*/intel-rapl:*:*")):
        (links / found.name).symlink_to(found)
    return links


def add(root: Path, key: str, uj: int) -> None:
    file = root / key / "energy_uj"
    file.write_text(f"{(int(file.read_text()) + uj) % RANGE_UJ}\n")


def test_packages_and_memory_count_and_what_is_in_them_does_not(root: Path) -> None:
    meter = RaplMeter(root)
    assert meter.read() == 0.0
    for key in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:2", "intel-rapl:1:2"):
        add(root, key, 1_500_000)
    for key in ("intel-rapl:0:0", "intel-rapl:0:1", "intel-rapl:2"):
        add(root, key, 7_000_000)
    assert meter.read() == 6.0
    assert meter.name == "rapl (2 packages, dram)"
    assert meter.prior_watts == 300
    assert not meter.estimated


def test_a_mounted_folder_of_zones_will_do(root: Path) -> None:
    mounted = root.parent / "devices" / "intel-rapl"
    assert [z.key for z in zones(mounted)] == [z.key for z in zones(root)]


def test_a_counter_that_wraps_goes_on(root: Path) -> None:
    (root / "intel-rapl:0" / "energy_uj").write_text(f"{RANGE_UJ - 400_000}\n")
    meter = RaplMeter(root)
    add(root, "intel-rapl:0", 1_000_000)
    assert int((root / "intel-rapl:0" / "energy_uj").read_text()) == 600_000
    assert meter.read() == 0.0  # the reading could be false
    add(root, "intel-rapl:0", 500_000)
    assert meter.read() == pytest.approx(1.5)


def test_goes_on_after_a_restart_across_a_wrap(root: Path) -> None:
    (root / "intel-rapl:1" / "energy_uj").write_text(f"{RANGE_UJ - 400_000}\n")
    first = RaplMeter(root)
    add(root, "intel-rapl:0", 2_000_000)
    assert first.read() == 2.0
    add(root, "intel-rapl:1", 1_000_000)
    second = RaplMeter(root, first.memory())
    assert second.read() == 2.0
    third = RaplMeter(root, second.memory())
    add(root, "intel-rapl:1", 500_000)
    assert third.read() == pytest.approx(3.5)


def test_a_zone_that_can_not_be_read_holds_and_is_made_up_for(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meter = RaplMeter(root)
    counter = root / "intel-rapl:0" / "energy_uj"
    kept = counter.read_text()
    counter.write_text("")
    add(root, "intel-rapl:1", 1_000_000)
    assert meter.read() == 1.0
    assert meter.read() == 1.0
    assert "intel-rapl:0" in meter.problem
    assert len(caplog.records) == 1
    counter.write_text(kept)
    add(root, "intel-rapl:0", 2_000_000)
    assert meter.read() == 3.0
    assert meter.problem == ""


def test_without_a_limit_the_declared_power_is_the_prior(root: Path) -> None:
    (root / "intel-rapl:1" / "constraint_0_power_limit_uw").unlink()
    assert RaplMeter(root, fallback_watts=44).prior_watts == 44


def test_no_counters_here(tmp_path: Path) -> None:
    zone(tmp_path / "intel-rapl:0", "psys", 0)
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(PrerequisiteError, match=r"no RAPL counter under .*: .*rapl_root"):
            RaplMeter(root)


def test_root_only_counters_are_named_with_a_remedy(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = root / "intel-rapl:0" / "energy_uj"
    if os.geteuid() == 0:  # whom no mode keeps out
        read_text = Path.read_text

        def refused(self: Path, *args: str) -> str:
            if self == counter:
                raise PermissionError(13, "Permission denied", str(self))
            return read_text(self, *args)

        monkeypatch.setattr(Path, "read_text", refused)
    else:
        counter.chmod(0)
    with pytest.raises(PrerequisiteError, match=r"energy_uj may be read by root alone: .*udev"):
        RaplMeter(root)
