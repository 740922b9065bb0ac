# SPDX-License-Identifier: Apache-2.0
"""Weights that policies name: fetched over real gRPC, on the disk before the board names them."""

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recorder import PACK, Recorder, make_policy, prompt_policy
from some_weights import packed

from sprout import channel
from sprout.agent import weights as agent_weights
from sprout.agent.relay import LONGEST_ERROR, Watcher
from sprout.agent.weights import KEPT, Weights
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub
from sprout_ext import weights
from sprout_ext.board import BoardReader, BoardWriter, Flag, weights_name


class Rig:
    """A watcher and its weights, with nobody watching: policies are applied by the test."""

    def __init__(self, directory: Path, control: Recorder) -> None:
        self.control, self.directory = control, directory
        self.stop = threading.Event()
        self.board = BoardWriter(directory / "policy.board")
        self.reader = BoardReader(directory / "policy.board", PACK.hash, 1, 0, 0)
        self.channel = channel.connect(f"127.0.0.1:{control.port}")
        self._start()

    def _start(self) -> None:
        stub = ControlStub(self.channel)
        self.weights = Weights(stub, self.directory)
        self.watcher = Watcher(stub, self.board, "node", PACK, self.weights)
        self.thread = threading.Thread(
            target=self.weights.run, args=(self.stop, self.watcher.complete)
        )
        self.thread.start()

    def _end(self) -> None:
        self.stop.set()
        self.weights.wake()
        self.thread.join(10)
        assert not self.thread.is_alive()

    def restart(self) -> None:
        self._end()
        self.stop.clear()
        self._start()

    def close(self) -> None:
        self.control.weights_held.set()
        self._end()
        self.channel.close()
        self.board.close()

    def named(self) -> str | None:
        """The weights that the board names; None: no level by prompt."""
        policy = self.reader.policy()
        return (policy.prompt.weights or None) if policy and policy.prompt else None

    def wait(self, done: Callable[[], bool]) -> None:
        self.control.wait(done)

    def files(self) -> set[str]:
        return {path.name for path in self.directory.glob("weights-*")}


@pytest.fixture
def control() -> Iterator[Recorder]:
    recorder = Recorder().start()
    yield recorder
    recorder.stop()


@pytest.fixture
def rig(tmp_path: Path, control: Recorder) -> Iterator[Rig]:
    with contextlib.closing(Rig(tmp_path, control)) as made:
        yield made


def offer(control: Recorder, data: bytes) -> str:
    """The digest of weights that the control plane has from now on."""
    digest = weights.name(data)
    control.weights[digest] = data
    return digest


def policy(counter: int, digest: str | None, *, paused: bool = False) -> pb.Policy:
    made = make_policy(counter)
    made.paused = paused
    if digest is not None:
        made.prompt.CopyFrom(prompt_policy(digest))
    return made


def test_weights_are_on_the_disk_before_the_board_names_them(rig: Rig) -> None:
    """Whoever reads the board at any moment finds the file that it names, whole."""
    data = packed()
    digest = offer(rig.control, data)
    missing, stop = [], threading.Event()

    def look() -> None:
        while not stop.is_set():
            named = rig.named()
            if named and (rig.directory / weights_name(named)).read_bytes() != data:
                missing.append(named)

    looker = threading.Thread(target=look)
    looker.start()
    rig.watcher.apply(policy(1, digest))
    assert rig.reader.state() == "ok"  # at once, by the mix if need be
    rig.wait(lambda: rig.named() == digest)
    stop.set()
    looker.join()
    assert not missing
    file = rig.directory / weights_name(digest)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert rig.files() == {file.name}
    assert rig.watcher.error == ""
    assert rig.reader.choose(3, b"", b"", b"What is 2 + 2?").flags in (0, Flag.PROMPT, Flag.CONTROL)
    found = rig.reader.choose_many(0, 200, None, [b"What is 2 + 2?"] * 200)
    assert {c.flags for c in found} == {0, Flag.PROMPT, Flag.CONTROL}
    assert not any(c.unscored for c in found)


