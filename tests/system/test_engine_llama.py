# SPDX-License-Identifier: Apache-2.0
"""The client against the real engine: llama.cpp's server with SmolLM2."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_fakes import Recorder
from engine_process import EngineProcess
from waiting import PATIENCE_S

from sprout.engines.base import Generation, Reason
from sprout.engines.llama_client import LlamaClient
from sprout.errors import EngineUnavailable, PromptTooLong, RequestError
from sprout.serve.process import wait_gone

pytestmark = [pytest.mark.system, pytest.mark.timeout(480)]

END = 2  # <|im_end|>
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    process = EngineProcess(tmp_path_factory.mktemp("engine"))
    yield process
    process.stop()


@pytest.fixture
def client(engine: EngineProcess) -> Iterator[LlamaClient]:
    client = LlamaClient(engine.url, slots=4, queue=64, context_tokens=1024)
    yield client
    client.close()
    engine.wait_idle()


@pytest.fixture
def prompt(engine: EngineProcess) -> list[int]:
    return engine.tokenize("The capital of")


def ask(client: LlamaClient, ids: list[int], max_tokens: int, **more: Any) -> Recorder:
    recorder = Recorder()
    given = {"request_id": "", "input_ids": np.array(ids, np.int32), "max_tokens": max_tokens}
    client.submit(Generation(**(given | more)), recorder)
    return recorder


def test_greedy_repeats_also_beside_others(client: LlamaClient, prompt: list[int]) -> None:
    alone = ask(client, prompt, 12).wait()
    assert alone.end.output_tokens == len(alone.ids) == 12
    # No token ends an answer unless end_id names one, as stock; so all of them are full.
    together = [ask(client, prompt, 12) for _ in range(4)]
    assert [recorder.wait().ids for recorder in together] == [alone.ids] * 4


def test_streams_token_by_token_over_parallel_slots(client: LlamaClient, prompt: list[int]) -> None:
    recorders = [ask(client, prompt, 24) for _ in range(8)]
    ends = [recorder.wait().end for recorder in recorders]
    assert all(len(recorder.chunks) > 12 for recorder in recorders)
    # The first four decode side by side, the others begin as slots get free.
    assert max(end.first_token_ns for end in ends[:4]) < min(end.last_token_ns for end in ends[:4])
    begun = sorted(end.first_scheduled_ns for end in ends)
    assert begun[4] >= min(end.last_token_ns for end in ends)
    for end in ends:
        assert end.arrival_ns <= end.first_scheduled_ns < end.first_token_ns < end.last_token_ns


def test_seeds(client: LlamaClient, prompt: list[int]) -> None:
    def sample(seed: int | None) -> list[int]:
        return ask(client, prompt, 12, temperature=1.0, seed=seed).wait().ids

    assert sample(7) == sample(7)
    assert sample(7) != sample(8)
    assert sample(None) == sample(0)  # TensorRT-LLM's default seed
    assert sample(2**63 + 5) == sample(2**63 + 5)


def test_top_k_of_one_is_greedy(client: LlamaClient, prompt: list[int]) -> None:
    greedy = ask(client, prompt, 8).wait().ids
    assert ask(client, prompt, 8, top_k=1, temperature=2.0, seed=3).wait().ids == greedy
    assert ask(client, prompt, 8, top_p=1e-6, seed=3).wait().ids == greedy


def test_repetition_penalty_changes_a_loop(client: LlamaClient, engine: EngineProcess) -> None:
    loop = engine.tokenize(" one two" * 12)
    assert set(ask(client, loop, 4).wait().ids) & set(loop)
    assert not set(ask(client, loop, 4, repetition_penalty=9.0).wait().ids) & set(loop)
    assert not set(ask(client, loop, 4, presence_penalty=50.0).wait().ids) & set(loop)
    assert not set(ask(client, loop, 4, frequency_penalty=50.0).wait().ids) & set(loop)


def test_model_ends_by_itself_and_its_end_token_is_left_out(
    client: LlamaClient, engine: EngineProcess
) -> None:
    ids = engine.tokenize(CHAT.format("Say only: yes"))
    answer = ask(client, ids, 200, end_id=END).wait()
    assert answer.end.reason is Reason.END_ID
    assert END not in answer.ids
    assert 0 < len(answer.ids) < 200
    endless = ask(client, ids, len(answer.ids) + 4, end_id=-1).wait()
    assert endless.end.reason is Reason.LENGTH
    assert endless.ids[: len(answer.ids)] == answer.ids


def test_answer_of_zero_tokens(client: LlamaClient, engine: EngineProcess) -> None:
    # A prompt that holds the whole answer already: its first token is the end.
    ids = engine.tokenize(CHAT.format("Say only: yes"))
    answer = ask(client, ids, 200, end_id=END).wait()
    empty = ask(client, ids + answer.ids, 50, end_id=END).wait()
    assert (empty.ids, empty.end.output_tokens) == ([], 0)
    assert empty.end.reason is Reason.END_ID
    assert empty.end.last_token_ns >= empty.end.first_scheduled_ns > 0
    assert empty.end.first_token_ns == 0


def test_another_end_id(client: LlamaClient, prompt: list[int]) -> None:
    full = ask(client, prompt, 12).wait().ids
    end_id = full[5]
    answer = ask(client, prompt, 12, end_id=end_id).wait()
    assert answer.ids == full[: full.index(end_id)]
    assert answer.end.reason is Reason.END_ID


def test_stop_words(client: LlamaClient, engine: EngineProcess, prompt: list[int]) -> None:
    full = ask(client, prompt, 12).wait().ids
    as_ids = ask(client, prompt, 12, stop_words=((full[0], 49_000), tuple(full[3:5]))).wait()
    assert as_ids.ids == full[:5]
    assert as_ids.end.reason is Reason.STOP_WORD
    # Other ids of the same text: what a tokenizer makes of a word that stands alone.
    text = engine.detokenize(full)
    letters = [token for char in text[8:14] for token in engine.tokenize(char)]
    as_text = ask(client, prompt, 12, stop_words=(tuple(letters),)).wait()
    assert as_text.end.reason is Reason.STOP_WORD
    assert as_text.ids == full[: len(as_text.ids)]
    assert text[8:14] in engine.detokenize(as_text.ids)


def test_min_tokens(client: LlamaClient, engine: EngineProcess) -> None:
    ids = engine.tokenize(CHAT.format("Say only: yes"))
    free = ask(client, ids, 200, end_id=END).wait()
    least = len(free.ids) + 6
    answer = ask(client, ids, 200, end_id=END, min_tokens=least).wait()
    assert len(answer.ids) >= least
    assert answer.ids[: len(free.ids)] == free.ids
    assert END not in answer.ids
    bounded = ask(client, ids, least - 3, end_id=END, min_tokens=least).wait()
    assert len(bounded.ids) == least - 3


def test_characters_of_several_tokens_arrive_whole(
    client: LlamaClient, engine: EngineProcess
) -> None:
    ids = engine.tokenize("Party: 🎉🎊 日本語 🎉🎊 日本語 🎉🎊 日本語")
    greedy = {"temperature": 0, "top_k": 1, "repeat_penalty": 1.0, "cache_prompt": False}
    whole = {"prompt": ids, "n_predict": 24, "ignore_eos": True, "return_tokens": True, **greedy}
    expected = engine.post("/completion", whole)["tokens"]  # not streamed: every id is there
    answer = ask(client, ids, 24).wait()
    assert len(answer.ids) > 15
    assert answer.ids == expected[: len(answer.ids)]
    assert "\ufffd" not in engine.detokenize(answer.ids)
    assert "\ufffd" in engine.detokenize(answer.ids[:1])  # they do come in pieces


def test_cancel_frees_the_slot(
    client: LlamaClient, engine: EngineProcess, prompt: list[int]
) -> None:
    recorders = [ask(client, prompt, 900, request_id=f"{n % 2}") for n in range(6)]
    assert all(recorder.begun.wait(PATIENCE_S) for recorder in recorders[:4])
    assert engine.busy_slots() == 4
    assert client.cancel("0") == 3
    assert client.cancel("1") == 3
    for recorder in recorders:
        assert recorder.wait().end.reason is Reason.CANCELLED
    engine.wait_idle()
    assert ask(client, prompt, 2).wait().end.output_tokens == 2


def test_what_does_not_fit_or_exist(client: LlamaClient) -> None:
    too_long = ask(client, [5] * 1000, 100).wait()
    assert isinstance(too_long.error, PromptTooLong)
    assert "1000 tokens" in str(too_long.error)
    assert "at most 1024" in str(too_long.error)
    assert isinstance(ask(client, [49_152], 4).wait().error, RequestError)
    assert ask(client, [5] * 1000, 24).wait(3 * PATIENCE_S).end.output_tokens == 24


# The process.


def test_killed_and_restarted(tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path, slots=2)
    client = LlamaClient(engine.url, slots=2, queue=8, context_tokens=1024, retry_s=PATIENCE_S)
    try:
        ids = engine.tokenize("The capital of")
        expected = ask(client, ids, 8).wait().ids
        streams = [ask(client, ids, 900) for _ in range(2)]
        assert all(stream.begun.wait(PATIENCE_S) for stream in streams)
        engine.process.send_signal(signal.SIGKILL)
        engine.process.wait()
        for stream in streams:
            error = stream.wait().error
            assert isinstance(error, EngineUnavailable)
            assert "went away during" in str(error)
        waiting = ask(client, ids, 8)
        assert not waiting.over.wait(0.2)
        engine.start()
        assert waiting.wait().ids == expected
    finally:
        client.close()
        engine.stop()


def test_sigterm_ends_it_amid_a_stream(tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path, slots=1)
    client = LlamaClient(engine.url, slots=1, queue=8, context_tokens=1024, retry_s=0)
    try:
        stream = ask(client, [5, 6, 7], 900)
        assert stream.begun.wait(PATIENCE_S)
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(PATIENCE_S) == 0
        assert isinstance(stream.wait().error, EngineUnavailable)  # and not its own end
    finally:
        client.close()
        engine.stop()


def test_dies_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; from engine_process import EngineProcess;"
        "e = EngineProcess(pathlib.Path(sys.argv[1]), slots=1);"
        "print(e.process.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert wait_gone(pid, PATIENCE_S), "the engine outlived its parent"


@pytest.mark.parametrize("content", [None, b"junk"])
def test_bad_model_is_an_error_with_its_path(tmp_path: Path, content: bytes | None) -> None:
    model = tmp_path / "model.gguf"
    if content is not None:
        model.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-m", "sprout.engines.llama_cpp", "--model", str(model)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert str(model) in done.stderr
    assert "Traceback" not in done.stderr
