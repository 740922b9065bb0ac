# SPDX-License-Identifier: Apache-2.0
"""The policy board: rules of the draw, agreement with the reference, and files that lie."""

import errno
import math
import os
import random
import secrets
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sprout_ext import reference
from sprout_ext.board import BoardMix, BoardPolicy, BoardReader, BoardState, BoardWriter, Flag
from sprout_ext.sampler import Sampler, Stream, fold_key

NODE, EPOCH, STUB, PACK = 0xABCDEF, 0x1122334455667788, 3, 0x99


def boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def policy(**changes: object) -> BoardPolicy:
    base = BoardPolicy(
        version=(1_700_000_000 << 32) | 5,
        seed=42,
        pack_hash=PACK,
        shares=(0.5, 0.3, 0.2),
        control_share=0.0,
        canary_share=1.0,
        paused=False,
        deadline_boottime_ns=boottime_ns() + 3600 * 10**9,
        intensity_g_per_kwh=123.5,
        pue=1.2,
        embodied_g_per_s=1.5e-4,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def readers(path: Path) -> list[object]:
    args = (path, PACK, NODE, EPOCH, STUB)
    return [BoardReader(*args), reference.BoardReader(*args)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.board"


def fields(choice: object) -> tuple[object, ...]:
    names = ("level", "flags", "version", "seed", "intensity_g_per_kwh", "pue", "embodied_g_per_s")
    return tuple(
        repr(getattr(choice, name)) for name in (*names, "state", "unscored")
    )  # NaN is NaN


def test_absent_board_means_level_zero(path: Path):
    for reader in readers(path):
        choice = reader.choose(1)
        assert (choice.level, choice.flags, choice.version) == (0, Flag.FALLBACK, 0)
        assert choice.state == BoardState.ABSENT
        assert math.isnan(choice.intensity_g_per_kwh)
        assert reader.policy() is None
        assert reader.state() == "absent"


def test_published_policy_is_read_back(path: Path):
    writer, sent = BoardWriter(path), policy()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert BoardReader(path, PACK, NODE, EPOCH, STUB).state() == "absent"
    writer.publish(sent)
    for reader in readers(path):
        assert reader.policy() == sent
        assert reader.state() == "ok"
    writer.clear()
    for reader in readers(path):
        assert reader.policy() is None
        assert reader.state() == "absent"


def test_levels_are_the_samplers(path: Path):
    BoardWriter(path).publish(policy())
    sampler = Sampler((0.5, 0.3, 0.2), fold_key(42, NODE, EPOCH, STUB))
    choices = BoardReader(path, PACK, NODE, EPOCH, STUB).choose_many(10, 200)
    assert [c.level for c in choices] == [sampler.draw(s) for s in range(10, 210)]
    assert {(c.flags, c.version, c.seed, c.state) for c in choices} == {
        (0, policy().version, 42, 0)
    }
    assert {(c.intensity_g_per_kwh, c.pue, c.embodied_g_per_s) for c in choices} == {
        (123.5, 1.2, 1.5e-4)
    }


def test_control_comes_before_canary(path: Path):
    """Control and canary have streams of their own: who is drawn for one says nothing of levels."""
    BoardWriter(path).publish(policy(control_share=0.25, canary_share=0.5))
    key, n = fold_key(42, NODE, EPOCH, STUB), 2000
    control = Sampler((0.25, 0.75), key)
    canary = Sampler((0.5, 0.5), key)
    level = Sampler((0.5, 0.3, 0.2), key)
    for sequence, choice in enumerate(BoardReader(path, PACK, NODE, EPOCH, STUB).choose_many(0, n)):
        if control.draw(sequence, Stream.CONTROL) == 0:
            expected = (0, Flag.CONTROL)
        elif canary.draw(sequence, Stream.CANARY) == 1:
            expected = (0, Flag.HELD_BACK)
        else:
            expected = (level.draw(sequence), 0)
        assert (choice.level, choice.flags) == expected


# Certain levels, so that one request tells whose mix it is under.
FIRST, SECOND, THIRD = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def test_a_tenant_s_mix_stands_above_a_class_s(path: Path):
    mixes = (BoardMix("acme", "", SECOND), BoardMix("", "chat", THIRD), BoardMix("", "acme", FIRST))
    BoardWriter(path).publish(policy(shares=FIRST, mixes=mixes))
    for reader in readers(path):
        for names, level in (
            ((b"", b""), 0),
            ((b"acme", b""), 1),
            ((b"acme", b"chat"), 1),
            ((b"other", b"chat"), 2),
            ((b"", b"chat"), 2),
            ((b"chat", b""), 0),  # a class of that name, but no tenant
            ((b"", b"acme"), 0),  # likewise; it has a mix of its own
            ((b"other", b"other"), 0),
        ):
            assert reader.choose(4, *names).level == level
            assert [c.level for c in reader.choose_many(4, 2, [names, (b"", b"chat")])] == [
                level,
                2,
            ]


def test_shares_of_a_request():
    mixes = (BoardMix("acme", "", SECOND), BoardMix("", "chat", THIRD), BoardMix("", "acme", FIRST))
    one = policy(mixes=mixes)
    assert one.shares_of(b"", b"") == policy().shares_of(b"acme", b"chat") == (0.5, 0.3, 0.2)
    assert one.shares_of(b"acme", b"chat") == SECOND
    assert one.shares_of(b"other", b"chat") == THIRD
    assert one.shares_of(b"", b"acme") == FIRST


def test_names_are_compared_whole(path: Path):
    longest = "x" * 23
    mixes = [BoardMix(name, "", SECOND) for name in ("a", "abcdefgh", longest, " ", "~")]
    BoardWriter(path).publish(policy(shares=FIRST, mixes=tuple(mixes)))
    for reader in readers(path):
        for name in (b"a", b"abcdefgh", longest.encode(), b" ", b"~"):
            assert reader.choose(0, name).level == 1
        for name in (b"A", b"a ", b"aa", b"abcdefg", b"abcdefghi", b"abcdefghxxxxxxx", b"x" * 22):
            assert reader.choose(0, name).level == 0
    core = BoardReader(path, PACK, NODE, EPOCH, STUB)
    for wrong in (b"x" * 24, b"a\0", b"\0"):  # cut or padded they would be another's
        with pytest.raises(ValueError, match="tenant: at most 23 bytes"):
            core.choose(0, wrong)
        with pytest.raises(ValueError, match="task: at most 23 bytes"):
            core.choose_many(0, 1, [(b"", wrong)])
    with pytest.raises(ValueError, match="names: one pair a request"):
        core.choose_many(0, 2, [(b"", b"")])


def test_a_mix_has_the_draws_of_all(path: Path):
    """The same Philox word under other thresholds; control and canary come first for everybody."""
    own = (0.1, 0.2, 0.7)
    sent = policy(control_share=0.25, canary_share=0.5, mixes=(BoardMix("acme", "", own),))
    BoardWriter(path).publish(sent)
    reader, key = BoardReader(path, PACK, NODE, EPOCH, STUB), fold_key(42, NODE, EPOCH, STUB)
    plain, named = reader.choose_many(0, 2000), reader.choose_many(0, 2000, [(b"acme", b"")] * 2000)
    assert [c.flags for c in plain] == [c.flags for c in named]
    assert {c.flags for c in named} == {0, Flag.CONTROL, Flag.HELD_BACK}
    drawn, level = [c for c in enumerate(named) if not c[1].flags], Sampler(own, key)
    assert [c.level for _, c in drawn] == [level.draw(sequence) for sequence, _ in drawn]
    assert {c.level for c in named if c.flags} == {0}


@pytest.mark.parametrize(
    "changes",
    [{"paused": True}, {"deadline_boottime_ns": 1}, {"pack_hash": PACK + 1}],
    ids=["paused", "expired", "pack"],
)
def test_no_mix_without_a_policy_in_force(path: Path, changes):
    mixes = (BoardMix("acme", "", SECOND),)
    BoardWriter(path).publish(policy(shares=THIRD, mixes=mixes, **changes))
    for reader in readers(path):
        plain, named = reader.choose(1), reader.choose(1, b"acme")
        assert fields(plain) == fields(named)
        assert named.level == 0
        assert named.flags


def test_mixes_go_with_their_policy(path: Path):
    writer, reader = BoardWriter(path), BoardReader(path, PACK, NODE, EPOCH, STUB)
    for mixes, level in (
        ((BoardMix("acme", "", SECOND),), 1),
        ((BoardMix("other", "", SECOND), BoardMix("acme", "", THIRD)), 2),
        ((BoardMix("other", "", SECOND),), 0),
        ((), 0),
    ):
        writer.publish(policy(shares=FIRST, mixes=mixes))
        assert reader.choose(0, b"acme").level == level
    writer.clear()
    assert reader.choose(0, b"acme").state == BoardState.ABSENT


def test_edges_of_the_shares(path: Path):
    writer, reader = BoardWriter(path), BoardReader(path, PACK, NODE, EPOCH, STUB)
    for changes, flags in (
        ({"control_share": 1.0}, Flag.CONTROL),
        ({"control_share": 0.0, "canary_share": 0.0}, Flag.HELD_BACK),
        ({"control_share": 0.0, "canary_share": 1.0}, 0),
        ({"paused": True, "control_share": 1.0}, Flag.PAUSED),
    ):
        writer.publish(policy(**changes))
        assert {c.flags for c in reader.choose_many(0, 500)} == {flags}


def test_expired_policy_keeps_its_intensity(path: Path):
    BoardWriter(path).publish(policy(deadline_boottime_ns=boottime_ns() - 1))
    for reader in readers(path):
        choice = reader.choose(0)
        assert (choice.level, choice.flags, choice.state) == (0, Flag.FALLBACK, BoardState.EXPIRED)
        assert (choice.version, choice.seed, choice.intensity_g_per_kwh) == (0, 0, 123.5)
        assert reader.state() == "expired"
        assert reader.policy() is not None


def test_policy_expires_under_the_reader(path: Path):
    BoardWriter(path).publish(policy(deadline_boottime_ns=boottime_ns() + 50_000_000))
    reader = BoardReader(path, PACK, NODE, EPOCH, STUB)
    assert reader.state() == "ok"
    time.sleep(0.06)
    assert reader.state() == "expired"


def test_policy_of_another_pack_is_not_applied(path: Path):
    BoardWriter(path).publish(policy(pack_hash=PACK + 1))
    for reader in readers(path):
        choice = reader.choose(0)
        assert (choice.level, choice.flags, choice.state) == (0, Flag.FALLBACK, BoardState.PACK)
        assert reader.state() == "pack"


def test_policy_of_another_boot_is_expired(path: Path):
    """A deadline in CLOCK_BOOTTIME means nothing after a reboot."""
    writer = BoardWriter(path)
    writer.publish(policy())
    writer.close()
    body = bytearray(path.read_bytes())
    body[16] ^= 1
    path.write_bytes(bytes(body))
    for reader in readers(path):
        assert reader.state() == "expired"
    BoardWriter(path).publish(policy())
    for reader in readers(path):
        assert reader.state() == "ok"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"shares": (0.5,)}, "shares"),
        ({"shares": ()}, "shares"),
        ({"shares": (0.1,) * 10}, "shares"),
        ({"control_share": 1.5}, "control_share"),
        ({"canary_share": math.nan}, "canary_share"),
        ({"pue": 0.0}, "pue"),
        ({"intensity_g_per_kwh": math.inf}, "intensity_g_per_kwh"),
        ({"embodied_g_per_s": -1.0}, "embodied_g_per_s"),
        ({"mixes": tuple(BoardMix(f"n{i}", "", FIRST) for i in range(33))}, "mixes: at most 32"),
        ({"mixes": (BoardMix("", "", FIRST),)}, "mixes: each of a tenant or of a task"),
        ({"mixes": (BoardMix("a", "b", FIRST),)}, "mixes: each of a tenant or of a task"),
        ({"mixes": (BoardMix("x" * 24, "", FIRST),)}, "tenant: at most 23 bytes"),
        ({"mixes": (BoardMix("a\0", "", FIRST),)}, "tenant: at most 23 bytes"),
        ({"mixes": (BoardMix("", "na\xefve", FIRST),)}, "printable ASCII"),
        ({"mixes": (BoardMix("", "a\n", FIRST),)}, "printable ASCII"),
        ({"mixes": (BoardMix("a", "", (1.0,)),)}, "mixes: each has as many levels"),
        ({"mixes": (BoardMix("a", "", (0.5, 0.2, 0.2)),)}, "tenant 'a': shares: must sum to 1"),
        ({"mixes": (BoardMix("", "t", (1.5, -0.5, 0.0)),)}, "task 't': shares: each must be"),
        ({"mixes": (BoardMix("a", "", FIRST), BoardMix("a", "", SECOND))}, "there are two of it"),
    ],
)
def test_bad_policy_is_refused_and_the_old_one_stays(path: Path, changes, named):
    writer, good = BoardWriter(path), policy()
    writer.publish(good)
    with pytest.raises(ValueError, match=named):
        writer.publish(policy(**changes))
    assert BoardReader(path, PACK, NODE, EPOCH, STUB).policy() == good


