# SPDX-License-Identifier: Apache-2.0
"""Postprocessing without Triton, on real shared memory."""

import math
import time
from itertools import pairwise

import numpy as np
import pytest
import tiny_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sprout.errors import RequestError
from sprout.request import postprocess
from sprout.request.detokenize import Detokenizer
from sprout.request.postprocess import Postprocessor
from sprout.request.settings import PostprocessSettings
from sprout.units import request_g
from sprout_ext.clock import ClockWriter
from sprout_ext.ledger import Counter, Phase, Segment, SegmentReader, segments

SPECIALS = ("<|im_start|>", "<|im_end|>")
DETOKENIZER = Detokenizer(tiny_tokenizer.definition(SPECIALS))
RATE = 5.0  # joules per active-second
SECOND = 10**9


def ids(text):
    return [byte + 2 for byte in text.encode()]


def chunk(tokens, ticket=None, last=False):
    tensors = {
        "TOKENS_BATCH": np.array([[tokens]], np.int32).reshape(1, 1, -1),
        "SEQUENCE_LENGTH": np.array([[len(tokens)]], np.int32),
    }
    if ticket is not None:
        tensors["FLIGHT"] = np.array([[ticket, 5] if last else [ticket]], np.uint64)
    elif last:
        tensors["LAST_TOKEN_TIME_NS"] = np.array([[5]], np.int64)
    return tensors


def text_of(result):
    assert result["OUTPUT"].shape == (1,)
    return result["OUTPUT"].item().decode()


@pytest.fixture
def shm(tmp_path):
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def opener(shm):
    segment = Segment.create(shm, 1, 0, 1, 64)
    yield segment
    segment.close(unlink=True)


@pytest.fixture
def clock(shm):
    writer = ClockWriter(shm / "energy.clock")
    writer.prior_rate(RATE)
    writer.tick(time.monotonic_ns(), 0.0, 0.0, 0.0, True)
    yield writer
    writer.close()


@pytest.fixture
def post(shm):
    folder = tiny_tokenizer.chatml(shm / "tokenizer")
    made = Postprocessor.open(PostprocessSettings(tokenizer_dir=folder, shm_dir=shm))
    yield made
    made.close()


def fly(opener, shm, *, intensity=200.0, level=1, seconds=2, tokens=3):
    """A ticket whose engine has finished."""
    from sprout_ext.ledger import Flights

    ticket = opener.open_flight(
        level=level,
        flags=0,
        policy_version=9,
        policy_seed=1,
        sequence=0,
        task=b"",
        input_tokens=4,
        max_tokens=8,
        opened_ns=time.monotonic_ns(),
        intensity_g_per_kwh=intensity,
        pue=1.5,
        embodied_g_per_s=0.01,
    )
    flights = Flights(shm)
    now = time.monotonic_ns()
    assert flights.scheduled(ticket, now)
    assert flights.finished(
        ticket,
        Phase.FINISHED,
        input_tokens=4,
        output_tokens=tokens,
        first_scheduled_ns=now,
        first_token_ns=now + SECOND,
        last_token_ns=now + seconds * SECOND,
    )
    return ticket


def counters(shm):
    return next(s for s in segments(shm) if s.role == 3).counters()


def test_receipt_stands_on_the_last_chunk_alone(post, opener, clock, shm):
    ticket = fly(opener, shm)
    results = post.process([chunk(ids("Hel"), ticket), chunk(ids("lo"), ticket, last=True)])
    assert [text_of(result) for result in results] == ["Hel", "lo"]
    assert set(results[0]) == {"OUTPUT"}
    receipt = {name: value for name, value in results[1].items() if name != "OUTPUT"}
    assert all(value.shape == (1, 1) for value in receipt.values())
    assert {name: value.dtype.name for name, value in receipt.items()} == {
        "DIRECTIVE_LEVEL": "int32",
        "POLICY_VERSION": "uint64",
        "ENERGY_JOULES": "float32",
        "CARBON_GRAMS": "float32",
        "CARBON_INTENSITY": "float32",
    }
    got = {name: value.item() for name, value in receipt.items()}
    assert (got["DIRECTIVE_LEVEL"], got["POLICY_VERSION"], got["CARBON_INTENSITY"]) == (1, 9, 200)
    assert got["ENERGY_JOULES"] == pytest.approx(2 * RATE)
    grams = request_g(2 * RATE, 2, intensity_g_per_kwh=200, pue=1.5, embodied_g_per_s=0.01)
    assert got["CARBON_GRAMS"] == pytest.approx(grams)


def test_flight_is_closed_with_the_receipt(post, opener, clock, shm):
    ticket = fly(opener, shm)
    post.process([chunk(ids("x"), ticket)])
    (row,) = SegmentReader(opener.path).scan()
    assert not row["closed"]
    post.process([chunk([], ticket, last=True)])
    (row,) = SegmentReader(opener.path).scan()
    assert row["closed"]
    assert row["receipt_joules"] == pytest.approx(2 * RATE)
    assert counters(shm)[Counter.DELIVERED] == 1
    assert counters(shm)[Counter.CHUNKS] == 2
    assert post.streams == 0


