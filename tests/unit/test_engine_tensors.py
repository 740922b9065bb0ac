# SPDX-License-Identifier: Apache-2.0
"""Tensors of the slot: what is read from a request, what a response holds."""

from typing import Any

import numpy as np
import pytest

from sprout.engines.base import Chunk, End, Reason
from sprout.engines.tensors import Asked, is_stop, parse, response, ticket_of
from sprout.errors import RequestError, UnsupportedOption

END = End(Reason.LENGTH, 3, 2, 10, 20, 30, 40)


def request(**more: Any) -> dict[str, np.ndarray]:
    inputs = {
        "input_ids": np.array([[7, 8, 9]], np.int32),
        "input_lengths": np.array([3], np.int32),
        "request_output_len": np.array([5], np.int32),
    }
    return inputs | more


def asked(**more: Any) -> Asked:
    return parse("llama_cpp", "id", request(**more), True)


def test_least_request() -> None:
    a = asked()
    g = a.generation
    assert g.input_ids.tolist() == [7, 8, 9]
    assert (g.request_id, g.max_tokens) == ("id", 5)
    given = (g.end_id, g.temperature, g.top_k, g.top_p, g.seed, g.min_tokens, g.repetition_penalty)
    assert given == (None,) * 7
    assert (a.ticket, a.streaming, a.echo_input, a.perf_metrics) == (0, False, False, False)


def test_every_option() -> None:
    a = asked(
        streaming=np.array([True]),
        end_id=np.array([2], np.int32),
        temperature=np.array([0.5], np.float32),
        runtime_top_k=np.array([4], np.int32),
        runtime_top_p=np.array([0.75], np.float32),
        seed=np.array([2**63], np.uint64),
        min_tokens=np.array([2], np.int32),
        repetition_penalty=np.array([1.25], np.float32),
        presence_penalty=np.array([0.5], np.float32),
        frequency_penalty=np.array([-0.5], np.float32),
        stop_words_list=np.array([[[5, 6], [1, 2]]], np.int32),
        flight=np.array([2**60], np.uint64),
        return_perf_metrics=np.array([True]),
    )
    g = a.generation
    assert (g.end_id, g.temperature, g.top_k, g.top_p, g.seed) == (2, 0.5, 4, 0.75, 2**63)
    assert (g.min_tokens, g.repetition_penalty) == (2, 1.25)
    assert (g.presence_penalty, g.frequency_penalty) == (0.5, -0.5)
    assert g.stop_words == ((5,), (6,))
    assert (a.ticket, a.streaming, a.perf_metrics) == (2**60, True, True)


def test_padding_is_cut_off_and_memory_is_own() -> None:
    inputs = request(input_lengths=np.array([2], np.int32))
    ids = parse("llama_cpp", "", inputs, True).generation.input_ids
    assert ids.tolist() == [7, 8]
    assert not np.shares_memory(ids, inputs["input_ids"])


def test_zero_and_less_are_unset_for_top_k_and_top_p() -> None:
    a = asked(runtime_top_k=np.array([0], np.int32), runtime_top_p=np.array([-1], np.float32))
    assert (a.generation.top_k, a.generation.top_p) == (None, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input_ids", np.zeros((1, 0), np.int32)),
        ("input_ids", np.zeros((2, 3), np.int32)),
        ("input_ids", np.array([[1, -5, 2]], np.int32)),
        ("input_lengths", np.array([4], np.int32)),
        ("input_lengths", np.array([0], np.int32)),
        ("request_output_len", np.array([0], np.int32)),
        ("request_output_len", np.array([-3], np.int32)),
        ("temperature", np.array([np.nan], np.float32)),
        ("temperature", np.array([-0.5], np.float32)),
        ("runtime_top_p", np.array([1.5], np.float32)),
        ("repetition_penalty", np.array([0.0], np.float32)),
        ("presence_penalty", np.array([np.inf], np.float32)),
        ("end_id", np.array([-2], np.int32)),
        ("seed", np.array([1, 2], np.uint64)),
    ],
)
def test_refused_with_the_tensors_name(name: str, value: np.ndarray) -> None:
    with pytest.raises(RequestError, match=f"^{name}"):
        asked(**{name: value})


