# SPDX-License-Identifier: Apache-2.0
"""`Flights.land`: a flight's receipt, against the reference and the accounting's own formula."""

import math
from pathlib import Path

import pytest

from sprout.units import request_g
from sprout_ext import reference
from sprout_ext.clock import ClockReader, ClockWriter
from sprout_ext.ledger import Flights, Phase, Role, Segment

SECOND = 1_000_000_000
OPENING = {
    "level": 2,
    "flags": 0,
    "policy_version": 7 << 32 | 3,
    "policy_seed": 5,
    "sequence": 11,
    "task": b"maths",
    "input_tokens": 17,
    "max_tokens": 64,
    "opened_ns": 1,
    "intensity_g_per_kwh": 250.5,
    "pue": 1.3,
    "embodied_g_per_s": 2e-4,
}


@pytest.fixture
def clock(tmp_path: Path) -> ClockReader:
    """10 J per active-second from 1 s on."""
    writer = ClockWriter(tmp_path / "energy.clock")
    writer.tick(1 * SECOND, 0.0, 0.0, 0.0, True)
    writer.tick(9 * SECOND, 8.0, 80.0, 80.0, True)
    return ClockReader(tmp_path / "energy.clock")


def landed(folder: Path, clock: ClockReader | None, land: object = None, **opening: object):
    """The receipt of a flight that was active from 2 s to 4.5 s."""
    segment = Segment.create(folder, Role.PREPROCESSING, 0, 1, records=1)
    ticket = segment.open_flight(**{**OPENING, **opening})
    flights = Flights(folder)
    flights.finished(
        ticket,
        Phase.FINISHED,
        input_tokens=17,
        output_tokens=9,
        first_scheduled_ns=2 * SECOND,
        first_token_ns=3 * SECOND,
        last_token_ns=9 * SECOND // 2,
    )
    receipt = (land or flights.land)(ticket, 5 * SECOND, clock)
    view = flights.view(ticket)
    segment.close(unlink=True)
    return receipt, view


def test_a_receipt_is_what_the_accounting_says(tmp_path: Path, clock: ClockReader) -> None:
    (level, version, joules, grams, intensity), view = landed(tmp_path, clock)
    assert (level, version, intensity) == (2, 7 << 32 | 3, 250.5)
    assert joules == pytest.approx(25.0)
    amounts = {"pue": 1.3, "embodied_g_per_s": 2e-4}
    assert grams == pytest.approx(request_g(25.0, 2.5, intensity_g_per_kwh=250.5, **amounts))
    assert (view.closed, view.closed_ns) == (True, 5 * SECOND)
    assert view.receipt_joules == pytest.approx(25.0)


def test_the_reference_gives_the_same(tmp_path: Path, clock: ClockReader) -> None:
    ours, view = landed(tmp_path, clock)
    theirs, reference_view = landed(tmp_path, clock, reference.Flights(tmp_path).land)
    assert ours == theirs
    assert (view.closed_ns, view.receipt_joules) == (
        reference_view.closed_ns,
        reference_view.receipt_joules,
    )


def test_what_is_not_known_is_nan(tmp_path: Path, clock: ClockReader) -> None:
    receipt, _ = landed(tmp_path, None)
    assert math.isnan(receipt[2])
    assert math.isnan(receipt[3])
    receipt, _ = landed(tmp_path, clock, intensity_g_per_kwh=math.nan)
    assert receipt[2] == pytest.approx(25.0)
    assert math.isnan(receipt[3])
    assert math.isnan(receipt[4])


def test_no_such_flight(tmp_path: Path, clock: ClockReader) -> None:
    flights = Flights(tmp_path)
    assert flights.land(0, 1, clock) is None
    assert flights.land(5 << 48 | 1, 1, clock) is None
