# SPDX-License-Identifier: Apache-2.0
"""Embodied carbon: what it took to make the device, by second of its life. Pure.

A small table on purpose. Every figure has a source that can be looked up; a device that is not in
it gets no guess, but `energy.embodied_g_per_s` from its maker's own footprint.
"""

from dataclasses import dataclass

from sprout.errors import ConfigError

SECONDS_PER_YEAR = 365 * 86_400  # as in arXiv 2403.12900: 26,356.568 g in 5 years = 1.6715e-4 g/s

_ECOLOGITS = "EcoLogits, methodology of LLM inference (doi 10.21105/joss.07471)"


@dataclass(frozen=True)
class Footprint:
    device: str
    with_host: bool  # with its share of the server around it
    kg: float  # CO2e, of one GPU
    lifetime_years: float | None  # that the source counts with; None: it is not stated with it
    source: str


TABLE = (
    Footprint("a100-40gb", False, 26.356568, 5, "arXiv 2403.12900, its published artifact"),
    Footprint("a100-40gb", True, 318, None, "Chien et al., HotCarbon '23: an eighth of a server"),
    Footprint("a100-80gb", False, 143, 5, f"Boavizta, in {_ECOLOGITS}, v1.0"),
    Footprint(
        "a100-80gb", True, 143 + 3000 / 8, 5, f"Boavizta's p4de.24xlarge / 8, in {_ECOLOGITS}, v1.0"
    ),
    Footprint("h100-80gb", False, 164, 3, f"NVIDIA HGX H100 PCF summary / 8, in {_ECOLOGITS}"),
    Footprint("h100-80gb", True, 164 + 5700 / 8, 3, f"Boavizta's p5.48xlarge / 8, in {_ECOLOGITS}"),
)

# NVML's names of what the table's figures are of. Not the PCIe and NVL boards of the H100: its
# figure is that of the HGX board.
NVML_NAMES = {
    "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "NVIDIA A100-PCIE-40GB": "a100-40gb",
    "NVIDIA A100-SXM4-80GB": "a100-80gb",
    "NVIDIA A100-SXM-80GB": "a100-80gb",
    "NVIDIA A100 80GB PCIe": "a100-80gb",
    "NVIDIA H100 80GB HBM3": "h100-80gb",
}


@dataclass(frozen=True)
class Unmatched:
    """A device that the table does not know."""

    reason: str


def g_per_s(kg: float, years: float) -> float:
    """Grams per second of a life of `years` in which `kg` are written off evenly."""
    return kg * 1000 / (years * SECONDS_PER_YEAR)


def footprint(device: str, *, with_host: bool) -> Footprint:
    """The table's row. ConfigError names what there is."""
    for row in TABLE:
        if (row.device, row.with_host) == (device, with_host):
            return row
    known = ", ".join(dict.fromkeys(row.device for row in TABLE))
    raise ConfigError(
        f"energy.embodied_device: no figure for {device!r}; there are {known}, else set "
        "energy.embodied_g_per_s from the maker's footprint"
    )


def rate(device: str, lifetime_years: float | None, *, with_host: bool) -> float:
    """Grams per device-second. ConfigError: no such device, or its lifetime has to be stated."""
    row = footprint(device, with_host=with_host)
    years = row.lifetime_years if lifetime_years is None else lifetime_years
    if years is None:
        raise ConfigError(
            f"energy.embodied_lifetime_years: the figure of {device} ({row.source}) comes without "
            "one; state for how long you keep your servers"
        )
    return g_per_s(row.kg, years)


def match(nvml_name: str) -> str | Unmatched:
    """The table's name of a device that NVML found; never a near one."""
    found = NVML_NAMES.get(nvml_name)
    if found is None:
        return Unmatched(f"the table of embodied carbon has no {nvml_name}")
    return found
