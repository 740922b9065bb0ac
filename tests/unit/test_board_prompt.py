# SPDX-License-Identifier: Apache-2.0
"""Levels by prompt on the policy board: who is decided by it, by which rule, with which weights."""

import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from some_weights import packed

from sprout_ext import reference, weights
from sprout_ext.board import (
    BoardMix,
    BoardPoint,
    BoardPolicy,
    BoardPrices,
    BoardPrompt,
    BoardReader,
    BoardState,
    BoardWriter,
    Flag,
    weights_name,
)
from sprout_ext.sampler import Sampler, Stream, fold_key

NODE, EPOCH, STUB, PACK = 7, 8, 9, 0x99
KEY = fold_key(42, NODE, EPOCH, STUB)
FIRST, SECOND, THIRD = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
TEXTS = [
    b"",
    b"What is 2 + 2?",
    b"Write a poem of twelve lines about a lighthouse.",
    b"\xff\xfe no UTF-8 \x80",
    b"zero\0in\0the\0middle",
    "größer als 3?".encode(),
    bytes(range(256)) * 20,
    b"x" * 1_000_000,
]


def put(directory: Path, data: bytes) -> str:
    """The weights' file; returns the digest."""
    sha256 = weights.name(data)
    (directory / weights_name(sha256)).write_bytes(data)
    return sha256


def prompt_of(sha256: str, **changes: Any) -> BoardPrompt:
    point = BoardPoint(1.0, 2.0, (0.0, 0.1, 0.2))
    return replace(BoardPrompt((1.0, 0.9, 0.8), (point,), sha256, 1.0), **changes)