def test_reborn_writer_goes_on_in_the_same_file(path: Path):
    first = BoardWriter(path)
    first.publish(policy())
    reader = BoardReader(path, PACK, NODE, EPOCH, STUB)
    inode = path.stat().st_ino
    first.close()
    second = BoardWriter(path)
    assert reader.state() == "ok"
    second.publish(policy(version=9))
    assert path.stat().st_ino == inode
    assert reader.choose(0).version == 9


def test_two_writers_are_refused(path: Path):
    first = BoardWriter(path)
    with pytest.raises(OSError, match="another writer") as refused:
        BoardWriter(path)
    assert refused.value.errno == errno.EBUSY
    first.close()
    BoardWriter(path).close()
    with pytest.raises(ValueError, match="closed"):
        first.publish(policy())


def test_missing_directory_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError) as missing:
        BoardWriter(tmp_path / "none" / "policy.board")
    assert "none" in str(missing.value.filename)


def test_reader_notices_another_file(path: Path):
    writer = BoardWriter(path)
    writer.publish(policy(version=1))
    reader = BoardReader(path, PACK, NODE, EPOCH, STUB)
    assert reader.choose(0).version == 1
    other = path.with_name("other")
    replacement = BoardWriter(other)
    replacement.publish(policy(version=2))
    other.replace(path)
    time.sleep(1.05)
    assert reader.choose(0).version == 2
    path.unlink()
    time.sleep(1.05)
    assert reader.state() == "absent"


