# SPDX-License-Identifier: Apache-2.0
"""How often streams send by how many there are, and whose turn it is."""

import pytest

from sprout.engines.pace import Pace
from sprout.engines.waiting import Waiting

MS = 1_000_000


@pytest.mark.parametrize(
    ("streams", "interval_ms"), [(1, 20), (8, 20), (20, 20), (32, 32), (128, 128), (256, 256)]
)
def test_the_interval_follows_the_streams_at_work(streams: int, interval_ms: int) -> None:
    pace = Pace(chunk_interval_ms=20, chunks_per_s=1000)
    for _ in range(streams):
        pace.begin()
    assert pace.interval_ns == interval_ms * MS


def test_it_shrinks_again() -> None:
    pace = Pace(20, 1000)
    for _ in range(64):
        pace.begin()
    for left in range(63, -1, -1):
        pace.end()
        assert pace.interval_ns == max(20, left) * MS


def test_zero_is_no_bound() -> None:
    pace = Pace(20, 0)
    for _ in range(10_000):
        pace.begin()
    assert pace.interval_ns == 20 * MS


def test_without_an_interval_the_budget_is_all_there_is() -> None:
    pace = Pace(0, 300)
    assert pace.interval_ns == 0
    pace.begin()
    assert pace.interval_ns == round(1e9 / 300)


def test_who_sent_longest_ago_is_first() -> None:
    waiting: Waiting[str] = Waiting()
    assert waiting.first() is None
    for stream, sent_ns in (("b", 20), ("a", 10), ("c", 30)):
        waiting.add(stream, sent_ns)
    waiting.add("c", 5)  # waits already
    assert len(waiting) == 3
    order = []
    while (first := waiting.first()) is not None:
        order.append(first)
        waiting.discard(first[1])
    assert order == [(10, "a"), (20, "b"), (30, "c")]
    assert len(waiting) == 0


def test_one_that_sent_meanwhile_has_a_new_place() -> None:
    waiting: Waiting[str] = Waiting()
    waiting.add("a", 10)
    waiting.add("b", 20)
    waiting.discard("a")
    assert waiting.first() == (20, "b")
    waiting.add("a", 25)
    assert waiting.first() == (20, "b")
    waiting.discard("b")
    assert waiting.first() == (25, "a")
    waiting.discard("a")
    waiting.discard("a")  # it ended as well
    assert waiting.first() is None


def test_nobody_is_kept_who_left() -> None:
    """The heap holds no more than wait, and those that left since the first of them came."""
    waiting: Waiting[int] = Waiting()
    for now in range(10_000):
        waiting.add(now % 10, now)
        waiting.discard((now + 5) % 10)
        waiting.first()
    assert len(waiting._heap) < 20
