# SPDX-License-Identifier: Apache-2.0
"""The LLM API engine against its documented surface: keywords, ends, stop, cancel, errors."""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llmapi_double
import numpy as np
import pytest
from engine_fakes import FakeResponder, Recorder, generation
from google.protobuf import text_format
from llmapi_double import EOS, LLM, Plan, SamplingParams
from waiting import PATIENCE_S, wait_for

from sprout.engines.base import Reason
from sprout.engines.llmapi import LlmApi
from sprout.engines.llmapi_load import LlmApiSettings, llm_arguments, load
from sprout.engines.settings import SlotSettings
from sprout.engines.slot import Slot
from sprout.errors import (
    ConfigError,
    EngineBusy,
    EngineUnavailable,
    PrerequisiteError,
    PromptTooLong,
    RequestError,
    UnsupportedOption,
)
from sprout.serve.render import repository_source

SETTINGS = LlmApiSettings(Path("/models/checkpoint"), slots=2, queue=2, context_tokens=512)


@pytest.fixture
def engine() -> Iterator[LlmApi]:
    made = load(SETTINGS, llmapi_double)
    yield made
    made.close()


def llm_of(engine: LlmApi) -> LLM:
    return engine._llm  # type: ignore[no-any-return]


def ask(engine: LlmApi, plan: Plan | None = None, **more: Any) -> Recorder:
    recorder = Recorder()
    if plan is not None:
        llm_of(engine).plans.append(plan)
    engine.submit(generation(**more), recorder)
    return recorder


def asked(engine: LlmApi, **more: Any) -> SamplingParams:
    ask(engine, **more).wait()
    return llm_of(engine).calls[-1].sampling_params


# What goes in.


def test_the_llm_is_started_as_the_slot_says(tmp_path: Path) -> None:
    options = tmp_path / "options.json"
    more = {"load_format": "dummy", "kv_cache_config": {"dtype": "fp8"}}
    options.write_text(json.dumps(more))
    settings = LlmApiSettings(
        Path("/models/checkpoint"),
        tensor_parallel=2,
        slots=16,
        context_tokens=1024,
        reuse=False,
        memory_fraction=0.8,
        options=options,
    )
    made = load(settings, llmapi_double)
    made.close()
    cache = llm_of(made).arguments.pop("kv_cache_config")
    assert llm_of(made).arguments == {
        "model": "/models/checkpoint",
        "tensor_parallel_size": 2,
        "max_batch_size": 16,
        "max_seq_len": 1024,
        "max_input_len": 1024,
        "load_format": "dummy",
    }
    assert (cache.enable_block_reuse, cache.free_gpu_memory_fraction) == (False, 0.8)
    assert cache.dtype == "fp8"
    assert llm_of(made).shut_down == 1


def test_memory_fraction_that_nobody_set_is_the_llms(engine: LlmApi) -> None:
    cache = llm_of(engine).arguments["kv_cache_config"]
    assert (cache.enable_block_reuse, cache.free_gpu_memory_fraction) == (True, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"model": "/other"}', "model is set"),
        ('{"kv_cache_config": {"enable_block_reuse": false}}', "enable_block_reuse is set"),
        ('{"kv_cache_config": 3}', "kv_cache_config is no JSON object"),
        ("[1]", "no JSON object"),
        ("{", "sprout_llmapi_options"),
    ],
)
def test_options_that_can_not_be(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "o").write_text(text)
    settings = LlmApiSettings(Path("/m"), options=tmp_path / "o")
    with pytest.raises(ConfigError, match=message):
        llm_arguments(settings)


def test_llm_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="did not start: RuntimeError: relative is no"):
        load(LlmApiSettings(Path("relative")), llmapi_double)
    (tmp_path / "o").write_text('{"max_batch": 3}')
    with pytest.raises(EngineUnavailable, match="max_batch: extra inputs"):
        load(LlmApiSettings(Path("/m"), options=tmp_path / "o"), llmapi_double)


def test_without_tensorrt_llm_the_containers_are_named() -> None:
    with pytest.raises(PrerequisiteError, match=r"26\.04- to 26\.07-trtllm-python-py3"):
        load(SETTINGS)


def test_prompt_goes_in_as_plain_ids_and_streams(engine: LlmApi) -> None:
    ask(engine).wait()
    call = llm_of(engine).calls[-1]
    assert (call.inputs, call.streaming) == ([1, 2, 3], True)


def test_what_the_client_left_out_is_left_out(engine: LlmApi) -> None:
    expected = SamplingParams(max_tokens=4, end_id=EOS, detokenize=False)
    assert asked(engine) == expected
    assert expected.pad_id == EOS