SHARES = [(1.0,), (0.5, 0.5), (0.0, 1.0), (0.125,) * 8, (0.2, 0.5, 0.3)]
# Few letters, so that names are often alike, and often those that are asked for.
names = st.text("ab", min_size=1, max_size=2) | st.text(
    st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=23
)


@st.composite
def some_mixes(draw: st.DrawFn, levels: int) -> tuple[BoardMix, ...]:
    whose = draw(st.lists(st.tuples(st.booleans(), names), max_size=32, unique=True))
    parts = st.lists(st.integers(0, 9), min_size=levels, max_size=levels).filter(any)
    return tuple(
        BoardMix(
            name if tenant else "",
            "" if tenant else name,
            tuple(part / sum(given) for part in given),
        )
        for tenant, name in whose
        for given in [draw(parts)]
    )


policies = st.builds(
    policy,
    version=st.integers(0, 2**64 - 1),
    seed=st.integers(0, 2**64 - 1),
    pack_hash=st.sampled_from([PACK, 1]),
    shares=st.sampled_from(SHARES),
    control_share=st.sampled_from([0.0, 0.1, 1.0]),
    canary_share=st.sampled_from([0.0, 0.3, 1.0]),
    paused=st.booleans(),
    deadline_boottime_ns=st.sampled_from([-(2**63), 0, 1, 2**63 - 1]),
    intensity_g_per_kwh=st.sampled_from([0.0, 12.5, 900.0]),
    pue=st.floats(0.5, 3),
    embodied_g_per_s=st.floats(0, 1),
).flatmap(lambda one: some_mixes(len(one.shares)).map(lambda mixes: replace(one, mixes=mixes)))
askers = st.tuples(*[st.just(b"") | names.map(str.encode)] * 2)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(policies, min_size=1, max_size=3), st.booleans(), st.integers(0, 2**60), st.data())
def test_each_reads_what_the_other_wrote(tmp_path: Path, sent, core_writes, first, data):
    path = tmp_path / f"{secrets.token_hex(8)}"
    writer = BoardWriter(path) if core_writes else reference.BoardWriter(path)
    ours, oracle = readers(path)
    for one in sent:
        writer.publish(one)
        assert ours.policy() == oracle.policy() == one
        assert ours.state() == oracle.state()
        expected = [fields(choice) for choice in oracle.choose_many(first, 9)]
        assert [fields(choice) for choice in ours.choose_many(first, 9)] == expected
        assert fields(ours.choose(first)) == expected[0]
        known = [(mix.tenant.encode(), mix.task.encode()) for mix in one.mixes]
        asked = st.sampled_from(known) | askers if known else askers
        who = data.draw(st.lists(asked, min_size=9, max_size=9))
        expected = [fields(choice) for choice in oracle.choose_many(first, 9, who)]
        assert [fields(choice) for choice in ours.choose_many(first, 9, who)] == expected
        assert fields(ours.choose(first, *who[0])) == expected[0]
    writer.close()
    path.unlink()