def policy(**changes: Any) -> BoardPolicy:
    base = BoardPolicy(
        version=5,
        seed=42,
        pack_hash=PACK,
        shares=(0.5, 0.3, 0.2),
        control_share=0.0,
        canary_share=1.0,
        paused=False,
        deadline_boottime_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 3600 * 10**9,
        intensity_g_per_kwh=100.0,
        pue=1.2,
        embodied_g_per_s=0.0,
    )
    return replace(base, **changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.board"


def core(path: Path) -> BoardReader:
    return BoardReader(path, PACK, NODE, EPOCH, STUB)


def oracle(path: Path) -> reference.BoardReader:
    return reference.BoardReader(path, PACK, NODE, EPOCH, STUB)


def told(choices: list[Any]) -> list[tuple[int, int, bool]]:
    return [(c.level, c.flags, c.unscored) for c in choices]


# --- the rule -------------------------------------------------------------------------------------


def test_a_prompt_takes_the_level_that_is_cheapest_for_it(path: Path) -> None:
    """By hand, from the scorer's own numbers."""
    data = packed()
    prompt = prompt_of(put(path.parent, data))
    BoardWriter(path).publish(policy(prompt=prompt))
    scores, (point,) = weights.scorer(data).score_many(TEXTS), prompt.points
    expected = []
    for preference, joules in zip(scores[:, :3], scores[:, 3:], strict=True):
        costs = [
            point.g[i] + prompt.g_per_joule[i] * joules[i] - point.g_per_preference * preference[i]
            for i in range(3)
        ]
        expected.append((costs.index(min(costs)), int(Flag.PROMPT), False))
    assert len({level for level, *_ in expected}) > 1
    reader = core(path)
    assert reader.by_prompt()
    assert told(reader.choose_many(0, len(TEXTS), None, TEXTS)) == expected
    assert told(oracle(path).choose_many(0, len(TEXTS), None, TEXTS)) == expected
    for sequence, text in enumerate(TEXTS):
        assert told([reader.choose(sequence, b"", b"", text)]) == [expected[sequence]]
        shares = [float(level == expected[sequence][0]) for level in range(3)]
        assert reader.shares_by_prompt(text) == tuple(shares)


def test_equal_costs_take_the_lower_level(path: Path) -> None:
    """Weights that are zero say the same of all levels, to the bit."""
    data = weights.pack(
        (2,), 4, np.zeros((16, 4), np.int8), [1.0] * 4, [0.0] * 4, np.zeros((6, 2, 5)), 3, 1
    )
    sha256, writer, reader = put(path.parent, data), BoardWriter(path), core(path)
    for g, level in (
        ((1.0, 1.0, 1.0), 0),
        ((2.0, 1.0, 1.0), 1),
        ((1.0, 2.0, 1.0), 0),
        ((1.0, 1.0, 0.5), 2),
    ):
        prompt = prompt_of(sha256, g_per_joule=(1.0,) * 3, points=(BoardPoint(1.0, 3.0, g),))
        writer.publish(policy(prompt=prompt))
        assert told(reader.choose_many(0, 1, None, [b"any"])) == [(level, Flag.PROMPT, False)]
        assert told(oracle(path).choose_many(0, 1, None, [b"any"])) == [(level, Flag.PROMPT, False)]


def test_costs_that_are_no_numbers_never_win(path: Path) -> None:
    """Finite prices and finite scores may still multiply to infinity, and infinities cancel."""
    most = 1.7e308
    sha256 = put(path.parent, packed())
    writer, reader = BoardWriter(path), core(path)
    for g_per_joule, price in (
        ((most, most, 0.0), most),
        ((most, -most, most), most),
        ((-most,) * 3, 0.0),
    ):
        points = (BoardPoint(1.0, price, (most, -most, 0.0)),)
        writer.publish(policy(prompt=prompt_of(sha256, g_per_joule=g_per_joule, points=points)))
        found = told(reader.choose_many(0, len(TEXTS), None, TEXTS))
        with np.errstate(over="ignore", invalid="ignore"):
            assert found == told(oracle(path).choose_many(0, len(TEXTS), None, TEXTS))
        assert {level for level, *_ in found} <= {0, 1, 2}


def test_the_share_and_the_point_are_drawn_on_streams_of_their_own(path: Path) -> None:
    """Whom the share leaves out has the draw of everybody under the policy's own mix."""
    cheap, dear = BoardPoint(0.25, 0.0, THIRD), BoardPoint(0.75, 0.0, (9.0, 9.0, 0.0))
    prompt = prompt_of(
        put(path.parent, packed()), share=0.4, g_per_joule=(0.0,) * 3, points=(cheap, dear)
    )
    writer, n = BoardWriter(path), 2000
    writer.publish(policy(prompt=prompt))
    found = core(path).choose_many(5, n, None, [b"any"] * n)
    taken, point = Sampler((0.4, 0.6), KEY), Sampler((0.25, 0.75), KEY)
    level = Sampler((0.5, 0.3, 0.2), KEY)
    expected = [
        ((0, 2)[point.draw(s, Stream.POINT)], Flag.PROMPT, False)
        if taken.draw(s, Stream.PROMPT) == 0
        else (level.draw(s), 0, False)
        for s in range(5, 5 + n)
    ]
    assert told(found) == expected
    chosen = [c for c in found if c.flags & Flag.PROMPT]
    assert abs(len(chosen) / n - 0.4) < 5 * math.sqrt(0.4 * 0.6 / n)
    assert abs(sum(c.level == 0 for c in chosen) / len(chosen) - 0.25) < 0.07
    assert core(path).shares_by_prompt(b"any") == (0.25, 0.0, 0.75)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_and_all(path: Path, share: float) -> None:
    BoardWriter(path).publish(policy(prompt=prompt_of(put(path.parent, packed()), share=share)))
    reader = core(path)
    assert reader.by_prompt() == oracle(path).by_prompt() == (share == 1)
    found = reader.choose_many(0, 300, None, [b"any"] * 300)
    assert {c.flags for c in found} == {Flag.PROMPT if share else 0}
    if share == 0:
        assert [c.level for c in found] == [c.level for c in reader.choose_many(0, 300)]
        assert reader.shares_by_prompt(b"any") is None


# --- whom it is not for ---------------------------------------------------------------------------


def test_control_and_canary_come_first_as_ever(path: Path) -> None:
    writer, reader, n = BoardWriter(path), core(path), 1000
    plain = policy(control_share=0.2, canary_share=0.5)
    writer.publish(plain)
    before = reader.choose_many(0, n)
    writer.publish(replace(plain, prompt=prompt_of(put(path.parent, packed()))))
    after = reader.choose_many(0, n, None, [b"any"] * n)
    for old, new in zip(before, after, strict=True):
        assert new.flags == (old.flags or Flag.PROMPT)
        if old.flags:
            assert new.level == 0
    assert {c.flags for c in after} == {Flag.CONTROL, Flag.HELD_BACK, Flag.PROMPT}


@pytest.mark.parametrize(
    "changes",
    [{"paused": True}, {"deadline_boottime_ns": 1}, {"pack_hash": PACK + 1}],
    ids=["paused", "expired", "pack"],
)
def test_nothing_is_chosen_without_a_policy_in_force(path: Path, changes: Any) -> None:
    prompt = prompt_of(put(path.parent, packed()))
    BoardWriter(path).publish(policy(shares=THIRD, prompt=prompt, **changes))
    reader = core(path)
    plain, asked = reader.choose(1), reader.choose(1, b"", b"", b"any")
    assert told([plain]) == told([asked])
    assert (asked.level, asked.flags & Flag.PROMPT) == (0, 0)
    assert not reader.by_prompt()
    assert not oracle(path).by_prompt()
    assert reader.shares_by_prompt(b"any") is None


def test_who_has_a_mix_of_its_own_keeps_it(path: Path) -> None:
    mixes = (BoardMix("acme", "", SECOND), BoardMix("", "chat", THIRD))
    points = (BoardPoint(1.0, 0.0, (0.0, 9.0, 9.0)),)
    prompt = prompt_of(put(path.parent, packed()), g_per_joule=(0.0,) * 3, points=points)
    BoardWriter(path).publish(policy(shares=THIRD, mixes=mixes, prompt=prompt))
    names = [(b"acme", b""), (b"", b"chat"), (b"other", b"chat"), (b"other", b""), (b"", b"")]
    found = told(core(path).choose_many(0, 5, names, [b"any"] * 5))
    by_mix, chosen = [(1, 0, False), (2, 0, False), (2, 0, False)], (0, int(Flag.PROMPT), False)
    assert found == [*by_mix, chosen, chosen]
    assert found == told(oracle(path).choose_many(0, 5, names, [b"any"] * 5))


def test_whose_mix_has_prices_chooses_by_them(path: Path) -> None:
    """By hand: weights, share and draws are those of all, prices the mix's own."""
    data = packed()
    sha256 = put(path.parent, data)
    scores = weights.scorer(data).score_many(TEXTS)
    gentle = BoardPrices((0.1, 0.2, 0.3), (BoardPoint(1.0, 5.0, (0.3, 0.0, 0.1)),))
    stern = BoardPrices((9.0, 9.0, 9.0), (BoardPoint(1.0, 0.1, (0.0, 0.5, 0.9)),))
    prompt = prompt_of(sha256)
    mixes = (
        BoardMix("acme", "", SECOND, stern),
        BoardMix("quiet", "", FIRST),
        BoardMix("", "chat", THIRD, gentle),
    )
    sent = policy(mixes=mixes, prompt=prompt)
    BoardWriter(path).publish(sent)
    reader, flag = core(path), int(Flag.PROMPT)
    assert reader.policy() == sent

    def level(prices: BoardPrices, row: Any) -> int:
        point = prices.points[0]
        costs = [
            point.g[i] + prices.g_per_joule[i] * row[3 + i] - point.g_per_preference * row[i]
            for i in range(3)
        ]
        return costs.index(min(costs))

    whose = {
        (b"", b""): prompt,
        (b"other", b"poems"): prompt,
        (b"acme", b"chat"): stern,
        (b"other", b"chat"): gentle,
        (b"quiet", b"chat"): None,
    }
    seen = set()
    for names, prices in whose.items():
        expected = [
            (0, 0, False) if prices is None else (level(prices, row), flag, False) for row in scores
        ]
        asked = [names] * len(TEXTS)
        assert told(reader.choose_many(0, len(TEXTS), asked, TEXTS)) == expected
        assert told(oracle(path).choose_many(0, len(TEXTS), asked, TEXTS)) == expected
        for text, (chosen, *_) in zip(TEXTS, expected, strict=True):
            shares = None if prices is None else tuple(float(i == chosen) for i in range(3))
            assert reader.shares_by_prompt(text, *names) == shares
            assert oracle(path).shares_by_prompt(text, *names) == shares
        seen.add(tuple(expected))
    assert len(seen) == 4  # the first two alone are alike
    mixed = [list(whose)[i % 5] for i in range(len(TEXTS))]
    one = told(reader.choose_many(0, len(TEXTS), mixed, TEXTS))
    assert one == [
        told(reader.choose_many(i, 1, [names], [text]))[0]
        for i, (names, text) in enumerate(zip(mixed, TEXTS, strict=True))
    ]


def test_whom_the_share_leaves_out_is_drawn_from_its_own_mix(path: Path) -> None:
    always_first = BoardPrices((0.0,) * 3, (BoardPoint(1.0, 0.0, (0.0, 9.0, 9.0)),))
    prompt = prompt_of(put(path.parent, packed()), share=0.5)
    mixes = (BoardMix("", "chat", THIRD, always_first),)
    BoardWriter(path).publish(policy(mixes=mixes, prompt=prompt))
    n, taken = 400, Sampler((0.5, 0.5), KEY)
    names = [(b"", b"chat")] * n
    found = told(core(path).choose_many(0, n, names, [b"any"] * n))
    by_draw = {True: (0, int(Flag.PROMPT), False), False: (2, 0, False)}
    assert found == [by_draw[taken.draw(s, Stream.PROMPT) == 0] for s in range(n)]
    assert found == told(oracle(path).choose_many(0, n, names, [b"any"] * n))


def test_prices_of_a_mix_need_those_of_all_others(path: Path) -> None:
    """Weights and share stand with them."""
    prices = BoardPrices((1.0,) * 3, (BoardPoint(1.0, 0.0, FIRST),))
    wrong = policy(mixes=(BoardMix("acme", "", FIRST, prices),))
    for writer in (BoardWriter(path), reference.BoardWriter(path)):
        with pytest.raises(ValueError, match="mixes: prices, and none for all others"):
            writer.publish(wrong)
        writer.close()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"g_per_joule": (1.0, 1.0)}, "as many levels"),
        ({"g_per_joule": (1.0, math.nan, 1.0)}, "finite"),
        ({"points": ()}, "1 to 4 points"),
        ({"points": (BoardPoint(0.5, 0.0, FIRST),)}, "sum to 1"),
        ({"points": (BoardPoint(1.0, -1.0, FIRST),)}, "g_per_preference"),
        ({"points": (BoardPoint(1.0, 0.0, (1.0,)),)}, "as many levels"),
    ],
)
def test_a_mix_s_prices_are_checked(path: Path, changes: Any, problem: str) -> None:
    good = BoardPrices((1.0,) * 3, (BoardPoint(1.0, 0.0, FIRST),))
    mixes = (BoardMix("", "chat", FIRST, replace(good, **changes)),)
    for writer in (BoardWriter(path), reference.BoardWriter(path)):
        with pytest.raises(ValueError, match=problem):
            writer.publish(policy(mixes=mixes, prompt=prompt_of("5a" * 32)))
        writer.close()


