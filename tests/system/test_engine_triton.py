# SPDX-License-Identifier: Apache-2.0
"""The `tensorrt_llm` model in a real Triton, in front of the real engine."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from engine_process import EngineProcess
from triton_slot import Stream, TritonSlot, prompt
from waiting import wait_for

from sprout_ext.ledger import Counter, Phase, Role, Segment, SegmentReader, segments

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    process = EngineProcess(tmp_path_factory.mktemp("engine"))
    yield process
    process.stop()


@pytest.fixture(scope="module")
def shm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shm")


@pytest.fixture(scope="module")
def slot(
    engine: EngineProcess, shm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonSlot]:
    parameters = {
        "sprout_engine": "llama_cpp",
        "sprout_engine_url": engine.url,
        "sprout_engine_slots": "4",
        "sprout_engine_queue": "28",
        "sprout_engine_context_tokens": "1024",
        "sprout_shm_dir": str(shm),
        "sprout_node_id": "7",
    }
    slot = TritonSlot(tmp_path_factory.mktemp("triton"), parameters)
    yield slot
    slot.stop()
    assert slot.process.returncode == 0


@pytest.fixture
def ids(engine: EngineProcess) -> list[int]:
    return engine.tokenize("The capital of")


def engine_counter(shm: Path, counter: Counter) -> int:
    [reader] = [reader for reader in segments(shm) if reader.role == Role.ENGINE]
    return int(reader.counters()[counter])


def test_streaming(slot: TritonSlot, ids: list[int]) -> None:
    began_ns = time.monotonic_ns()
    asked = prompt(ids, 24, return_perf_metrics=True, return_num_output_tokens=True)
    answer = Stream(slot, asked).finish()
    assert answer.error is None
    assert len(answer.ids) == 24
    assert len(answer.results) > 3
    for result in answer.results:
        assert result.as_numpy("output_ids").shape[:2] == (1, 1)
        length = result.as_numpy("sequence_length")
        assert length.tolist() == [[result.as_numpy("output_ids").size]]
        assert result.as_numpy("flight") is None
    ends = [result.as_numpy("last_token_time_ns") is not None for result in answer.results]
    assert ends == [False] * (len(ends) - 1) + [True]
    names = ("arrival", "first_scheduled", "first_token", "last_token")
    times = [int(answer.last(f"{name}_time_ns")[0, 0]) for name in names]
    assert times == sorted(times)
    assert began_ns <= times[0]
    assert times[-1] <= time.monotonic_ns()
    assert answer.last("num_output_tokens").tolist() == [[24]]


def test_not_streaming_is_one_response_of_the_same_tokens(slot: TritonSlot, ids: list[int]) -> None:
    streamed = Stream(slot, prompt(ids, 10)).finish()
    whole = Stream(slot, prompt(ids, 10, streaming=False)).finish()
    assert len(whole.results) == 1
    assert whole.ids == streamed.ids
    echoed = Stream(slot, prompt(ids, 10, streaming=False, exclude_input_in_output=False)).finish()
    assert echoed.ids == ids + whole.ids


def test_stop_request(slot: TritonSlot, engine: EngineProcess, ids: list[int]) -> None:
    running = Stream(slot, prompt(ids, 900), request_id="stop-me")
    running.next()
    # As stock has it: the same id, an empty prompt.
    stop = {"input_ids": np.zeros((1, 1), np.int32), "input_lengths": 0, "request_output_len": 0}
    assert Stream(slot, stop | {"stop": True}, request_id="stop-me").finish().error is None
    answer = running.finish()
    assert answer.error is None
    assert answer.last("last_token_time_ns") is not None
    assert 0 < len(answer.ids) < 900
    engine.wait_idle()
    error = Stream(slot, stop | {"stop": True}).finish().error
    assert "request ID is not provided" in str(error)


def test_client_that_goes_away_frees_the_slot(
    slot: TritonSlot, engine: EngineProcess, shm: Path, ids: list[int]
) -> None:
    before = engine_counter(shm, Counter.ENGINE_CANCELLED)
    streams = [Stream(slot, prompt(ids, 900)) for _ in range(4)]
    for stream in streams:
        stream.next()
    assert engine.busy_slots() == 4
    for stream in streams:
        stream.cancel()
    engine.wait_idle()
    # Not exactly: cancels of a test before may be counted late.
    wait_for(lambda: engine_counter(shm, Counter.ENGINE_CANCELLED) >= before + 4)


def test_32_streams_with_a_third_cancelled(
    slot: TritonSlot, engine: EngineProcess, ids: list[int]
) -> None:
    expected = Stream(slot, prompt(ids, 12)).finish().ids
    streams = [Stream(slot, prompt(ids, 12), request_id=str(n // 2)) for n in range(32)]
    for stream in streams[::3]:
        stream.cancel()
    for number, stream in enumerate(streams):
        if number % 3:
            answer = stream.finish()
            assert answer.error is None
            assert answer.ids == expected
    engine.wait_idle()
    assert Stream(slot, prompt(ids, 12)).finish().ids == expected


def test_busy_names_the_limit(slot: TritonSlot, ids: list[int]) -> None:
    streams = [Stream(slot, prompt(ids, 900)) for _ in range(33)]
    # 4 slots and a queue of 28: which of them comes last is Triton's own business.
    refused: list[Stream] = []

    def one_is_refused() -> bool:
        answered = [stream for stream in streams if not stream._events.empty()]
        refused.extend(one for one in answered if (one.next(), one.answer.error)[1])
        return bool(refused)

    wait_for(one_is_refused)
    [stream] = refused
    error = stream.finish().error
    assert "queue of 28 is full" in str(error)
    for stream in streams:
        if not stream.over:
            stream.cancel()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"beam_width": 2}, "beam_width = 2: not supported by the llama_cpp engine"),
        ({"return_log_probs": True}, "return_log_probs"),
        ({"request_output_len": 0}, "request_output_len: 0, must be at least 1"),
        ({"request_output_len": 5000}, "together at most 1024 tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"end_id": 60_000}, "outside the vocabulary"),
        ({"bad_words_list": np.array([[[5], [1]]], np.int32)}, "bad_words_list"),
        ({"stop_words_list": np.array([[[5], [7]]], np.int32)}, "stop_words_list"),
        ({"input_ids": np.zeros((1, 0), np.int32), "input_lengths": 0}, "input_ids: empty"),
    ],
)
def test_errors_by_name(
    slot: TritonSlot, ids: list[int], more: dict[str, object], said: str
) -> None:
    error = Stream(slot, prompt(ids, 4) | more).finish().error
    assert said in str(error)


def test_batch_of_two_is_refused_by_name(slot: TritonSlot) -> None:
    two = np.array([[4], [4]], np.int32)
    inputs = {"input_lengths": two, "request_output_len": two}
    error = Stream(slot, {"input_ids": np.ones((2, 3), np.int32)} | inputs).finish().error
    assert "batch size 1" in str(error)


def test_flight_is_echoed_and_marked(slot: TritonSlot, shm: Path, ids: list[int]) -> None:
    segment = Segment.create(shm, Role.PREPROCESSING, 0, 7, 8)
    try:
        ticket = segment.open_flight(
            level=0,
            flags=0,
            policy_version=0,
            policy_seed=0,
            sequence=0,
            task=b"",
            input_tokens=len(ids),
            max_tokens=6,
            opened_ns=time.monotonic_ns(),
            intensity_g_per_kwh=float("nan"),
            pue=1.0,
            embodied_g_per_s=0.0,
        )
        answer = Stream(slot, prompt(ids, 6, flight=ticket)).finish()
        marks = [r.as_numpy("flight")[0].tolist() for r in answer.results]
        assert marks[:-1] == [[ticket]] * (len(marks) - 1)
        [row] = SegmentReader(segment.path).scan()
        assert Phase(row["phase"]) is Phase.FINISHED
        assert row["output_tokens"] == 6
        assert marks[-1] == [ticket, row["last_token_ns"]]  # the end is known by its time
        assert answer.last("last_token_time_ns") is None  # nobody asked for metrics
    finally:
        segment.close(unlink=True)


def test_one_stub_serves_it_all(slot: TritonSlot) -> None:
    assert len(slot.stubs()) == 1
    assert "Traceback" not in slot.log()
