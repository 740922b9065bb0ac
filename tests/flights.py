# SPDX-License-Identifier: Apache-2.0
"""Flights of a ledger, as a stub opens and ends them."""

import time
from typing import Any

from sprout_ext.ledger import Flights, Phase, Segment


def opened(segment: Segment, **other: Any) -> int:
    """Its ticket. other: fields that are not as here."""
    fields: dict[str, Any] = {
        "level": 0,
        "flags": 0,
        "policy_version": 0,
        "policy_seed": 0,
        "sequence": 0,
        "task": b"",
        "input_tokens": 1,
        "max_tokens": 9,
        "opened_ns": time.monotonic_ns(),
        "intensity_g_per_kwh": 100.0,
        "pue": 1.0,
        "embodied_g_per_s": 0.0,
    }
    return segment.open_flight(**fields | other)


def ended(
    flights: Flights,
    ticket: int,
    phase: Phase = Phase.FINISHED,
    *,
    output_tokens: int = 2,
    late_ns: int = 0,
) -> bool:
    """Its last token was `late_ns` ago. False: the ticket is of no flight."""
    return flights.finished(
        ticket,
        phase,
        input_tokens=1,
        output_tokens=output_tokens,
        first_scheduled_ns=0,
        first_token_ns=0,
        last_token_ns=time.monotonic_ns() - late_ns,
    )
