# SPDX-License-Identifier: Apache-2.0
"""llama.cpp's event stream: parsing, lost ids, the token that ends an answer, cuts."""

import asyncio
import json
from typing import Any

import pytest

from sprout.engines.base import Reason
from sprout.engines.events import EventParser, cut, token_ids
from sprout.engines.llama_stream import Tokens
from sprout.errors import EngineError, EngineUnavailable

# Three tokens that make one character, as in SmolLM2's vocabulary.
PARTY = "🎉"
PARTY_IDS = [10813, 232, 227]


def event(text: str, token: int, predicted: int) -> dict[str, Any]:
    return {"content": text, "tokens": [token], "tokens_predicted": predicted, "stop": False}


def last(reason: str, predicted: int) -> dict[str, Any]:
    return {"stop": True, "stop_type": reason, "tokens_predicted": predicted, "tokens": []}


def run(*events: dict[str, Any]) -> tuple[list[list[int]], Reason | None]:
    async def retokenize(text: str) -> list[int]:
        assert text == PARTY
        return PARTY_IDS

    async def detokenize(ids: list[int]) -> str:
        return {(5,): "ab"}[tuple(ids)]

    async def all_of() -> tuple[list[list[int]], Reason | None]:
        tokens = Tokens(retokenize, detokenize)
        return [await tokens.take(e) for e in events], tokens.reason

    return asyncio.run(all_of())


def test_plain_tokens_pass_at_once() -> None:
    assert run(event("a", 1, 1), event("b", 2, 2), last("limit", 2)) == (
        [[1], [2], []],
        Reason.LENGTH,
    )


def test_end_token_is_left_out() -> None:
    assert run(event("a", 1, 1), event("", 2, 2), last("eos", 2)) == ([[1], [], []], Reason.END_ID)


def test_stop_word_stays_in() -> None:
    events = event("a", 1, 1), event("", 8, 2), event("", 9, 3), last("word", 3)
    assert run(*events) == ([[1], [], [8], [9]], Reason.STOP_WORD)


def test_silent_token_in_the_middle() -> None:
    assert run(event("", 4, 1), event("a", 1, 2), last("limit", 2))[0] == [[], [4, 1], []]


def test_ids_inside_a_character_come_back() -> None:
    # The server sends nothing for 10813 and 232; the count jumps from 1 to 4.
    events = event("a", 1, 1), event(PARTY, 227, 4), last("limit", 4)
    assert run(*events) == ([[1], PARTY_IDS, []], Reason.LENGTH)


def test_text_of_a_possible_stop_word_is_not_taken_twice() -> None:
    # 5 is "ab", held back by the server as a possible stop word, then comes with the character.
    events = event("", 5, 1), event("ab" + PARTY, 227, 4), last("limit", 4)
    assert run(*events)[0] == [[], [5, *PARTY_IDS], []]


def test_end_token_after_half_a_character() -> None:
    # The held token is no end: the end token itself was never sent.
    assert run(event("", 4, 1), last("eos", 3))[0] == [[], [4]]


def test_half_a_character_at_the_limit_is_dropped() -> None:
    assert run(event("a", 1, 1), last("limit", 3)) == ([[1], []], Reason.LENGTH)


def read(parser: EventParser, pieces: list[bytes]) -> list[dict[str, Any]]:
    return [event for piece in pieces for event in parser.feed(piece)]


def test_parser_takes_any_pieces() -> None:
    events = [event("a", 1, 1), event("ß", 2, 2), last("limit", 2)]
    wire = b": ping\n\n" + b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events)
    for size in (1, 7, len(wire)):
        parser = EventParser()
        pieces = [wire[at : at + size] for at in range(0, len(wire), size)]
        assert [e for piece in pieces for e in parser.feed(piece)] == events


@pytest.mark.parametrize(
    "wire",
    [
        b'event: completion\ndata: {"n": 1}\n\n',
        b'id: 7\r\nevent: completion\r\ndata: {"n": 1}\r\n\r\n',
        b': ping\ndata: {"n": 1}\nretry: 5\n\n',
        b'data: {"n":\ndata: 1}\n\n',
        b'data:{"n":1}\n\ndata: [DONE]\n\n: ping\n\n\n\n',
    ],
)
def test_parser_finds_the_data_among_other_fields(wire: bytes) -> None:
    for size in (1, len(wire)):
        pieces = [wire[at : at + size] for at in range(0, len(wire), size)]
        assert read(EventParser(), pieces) == [{"n": 1}]


@pytest.mark.parametrize("piece", [b"x" * 65536, b"data: " + b"1" * 1000 + b"\n"])
def test_an_event_without_an_end_is_given_up(piece: bytes) -> None:
    pieces = [piece] * (2 * (1 << 20) // len(piece))
    with pytest.raises(EngineUnavailable, match="more than 1048576 bytes"):
        read(EventParser(), pieces)


def test_many_events_are_no_long_one() -> None:
    parser = EventParser()
    piece = b'data: {"n": "' + b"x" * 65536 + b'"}\n\n: ping\n\n'
    assert sum(len(parser.feed(piece)) for _ in range(40)) == 40


def test_an_event_may_repeat_a_long_prompt() -> None:
    """vLLM's first one does."""
    prompt = [2**31 - 1] * 200_000
    wire = b"data: " + json.dumps({"prompt_token_ids": prompt}).encode() + b"\n\n"
    pieces = [wire[at : at + 65536] for at in range(0, len(wire), 65536)]
    assert len(read(EventParser(len(prompt)), pieces)) == 1
    with pytest.raises(EngineUnavailable):
        read(EventParser(), pieces)


@pytest.mark.parametrize("token", [2**31, 2**63, -1, float("inf"), 1.5, "1", None])
def test_numbers_that_are_no_ids(token: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        token_ids([1, token])
    with pytest.raises(EngineError, match="no completion"):
        run(event("a", token, 1))


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b'event: error\ndata: {"message": "broken"}\n\n', "broken"),
        (b"data: 7\n\n", "no JSON"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "no JSON"),
        (b'data: {"error": {"message": "broken"}}\n\n', "broken"),
        (b'error: {"message": "broken"}\n\n', "broken"),
        (b"data: {nonsense\n\n", "no JSON"),
    ],
)
def test_parser_errors(wire: bytes, message: str) -> None:
    with pytest.raises(EngineUnavailable, match=message):
        EventParser().feed(wire)


def test_cut_at_end_id_leaves_it_out() -> None:
    assert cut([1], [2, 3, 4], 3, ()) == ([2], Reason.END_ID)
    assert cut([3], [2], 3, ()) == ([2], None)


def test_cut_at_stop_word_keeps_it_also_over_chunks() -> None:
    assert cut([1, 5], [6, 7], None, ((5, 6),)) == ([6], Reason.STOP_WORD)
    assert cut([], [5, 6, 7], None, ((9, 9, 9), (6,))) == ([5, 6], Reason.STOP_WORD)
    assert cut([6], [5], None, ((5, 6),)) == ([5], None)
