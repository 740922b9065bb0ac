# SPDX-License-Identifier: Apache-2.0
"""Every writer of the shared files, killed with -9 at random points under readers' eyes.

And once more without chance: the reference writer, which stores the same words in the same order,
stopped before each of its stores.
"""

import os
import random
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from core_writers import S, opening_of, policy_of, sampled_of

from sprout_ext import reference
from sprout_ext.board import BoardReader, BoardWriter
from sprout_ext.clock import ClockReader, ClockWriter
from sprout_ext.ledger import Flights, Phase, Segment, SegmentReader, segments
from sprout_ext.reference.words import Words
from sprout_ext.ring import Ring, RingPrompt, RingReader, rings

ROUNDS = 120
Check = Callable[[], None]


@contextmanager
def writers(kind: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """The process that breeds and kills writers."""
    script = Path(__file__).parents[1] / "core_writers.py"
    with subprocess.Popen(
        [sys.executable, script, kind, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()


def rounds(
    kind: str,
    directory: Path,
    during: Check,
    after: Check,
    enough: Callable[[], bool] = lambda: True,
) -> None:
    """Kills `ROUNDS` writers; calls `during` all the while and `after` each death.

    On a busy machine writers and readers may hardly meet: up to ten times as many, until `enough`.
    """
    rng = random.Random(kind)
    with writers(kind, directory) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for turn in range(10 * ROUNDS):
            if turn >= ROUNDS and enough():
                break
            process.stdin.write(f"{rng.randrange(20, 3000)}\n")
            process.stdin.flush()
            while not select.select([process.stdout], [], [], 0)[0]:
                during()
            assert process.stdout.readline() == "dead\n"
            after()


def board_is_whole(reader: BoardReader) -> int:
    """Checks; returns the version, 0 = none yet."""
    found = reader.policy()
    if found is None:
        assert reader.state() != "corrupt"
        return 0
    assert found == policy_of(found.version)
    return found.version


def test_board_writer(tmp_path: Path):
    BoardWriter(tmp_path / "policy.board").close()
    reader = BoardReader(tmp_path / "policy.board", 0, 0, 0, 0)
    seen = [0]

    def look() -> None:
        version = board_is_whole(reader)
        assert version >= seen[-1]
        seen.append(version)

    rounds("board", tmp_path, look, look, lambda: len(set(seen)) > ROUNDS // 4)
    assert len(set(seen)) > ROUNDS // 4  # a reader that the machine lets read
    assert os.listdir(tmp_path) == ["policy.board"]


def clock_is_whole(reader: ClockReader) -> int:
    """Checks; returns the ticks so far."""
    state = reader.state()
    assert state is not None
    n = state.t_ns // S
    if n == 0:
        return 0
    # The first tick has no interval; of the n, n // 3 are idle.
    idle, active = n // 3, n - n // 3
    first = 1.0 if active else 0.0
    assert state.idle == idle + 2 * first
    assert state.settled == 2 * (active - first)
    assert state.metered == state.settled + state.idle
    begin = max(n - 600, 1)
    joules, provisional = reader.energy(begin * S, n * S)
    later = reader.state()
    assert later is not None
    if n > 1 and later.t_ns // S - begin < 8000:  # else it left the clock's memory meanwhile
        assert not provisional
        assert joules == pytest.approx(sum(2 for i in range(begin + 1, n + 1) if i % 3))
    return n


def test_clock_writer(tmp_path: Path):
    ClockWriter(tmp_path / "energy.clock").close()
    reader = ClockReader(tmp_path / "energy.clock")
    seen = [0]

    def look() -> None:
        n = clock_is_whole(reader)
        assert n >= seen[-1]
        seen.append(n)

    rounds("clock", tmp_path, look, look, lambda: len(set(seen)) > ROUNDS // 4)
    assert len(set(seen)) > ROUNDS // 4
    assert seen[-1] > 8192  # the ring turned over
    assert os.listdir(tmp_path) == ["energy.clock"]


def test_segment_opener(tmp_path: Path):
    """The agent's view: each flight is of one opening; the dead leave nothing but their segment."""
    seen: set[tuple[int, int]] = set()

    def look(*, release: bool = True) -> None:
        for reader in segments(tmp_path):
            for row in reader.scan():
                expected = opening_of(int(row["sequence"]))
                assert {name: row[name] for name in expected} == expected
                assert (row["phase"], row["closed"]) == (0, False)
                seen.add((reader.uid, int(row["ticket"])))
                if release:
                    reader.release(int(row["slot"]), int(row["generation"]))

    def bury() -> None:
        look(release=False)
        for reader in segments(tmp_path):
            assert not reader.alive
            reader.unlink()
        assert os.listdir(tmp_path) == []

    def used_again() -> bool:
        return any(ticket & 0xFFFFFFFF > 1 for _, ticket in seen)

    rounds("opener", tmp_path, look, bury, used_again)
    assert len(seen) > ROUNDS // 4
    assert used_again()  # slots that were released


def flights_under(kind: str, tmp_path: Path, check: Callable[[dict[str, int]], bool]) -> None:
    """Opens flights for a writer of another line; `check` says whether one may be released."""
    segment = Segment.create(tmp_path, 1, 0, 0, records=8)
    agent = SegmentReader(segment.path)
    released = 0

    def look() -> None:
        nonlocal released
        while segment.open_flight(**opening_of(released + 1)):
            pass
        for row in agent.scan():
            expected = opening_of(int(row["sequence"]))
            # The engine's count of input tokens takes the place of the opener's.
            assert {k: row[k] for k in expected if k != "input_tokens"} == {
                k: expected[k] for k in expected if k != "input_tokens"
            }
            if check({name: row[name].item() for name in row.dtype.names}):
                agent.release(int(row["slot"]), int(row["generation"]))
                released += 1

    rounds(kind, tmp_path, look, look)
    assert released > ROUNDS // 4
    segment.close(unlink=True)
    assert os.listdir(tmp_path) == []


def test_engine(tmp_path: Path):
    seen: set[int] = set()

    def check(row: dict[str, int]) -> bool:
        g, phase = row["generation"], row["phase"]
        seen.add(phase)
        if phase >= Phase.FINISHED:
            assert phase == 3 + g % 3
            times = (row["scheduled_ns"], row["first_token_ns"], row["last_token_ns"])
            assert times == (g * 11, g * 21, g * 31)
            assert (row["input_tokens"], row["output_tokens"]) == (g % 100 + 1, g % 500)
            return True
        assert row["scheduled_ns"] == (g * 10 if phase >= Phase.SCHEDULED else 0)
        # Either the writer that saw the first token, or one reborn after it.
        assert row["first_token_ns"] == (g * 20 if phase >= Phase.FIRST_TOKEN else 0)
        assert row["output_tokens"] in (0, g % 1000)
        assert row["last_token_ns"] == 0
        return False

    flights_under("engine", tmp_path, check)
    assert {3, 4, 5} <= seen


def test_closer(tmp_path: Path):
    def check(row: dict[str, int]) -> bool:
        g = row["generation"]
        if not row["closed"]:
            assert (row["closed_ns"], row["receipt_joules"]) == (0, 0)
            return False
        assert (row["closed_ns"], row["receipt_joules"]) == (g * 17, g % 1024)
        return True

    flights_under("closer", tmp_path, check)


def test_agent(tmp_path: Path):
    """The opener's view: a slot comes back once per release, with the next generation."""
    segment = Segment.create(tmp_path, 1, 0, 0, records=8)
    table, generation, opened = SegmentReader(segment.path), [0] * 8, 0

    def look() -> None:
        nonlocal opened
        while ticket := segment.open_flight(**opening_of(opened)):
            slot, found = ticket >> 32 & 0xFFFF, ticket & 0xFFFFFFFF
            assert found == generation[slot] + 1
            generation[slot] = found
            opened += 1

    def after() -> None:
        look()
        assert len(table.scan()) == 8  # nobody releases now, and every free slot was found

    rounds("agent", tmp_path, look, after)
    assert opened > ROUNDS // 4
    segment.close(unlink=True)


def number_of(prompt: RingPrompt) -> int:
    """Checks that it is one prompt, whole."""
    expected = sampled_of(prompt.policy_version)
    assert {name: getattr(prompt, name) for name in expected} == expected
    return prompt.policy_version


def test_ring_writer(memory: Path):
    """Whole prompts, in order; the dead leave nothing but their ring."""
    seen = 0

    def look() -> None:
        nonlocal seen
        for ring in rings(memory):
            numbers = [number_of(prompt) for prompt in ring.drain()]
            assert numbers == sorted(set(numbers))
            seen += len(numbers)

    def bury() -> None:
        look()
        for ring in rings(memory):
            assert not ring.alive
            counts = ring.counts()
            assert counts.written == counts.read
            ring.unlink()
        assert os.listdir(memory) == []

    rounds("prompts", memory, look, bury)
    assert seen > ROUNDS // 4


def test_ring_reader(memory: Path):
    """The stub's view: whenever the agent is killed, the ring is the next one's."""
    ring = Ring.create(memory, 0, 0, slots=4, prompt_bytes=1000)
    n = 0

    def look() -> None:
        nonlocal n
        n += 1
        ring.write(**sampled_of(n))

    def after() -> None:
        reader = RingReader(ring.path)  # the next agent
        reader.drain()
        for _ in range(4):
            look()
        assert [number_of(prompt) for prompt in reader.drain()] == [n - 3, n - 2, n - 1, n]
        assert reader.counts().written == reader.counts().read

    rounds("drain", memory, look, after)
    assert n > ROUNDS
    ring.close(unlink=True)


class Stopped(Exception):  # noqa: N818 - not an error: a writer's death
    """The writer died here."""


@contextmanager
def dying_before(store: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The reference dies before its n-th store; later ones never happen."""
    left, real = [store], Words.__setitem__

    def count_down(words: Words, index: int, word: int) -> None:
        if left[0] == 0:
            raise Stopped
        left[0] -= 1
        real(words, index, word)

    with monkeypatch.context() as patch:
        patch.setattr(Words, "__setitem__", count_down)
        yield


def each_death(monkeypatch: pytest.MonkeyPatch, life: Callable[[], None], check: Check) -> int:
    """Runs `life` to its death before store 0, 1, …, with `check` after each; until it survives."""
    for store in range(10_000):
        try:
            with dying_before(store, monkeypatch):
                life()
        except Stopped:
            check()
        else:
            return store
    raise AssertionError("never survives")


def test_board_at_every_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "policy.board"
    n = 1
    reference.BoardWriter(path).publish(policy_of(n))
    reader = BoardReader(path, 0, 0, 0, 0)

    def check() -> None:
        nonlocal n
        assert reader.policy() in (policy_of(n), policy_of(n + 1))
        n += 2
        reborn = BoardWriter(path)
        assert reader.policy() in (policy_of(n - 2), policy_of(n - 1))
        reborn.publish(policy_of(n))
        reborn.close()
        assert reader.policy() == policy_of(n)

    stores = each_death(
        monkeypatch, lambda: reference.BoardWriter(path).publish(policy_of(n + 1)), check
    )
    assert stores == 1997  # sequence, 1993 words, checksum, sequence, active


def test_clock_at_every_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "energy.clock"
    first = reference.ClockWriter(path)
    for i in (1, 2):
        first.tick(i * S, 1.0, 2.0, 0.0, False)
    reader = ClockReader(path)

    def life() -> None:
        writer = reference.ClockWriter(path)
        writer.tick(writer.last_t_ns + S, 1.0, 2.0, 0.0, False)

    def check() -> None:
        state = reader.state()
        assert state is not None
        n = state.t_ns // S
        assert (state.metered, state.settled) == (2 * n, 2 * (n - 1))
        assert reader.energy(S, n * S) == (pytest.approx(2.0 * (n - 1)), False)
        reborn = ClockWriter(path)
        reborn.tick((n + 1) * S, 1.0, 2.0, 0.0, False)
        assert reborn.energy(S, (n + 1) * S) == (pytest.approx(2.0 * n), False)
        reborn.close()

    assert each_death(monkeypatch, life, check) == 18


def test_flight_at_every_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Opener, engine, closer and agent in turn, each dying at each store of a flight's life."""
    segment = Segment.create(tmp_path, 1, 0, 0, records=1)
    agent, flights = SegmentReader(segment.path), Flights(tmp_path)
    opener = reference.Segment(segment.path)
    oracle = reference.Flights(tmp_path)
    end = dict.fromkeys(
        ("input_tokens", "output_tokens", "first_scheduled_ns", "first_token_ns", "last_token_ns"),
        9,
    )
    alive: list[int] = []

    def life() -> None:
        alive.clear()
        ticket = opener.open_flight(**opening_of(5))
        alive.append(ticket)
        oracle.scheduled(ticket, 1)
        oracle.progress(ticket, 3, 2)
        oracle.finished(ticket, Phase.FINISHED, **end)
        oracle.close(ticket, 4, 0.5)
        reference.SegmentReader(segment.path).release(0, ticket & 0xFFFFFFFF)

    def check() -> None:
        rows = agent.scan()
        if not alive:  # died while opening: not a flight, and nobody has its ticket
            assert len(rows) == 0
            # The slot is lost with its owner; a new table stands for the new owner here.
            generation = Words(segment.path, 8)[48] >> 32
            words = Words(segment.path, 8)
            words[48] = generation << 32 | 2
            agent.release(0, generation)
            words.close()
            return
        if len(rows) == 0:  # died after the release
            return
        (row,) = rows
        view = flights.view(alive[0])
        assert view is not None
        assert view.phase == row["phase"]
        assert row["scheduled_ns"] in ((0,), (1,), (1,), (9,))[row["phase"]]
        assert row["output_tokens"] in ((0,), (0, 3), (0, 3), (9,))[row["phase"]]
        assert row["last_token_ns"] == (9 if row["phase"] == Phase.FINISHED else 0)
        assert (row["closed_ns"], row["receipt_joules"]) == ((4, 0.5) if row["closed"] else (0, 0))
        agent.release(0, alive[0] & 0xFFFFFFFF)

    assert each_death(monkeypatch, life, check) > 30
    segment.close(unlink=True)


def test_ring_at_every_store(memory: Path, monkeypatch: pytest.MonkeyPatch):
    """Writer and reader in turn, each dying at each of its stores."""
    ring = Ring.create(memory, 0, 0, slots=1, prompt_bytes=40)
    sampled = {**sampled_of(7), "text": b"a prompt of some length"}
    died: list[str] = []

    def life() -> None:
        died[:] = ["writer"]
        reference.Ring(ring.path).write(**sampled)
        died[:] = ["reader"]
        reference.RingReader(ring.path).drain()
        died.clear()

    def check() -> None:
        reader = RingReader(ring.path)
        found = reader.drain()
        assert [prompt.text for prompt in found] in ([], [sampled["text"]])
        counts = reader.counts()
        assert counts.written == counts.read
        if died == ["reader"]:  # what it did not get to wipe, its successor did
            assert sampled["text"][:8] not in ring.path.read_bytes()
        assert ring.write(**sampled_of(8))  # and the slot is no one's
        assert [number_of(prompt) for prompt in reader.drain()] == [8]

    # Writer: 2 states, 11 facts, 3 words of text, written. Reader: 2 states, 3 + 6 + 1 wiped,
    # missed, read.
    assert each_death(monkeypatch, life, check) == 31
    ring.close(unlink=True)