def test_no_policy_waits_for_weights_least_of_all_a_pause(rig: Rig) -> None:
    digest = offer(rig.control, packed())
    rig.control.weights_held.clear()
    rig.watcher.apply(policy(1, digest))
    rig.wait(lambda: rig.control.weights_asked == [digest])
    assert (rig.reader.state(), rig.named()) == ("ok", None)
    assert rig.reader.choose(1).version == 7 << 32 | 1
    # Who would have chosen is told from who is drawn in any case.
    found = rig.reader.choose_many(0, 200)
    assert {choice.flags for choice in found} == {0, Flag.UNSCORED, Flag.CONTROL}
    assert f"weights {digest[:12]}: they are being fetched" in rig.watcher.error
    rig.watcher.apply(policy(2, digest, paused=True))
    assert rig.reader.choose(1).flags == Flag.PAUSED
    rig.watcher.apply(policy(3, None))
    assert rig.watcher.error == ""
    rig.control.weights_held.set()
    rig.wait(lambda: rig.files() == {weights_name(digest)})
    # What came late changes nothing of a policy that does not name it.
    rig.watcher.complete()
    assert rig.named() is None
    assert rig.reader.choose(1).version == 7 << 32 | 3
    rig.watcher.apply(policy(4, digest))
    assert rig.named() == digest


