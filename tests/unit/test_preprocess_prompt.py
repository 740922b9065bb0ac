# SPDX-License-Identifier: Apache-2.0
"""Levels by prompt in preprocessing: whose, by which text, and what is said of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_tokenizer
from some_weights import packed
from test_preprocess import policy, prompt

from sprout.agent.outcome import FLAGS
from sprout.errors import RequestError
from sprout.request.preprocess import Prepared, Preprocessor, Prompt
from sprout.request.sampling import propensity
from sprout.request.settings import HINTS, PreprocessSettings
from sprout.v1 import control_pb2 as pb
from sprout_ext import reference, weights
from sprout_ext.board import (
    BoardMix,
    BoardPoint,
    BoardPrices,
    BoardPrompt,
    BoardWriter,
    Flag,
    weights_name,
)
from sprout_ext.ledger import Flights, segments
from sprout_ext.ring import rings

DATA = packed(seed=1)
POINTS = (BoardPoint(1.0, 2.0, (0.0, 0.1, 0.2)),)
BY_PROMPT = BoardPrompt((1.0, 0.9, 0.8), POINTS, weights.name(DATA), 1.0)
TEXTS = ["What is 2 + 2?", "Write a poem of twelve lines.", "größer als 3?", "x" * 9000, "a\0b"]
SHARES = (1.0, 0.0, 0.0)


@pytest.fixture
def memory(memory: Path) -> Path:
    (memory / weights_name(BY_PROMPT.weights)).write_bytes(DATA)
    return memory


@pytest.fixture
def board(memory: Path):
    writer = BoardWriter(memory / "policy.board")
    yield lambda **changes: writer.publish(policy(SHARES, **{"prompt": BY_PROMPT} | changes))
    writer.close()


@pytest.fixture
def make(memory: Path, tmp_path: Path):
    made = []
    tokenizer = tiny_tokenizer.chatml(tmp_path / "chatml")

    def make(**changes: Any) -> Preprocessor:
        fields = {"tokenizer_dir": tokenizer, "shm_dir": memory, "hints": HINTS, "flights": 64}
        made.append(Preprocessor.open(PreprocessSettings(**fields | changes)))
        return made[-1]

    yield make
    for preprocessor in made:
        preprocessor.close()


def level_of(text: str) -> int:
    """By the reference, of the text's bytes as they are."""
    scorer = reference.prices.parse(DATA)
    return reference.prices.level_by_prompt(BY_PROMPT, scorer, text.encode(), 0)


def counted(memory: Path) -> int:
    found = next(s for s in segments(memory) if s.role == 1).counters()
    return int(found[17])


def test_the_client_s_own_text_decides_and_the_ledger_says_so(make, board, memory: Path):
    board()
    pre = make()
    results = pre.prepare([prompt(text) for text in TEXTS])
    expected = [level_of(text) for text in TEXTS]
    assert len(set(expected)) > 1
    assert [(r.level, r.flags) for r in results] == [(level, Flag.PROMPT) for level in expected]
    flights = [Flights(memory).view(pre.open_flight(r)) for r in results]
    assert [(f.level, f.flags) for f in flights] == [(level, Flag.PROMPT) for level in expected]
    assert counted(memory) == 0
    # Alone or in company, under hints or none: the same.
    assert [pre.prepare([prompt(text)])[0].level for text in TEXTS] == expected
    hinted = pre.prepare([prompt(text, parameters='{"sprout_task":"chat"}') for text in TEXTS])
    assert [r.level for r in hinted] == expected


def test_the_flag_s_name_is_the_outcome_s_field():
    assert FLAGS[Flag.PROMPT] == "prompt"
    assert pb.Outcome(prompt=True).prompt


@pytest.mark.parametrize(
    ("parameters", "level", "flags"),
    [
        ('{"sprout_level":"L2"}', 2, Flag.PINNED),
        ('{"sprout_off":true}', 0, Flag.OFF),
    ],
)
def test_what_the_client_asked_for_stands_above(make, board, memory, parameters, level, flags):
    board()
    results = make().prepare([prompt(text, parameters=parameters) for text in TEXTS])
    assert {(r.level, r.flags) for r in results} == {(level, flags)}


def test_probe_and_evaluation_are_left_alone(make, board, memory):
    board()
    pre = make(probe_token="p" * 32, evaluate_token="e" * 32)
    probe = json.dumps({"sprout_probe": "p" * 32})
    evaluation = json.dumps({"sprout_evaluate": "e" * 32, "sprout_level": "L1"})
    results = pre.prepare([prompt(TEXTS[1], parameters=p) for p in (probe, evaluation)])
    assert [(r.level, r.flags) for r in results] == [(0, Flag.PROBE), (1, Flag.EVALUATION)]


def test_who_has_a_mix_keeps_it(make, board):
    """But for what its own prices make of it, where it has any."""
    always_last = BoardPrices((0.0,) * 3, (BoardPoint(1.0, 0.0, (9.0, 9.0, 0.0)),))
    board(
        mixes=(
            BoardMix("acme", "", (0.0, 0.0, 1.0)),
            BoardMix("", "chat", (0.0, 1.0, 0.0)),
            BoardMix("", "code", (1.0, 0.0, 0.0), always_last),
        )
    )
    pre = make()
    given = ['{"sprout_task":"code"}', '{"sprout_tenant":"acme","sprout_task":"code"}']
    results = pre.prepare([prompt(TEXTS[1], parameters=p) for p in given])
    assert [(r.level, r.flags) for r in results] == [(2, Flag.PROMPT), (2, 0)]
    given = ['{"sprout_tenant":"acme"}', '{"sprout_task":"chat"}', '{"sprout_task":"other"}', "{}"]
    results = pre.prepare([prompt(TEXTS[1], parameters=p) for p in given])
    by_prompt = (level_of(TEXTS[1]), Flag.PROMPT)
    assert [(r.level, r.flags) for r in results] == [(2, 0), (1, 0), by_prompt, by_prompt]


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"paused": True}, Flag.PAUSED),
        ({"control_share": 1.0}, Flag.CONTROL),
        ({"canary_share": 0.0}, Flag.HELD_BACK),
        ({"deadline_boottime_ns": 1}, Flag.FALLBACK),
        ({"pack_hash": 1}, Flag.FALLBACK),
    ],
)
def test_l0_for_those_outside_the_policy(make, board, changes, flags):
    board(**changes)
    results = make().prepare([prompt(text) for text in TEXTS])
    assert {(r.level, r.flags) for r in results} == {(0, flags)}