def test_missing_prompt() -> None:
    inputs = request()
    del inputs["input_ids"]
    with pytest.raises(RequestError, match=r"^input_ids"):
        parse("echo", "", inputs, True)


def test_batch_is_refused_by_name() -> None:
    with pytest.raises(RequestError, match="batch size 1"):
        asked(input_ids=np.zeros((2, 3), np.int32), input_lengths=np.array([3, 3], np.int32))


def test_unsupported_is_a_request_error() -> None:
    with pytest.raises(UnsupportedOption, match="beam_width = 4"):
        asked(beam_width=np.array([4], np.int32))


def test_stop_and_ticket() -> None:
    assert is_stop({"stop": np.array([True])})
    assert not is_stop({"stop": np.array([False])})
    assert not is_stop({})
    assert ticket_of({}) == 0
    assert ticket_of({"flight": np.array([9], np.uint64)}) == 9
    assert ticket_of({"flight": np.zeros(0, np.uint64)}) == 0


def test_middle_chunk() -> None:
    tensors = response(asked(flight=np.array([77], np.uint64)), Chunk([4, 5]))
    assert tensors["output_ids"].tolist() == [[[4, 5]]]
    assert tensors["sequence_length"].tolist() == [[2]]
    assert tensors["flight"].tolist() == [[77]]
    assert set(tensors) == {"output_ids", "sequence_length", "flight"}


def test_last_chunk_of_a_flight_is_known_by_the_time_behind_its_ticket() -> None:
    tensors = response(asked(flight=np.array([77], np.uint64)), Chunk([4, 5], END))
    assert tensors["flight"].tolist() == [[77, 40]]
    assert set(tensors) == {"output_ids", "sequence_length", "flight"}


def test_indices_for_who_asks_for_sequences() -> None:
    tensors = response(asked(num_return_sequences=np.array([1], np.int32)), Chunk([4]))
    assert tensors["batch_index"].tolist() == tensors["sequence_index"].tolist() == [[0]]


def test_last_chunk_without_tokens() -> None:
    tensors = response(asked(), Chunk([], END))
    assert tensors["output_ids"].shape == (1, 1, 0)
    assert tensors["output_ids"].dtype == np.int32
    assert tensors["sequence_length"].tolist() == [[0]]
    assert tensors["last_token_time_ns"].tolist() == [[40]]
    assert not {"arrival_time_ns", "flight", "num_input_tokens"} & set(tensors)


def test_metrics_when_asked() -> None:
    yes = np.array([True])
    a = asked(return_perf_metrics=yes, return_num_input_tokens=yes, return_num_output_tokens=yes)
    tensors = response(a, Chunk([1, 2], END))
    times = ("arrival", "first_scheduled", "first_token", "last_token")
    assert [int(tensors[f"{name}_time_ns"][0, 0]) for name in times] == [10, 20, 30, 40]
    assert tensors["num_input_tokens"].tolist() == [[3]]
    assert tensors["num_output_tokens"].tolist() == [[2]]
    assert tensors["arrival_time_ns"].dtype == np.int64


def test_prompt_leads_only_where_asked_and_not_when_streaming() -> None:
    no = np.array([False])
    tensors = response(asked(exclude_input_in_output=no), Chunk([1], END))
    assert tensors["output_ids"].tolist() == [[[7, 8, 9, 1]]]
    assert tensors["sequence_length"].tolist() == [[4]]
    streaming = asked(exclude_input_in_output=no, streaming=np.array([True]))
    assert response(streaming, Chunk([1], END))["output_ids"].tolist() == [[[1]]]
    by_parameter = parse("echo", "", request(), False)
    assert response(by_parameter, Chunk([1], END))["sequence_length"].tolist() == [[4]]
