# SPDX-License-Identifier: Apache-2.0
"""An engine that is at work and moves nothing, told from one that is idle, slow or gone."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flights import ended, opened

from sprout.engines.http import STALL_S
from sprout.serve.standstill import Standstill
from sprout_ext.ledger import Counter, Flights, Phase, Role, Segment


class Ledger:
    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.segment = Segment.create(folder, Role.PREPROCESSING, 0, 1, 8)
        self.slot = Segment.create(folder, Role.ENGINE, 0, 1, 0)
        self.flights = Flights(folder)
        self.folder = folder
        self.standstill = Standstill(folder, 100.0, clock=lambda: self.now)

    def start(self) -> int:
        ticket = opened(self.segment)
        assert self.flights.scheduled(ticket, time.monotonic_ns())
        return ticket

    def fail(self, ticket: int) -> None:
        assert ended(self.flights, ticket, Phase.FAILED, output_tokens=0)

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
    ledger.fail(first)
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


def test_what_passes_postprocessing_is_no_progress(ledger: Ledger) -> None:
    """The empty end of an answer that a client gave up does, and its slot does not count it."""
    after = Segment.create(ledger.folder, Role.POSTPROCESSING, 0, 1, 0)
    try:
        ledger.beat(ledger.start())
        for at in range(0, 91, 30):
            assert ledger.look(at) is None
            after.count(int(Counter.CHUNKS))
        assert ledger.look(101) is not None
    finally:
        after.close(True)


def test_a_slot_that_is_gone_is_no_progress(ledger: Ledger) -> None:
    ledger.slot.count(int(Counter.CHUNKS))
    ledger.beat(ledger.start())
    assert ledger.look(0) is None
    ledger.slot.close(True)
    assert ledger.look(50) is None
    assert ledger.look(101) is not None


def test_that_all_give_up_is_no_progress(ledger: Ledger) -> None:
    """All requests of one moment fail together, and what comes then waits in the slot."""
    tickets = [ledger.start(), ledger.start()]
    for ticket in tickets:
        ledger.beat(ticket)
    assert ledger.look(0) is None
    for ticket in tickets:
        ledger.fail(ticket)
    assert ledger.look(60) is None
    assert ledger.look(101) == "no token for 101 s, with 2 requests at work"


def test_by_default_the_slot_gives_up_first(ledger: Ledger) -> None:
    """A prompt that is read for as long as the slot waits for it is no standstill."""
    ledger.standstill = Standstill(ledger.folder, clock=lambda: ledger.now)
    prompt = ledger.start()
    ledger.beat(prompt)
    assert ledger.look(0) is None
    assert ledger.look(STALL_S) is None
    ledger.fail(prompt)
    assert ledger.look(STALL_S + 10) is None
    assert ledger.look(STALL_S + 60) is not None


def test_what_a_dead_slot_left_says_nothing(ledger: Ledger) -> None:
    ledger.beat(ledger.start(), ago_s=40.0)
    assert ledger.look(0) is None
    assert ledger.look(1000) is None