def test_without_texts_the_mix_decides(path: Path) -> None:
    BoardWriter(path).publish(policy(shares=SECOND, prompt=prompt_of(put(path.parent, packed()))))
    reader = core(path)
    assert told(reader.choose_many(0, 3)) == [(1, 0, False)] * 3
    assert told(reader.choose_many(0, 1, [(b"a", b"")])) == [(1, 0, False)]
    assert told([reader.choose(0), reader.choose(0, b"a")]) == [(1, 0, False)] * 2


@pytest.mark.parametrize("texts", [[b"one"], [b"a", "b"], [b"a", None], None])
def test_texts_are_one_bytes_object_a_request(path: Path, texts: Any) -> None:
    BoardWriter(path).publish(policy())
    with pytest.raises((ValueError, TypeError)):
        core(path).choose_many(0, 2, None, texts)


# --- the weights ----------------------------------------------------------------------------------


def pipe(file: Path, _: bytes) -> None:
    file.unlink()
    os.mkfifo(file)


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    "spoil",
    [  # file, data
        lambda file, data: file.unlink(),
        lambda file, data: file.write_bytes(b""),
        lambda file, data: file.write_bytes(data[:-1]),
        lambda file, data: file.write_bytes(data + b"\0"),
        lambda file, data: file.write_bytes(flipped(data)),  # a number changed
        lambda file, data: file.write_bytes(packed(seed=1)),  # good weights, but others
        lambda file, data: (file.unlink(), file.mkdir()),
        pipe,
        lambda file, data: (file.unlink(), file.symlink_to("/dev/zero")),
        lambda file, data: file.chmod(0) if os.geteuid() else file.unlink(),
    ],
    ids=["missing", "empty", "short", "long", "flipped", "others", "dir", "fifo", "link", "closed"],
)
def test_without_its_weights_the_mix_decides_and_it_is_told(
    path: Path, spoil: Callable[[Path, bytes], None]
) -> None:
    data = packed()
    sha256 = put(path.parent, data)
    spoil(path.parent / weights_name(sha256), data)
    BoardWriter(path).publish(policy(prompt=prompt_of(sha256, share=0.5)))
    reader, plain = core(path), core(path).choose_many(0, 400)
    found = reader.choose_many(0, 400, None, [b"any"] * 400)
    assert [c.level for c in found] == [c.level for c in plain]
    taken = Sampler((0.5, 0.5), KEY)
    unscored = [taken.draw(s, Stream.PROMPT) == 0 for s in range(400)]
    assert [c.unscored for c in found] == unscored
    assert [c.flags for c in found] == [Flag.UNSCORED * told for told in unscored]
    assert {c.state for c in found} == {BoardState.OK}
    assert reader.shares_by_prompt(b"any") is None
    assert reader.by_prompt()  # by the policy


