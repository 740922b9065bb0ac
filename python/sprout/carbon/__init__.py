# SPDX-License-Identifier: Apache-2.0
"""Carbon intensity: what a value is, where values come from, and the feed that keeps the last."""

from sprout.carbon.feed import Feed
from sprout.carbon.intensity import Intensity
from sprout.carbon.sources import ConstantSource, GbSource, Source, TraceSource, make_source

__all__ = [
    "ConstantSource",
    "Feed",
    "GbSource",
    "Intensity",
    "Source",
    "TraceSource",
    "make_source",
]