def test_what_the_client_says_arrives(engine: LlmApi) -> None:
    given = {
        "temperature": 0.5,
        "top_k": 40,
        "top_p": 0.9,
        "seed": 2**63 + 1,
        "min_tokens": 2,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.1,
        "frequency_penalty": -0.1,
    }
    expected = SamplingParams(max_tokens=4, end_id=7, detokenize=False, **given)
    assert asked(engine, end_id=7, **given) == expected
    assert expected.pad_id == 7


def test_temperature_of_zero_is_the_likeliest_token(engine: LlmApi) -> None:
    got = asked(engine, temperature=0.0, top_p=0.5)
    assert (got.temperature, got.top_k, got.top_p) == (None, 1, None)


def test_no_end_id(engine: LlmApi) -> None:
    assert asked(engine, end_id=-1).ignore_eos
    recorder = ask(engine, Plan([[10, EOS], [11]]), end_id=-1).wait()
    assert (recorder.ids, recorder.end.reason) == ([10, EOS, 11], Reason.LENGTH)


def test_end_id_that_nobody_knows(tmp_path: Path) -> None:
    (tmp_path / "o").write_text('{"skip_tokenizer_init": true}')
    engine = load(LlmApiSettings(Path("/m"), options=tmp_path / "o"), llmapi_double)
    assert isinstance(ask(engine).wait().error, RequestError)
    assert ask(engine, end_id=5).wait().end.reason is Reason.LENGTH
    engine.close()


# What comes out.


def test_tokens_arrive_as_they_are_made(engine: LlmApi) -> None:
    recorder = ask(engine, Plan([[10], [11, 12], [13]])).wait()
    assert [chunk.token_ids for chunk in recorder.chunks] == [[10], [11, 12], [13], []]
    end = recorder.end
    assert (end.reason, end.input_tokens, end.output_tokens) == (Reason.LENGTH, 3, 4)
    assert recorder.scheduled == [end.first_scheduled_ns]
    times = end.arrival_ns, end.first_scheduled_ns, end.first_token_ns, end.last_token_ns
    assert list(times) == sorted(times)


@pytest.mark.parametrize("steps", [[[10], [EOS]], [[10, EOS]], [[10]]])
def test_end_id_ends_and_is_left_out(engine: LlmApi, steps: list[list[int]]) -> None:
    """Whether the LLM hands the end id out or not."""
    recorder = ask(engine, Plan(steps, finish="stop")).wait()
    assert (recorder.ids, recorder.end.reason) == ([10], Reason.END_ID)
    assert llm_of(engine).calls[-1].output.aborts == 0


def test_stop_word_of_one_token_is_the_llms_work_and_stays_in(engine: LlmApi) -> None:
    plan = Plan([[10], [11]], finish="stop")
    recorder = ask(engine, plan, stop_words=((11,), (8, 9))).wait()
    assert (recorder.ids, recorder.end.reason) == ([10, 11], Reason.STOP_WORD)
    call = llm_of(engine).calls[-1]
    assert call.sampling_params.stop_token_ids == [11]
    assert call.sampling_params.include_stop_str_in_output
    assert call.output.aborts == 0


def test_stop_word_over_several_steps_ends_and_aborts(engine: LlmApi) -> None:
    plan = Plan([[10, 8], [9, 12], [13]], hold=True)
    recorder = ask(engine, plan, stop_words=((8, 9),)).wait()
    assert (recorder.ids, recorder.end.reason) == ([10, 8, 9], Reason.STOP_WORD)
    call = llm_of(engine).calls[-1]
    assert call.output.aborts == 1
    assert call.sampling_params.stop_token_ids is None


def test_no_more_at_once_than_the_batch(engine: LlmApi) -> None:
    held = [ask(engine, Plan([[10]], hold=True)) for _ in range(2)]
    for recorder in held:
        assert recorder.begun.wait(PATIENCE_S)
    waiting = [ask(engine, request_id="waiting") for _ in range(2)]
    refused = ask(engine).wait()
    assert isinstance(refused.error, EngineBusy)
    assert len(llm_of(engine).calls) == 2
    assert not any(recorder.scheduled for recorder in waiting)
    assert engine.cancel("waiting") == 2
    assert [one.wait().end.reason for one in waiting] == [Reason.CANCELLED] * 2
    assert engine.cancel("") == 2
    assert [one.wait().end.reason for one in held] == [Reason.CANCELLED] * 2
    assert [call.output.aborts for call in llm_of(engine).calls] == [1, 1]
    assert ask(engine).wait().end.reason is Reason.LENGTH