def test_weights_of_other_levels_are_as_good_as_none(path: Path) -> None:
    sha256 = put(path.parent, packed(levels=2))
    BoardWriter(path).publish(policy(prompt=prompt_of(sha256)))
    assert told(core(path).choose_many(0, 1, None, [b"a"]))[0][1:] == (Flag.UNSCORED, True)
    assert told(oracle(path).choose_many(0, 1, None, [b"a"]))[0][1:] == (Flag.UNSCORED, True)


def test_a_node_without_weights_says_who_would_have_chosen(path: Path) -> None:
    """Nobody's text is asked for; levels are the mixes', and the others are the drawn tenth's."""
    prices = BoardPrices((1.0,) * 3, (BoardPoint(1.0, 0.0, FIRST),))
    mixes = (BoardMix("", "chat", THIRD, prices), BoardMix("acme", "", SECOND))
    whole = policy(prompt=prompt_of(put(path.parent, packed()), share=0.9), mixes=mixes)
    BoardWriter(path).publish(whole.without_weights())
    reader, theirs, n = core(path), oracle(path), 300
    assert reader.policy() == theirs.policy() == whole.without_weights()
    assert (reader.by_prompt(), theirs.by_prompt()) == (False, False)
    assert reader.shares_by_prompt(b"any") is theirs.shares_by_prompt(b"any") is None
    plain = core(path.with_name("plain"))
    BoardWriter(path.with_name("plain")).publish(
        replace(whole, prompt=None, mixes=(replace(mixes[0], prices=None), mixes[1]))
    )
    taken = Sampler((0.9, 0.1), KEY)
    for names in ((b"", b""), (b"", b"chat"), (b"acme", b"chat")):
        asked = [names] * n
        found = told(reader.choose_many(0, n, asked))
        drawn = [c.level for c in plain.choose_many(0, n, asked)]
        lacks = [taken.draw(s, Stream.PROMPT) == 0 and names[0] == b"" for s in range(n)]
        assert found == [
            (level, int(Flag.UNSCORED) if lack else 0, lack)
            for level, lack in zip(drawn, lacks, strict=True)
        ]
        assert found == told(theirs.choose_many(0, n, asked))
        assert found == told(reader.choose_many(0, n, asked, [b"any"] * n))
    plain_policy = policy()
    assert plain_policy.without_weights() == plain_policy


