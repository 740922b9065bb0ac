# SPDX-License-Identifier: Apache-2.0
"""An engine that is at work and moves nothing, told from one that is idle, slow or gone."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sprout.serve.standstill import Standstill
from sprout_ext.ledger import Counter, Flights, Phase, Role, Segment


class Ledger:
    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.segment = Segment.create(folder, Role.PREPROCESSING, 0, 1, 8)
        self.slot = Segment.create(folder, Role.ENGINE, 0, 1, 0)
        self.flights = Flights(folder)
        self.standstill = Standstill(folder, 100.0, clock=lambda: self.now)

    def start(self) -> int:
        ticket = self.segment.open_flight(
            level=0,
            flags=0,
            policy_version=0,
            policy_seed=0,
            sequence=0,
            task=b"",
            input_tokens=1,
            max_tokens=9,
            opened_ns=time.monotonic_ns(),
            intensity_g_per_kwh=100.0,
            pue=1.0,
            embodied_g_per_s=0.0,
        )
        assert self.flights.scheduled(ticket, time.monotonic_ns())
        return ticket

    def beat(self, ticket: int, tokens: int = 0, *, ago_s: float = 0.0) -> None:
        assert self.flights.progress(ticket, tokens, time.monotonic_ns() - int(ago_s * 1e9))

    def look(self, at: float) -> str | None:
        self.now = at
        return self.standstill.look()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path)
    yield made
    made.segment.close(True)
    made.slot.close(True)


def test_nothing_at_work_is_no_standstill(ledger: Ledger) -> None:
    assert ledger.look(0) is None
    assert ledger.look(1000) is None


def test_no_token_for_too_long(ledger: Ledger) -> None:
    ledger.beat(ledger.start())
    assert ledger.look(10) is None
    assert ledger.look(109) is None
    assert ledger.look(111) == "no token for 101 s, with 1 requests at work"
    ledger.standstill.reset()
    assert ledger.look(200) is None


def test_one_that_fails_and_one_that_comes_are_no_progress(ledger: Ledger) -> None:
    first = ledger.start()
    ledger.beat(first, 5)
    assert ledger.look(0) is None
    ledger.beat(ledger.start())
    assert ledger.look(60) is None
    ledger.flights.finished(
        first,
        Phase.FAILED,
        input_tokens=1,
        output_tokens=5,
        first_scheduled_ns=0,
        first_token_ns=0,
        last_token_ns=time.monotonic_ns(),
    )
    assert ledger.look(101) is not None


def test_one_token_of_one_request_is_progress(ledger: Ledger) -> None:
    still, slow = ledger.start(), ledger.start()
    ledger.beat(still)
    for at in range(0, 400, 50):
        ledger.beat(slow, 1 + at)  # as a heartbeat tells it of an answer that is not streamed
        assert ledger.look(at) is None


def test_a_chunk_of_anybody_is_progress(ledger: Ledger) -> None:
    ledger.beat(ledger.start())
    assert ledger.look(0) is None
    ledger.slot.count(int(Counter.CHUNKS))
    assert ledger.look(90) is None
    assert ledger.look(180) is None
    assert ledger.look(191) is not None


def test_what_a_dead_slot_left_says_nothing(ledger: Ledger) -> None:
    ledger.beat(ledger.start(), ago_s=40.0)
    assert ledger.look(0) is None
    assert ledger.look(1000) is None
