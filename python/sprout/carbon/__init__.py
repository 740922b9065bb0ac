# SPDX-License-Identifier: Apache-2.0
"""Carbon intensity: what a value is, where values come from, and the feed that keeps the last."""

from sprout.carbon.chain import Chain, make_chain
from sprout.carbon.feed import Feed
from sprout.carbon.intensity import Intensity
from sprout.carbon.sources import (
    ConstantSource,
    CountrySource,
    ElectricityMapsSource,
    GbSource,
    Source,
    TraceSource,
    WattTimeSource,
    make_source,
)

__all__ = [
    "Chain",
    "ConstantSource",
    "CountrySource",
    "ElectricityMapsSource",
    "Feed",
    "GbSource",
    "Intensity",
    "Source",
    "TraceSource",
    "WattTimeSource",
    "make_chain",
    "make_source",
]