def test_new_weights_are_read_at_once_and_old_ones_are_kept_till_then(path: Path) -> None:
    """And what was verified is kept in memory: neither loss nor damage of the file undoes it."""
    one, two = packed(seed=1), packed(seed=2)
    first, second = put(path.parent, one), put(path.parent, two)
    writer, reader, n = BoardWriter(path), core(path), len(TEXTS)

    def levels(sha256: str) -> list[tuple[int, int, bool]]:
        writer.publish(policy(prompt=prompt_of(sha256)))
        return told(reader.choose_many(0, n, None, TEXTS))

    of_first, of_second = levels(first), levels(second)
    assert of_first != of_second
    (path.parent / weights_name(second)).write_bytes(flipped(two))
    assert levels(second) == of_second
    (path.parent / weights_name(second)).unlink()
    assert levels(second) == of_second
    assert levels("1" * 64) == [(level, int(Flag.UNSCORED), True) for level, *_ in levels("1" * 64)]
    assert levels(second) == of_second
    assert levels(first) == of_first


def test_weights_that_come_late_are_found(path: Path) -> None:
    data = packed()
    sha256 = weights.name(data)
    BoardWriter(path).publish(policy(prompt=prompt_of(sha256)))
    reader = core(path)
    assert reader.choose(0, b"", b"", b"a").unscored
    put(path.parent, data)
    time.sleep(1.05)
    assert reader.choose(0, b"", b"", b"a").flags == Flag.PROMPT


