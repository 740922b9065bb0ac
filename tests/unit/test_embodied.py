# SPDX-License-Identifier: Apache-2.0
"""Embodied carbon per device-second, the settings that choose it, and SCI per request."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprout.config import Config, load
from sprout.energy import embodied
from sprout.energy.embodied import TABLE, Unmatched, g_per_s, match, rate
from sprout.errors import ConfigError
from sprout.serve.state import dump_toml
from sprout.units import request_g, sci


def test_the_published_figure_of_an_a100() -> None:
    """arXiv 2403.12900: 26,356.568 g over 5 years."""
    assert rate("a100-40gb", None, with_host=False) == pytest.approx(1.6715e-4, rel=1e-4)


@pytest.mark.parametrize(
    ("device", "with_host", "years", "g_per_hour"),
    [
        ("h100-80gb", False, 5, 3.7),
        ("h100-80gb", False, 3, 6.2),
        ("h100-80gb", True, 5, 20),
        ("h100-80gb", True, 3, 33.4),
        ("a100-40gb", True, 5, 7.3),
        ("a100-40gb", True, 3, 12.1),
    ],
)
def test_hourly_figures_as_they_are_quoted(
    device: str, with_host: bool, years: float, g_per_hour: float
) -> None:
    assert 3600 * rate(device, years, with_host=with_host) == pytest.approx(g_per_hour, rel=0.02)


def test_every_row_can_be_found_and_has_a_source() -> None:
    keys = [(row.device, row.with_host) for row in TABLE]
    assert len(set(keys)) == len(keys)
    for row in TABLE:
        assert row.source
        assert embodied.footprint(row.device, with_host=row.with_host) is row
        assert rate(row.device, 4, with_host=row.with_host) == g_per_s(row.kg, 4) > 0
    assert set(embodied.NVML_NAMES.values()) == {row.device for row in TABLE}


def test_the_documented_table_is_the_code_s() -> None:
    page = (Path(__file__).parents[2] / "docs" / "energy.md").read_text()
    for row in TABLE:
        host = "yes" if row.with_host else "no"
        years = "to be stated" if row.lifetime_years is None else f"{row.lifetime_years:g}"
        line = f"| `{row.device}` | {host} | {row.kg:.4g} | {years} | "
        assert line in page
        if row.lifetime_years is not None:
            hourly = 3600 * g_per_s(row.kg, row.lifetime_years)
            assert f"{line}{hourly:.3g} |" in page


def test_a_device_is_matched_by_its_exact_name_or_not_at_all() -> None:
    assert match("NVIDIA H100 80GB HBM3") == "h100-80gb"
    assert match("NVIDIA A100-SXM4-40GB") == "a100-40gb"
    for name in ("NVIDIA H100 PCIe", "NVIDIA H200", "NVIDIA A100", ""):
        found = match(name)
        assert isinstance(found, Unmatched)
        assert name in found.reason


def test_a_named_device_sets_the_rate(tmp_path: Path) -> None:
    flags = {"energy.embodied_device": "h100-80gb", "energy.host_share": "true"}
    made = load(environ={}, flags=flags)
    assert made.energy.embodied_g_per_s == g_per_s(164 + 5700 / 8, 3)
    assert "876.5 kg over 3 years, with host" in made.energy.embodied_said
    file = tmp_path / "sprout.toml"
    file.write_text(dump_toml(made))
    assert load(file, environ={}) == made
    made = load(environ={}, flags=flags | {"energy.embodied_lifetime_years": "5"})
    assert made.energy.embodied_g_per_s == g_per_s(164 + 5700 / 8, 5)


@pytest.mark.parametrize(
    ("energy", "message"),
    [
        ({"embodied_device": "h100-80gb"}, "host_share: state"),
        ({"embodied_device": "h100", "host_share": True}, "no figure for 'h100'; there are a100"),
        ({"embodied_device": "a100-40gb", "host_share": True}, "embodied_lifetime_years: .*state"),
        ({"host_share": True}, "embodied_device is missing"),
        ({"embodied_lifetime_years": 4}, "embodied_device is missing"),
        (
            {"embodied_device": "h100-80gb", "host_share": False, "embodied_g_per_s": 1e-4},
            "contradict each other: 0.001733 and 0.0001 g/s",
        ),
    ],
)
def test_half_a_statement_is_refused(energy: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(environ={}, flags={f"energy.{key}": value for key, value in energy.items()})


def test_what_grams_rest_on_is_said() -> None:
    def said(**energy: object) -> tuple[str, str]:
        made = Config.model_validate({"energy": energy}).energy
        return made.pue_said, made.embodied_said

    pue, of_device = said()
    assert pue.startswith("PUE not stated")
    assert of_device.startswith("embodied carbon not stated")
    assert said(pue=1.2)[0] == "PUE 1.2 (as configured, source not stated)"
    assert said(pue=1.0, pue_basis="no cooling here")[0] == "PUE 1 (no cooling here)"
    assert said(embodied_g_per_s=2e-3)[1] == "embodied 7.2 g per device-hour (as configured)"


AMOUNT = st.floats(0, 1e6)


@given(AMOUNT, AMOUNT, AMOUNT, st.floats(1, 3), AMOUNT)
def test_sci_of_one_request_is_its_receipt(
    joules: float, device_s: float, intensity: float, pue: float, rate: float
) -> None:
    given_ = {"intensity_g_per_kwh": intensity, "pue": pue, "embodied_g_per_s": rate}
    assert sci(joules, device_s, **given_).total_g == request_g(joules, device_s, **given_)


def test_sci_by_hand() -> None:
    """An hour of a device that draws 360 W at 500 g/kWh, PUE 1.2, 10 g embodied, 1000 requests."""
    made = sci(
        360 * 3600,
        3600,
        intensity_g_per_kwh=500,
        pue=1.2,
        embodied_g_per_s=10 / 3600,
        requests=1000,
        reserved_share=0.5,
    )
    assert made.operational_g == pytest.approx(0.36 * 500 * 1.2 / 1000)
    assert made.embodied_g == pytest.approx(10 * 0.5 / 1000)
    assert made.total_g == pytest.approx(0.221)


@pytest.mark.parametrize("wrong", [{"requests": 0}, {"reserved_share": 1.1}])
def test_sci_refuses_nonsense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="requests with a share"):
        sci(1, 1, intensity_g_per_kwh=1, pue=1, embodied_g_per_s=1, **wrong)  # type: ignore[arg-type]