def test_a_pause_comes_through_where_the_folder_can_not_be_read(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.watcher.apply(policy(1, offer(rig.control, packed())))

    def exhausted(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(agent_weights.Path, "glob", exhausted)
    rig.watcher.apply(policy(2, None, paused=True))
    monkeypatch.undo()
    assert rig.reader.choose(1).flags == Flag.PAUSED


def test_a_pause_that_overtakes_the_fetch_stays(rig: Rig) -> None:
    digest = offer(rig.control, packed())
    rig.control.weights_held.clear()
    rig.watcher.apply(policy(1, digest))
    rig.wait(lambda: len(rig.control.weights_asked) == 1)
    rig.watcher.apply(policy(2, digest, paused=True))
    rig.control.weights_held.set()
    rig.wait(lambda: rig.named() == digest)
    found = rig.reader.choose(1, b"", b"", b"any")
    assert (found.flags, found.version) == (Flag.PAUSED, 7 << 32 | 2)


def test_the_deadline_is_that_of_the_policy_not_of_the_weights(rig: Rig) -> None:
    digest = offer(rig.control, packed())
    rig.control.weights_held.clear()
    rig.watcher.apply(policy(1, digest))
    before = rig.reader.policy()
    rig.control.weights_held.set()
    rig.wait(lambda: rig.named() == digest)
    after = rig.reader.policy()
    assert before is not None
    assert after is not None
    assert after.deadline_boottime_ns == before.deadline_boottime_ns


BAD = packed(seed=1)


@pytest.mark.parametrize(
    ("why", "answer"),
    [
        ("NOT_FOUND: no policy names them", None),
        ("what came has the SHA-256", packed(seed=2)),
        ("what came has the SHA-256", b""),
        ("what came has the SHA-256", BAD[:-1]),
        ("3145729 bytes, at most 3145728", bytes((3 << 20) + 1)),
    ],
    ids=["none", "others", "empty", "short", "large"],
)
def test_what_can_t_be_had_is_told_and_tried_again(
    rig: Rig, why: str, answer: bytes | None
) -> None:
    digest = weights.name(BAD)
    if answer is not None:
        rig.control.weights[digest] = answer
    rig.watcher.apply(policy(1, digest))
    rig.wait(lambda: rig.weights.failed >= 2)
    assert why in rig.watcher.error
    assert f"policy {7 << 32 | 1}: no level by prompt: weights {digest[:12]}" in rig.watcher.error
    assert len(rig.watcher.error) <= LONGEST_ERROR
    assert (rig.reader.state(), rig.named(), rig.files()) == ("ok", None, set())
    assert rig.watcher.refused == 0
    rig.control.weights[digest] = BAD
    rig.wait(lambda: rig.named() == digest)
    assert rig.watcher.error == ""


def test_bytes_that_are_no_weights_are_not_kept(rig: Rig) -> None:
    """Their name is right, so asking again would not help; but nothing of it reaches the board."""
    digest = offer(rig.control, b"no weights at all" * 10)
    rig.watcher.apply(policy(1, digest))
    rig.wait(lambda: rig.weights.failed >= 1)
    assert "no scorer takes them" in rig.watcher.error
    assert (rig.named(), rig.files()) == (None, set())


def test_weights_of_other_levels_are_not_used(rig: Rig) -> None:
    digest = offer(rig.control, packed(levels=2))
    rig.watcher.apply(policy(1, digest))
    rig.wait(lambda: "are of 2 levels, not of 3" in rig.watcher.error)
    assert rig.named() is None
    assert rig.control.weights_asked == [digest]  # they are here: asking again would not help
    rig.watcher.apply(policy(2, digest))
    assert rig.named() is None
    assert rig.control.weights_asked == [digest]


def test_a_folder_that_takes_no_files_is_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = offer(rig.control, packed())

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(agent_weights.os, "open", full)
        rig.watcher.apply(policy(1, digest))
        rig.wait(lambda: rig.weights.failed >= 1)
        rig.wait(lambda: "No space left" in rig.watcher.error)
        assert rig.named() is None
    rig.wait(lambda: rig.named() == digest)


def test_what_is_there_is_not_fetched_again(rig: Rig) -> None:
    digest = offer(rig.control, packed())
    rig.watcher.apply(policy(1, digest))
    rig.wait(lambda: rig.named() == digest)
    rig.watcher.apply(policy(1, digest))
    rig.watcher.apply(policy(2, digest))
    rig.restart()
    rig.watcher.apply(policy(3, digest))
    assert rig.named() == digest
    assert rig.control.weights_asked == [digest]


@pytest.mark.parametrize("how", ["other bytes", "gone", "a folder"])
def test_a_file_that_is_no_longer_what_it_was_is_replaced(rig: Rig, how: str) -> None:
    """At the next policy, be it the same one sent again."""
    data = packed()
    digest = offer(rig.control, data)
    rig.watcher.apply(policy(1, digest))
    rig.wait(lambda: rig.named() == digest)
    file = rig.directory / weights_name(digest)
    file.unlink()
    if how == "other bytes":
        file.write_bytes(packed(seed=5))
    elif how == "a folder":
        file.mkdir()
    rig.control.weights_held.clear()
    rig.watcher.apply(policy(1, digest))
    assert rig.named() is None
    rig.control.weights_held.set()
    if how == "a folder":  # nobody can put a file there: told, and no harm to policies
        rig.wait(lambda: "can't write" in rig.watcher.error)
        file.rmdir()
    rig.wait(lambda: rig.named() == digest)
    assert file.read_bytes() == data


def test_another_weights_wish_does_not_wait_for_the_back_off(rig: Rig) -> None:
    rig.watcher.apply(policy(1, "00" * 32))
    rig.wait(lambda: rig.weights.failed >= 4)
    digest = offer(rig.control, packed())
    rig.watcher.apply(policy(2, digest))
    rig.wait(lambda: rig.named() == digest)
    assert set(rig.control.weights_asked) == {"00" * 32, digest}


def test_files_that_no_policy_of_late_names_go(rig: Rig) -> None:
    """The last few stay: a stub may still be about to read the one before."""
    stale = {rig.directory / f"weights-{'f' * 64}", rig.directory / f"weights-{'f' * 64}.new"}
    for path in stale:
        path.write_bytes(b"of an agent before")
    (rig.directory / "weight").write_bytes(b"somebody else's")
    digests = [offer(rig.control, packed(seed=seed)) for seed in range(KEPT + 1)]
    for counter, digest in enumerate(digests, 1):
        rig.watcher.apply(policy(counter, digest))
        rig.wait(lambda digest=digest: rig.named() == digest)  # type: ignore[misc]
    assert rig.files() == {weights_name(digest) for digest in digests[1:]}
    for counter in range(10, 10 + KEPT):
        assert rig.files()
        rig.watcher.apply(policy(counter, None))
        rig.watcher.apply(policy(counter, None))  # sent again: no further policy
    assert rig.files() == set()
    assert (rig.directory / "weight").exists()


def test_a_refused_policy_changes_nothing(rig: Rig) -> None:
    digest = offer(rig.control, packed())
    rig.watcher.apply(policy(1, digest))
    rig.wait(lambda: rig.named() == digest)
    wrong = policy(2, digest)
    wrong.prompt.share = 2
    rig.watcher.apply(wrong)
    assert rig.watcher.refused == 1
    assert "share by prompt is 2.0" in rig.watcher.error
    assert rig.named() == digest
    rig.watcher.complete()
    assert rig.reader.choose(1).version == 7 << 32 | 1