def test_threads_share_a_reader(path: Path) -> None:
    """It lets go of the GIL while it scores; policies and weights change under it."""
    digests = [put(path.parent, packed(seed=seed)) for seed in (1, 2)]
    writer, reader = BoardWriter(path), core(path)
    policies = [policy(version=i, prompt=prompt_of(d)) for i, d in enumerate(digests)]
    expected = {}
    for one in policies:
        writer.publish(one)
        expected[one.version] = told(core(path).choose_many(0, len(TEXTS), None, TEXTS))
    stop, wrong = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            found = reader.choose_many(0, len(TEXTS), None, TEXTS)
            if told(found) != expected[found[0].version]:
                wrong.append(found)
            reader.policy()

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(200):
        writer.publish(policies[turn % 2])
        time.sleep(0.001)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


# --- on the board ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "changes"),
    [
        ("not hex", {"weights": "xy"}),
        ("32 bytes", {"weights": "00" * 31}),
        ("share", {"share": 1.5}),
        ("share", {"share": -0.1}),
        ("share", {"share": math.nan}),
        ("as many levels", {"g_per_joule": (1.0, 1.0)}),
        ("g_per_joule: must be finite", {"g_per_joule": (1.0, 1.0, math.inf)}),
        ("1 to 4 points", {"points": ()}),
        ("1 to 4 points", {"points": (BoardPoint(0.2, 1.0, FIRST),) * 5}),
        ("must sum to 1", {"points": (BoardPoint(0.2, 1.0, FIRST),) * 4}),
        ("each must be", {"points": tuple(BoardPoint(f, 1.0, FIRST) for f in (1.5, -0.5))}),
        ("each must be", {"points": (BoardPoint(math.nan, 1.0, FIRST),)}),
        ("g_per_preference: must be >= 0", {"points": (BoardPoint(1.0, -1.0, FIRST),)}),
        ("g_per_preference: must be finite", {"points": (BoardPoint(1.0, math.inf, FIRST),)}),
        ("prompt: g: must be finite", {"points": (BoardPoint(1.0, 1.0, (0.0, math.nan, 0.0)),)}),
        ("as many levels", {"points": (BoardPoint(1.0, 1.0, (0.0,)),)}),
    ],
)
def test_what_is_wrong_is_refused_and_the_old_one_stays(
    path: Path, named: str, changes: dict[str, Any]
) -> None:
    writer, good = BoardWriter(path), policy(prompt=prompt_of("ab" * 32))
    writer.publish(good)
    with pytest.raises(ValueError, match=named):
        writer.publish(policy(prompt=prompt_of("ab" * 32, **changes)))
    assert core(path).policy() == oracle(path).policy() == good


some = st.floats(-10, 10)


@st.composite
def prices(draw: st.DrawFn, levels: int) -> BoardPrices:
    many = st.tuples(*[some] * levels)
    parts = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any))
    points = tuple(
        BoardPoint(part / sum(parts), draw(st.floats(0, 10)), draw(many)) for part in parts
    )
    return BoardPrices(draw(many), points)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data(), st.integers(1, 8), st.booleans(), st.booleans(), st.integers(0, 2**60))
