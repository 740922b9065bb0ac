# SPDX-License-Identifier: Apache-2.0
"""Joining of chunks, with a clock of the test's own."""

from sprout.engines.base import Chunk, End, Reason
from sprout.engines.joiner import ChunkJoiner
from sprout.engines.pace import Pace

END = End(Reason.LENGTH, 1, 1, 0, 0, 0, 0)
OF_20_NS = Pace(20e-6, 0)


def ids(chunk: Chunk | None) -> list[int] | None:
    return None if chunk is None else chunk.token_ids


def test_first_leaves_at_once_then_joined() -> None:
    joiner = ChunkJoiner(OF_20_NS)
    assert joiner.deadline_ns is None
    assert ids(joiner.add(Chunk([1]), 100)) == [1]
    assert joiner.add(Chunk([2]), 105) is None
    assert joiner.deadline_ns == 120
    assert joiner.add(Chunk([3]), 119) is None
    assert ids(joiner.add(Chunk([4]), 120)) == [2, 3, 4]
    assert joiner.deadline_ns is None


def test_waiting_tokens_are_due_without_a_further_one() -> None:
    joiner = ChunkJoiner(OF_20_NS)
    joiner.add(Chunk([1]), 0)
    joiner.add(Chunk([2]), 1)
    assert joiner.due(19) is None
    assert ids(joiner.due(20)) == [2]
    assert joiner.due(1000) is None


def test_slow_tokens_never_wait() -> None:
    joiner = ChunkJoiner(OF_20_NS)
    assert [ids(joiner.add(Chunk([n]), n * 50)) for n in range(4)] == [[0], [1], [2], [3]]


def test_end_takes_everything_along() -> None:
    joiner = ChunkJoiner(OF_20_NS)
    joiner.add(Chunk([1]), 0)
    joiner.add(Chunk([2]), 1)
    last = joiner.add(Chunk([3], END), 2)
    assert last == Chunk([2, 3], END)


def test_interval_of_zero_joins_nothing() -> None:
    joiner = ChunkJoiner(Pace(0, 0))
    assert [ids(joiner.add(Chunk([n]), 7)) for n in range(3)] == [[0], [1], [2]]


def test_none_holds_until_the_end() -> None:
    joiner = ChunkJoiner(None)
    assert joiner.add(Chunk([1]), 0) is None
    assert joiner.deadline_ns is None
    assert joiner.due(10**18) is None
    assert joiner.add(Chunk([], END), 1) == Chunk([1], END)
