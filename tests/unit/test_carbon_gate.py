# SPDX-License-Identifier: Apache-2.0
"""When a source may be asked: on a clock that is turned by hand."""

import random
from dataclasses import replace

import pytest

from sprout.carbon.gate import Breaker, Gate, Pace
from sprout.errors import FeedError, FeedRateLimited, FeedUnauthorized, FeedZoneError

PACE = Pace(poll_s=300, retry_s=15, retry_max_s=100, open_after=5, open_s=900)
DOWN = FeedError("down")


class Clock:
    s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def middle(low: float, high: float) -> float:
    return (low + high) / 2


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(PACE, monotonic=clock, uniform=middle)


def shut_for(gate: Gate, clock: Clock) -> float:
    """Seconds until it may be asked, to a tenth; the clock stays where that is."""
    start = clock.s
    while not gate.ready():
        clock.s = round(clock.s + 0.1, 1)
    return round(clock.s - start, 1)


def test_a_new_gate_is_ready(gate: Gate) -> None:
    assert gate.ready()
    assert gate.state is Breaker.CLOSED


def test_after_a_success_it_waits_for_news(gate: Gate, clock: Clock) -> None:
    gate.succeeded()
    assert shut_for(gate, clock) == 300
    gate.succeeded(hold_s=1800)
    assert shut_for(gate, clock) == 1800
    gate.succeeded(hold_s=10)
    assert shut_for(gate, clock) == 300


def test_waits_double_up_to_a_bound_then_the_breaker_opens(gate: Gate, clock: Clock) -> None:
    waits = []
    for _ in range(4):
        gate.failed(DOWN)
        assert gate.state is Breaker.CLOSED
        waits.append(shut_for(gate, clock))
    assert waits == [15, 30, 60, 100]
    gate.failed(DOWN)
    assert gate.state is Breaker.OPEN
    assert shut_for(gate, clock) == 900
    assert gate.state is Breaker.HALF_OPEN


def test_a_probe_that_fails_opens_it_again_and_one_that_succeeds_closes_it(
    gate: Gate, clock: Clock
) -> None:
    for _ in range(5):
        gate.failed(DOWN)
    clock.s += 900
    gate.failed(DOWN)
    assert gate.state is Breaker.OPEN
    assert shut_for(gate, clock) == 900
    gate.succeeded()
    assert gate.state is Breaker.CLOSED
    clock.s += 300
    gate.failed(DOWN)
    assert gate.state is Breaker.CLOSED
    assert shut_for(gate, clock) == 15


@pytest.mark.parametrize("error", [FeedUnauthorized("key"), FeedZoneError("zone")])
def test_what_waiting_does_not_cure_opens_it_at_once(
    gate: Gate, clock: Clock, error: FeedError
) -> None:
    gate.failed(error)
    assert gate.state is Breaker.OPEN
    assert shut_for(gate, clock) == 900


def test_retry_after_stands_above_the_back_off(gate: Gate, clock: Clock) -> None:
    gate.failed(FeedRateLimited("slow down", retry_after_s=200))
    assert shut_for(gate, clock) == 200
    gate.failed(FeedRateLimited("slow down", retry_after_s=1))
    assert shut_for(gate, clock) == 30


def test_a_hold_only_lengthens(gate: Gate, clock: Clock) -> None:
    gate.succeeded()
    gate.hold(10)
    assert shut_for(gate, clock) == 300
    gate.hold(20)
    assert shut_for(gate, clock) == 20


def test_waits_are_jittered_but_never_shorter_than_asked_for(clock: Clock) -> None:
    uniform = random.Random(1).uniform
    waits = set()
    for _ in range(50):
        gate = Gate(PACE, monotonic=clock, uniform=uniform)
        gate.failed(DOWN)
        waits.add(shut_for(gate, clock))
        gate.failed(FeedRateLimited("slow down", retry_after_s=40))
        assert shut_for(gate, clock) >= 40
    assert min(waits) >= 7.5
    assert max(waits) <= 22.6
    assert len(waits) > 25


def test_what_is_at_hand_is_always_ready(clock: Clock) -> None:
    gate = Gate(Pace(), monotonic=clock)
    gate.succeeded()
    assert gate.ready()
    for _ in range(10):
        gate.failed(DOWN)
        assert gate.ready()


def test_a_refusal_may_close_it_for_longer_than_an_outage(clock: Clock) -> None:
    """What a plan does not cover, e.g. a forecast: asked again tomorrow. An outage is shorter."""
    paid = Gate(replace(PACE, final_s=86_400), monotonic=clock, uniform=middle)
    for _ in range(PACE.open_after):
        paid.failed(DOWN)
    assert shut_for(paid, clock) == 900
    paid.failed(FeedUnauthorized("plan"))
    assert shut_for(paid, clock) == 86_400