@pytest.mark.parametrize("spoil", ["missing", "broken", "another's"])
def test_without_weights_the_mix_decides_and_it_is_counted(make, board, memory, spoil):
    file = memory / weights_name(BY_PROMPT.weights)
    if spoil == "missing":
        file.unlink()
    else:
        file.write_bytes(DATA[:-1] if spoil == "broken" else packed(seed=9))
    board()
    pre = make()
    results = pre.prepare([prompt(text) for text in TEXTS])
    assert {(r.level, r.flags) for r in results} == {(0, Flag.UNSCORED)}
    assert counted(memory) == len(TEXTS)
    pinned = pre.prepare([prompt("Hi", parameters='{"sprout_level":"L2"}')])
    assert pinned[0].flags == Flag.PINNED
    assert counted(memory) == len(TEXTS)  # it would not have been decided by its prompt


def test_on_a_node_without_weights_it_is_counted_too(make, board, memory):
    board(prompt=replace(BY_PROMPT, weights=""))
    results = make().prepare([prompt(text) for text in TEXTS])
    assert {(r.level, r.flags) for r in results} == {(0, Flag.UNSCORED)}
    assert counted(memory) == len(TEXTS)


def test_malformed_requests_fail_alone(make, board, memory):
    """What has no single text is refused as ever, wherever it stands in the batch."""
    board()
    broken: list[Prompt] = [
        Prompt({"REQUEST_OUTPUT_LEN": np.array([[1]], np.int32)}),
        Prompt(prompt("x").tensors | {"QUERY": np.array([[b"a", b"b"]], object)}),
        Prompt(prompt("x").tensors | {"QUERY": np.empty((1, 0), object)}),
        prompt(b"\xff\xfe"),
        prompt("x" * 10_000_000),
    ]
    batch = [prompt(TEXTS[0]), *broken, prompt(TEXTS[1])]
    results = make().prepare(batch)
    assert all(isinstance(result, RequestError) for result in results[1:-1])
    assert [(r.level, r.flags) for r in (results[0], results[-1])] == [
        (level_of(TEXTS[0]), Flag.PROMPT),
        (level_of(TEXTS[1]), Flag.PROMPT),
    ]


def test_a_prompt_that_is_sampled_has_the_propensity_of_its_own_level(make, board, memory):
    """Chance decides who is chosen for, not what: what the text says is no chance."""
    half = replace(BY_PROMPT, share=0.5)
    board(prompt=half, control_share=0.2)
    pre = make(sample_share=1)
    texts = [TEXTS[i % 3] for i in range(60)]
    results = pre.prepare([prompt(text) for text in texts])
    assert all(isinstance(result, Prepared) for result in results)
    found = [p for reader in rings(memory) for p in reader.drain()]
    assert [p.text.decode() for p in found] == texts
    assert {p.flags for p in found} == {0, Flag.PROMPT, Flag.CONTROL}
    for p in found:
        chosen = level_of(p.text.decode())
        expected = 0.8 * (0.5 * (p.level == chosen) + 0.5 * SHARES[p.level]) + 0.2 * (p.level == 0)
        assert p.propensity == pytest.approx(expected)


def test_propensities_by_prompt_sum_to_one():
    mixes = (BoardMix("clinic", "", (1.0, 0.0, 0.0)),)
    entry = policy(
        (0.25, 0.5, 0.25), control_share=0.125, canary_share=0.75, mixes=mixes, prompt=BY_PROMPT
    )
    entry = replace(entry, prompt=replace(BY_PROMPT, share=0.4))
    by_prompt = (0.0, 0.25, 0.75)
    found = [propensity(entry, level, b"", b"", by_prompt) for level in range(3)]
    assert sum(found) == pytest.approx(1)
    drawn = 0.875 * 0.75
    assert found[2] == pytest.approx(drawn * (0.4 * 0.75 + 0.6 * 0.25))
    own = propensity(entry, 0, b"clinic", b"", by_prompt)
    assert own == pytest.approx(1)
    priced = BoardMix("clinic", "", (0.5, 0.5, 0.0), BoardPrices((1.0,) * 3, POINTS))
    whole = [
        propensity(replace(entry, mixes=(priced,)), level, b"clinic", b"", by_prompt)
        for level in range(3)
    ]
    assert sum(whole) == pytest.approx(1)
    assert whole[1] == pytest.approx(drawn * (0.4 * 0.25 + 0.6 * 0.5))
    plain = [propensity(entry, level) for level in range(3)]  # weights are not to be had
    assert plain == [propensity(replace(entry, prompt=None), level) for level in range(3)]


def test_a_propensity_is_no_more_than_one():
    """As the control plane has it, which would take none of the others of its report either."""
    entry = replace(policy((1.0, 0.0, 0.0)), prompt=replace(BY_PROMPT, share=1.0))
    assert propensity(entry, 2, b"", b"", (0.0, 0.0, 1.0000000000000002)) == 1.0
