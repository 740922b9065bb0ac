# SPDX-License-Identifier: Apache-2.0
"""The ring of sampled prompts: agreement with a plain model and the reference, files that lie."""

import errno
import os
import stat
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sprout_ext import reference
from sprout_ext.reference.words import Words, fold
from sprout_ext.ring import Ring, RingCounts, RingReader, rings

FACTS: dict[str, Any] = {
    "level": 2,
    "flags": 5,
    "policy_version": 2**63 + 1,
    "propensity": 0.375,
    "max_tokens": 2**32 - 1,
    "opened_ns": 2**40,
    "task": b"summarise",
    "tenant": b"a-tenant-of-23-letters-",
}
NAMES = ("text", *FACTS)


def make(folder: Path, slots: int = 4, prompt_bytes: int = 100) -> Ring:
    return Ring.create(folder, 3, 77, slots=slots, prompt_bytes=prompt_bytes)


def plain(prompt: Any) -> dict[str, Any]:
    return {name: getattr(prompt, name) for name in NAMES}


def test_a_prompt_from_stub_to_agent(memory: Path):
    ring = make(memory)
    assert ring.write(b"What is it?", **FACTS)
    (reader,) = rings(memory)
    assert (reader.uid, reader.pid, reader.alive) == (ring.uid, os.getpid(), True)
    assert (reader.stub_index, reader.node_id) == (3, 77)
    assert (reader.slots, reader.prompt_bytes) == (4, 100)
    (prompt,) = reader.drain()
    assert plain(prompt) == {"text": b"What is it?", **FACTS}
    assert reader.drain() == []
    assert reader.counts() == RingCounts(1, 0, 0, 0, 1, 0)


def test_it_is_private_and_in_memory_alone(memory: Path):
    ring = make(memory)
    status = ring.path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_size == 256 + 4 * (128 + 128)
    with pytest.raises(OSError, match="memory") as error:
        make(Path("/proc/self"))  # where no file system in memory is, whatever /tmp may be
    assert error.value.errno == errno.ENOTSUP


def test_what_was_drained_is_wiped(memory: Path):
    ring = make(memory)
    for secret in (b"my bank account is 4711", b"", b"x" * 100):
        ring.write(secret, **FACTS)
    assert b"4711" in ring.path.read_bytes()
    assert len(RingReader(ring.path).drain()) == 3
    left = ring.path.read_bytes()
    for trace in (b"bank", b"4711", b"xxxx", FACTS["task"], FACTS["tenant"][:8]):
        assert trace not in left


def test_nothing_of_an_overwritten_prompt_stays(memory: Path):
    ring = make(memory, slots=1)
    ring.write(b"a long one with a secret at its end: 4711", **FACTS)
    ring.write(b"short", **FACTS)
    assert b"4711" not in ring.path.read_bytes()
    reader = RingReader(ring.path)
    assert [prompt.text for prompt in reader.drain()] == [b"short"]
    assert reader.counts().missed == 1


def test_what_no_slot_holds_is_counted(memory: Path):
    ring = make(memory)
    assert ring.write(b"x" * 100, **FACTS)
    assert not ring.write(b"x" * 101, **FACTS)
    ring.refused()
    ring.refused()
    ring.unknown()
    reader = RingReader(ring.path)
    assert [len(prompt.text) for prompt in reader.drain()] == [100]
    assert reader.counts() == RingCounts(
        written=1, too_long=1, refused=2, unknown=1, read=1, missed=0
    )
    for name in ("task", "tenant"):
        with pytest.raises(ValueError, match=name):
            ring.write(b"", **{**FACTS, name: b"x" * 24})