def test_each_reads_and_chooses_as_the_other(
    tmp_path: Path, data: st.DataObject, levels: int, core_writes: bool, there: bool, first: int
) -> None:
    """Policies, texts and names of any kind: the same levels, flags and words from both."""
    path = tmp_path / "policy.board"
    file = packed(levels, data.draw(st.integers(1, 20)), data.draw(st.integers(0, 9)))
    sha256 = put(tmp_path, file)
    sent = policy(
        shares=(1 / levels,) * levels,
        control_share=data.draw(st.sampled_from([0.0, 0.2])),
        canary_share=data.draw(st.sampled_from([0.8, 1.0])),
        paused=data.draw(st.sampled_from([False, False, False, True])),
        prompt=BoardPrompt(
            **vars(data.draw(prices(levels))),
            weights=sha256 if there else data.draw(st.sampled_from(["11" * 32, ""])),
            share=data.draw(st.sampled_from([0.0, 0.3, 1.0])),
        ),
    )
    l0 = (1.0, *[0.0] * (levels - 1))
    own = data.draw(st.lists(st.none() | prices(levels), max_size=3))
    given = [BoardMix("a", "", l0), BoardMix("", "b", l0), BoardMix("c", "", l0)]
    sent = replace(
        sent, mixes=tuple(replace(m, prices=p) for m, p in zip(given, own, strict=False))
    )
    writer = BoardWriter(path) if core_writes else reference.BoardWriter(path)
    writer.publish(sent)
    writer.close()
    ours, theirs = core(path), oracle(path)
    assert ours.policy() == theirs.policy() == sent
    assert ours.by_prompt() == theirs.by_prompt()
    texts = data.draw(st.lists(st.binary(max_size=200), min_size=7, max_size=7))
    names_of = st.tuples(st.sampled_from([b"", b"a", b"c"]), st.sampled_from([b"", b"b"]))
    names = data.draw(st.lists(names_of, min_size=7, max_size=7))
    expected = told(theirs.choose_many(first, 7, names, texts))
    assert told(ours.choose_many(first, 7, names, texts)) == expected
    single = [ours.choose(first + i, *names[i], texts[i]) for i in range(7)]
    assert told(single) == expected
    for who in names:
        assert ours.shares_by_prompt(texts[0], *who) == theirs.shares_by_prompt(texts[0], *who)
    path.unlink()


def test_both_write_the_same_bytes(tmp_path: Path) -> None:
    points = tuple(BoardPoint(0.25, float(i), (0.5, -1.0, i + 0.25)) for i in range(4))
    prompt = prompt_of("5a" * 32, points=points)
    given = BoardPrices((1.0, 2.0, 3.0), points[::-1][:2] + points[2:])
    mixes = tuple(BoardMix("", f"t{i}", SECOND, given if i % 3 else None) for i in range(32))
    sent = [policy(prompt=prompt, mixes=mixes), policy(prompt=prompt), policy()]
    bodies = []
    for package, name in ((BoardWriter, "core"), (reference.BoardWriter, "reference")):
        writer: Any = package(tmp_path / name)
        for one in sent:
            writer.publish(one)
        writer.close()
        bodies.append((tmp_path / name).read_bytes())
    assert bodies[0] == bodies[1]


def test_no_damage_harms_the_reader(tmp_path: Path) -> None:
    """Words of the prompt's part written over, under a good checksum: no policy, or the same one
    as the reference reads, and never a crash."""
    path, rng = tmp_path / "policy.board", np.random.default_rng(3)
    given = BoardPrices((1.0, 2.0, 3.0), (BoardPoint(1.0, 0.5, (0.0, 0.1, 0.2)),))
    mixes = (BoardMix("a", "", SECOND, given), BoardMix("", "b", THIRD))
    sent = policy(prompt=prompt_of(put(tmp_path, packed())), mixes=mixes)
    odd = [0, 1, 5, 2**32 + 1, 2**64 - 1, int.from_bytes(b"\0\0\0\0\0\0\xf8\x7f", "little")]
    seen = set()
    for _ in range(60):
        payload = reference.board._payload(sent)
        for _ in range(rng.integers(1, 3)):
            payload[371 + rng.integers(0, 5 + 3 * 49)] = odd[rng.integers(len(odd))]
        writer = reference.BoardWriter(path)
        writer._write(payload)
        writer.close()
        ours, theirs = core(path), oracle(path)
        assert ours.policy() == theirs.policy()
        assert ours.state() == theirs.state()
        with np.errstate(all="ignore"):
            expected = told(theirs.choose_many(3, 4, None, TEXTS[:4]))
        assert told(ours.choose_many(3, 4, None, TEXTS[:4])) == expected
        seen.add(ours.state())
        path.unlink()
    assert seen == {"ok", "corrupt"}