def test_cancel_by_id_and_by_handle(engine: LlmApi) -> None:
    mine = ask(engine, Plan([[10]], hold=True), request_id="a")
    other = Recorder()
    llm_of(engine).plans.append(Plan([[10]], hold=True))
    handle = engine.submit(generation(request_id="b"), other)
    assert mine.begun.wait(PATIENCE_S)
    assert other.begun.wait(PATIENCE_S)
    assert engine.cancel("a") == 1
    assert mine.wait().end.reason is Reason.CANCELLED
    assert not other.over.is_set()
    handle.cancel()
    assert other.wait().end.reason is Reason.CANCELLED
    assert engine.cancel("a") == 0


# What goes wrong.


def test_too_long_a_prompt_never_reaches_the_llm(engine: LlmApi) -> None:
    error = ask(engine, max_tokens=510).wait().error
    assert isinstance(error, PromptTooLong)
    assert "prompt of 3 tokens" in str(error)
    assert "at most 512" in str(error)
    assert not llm_of(engine).calls


def test_values_that_the_llm_refuses_are_the_clients_fault(engine: LlmApi) -> None:
    llm_of(engine).refusal = ValueError("the beam is too wide")
    error = ask(engine).wait().error
    assert isinstance(error, RequestError)
    assert str(error) == "the LLM API refused the request: the beam is too wide"


def test_llm_that_is_gone(engine: LlmApi) -> None:
    llm_of(engine).refusal = RuntimeError("LLM is shutting down")
    error = ask(engine).wait().error
    assert isinstance(error, EngineUnavailable)
    assert str(error) == "the LLM API failed: RuntimeError: LLM is shutting down"


def test_error_under_way_ends_this_request_alone(engine: LlmApi) -> None:
    other = ask(engine, Plan([[10]], hold=True))
    assert other.begun.wait(PATIENCE_S)
    plan = Plan([[10]], error=MemoryError("CUDA out of memory"))
    failed = ask(engine, plan, request_id="x").wait()
    assert failed.ids == [10]
    assert isinstance(failed.error, EngineUnavailable)
    assert "MemoryError: CUDA out of memory" in str(failed.error)
    assert llm_of(engine).calls[-1].output.aborts == 1
    assert not other.over.is_set()


@pytest.mark.parametrize("finish", ["timeout", "cancelled", None])
def test_answer_that_the_llm_gave_up(engine: LlmApi, finish: str | None) -> None:
    error = ask(engine, Plan([[10], [11]], finish=finish)).wait().error
    assert isinstance(error, EngineUnavailable)
    assert str(finish) in str(error)


def test_close_ends_everything_and_the_llm() -> None:
    engine = load(SETTINGS, llmapi_double)
    recorders = [ask(engine, Plan([[10]], hold=True)) for _ in range(4)]
    engine.close()
    for recorder in recorders:
        assert isinstance(recorder.wait().error, EngineUnavailable)
    assert llm_of(engine).shut_down == 1
    assert isinstance(ask(engine).wait().error, EngineUnavailable)
    engine.close()


def test_many_at_once(engine: LlmApi) -> None:
    ends: list[Recorder] = []

    def client() -> None:
        ends.extend(ask(engine, max_tokens=8).wait() for _ in range(20))

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [recorder.ids for recorder in ends] == [list(range(10, 18))] * 80


# In the slot.

SLOT = SlotSettings(
    engine="llmapi",
    llmapi_model=Path("/m"),
    chunk_interval_ms=0,
    chunks_per_s=0,
    cancellation_check_period_ms=5,
)
YES = np.array([True])


@pytest.fixture
def slot(engine: LlmApi) -> Iterator[Slot]:
    made = Slot(SLOT, engine)
    yield made
    made.close()


def send(slot: Slot, request_id: str = "", **more: Any) -> FakeResponder:
    responder = FakeResponder()
    inputs = {
        "input_ids": np.array([[5, 6, 7]], np.int32),
        "input_lengths": np.array([3], np.int32),
        "request_output_len": np.array([4], np.int32),
    }
    slot.accept(request_id, inputs | more, responder)
    return responder


def test_slot_streams(slot: Slot) -> None:
    responder = send(slot, streaming=YES).wait()
    assert responder.ids == [10, 11, 12, 13]
    assert len(responder.sent) > 1
    whole = send(slot).wait()
    assert (whole.ids, len(whole.sent)) == ([10, 11, 12, 13], 1)


