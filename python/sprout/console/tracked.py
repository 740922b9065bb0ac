# SPDX-License-Identifier: Apache-2.0
"""CarbonTracker beside our own meter, where the operator has it: of profiles and evaluations."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sprout.config import Config
from sprout.energy.carbontracker import CarbonTracker, Reading, Span


@contextmanager
def beside(cfg: Config) -> Iterator[Span | None]:
    """Tracks the node while the body runs; None where `energy.carbontracker_python` is not set."""
    if cfg.energy.carbontracker_python is None:
        yield None
        return
    with CarbonTracker(cfg.energy.carbontracker_python).span() as span:
        yield span


def line(span: Span) -> str:
    """For people."""
    result = span.result
    if not isinstance(result, Reading):
        return f"CarbonTracker: no reading: {result.reason}"
    parts = ", ".join(f"{name} {watts:.1f} W" for name, watts in result.watts.items())
    tag = " (estimated)" if result.estimated else ""
    return (
        f"CarbonTracker {result.version}{tag}: {result.joules:.4g} J in {result.seconds:.4g} s, "
        f"the whole node, idle included ({parts}; its PUE of {result.pue:g} taken out)"
    )


def document(span: Span | None) -> dict[str, Any] | None:
    """For JSON."""
    if span is None:
        return None
    result = span.result
    if not isinstance(result, Reading):
        return {"unmeasured": result.reason}
    return {
        "joules": result.joules,
        "seconds": result.seconds,
        "watts": result.watts,
        "estimated": result.estimated,
        "version": result.version,
    }