@pytest.mark.parametrize("known", [True, False])
def test_what_is_unknown_is_left_out(post, opener, shm, known, request):
    if known:
        request.getfixturevalue("clock")
    ticket = fly(opener, shm, intensity=math.nan)
    (result,) = post.process([chunk(ids("x"), ticket, last=True)])
    assert "CARBON_GRAMS" not in result
    assert "CARBON_INTENSITY" not in result
    assert ("ENERGY_JOULES" in result) is known
    assert result["DIRECTIVE_LEVEL"].item() == 1


def test_answer_of_no_tokens(post, opener, clock, shm):
    ticket = fly(opener, shm, seconds=0, tokens=0)
    empty = chunk([], ticket, last=True)
    (result,) = post.process([empty])
    assert text_of(result) == ""
    assert result["ENERGY_JOULES"].item() == 0.0


def test_unfinished_character_comes_with_the_last_chunk(post, opener, clock, shm):
    ticket = fly(opener, shm)
    *head, _tail = "é".encode()
    results = post.process([chunk([b + 2 for b in head], ticket), chunk([], ticket, last=True)])
    assert [text_of(result) for result in results] == ["", "\ufffd"]


pieces = st.lists(st.text(st.sampled_from("ab é日😀"), max_size=6), min_size=1, max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(pieces, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_interleaved_streams_stay_apart(texts, draw):
    """Any interleaving, any batches: each stream's chunks in their order give its text."""
    post = Postprocessor(DETOKENIZER)
    waiting = {}
    for ticket, parts in enumerate(texts, start=1):
        tokens = ids("".join(parts))
        cuts = sorted(draw.randrange(len(tokens) + 1) for _ in parts)
        edges = [0, *cuts, len(tokens)]
        made = [tokens[a:b] for a, b in pairwise(edges)]
        waiting[ticket] = [(part, i == len(made) - 1) for i, part in enumerate(made)]
    got = dict.fromkeys(waiting, "")
    while any(waiting.values()):
        batch = []
        for _ in range(draw.randrange(1, 8)):
            open_ = [ticket for ticket, chunks in waiting.items() if chunks]
            if open_:
                ticket = draw.choice(open_)
                batch.append((ticket, *waiting[ticket].pop(0)))
        results = post.process([chunk(part, ticket, last) for ticket, part, last in batch])
        for (ticket, _, _), result in zip(batch, results, strict=True):
            got[ticket] += text_of(result)
    assert got == {ticket: "".join(parts) for ticket, parts in enumerate(texts, start=1)}
    assert post.streams == 0


def test_engine_that_echoes_no_ticket_is_served_chunk_by_chunk(post, shm):
    results = post.process([chunk(ids(" a")), chunk(ids(" b"), last=True)])
    assert [text_of(result) for result in results] == [" a", " b"]
    assert set(results[1]) == {"OUTPUT"}
    assert counters(shm)[Counter.UNATTRIBUTED] == 1


def test_unknown_ticket_is_served_and_counted(post, opener, clock, shm):
    stale = fly(opener, shm) + 1  # another generation
    untracked = 77  # of no segment: preprocessing had no room in its ledger
    results = post.process(
        [chunk(ids("a"), stale, last=True), chunk(ids("b"), untracked, last=True)]
    )
    assert [text_of(result) for result in results] == ["a", "b"]
    assert all(set(result) == {"OUTPUT"} for result in results)
    assert counters(shm)[Counter.UNATTRIBUTED] == 1
    assert counters(shm)[Counter.DELIVERED] == 0


def test_several_sequences_as_stock():
    tensors = {
        "TOKENS_BATCH": np.array([[ids("abc"), ids("xyz")]], np.int32),
        "SEQUENCE_LENGTH": np.array([[2, 3]], np.int32),
        "FLIGHT": np.array([[5]], np.uint64),
    }
    (result,) = Postprocessor(DETOKENIZER).process([tensors])
    assert result["OUTPUT"].tolist() == [b"ab", b"xyz"]


def test_abandoned_streams_are_forgotten(monkeypatch):
    now = 1
    monkeypatch.setattr(postprocess.time, "monotonic_ns", lambda: now)
    post = Postprocessor(DETOKENIZER, max_streams=3)
    post.process([chunk(ids("x"), ticket) for ticket in range(1, 11)])
    assert post.streams == 3
    now += postprocess.LEASE_NS - 1
    post.process([chunk(ids("x"), 10)])
    now += 1
    post.process([chunk(ids("x"), 10)])  # the one that is alive stays
    assert post.streams == 1


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "must both be given"),
        ({"TOKENS_BATCH": np.zeros((1, 1, 2), np.int32)}, "must both be given"),
        (
            {"TOKENS_BATCH": np.zeros(2, np.int32), "SEQUENCE_LENGTH": np.zeros(1, np.int32)},
            "1 dimensions",
        ),
        (
            {
                "TOKENS_BATCH": np.zeros((1, 2, 2), np.int32),
                "SEQUENCE_LENGTH": np.zeros((1, 1), np.int32),
            },
            "1 values for 2 sequences",
        ),
    ],
)
def test_malformed_chunk_fails_alone(tensors, message):
    bad, good = Postprocessor(DETOKENIZER).process([tensors, chunk(ids("ok"))])
    assert isinstance(bad, RequestError)
    assert message in str(bad)
    assert text_of(good) == "ok"