def test_both_write_the_same_bytes(tmp_path: Path):
    mixes = (*(BoardMix("", f"t{i}", SECOND) for i in range(30)), BoardMix("~ ~", "", THIRD))
    sent, bodies = [policy(mixes=mixes), policy(mixes=mixes[5:]), policy()], []
    for package, name in ((BoardWriter, "core"), (reference.BoardWriter, "reference")):
        writer = package(tmp_path / name)
        for one in sent:
            writer.publish(one)
        writer.close()
        bodies.append((tmp_path / name).read_bytes())
    assert bodies[0] == bodies[1]
    assert len(bodies[0]) == reference.board.SIZE


def test_no_damage_harms_the_reader(tmp_path: Path):
    """Random bytes and lengths: the same verdict as the reference, never a crash, and never a
    policy other than one that was published."""
    path = tmp_path / "policy.board"
    writer = BoardWriter(path)
    mixes = tuple(BoardMix(f"n{i}", "", SECOND) for i in range(32))
    published = [policy(version=n, mixes=mixes[n:]) for n in (1, 2)]
    for one in published:
        writer.publish(one)
    good, rng = path.read_bytes(), random.Random(5)
    verdicts = set()
    for _ in range(1500):
        body = bytearray(good)
        for _ in range(rng.choice([1, 1, 2, 8])):
            body[rng.randrange(len(body))] = rng.randrange(256)
        if rng.random() < 0.2:
            body = body[: rng.randrange(len(body))]
        damaged = tmp_path / "damaged"
        damaged.write_bytes(bytes(body))
        ours, oracle = readers(damaged)
        assert fields(ours.choose(3, b"n7")) == fields(oracle.choose(3, b"n7"))
        found = ours.policy()
        assert found == oracle.policy()
        assert found is None or found in published
        verdicts.add(ours.state())
        damaged.unlink()
    assert verdicts >= {"ok", "corrupt"}


