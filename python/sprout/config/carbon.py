# SPDX-License-Identifier: Apache-2.0
"""`[carbon]`: where the intensity comes from."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sprout.config.section import Section

SourceName = Literal["electricity_maps", "watttime", "gb", "trace", "constant", "country"]
# Without these a source can't be asked at all. The constant's is asked for when it is: a control
# plane may start without an intensity, and says so.
_NEEDS: dict[str, tuple[str, ...]] = {
    "electricity_maps": ("electricity_maps_key_file",),
    "watttime": ("watttime_username", "watttime_password_file", "watttime_region"),
    "trace": ("trace",),
    "country": ("country",),
}


class CarbonConfig(Section):
    # In the order in which they are asked; the first is the one that the others stand in for.
    sources: tuple[SourceName, ...] = Field(("constant",), min_length=1)
    # Without a value younger than `max_age_s` from any of them: "last" = go on with the last one,
    # "none" = no intensity, so L0; a number = this many g/kWh. Degraded in each case.
    fallback: Literal["last", "none"] | Annotated[float, Field(ge=0, le=5000)] = "last"
    zone: str = "EXAMPLE"  # where the machines stand, in Electricity Maps' names
    factor_type: Literal["direct", "lifecycle"] = "lifecycle"
    poll_s: float = Field(300, gt=0)  # of remote sources; others are read at each look
    timeout_s: float = Field(10, gt=0)  # of one exchange, from the connection to the last byte
    max_age_s: float = Field(7200, gt=0)  # older: degraded
    forecast_hours: float = Field(48, ge=0, le=72)  # asked of the source; 0 = never
    forecast_max_age_s: float = Field(43_200, ge=0)  # how old one may be to stand in for its source
    electricity_maps_key_file: Path | None = None
    electricity_maps_version: Literal["v3", "v4"] = "v4"
    electricity_maps_url: str = "https://api.electricitymaps.com"
    watttime_username: str | None = None
    watttime_password_file: Path | None = None
    watttime_region: str | None = None  # WattTime's own name of the zone, e.g. CAISO_NORTH
    watttime_url: str = "https://api.watttime.org"
    gb_url: str = "https://api.carbonintensity.org.uk"
    trace: Path | None = None  # CSV with datetime_utc, gco2_per_kwh_direct | _lifecycle
    trace_start: str | None = None  # ISO time in the trace to start from; default: its first row
    trace_speed: float = Field(1.0, gt=0)  # trace seconds per wall second
    trace_forecast: bool = False  # let the trace's own future be its forecast: clairvoyant
    constant_g_per_kwh: float | None = None
    country: str | None = Field(None, pattern=r"^[A-Z]{2}$")  # ISO 3166 alpha-2: yearly average

    @model_validator(mode="after")
    def _complete(self) -> "CarbonConfig":
        for name, keys in _NEEDS.items():
            missing = [key for key in keys if getattr(self, key) is None]
            if name in self.sources and missing:
                raise ValueError(f'"{name}" in carbon.sources needs carbon.{missing[0]}')
        if len(set(self.sources)) < len(self.sources):
            raise ValueError("carbon.sources names one twice")
        if "gb" in self.sources and (self.zone.partition("-")[0] != "GB" or self.zone == "GB-NIR"):
            raise ValueError(f'"gb" in carbon.sources knows Great Britain alone, not {self.zone}')
        if "electricity_maps" in self.sources and "zone" not in self.model_fields_set:
            raise ValueError('"electricity_maps" in carbon.sources needs carbon.zone')
        return self
