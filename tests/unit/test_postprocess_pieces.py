# SPDX-License-Identifier: Apache-2.0
"""Answers of an engine that can't echo a flight, in pieces: spaces between words stay."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models

from sprout.request.detokenize import Detokenizer
from sprout.request.postprocess import Postprocessor
from sprout.request.settings import Parameters, PostprocessSettings

WORDS = ["▁The", "▁sky", "▁is", "▁blue", ".", "<0xE6>", "<0x97>", "<0xA5>"]


def detokenizer() -> Detokenizer:
    """As Llama-2's."""
    made = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(WORDS)}, merges=[]))
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return Detokenizer(made.to_str())


def chunk(*ids: int, ticket: int = 0, last: bool = False) -> dict[str, np.ndarray]:
    tensors = {
        "TOKENS_BATCH": np.array([[ids]], np.int32),
        "SEQUENCE_LENGTH": np.array([[len(ids)]], np.int32),
    }
    if ticket:
        tensors["FLIGHT"] = np.array([[ticket, 5] if last else [ticket]], np.uint64)
    return tensors


def texts(made: Postprocessor, *chunks: dict[str, np.ndarray], ids: list[str]) -> list[str]:
    results = made.process(chunks, ids)
    return [result["OUTPUT"].item().decode() for result in results]  # type: ignore[index]


ANSWER = chunk(0), chunk(1), chunk(2, 3), chunk(4)


def test_pieces_under_an_id_join_to_the_text() -> None:
    made = Postprocessor(detokenizer(), pieces=True)
    assert texts(made, *ANSWER, ids=["a"] * 4) == ["The", " sky", " is blue", "."]
    # Two at once, in one batch.
    mixed = texts(made, chunk(0), chunk(0), chunk(1), chunk(1), ids=["b", "c", "b", "c"])
    assert mixed == ["The", "The", " sky", " sky"]


@pytest.mark.parametrize("before", [[], ["a"]])
def test_id_that_says_nothing_costs_a_space_at_the_beginning(before: list[str]) -> None:
    made = Postprocessor(detokenizer(), pieces=True)
    for request_id in before:
        texts(made, chunk(0), ids=[request_id])
    ids = (before or [""]) * 4
    assert "".join(texts(made, *ANSWER, ids=ids)) == " The sky is blue."


def test_whole_answers_of_a_coupled_engine_are_as_before() -> None:
    made = Postprocessor(detokenizer())
    assert texts(made, chunk(0, 1), chunk(0, 1), ids=[]) == ["The sky", "The sky"]


def test_streams_with_a_ticket_are_as_before() -> None:
    made = Postprocessor(detokenizer(), pieces=True)
    chunks = chunk(0, ticket=7), chunk(5, ticket=7), chunk(6, 7, 1, ticket=7, last=True)
    assert texts(made, *chunks, ids=[""] * 3) == ["The", "", "日 sky"]


def test_ids_are_forgotten_in_time() -> None:
    made = Postprocessor(detokenizer(), pieces=True, max_streams=2)
    for request_id in "abc":
        texts(made, chunk(0), ids=[request_id])
    assert texts(made, chunk(0), chunk(0), ids=["a", "c"]) == ["The", " The"]


def test_parameter() -> None:
    for given, want in (("True", True), ("False", False), ("${decoupled_mode}", False)):
        values = {"tokenizer_dir": "/t", "sprout_pieces": given}
        config = {"parameters": {k: {"string_value": v} for k, v in values.items()}}
        parameters = Parameters.of_model(json.dumps(config))
        assert PostprocessSettings.read(parameters, "postprocessing_0_0").pieces is want