def test_a_verified_copy_outlives_damage_but_no_other_writing(path: Path):
    writer, reader = BoardWriter(path), BoardReader(path, PACK, NODE, EPOCH, STUB)
    writer.publish(policy(shares=SECOND))
    assert reader.choose(0).level == 1
    active = path.read_bytes()[24]
    sequence = 8 * (8 + 2000 * active)

    def damage(at: int) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 2]))

    shares = sequence + 8 * (1 + 11)
    damage(shares)
    assert reader.choose(0).level == 1
    assert [fresh.state() for fresh in readers(path)] == ["corrupt", "corrupt"]
    for word in (sequence, sequence + 8 * 1994):  # another sequence, another checksum
        damage(word)
        assert reader.choose(0).state == BoardState.CORRUPT
        damage(word)
        damage(shares)
        assert reader.choose(0).level == 1
        damage(shares)
    writer.publish(policy(shares=THIRD))
    assert [fresh.choose(0).level for fresh in (reader, *readers(path))] == [2, 2, 2]


@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "empty"])
def test_what_is_no_board_is_corrupt(path: Path, kind: str):
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
    reader = BoardReader(path, PACK, NODE, EPOCH, STUB)
    assert reader.state() == "corrupt"
    assert reader.choose(0).level == 0


def test_the_layout_before_is_corrupt_and_gives_way(path: Path):
    """Level 0, counted as such, until the agent's next start; never a policy read askew."""
    writer = BoardWriter(path)
    writer.publish(policy(shares=SECOND))
    writer.close()
    now = path.read_bytes()
    # Layout 2 was 6,080 bytes, layout 1 was 448.
    for layout, size in ((2, None), (2, 6080), (1, None), (1, 448)):
        old = now[:8] + bytes([layout]) + now[9:size]
        path.write_bytes(old)
        for reader in readers(path):
            choice = reader.choose(0, b"acme")
            assert (choice.level, choice.flags) == (0, Flag.FALLBACK)
            assert choice.state == BoardState.CORRUPT
            assert reader.policy() is None
        again = BoardWriter(path)
        assert [reader.state() for reader in readers(path)] == ["absent", "absent"]
        again.publish(policy(shares=SECOND))
        assert [reader.choose(0).level for reader in readers(path)] == [1, 1]
        again.close()


def test_writer_replaces_a_damaged_file(path: Path):
    path.write_bytes(b"something else")
    BoardWriter(path).publish(policy())
    assert [reader.state() for reader in readers(path)] == ["ok", "ok"]
    assert os.listdir(path.parent) == [path.name]
