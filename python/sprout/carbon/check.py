# SPDX-License-Identifier: Apache-2.0
"""Each configured source asked once, with what to do about those that fail."""

import asyncio
from dataclasses import dataclass

from sprout.carbon.intensity import Intensity
from sprout.carbon.member import ask
from sprout.carbon.sources import Source, make_source
from sprout.config import CarbonConfig, SourceName
from sprout.errors import (
    ConfigError,
    FeedError,
    FeedMalformed,
    FeedRateLimited,
    FeedUnauthorized,
    FeedUnavailable,
    FeedZoneError,
    PrerequisiteError,
)

FORECAST_HOURS = 24.0


@dataclass(frozen=True)
class Check:
    source: str
    value: Intensity | None
    found: str
    remedy: str = ""
    final: bool = False  # waiting does not cure it


async def check(config: CarbonConfig) -> list[Check]:
    """One for each source, in their order. Ends within twice `timeout_s` of the slowest."""
    return await asyncio.gather(*(_check(name, config) for name in config.sources))


async def _check(name: SourceName, config: CarbonConfig) -> Check:
    try:
        source = make_source(name, config)
        value = await ask(source)
        return Check(name, value, f"{describe(value)}; {await _forecast(source)}")
    except (ConfigError, PrerequisiteError) as error:
        problem, _, remedy = str(error).rpartition(": ")
        return Check(name, None, problem or remedy, remedy if problem else "", final=True)
    except FeedError as error:
        final = isinstance(error, FeedUnauthorized | FeedZoneError)
        return Check(name, None, str(error), _remedy(name, error, config), final=final)


async def _forecast(source: Source) -> str:
    if not source.forecast_basis:
        return "no forecast"
    try:
        ahead = len(await source.forecast(FORECAST_HOURS))
    except FeedError as error:
        return f"no forecast ({error})"
    return f"forecast: {ahead} values for the next {FORECAST_HOURS:g} h ({source.forecast_basis})"


def describe(value: Intensity) -> str:
    """One line: 182 g/kWh in GB at 2026-11-22 01:00 UTC (gb, direct, average, estimated)."""
    kind = [value.source, value.factor_type, value.signal, *["estimated"] * value.estimated]
    at = f"{value.time:%Y-%m-%d %H:%M} UTC"
    return f"{value.g_per_kwh:.0f} g/kWh in {value.zone} at {at} ({', '.join(kind)})"


def _remedy(name: SourceName, error: FeedError, config: CarbonConfig) -> str:
    keys = {"electricity_maps": "electricity_maps_key_file", "watttime": "watttime_password_file"}
    where = "watttime_region" if name == "watttime" else "zone"
    match error:
        case FeedUnauthorized():
            key = keys.get(name, "sources")
            return f"look at carbon.{key}, and whether its plan covers carbon.{where}"
        case FeedZoneError():
            return f"look up carbon.{where}: {getattr(config, where)} is none that it knows"
        case FeedRateLimited():
            return "raise carbon.poll_s; who else uses the same key?"
        case FeedUnavailable():
            return f"can this machine reach {getattr(config, f'{name}_url')}? (HTTPS_PROXY counts)"
        case FeedMalformed():
            return f"look at carbon.{name}_url and at this machine's clock"
        case _:
            return ""  # said by the error