MOVES = st.lists(
    st.one_of(st.binary(max_size=40), st.just("drain"), st.just("reader"), st.just("refuse")),
    max_size=60,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(moves=MOVES, slots=st.integers(1, 5), core_writes=st.booleans(), core_reads=st.booleans())
def test_it_is_a_bounded_queue(
    memory: Path, moves: list[bytes | str], slots: int, core_writes: bool, core_reads: bool
):
    """Against a deque; writer and reader each the core's or the reference's."""
    ring: Any = (Ring if core_writes else reference.Ring).create(
        memory, 0, 0, slots=slots, prompt_bytes=32
    )
    reader_type: Any = RingReader if core_reads else reference.RingReader
    reader = reader_type(ring.path)
    model: deque[tuple[int, bytes]] = deque(maxlen=slots)
    written = read = missed = too_long = refused = 0
    for move in moves:
        if move == "drain":
            found = [(prompt.number, prompt.text) for prompt in reader.drain()]
            assert found == list(model)
            missed += written - read - len(model)
            read = written
            model.clear()
        elif move == "reader":
            reader = reader_type(ring.path)  # goes on where the one before it was
        elif move == "refuse":
            ring.refused()
            refused += 1
        else:
            assert isinstance(move, bytes)
            fits = len(move) <= 32
            assert ring.write(move, **FACTS) == fits
            too_long += not fits
            written += fits
            if fits:
                model.append((written, move))
        assert reader.counts() == (written, too_long, refused, 0, read, missed)
    ring.close(unlink=True)


def test_a_slot_in_the_agents_hands_is_passed_over(memory: Path):
    """A reader that died while it read costs a prompt, once; the stub never waits."""
    ring = make(memory, slots=2)
    ring.write(b"held for ever", **FACTS)
    words = Words(ring.path, 8)
    words[32] = 1 << 2 | 3  # claimed, as by a reader that is gone
    assert ring.write(b"two", **FACTS)
    assert not ring.write(b"three has no slot", **FACTS)
    assert ring.write(b"four", **FACTS)
    reader = RingReader(ring.path)
    assert b"held" not in ring.path.read_bytes()
    assert [prompt.text for prompt in reader.drain()] == [b"four"]
    assert reader.counts().missed == 3
    assert ring.write(b"five", **FACTS)
    assert [prompt.text for prompt in reader.drain()] == [b"five"]


def test_a_writer_and_a_reader_at_once(memory: Path):
    ring = make(memory, slots=8)
    reader = RingReader(ring.path)
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            ring.write(b"%d" % n, **{**FACTS, "policy_version": n})
        stop.n = n  # type: ignore[attr-defined]

    thread = threading.Thread(target=write)
    thread.start()
    numbers: list[int] = []
    while len(numbers) < 2000:
        for prompt in reader.drain():
            assert prompt.text == b"%d" % prompt.policy_version
            numbers.append(prompt.policy_version)
    stop.set()
    thread.join()
    numbers += [prompt.policy_version for prompt in reader.drain()]
    assert numbers == sorted(set(numbers))
    counts = reader.counts()
    assert counts.read == counts.written == len(numbers) + counts.missed


def test_a_dead_owner_is_seen(memory: Path):
    code = (
        "import sys; from sprout_ext.ring import Ring\n"
        "ring = Ring.create(sys.argv[1], 0, 0, slots=2, prompt_bytes=9)\n"
        "ring.write(b'last', level=0, flags=0, policy_version=0, propensity=1, max_tokens=1,"
        " opened_ns=0, task=b'', tenant=b'')\n"
    )
    subprocess.run([sys.executable, "-c", code, memory], check=True, timeout=60)
    (reader,) = rings(memory)
    assert not reader.alive
    assert [prompt.text for prompt in reader.drain()] == [b"last"]
    reader.unlink()
    assert os.listdir(memory) == []


@pytest.mark.parametrize(
    ("word", "value", "message"),
    [
        (0, 1, "not one"),
        (1, 2 | 128 << 32, "another version"),
        (2, 1, "checksum"),
        (6, 5 | 100 << 32, "shorter"),
        (6, 100 << 32, "shorter"),
        (6, 4 | (1 << 21) << 32, "shorter"),
    ],
)
def test_files_that_lie(memory: Path, word: int, value: int, message: str):
    ring = make(memory)
    words = Words(ring.path, 8)
    words[word] = value
    if message == "shorter":
        words[8] = fold(words.read(0, 8))
    with pytest.raises(ValueError, match=message):
        RingReader(ring.path)
    assert rings(memory) == []


def test_marks_that_lie_do_no_harm(memory: Path):
    ring = make(memory, slots=2)
    ring.write(b"one", **FACTS)
    words, reader = Words(ring.path, 8), RingReader(ring.path)
    words[32 + 4] = 2**32 - 1  # a text longer than its slot
    assert len(reader.drain()[0].text) == 100
    words[24] = 2**63  # more read than was written
    assert reader.drain() == []
    ring.write(b"two", **FACTS)
    words[24] = 0
    assert [prompt.text for prompt in reader.drain()] == [b"two"]


def test_wrong_shapes_are_refused(memory: Path):
    for slots, prompt_bytes in ((0, 1), (65537, 1), (1, 0), (1, (1 << 20) + 1)):
        with pytest.raises(ValueError, match=r"slots|prompt_bytes"):
            make(memory, slots, prompt_bytes)
    ring = make(memory)
    ring.close(unlink=True)
    assert os.listdir(memory) == []
    with pytest.raises(ValueError, match="closed"):
        ring.write(b"", **FACTS)
    with pytest.raises(FileNotFoundError):
        make(memory / "absent")
