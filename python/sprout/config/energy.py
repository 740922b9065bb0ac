# SPDX-License-Identifier: Apache-2.0
"""`[energy]`: what is metered, and what is declared."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from sprout.config.section import Section
from sprout.energy import embodied
from sprout.energy.rapl import DEFAULT_ROOT
from sprout.errors import ConfigError

MeterName = Literal["auto", "nvml", "rapl", "triton", "cpu_model"]
# Two meters of the same watts: their sum would count them twice.
_SAME_WATTS = ({"nvml", "triton"}, {"rapl", "cpu_model"})


class EnergyConfig(Section):
    # Added up, e.g. ["nvml", "rapl"] for GPUs and host. "auto" = the first that works here.
    meters: tuple[MeterName, ...] = Field(("auto",), min_length=1)
    gpus: tuple[int | str, ...] = ()  # NVML's indices or UUIDs; default: every GPU it lists
    rapl_root: Path = DEFAULT_ROOT
    triton_metrics_url: str = ""  # default: that of the [triton] section
    watts_per_core: float = Field(12.0, gt=0)  # declared, not measured: receipts say "estimated"
    carbontracker_python: Path | None = None  # of its own environment; for profiling runs
    pue: float = Field(1.0, ge=1)  # power usage effectiveness of the building
    pue_basis: str = Field("", max_length=200)  # where that figure comes from
    # k1 of the serving device: by name from the table in energy/embodied.py, or as a number.
    embodied_device: str | None = None
    embodied_lifetime_years: float | None = Field(None, gt=0)  # default: the figure's own
    host_share: bool | None = None  # with the device's share of its server
    embodied_g_per_s: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _complete(self) -> "EnergyConfig":
        meters = set(self.meters)
        if len(meters) < len(self.meters) or ("auto" in meters and len(meters) > 1):
            raise ValueError('energy.meters names each meter once, and "auto" alone')
        for same in _SAME_WATTS:
            if same <= meters:
                raise ValueError(f"energy.meters: {' and '.join(sorted(same))} meter the same")
        if "triton" in meters and not all(str(gpu).startswith("GPU-") for gpu in self.gpus):
            raise ValueError("energy.gpus: Triton knows a GPU by its UUID alone (nvidia-smi -L)")
        self._resolve_embodied()
        return self

    def _resolve_embodied(self) -> None:
        if self.embodied_device is None:
            if self.embodied_lifetime_years is not None or self.host_share is not None:
                raise ValueError("energy.embodied_device is missing: lifetime and host share of it")
            return
        if self.host_share is None:
            raise ValueError("energy.host_share: state whether the server around it counts too")
        try:
            rate = embodied.rate(
                self.embodied_device, self.embodied_lifetime_years, with_host=self.host_share
            )
        except ConfigError as error:
            raise ValueError(str(error)) from None
        # A resolved configuration that was written out names both, and they agree.
        if "embodied_g_per_s" in self.model_fields_set and self.embodied_g_per_s != rate:
            raise ValueError(
                "energy.embodied_device and energy.embodied_g_per_s contradict each other: "
                f"{rate:.4g} and {self.embodied_g_per_s:.4g} g/s"
            )
        object.__setattr__(self, "embodied_g_per_s", rate)  # frozen, and only now complete

    @property
    def pue_said(self) -> str:
        """The factor and what it rests on, for people."""
        if self.pue_basis:
            return f"PUE {self.pue:g} ({self.pue_basis})"
        if self.pue > 1:
            return f"PUE {self.pue:g} (as configured, source not stated)"
        return "PUE not stated: grams are those of the metered devices, nothing of the building"

    @property
    def embodied_said(self) -> str:
        """The rate and what it rests on, for people."""
        rate = f"embodied {3600 * self.embodied_g_per_s:.3g} g per device-hour"
        if self.embodied_device is not None and self.host_share is not None:
            row = embodied.footprint(self.embodied_device, with_host=self.host_share)
            years = self.embodied_lifetime_years or row.lifetime_years
            host = "with" if row.with_host else "without"
            return f"{rate} ({row.kg:.4g} kg over {years:g} years, {host} host: {row.source})"
        if self.embodied_g_per_s > 0:
            return f"{rate} (as configured)"
        return "embodied carbon not stated: grams are operational alone"