def test_slot_stops_by_the_stock_request(slot: Slot, engine: LlmApi) -> None:
    llm_of(engine).plans.append(Plan([[10]], hold=True))
    running = send(slot, "a", streaming=YES)
    wait_for(lambda: bool(running.sent))
    stop = send(slot, "a", stop=YES).wait()
    assert (stop.error, stop.sent) == (None, [{}])
    assert running.wait().ids == [10]
    assert llm_of(engine).calls[-1].output.aborts == 1


def test_slot_lets_go_of_a_client_that_left(slot: Slot, engine: LlmApi) -> None:
    llm_of(engine).plans.append(Plan([[10]], hold=True))
    running = send(slot, streaming=YES)
    wait_for(lambda: bool(running.sent))
    running.cancelled = True
    assert running.wait().abandoned
    assert llm_of(engine).calls[-1].output.aborts == 1


def test_slot_takes_padding_and_the_stock_end_and_refuses_by_name(
    slot: Slot, engine: LlmApi
) -> None:
    send(slot, end_id=np.array([2], np.int32), pad_id=np.array([0], np.int32)).wait()
    assert llm_of(engine).calls[-1].sampling_params.end_id == 2
    words = np.array([[[11, 8, 9], [1, 3, -1]]], np.int32)
    assert send(slot, stop_words_list=words).wait().ids == [10, 11]
    beams = send(slot, beam_width=np.array([2], np.int32)).wait()
    assert isinstance(beams.error, UnsupportedOption)
    assert str(beams.error) == "beam_width = 2: not supported by the llmapi engine"
    long = send(slot, request_output_len=np.array([4000], np.int32)).wait()
    assert isinstance(long.error, PromptTooLong)


def test_every_tensor_has_the_type_that_is_declared(slot: Slot) -> None:
    """As the stock LLM API model did not have it: log probs came as text."""
    pb = pytest.importorskip("tritonclient.grpc").model_config_pb2
    utils = pytest.importorskip("tritonclient.utils")
    text = (repository_source() / "tensorrt_llm" / "config.pbtxt").read_text()
    blanks = {r"max_batch_size: \$\{\w+\}": "max_batch_size: 1", r"\[ \$\{\w+\} \]": "[ 1 ]"}
    blanks |= {r": \$\{decoupled_mode\}": ": true", r"data_type: \$\{\w+\}": "data_type: TYPE_FP32"}
    blanks |= {r"(seconds|size): \$\{\w+\}": r"\1: 0"}
    for pattern, value in blanks.items():
        text = re.sub(pattern, value, text)
    config = text_format.Parse(text, pb.ModelConfig())
    declared = {output.name: output for output in config.output}
    flags = ("return_perf_metrics", "return_num_input_tokens", "return_num_output_tokens")
    more = dict.fromkeys(flags, YES) | {"num_return_sequences": np.array([1], np.int32)}
    responder = send(slot, flight=np.array([9], np.uint64), streaming=YES, **more).wait()
    emitted = {name: array for tensors in responder.sent for name, array in tensors.items()}
    assert len(emitted) >= 10
    for name, array in emitted.items():
        kind = pb.DataType.Name(declared[name].data_type).removeprefix("TYPE_")
        assert utils.np_to_triton_dtype(array.dtype) == kind, name
        assert len(declared[name].dims) == array.ndim - 1, name  # and the batch


def test_slot_that_names_no_model() -> None:
    config = {"parameters": {"sprout_engine": {"string_value": "llmapi"}}}
    with pytest.raises(ConfigError, match="sprout_llmapi_model: missing"):
        SlotSettings.from_model_config(config).make_engine()


def test_slot_reads_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "sprout_engine": "llmapi",
        "sprout_llmapi_model": "/models/c",
        "sprout_llmapi_tensor_parallel": "2",
        "sprout_engine_slots": "16",
        "sprout_engine_queue": "3",
        "sprout_engine_context_tokens": "1024",
        "enable_kv_cache_reuse": "True",
        "kv_cache_free_gpu_mem_fraction": "0.8",
        "sprout_llmapi_options": "${sprout_llmapi_options}",
    }
    seen: list[LlmApiSettings] = []
    monkeypatch.setattr("sprout.engines.settings.load", seen.append)
    parameters = {key: {"string_value": value} for key, value in given.items()}
    SlotSettings.from_model_config({"parameters": parameters}).make_engine()
    assert seen == [
        LlmApiSettings(
            Path("/models/c"),
            tensor_parallel=2,
            slots=16,
            queue=3,
            context_tokens=1024,
            reuse=True,
            memory_fraction=0.8,
            options=None,
        )
    ]
