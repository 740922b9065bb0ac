# SPDX-License-Identifier: Apache-2.0
"""Never worse than without us: each process killed under load, and what a client sees of it.

Every test names what is killed and what must follow. The processes are real.
"""

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from outcomes import open_flights, settled
from waiting import PATIENCE_S, wait_for

from sprout.config import Config
from sprout.errors import EngineError, EngineUnavailable, RequestError
from sprout.serve.background import BackgroundStack
from sprout.serve.client import Answer, Client, Receipt
from sprout_ext.ledger import COUNTERS, segments

MakeConfig = Callable[..., Config]

pytestmark = [pytest.mark.system, pytest.mark.timeout(480)]

PROMPT = "Tell me about the sea."


# What the tests wait for must not take its usual, unhurried time.
HASTE = {
    "control__interval_s": 0.5,
    "agent__abandoned_after_s": 1.0,
    "agent__report_interval_s": 0.2,
}


@pytest.fixture(scope="module")
def echo(stack_config: MakeConfig, tokenizer_dir: Path) -> Iterator[BackgroundStack]:
    """A stack with the echo engine at 50 tokens/s: a stream lasts as long as it is asked."""
    cfg = stack_config(
        "fail", engine__tokenizer_dir=tokenizer_dir, engine__echo_tokens_per_s=50.0, **HASTE
    )
    with BackgroundStack(cfg) as stack:
        yield stack


def pid(stack: BackgroundStack, name: str) -> int:
    return int(stack.state()["processes"][name]["pid"] or 0)


def kill(pid_: int) -> None:
    os.kill(pid_, signal.SIGKILL)


def ask(stack: BackgroundStack, text: str = PROMPT, **options: object) -> Answer:
    with Client(stack.endpoint("grpc")) as client:
        return client.ask(text, **{"max_tokens": 8, **options})  # type: ignore[arg-type]


def serves(stack: BackgroundStack) -> bool:
    with contextlib.suppress(EngineError):
        return ask(stack, timeout_s=30).output_tokens > 0
    return False


def counters(stack: BackgroundStack) -> dict[str, int]:
    """Of the living stubs, summed."""
    total = np.zeros(32, np.uint64)
    for segment in segments(stack.paths.shm):
        total += segment.counters()
    return dict(zip(COUNTERS, total.tolist(), strict=False))


class Load:
    """Clients that ask one after the other until the block ends; keeps what they got."""

    def __init__(self, stack: BackgroundStack, clients: int = 3, max_tokens: int = 5) -> None:
        self._stack, self._clients, self._max_tokens = stack, clients, max_tokens
        self._stop = threading.Event()
        self.answers: list[Answer] = []
        self.errors: list[str] = []

    def _client(self) -> None:
        with Client(self._stack.endpoint("grpc")) as client:
            while not self._stop.is_set():
                try:
                    answer = client.ask(PROMPT, max_tokens=self._max_tokens, timeout_s=PATIENCE_S)
                    self.answers.append(answer)
                except EngineError as error:
                    self.errors.append(str(error))

    def __enter__(self) -> "Load":
        self._threads = [threading.Thread(target=self._client) for _ in range(self._clients)]
        for thread in self._threads:
            thread.start()
        wait_for(lambda: len(self.answers) >= self._clients, what="first answers")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


# --- control plane and agent: clients notice nothing ------------------------------------------


def test_control_plane_killed_no_request_fails_and_no_outcome_is_lost(
    echo: BackgroundStack,
) -> None:
    before = settled(echo)
    with Load(echo) as load_:
        victim = pid(echo, "control")
        kill(victim)
        wait_for(
            lambda: pid(echo, "control") not in (victim, 0) and echo.state()["ready"],
            what="control back",
        )
        during = len(load_.answers)
        wait_for(lambda: len(load_.answers) > during + 5, what="answers after")
    assert load_.errors == []
    assert all(answer.receipt is not None for answer in load_.answers)
    # Every answer's outcome arrives, and none twice: the count is exact.
    assert settled(echo) - before == len(load_.answers)


def test_agent_killed_no_request_fails_and_no_outcome_is_lost(echo: BackgroundStack) -> None:
    before = settled(echo)
    with Load(echo) as load_:
        for _ in range(2):
            victim = pid(echo, "agent")
            kill(victim)
            wait_for(
                lambda v=victim: pid(echo, "agent") not in (v, 0) and echo.state()["ready"],
                what="agent back",
            )
    assert load_.errors == []
    assert settled(echo) - before == len(load_.answers)


def test_expired_policy_serves_l0_and_says_so(
    stack_config: MakeConfig, tokenizer_dir: Path
) -> None:
    """ttl 2 s, control plane stopped (SIGSTOP): answers go on at L0, fallbacks are counted."""
    cfg = stack_config("ttl", engine__tokenizer_dir=tokenizer_dir, control__ttl_s=2.0, **HASTE)
    with BackgroundStack(cfg) as stack:
        receipts: list[Receipt] = []

        def version() -> int:
            """Of the policy that served one more request."""
            receipt = ask(stack).receipt
            assert receipt is not None
            receipts.append(receipt)
            return receipt.policy_version

        wait_for(lambda: version() > 0, what="policy")
        control = pid(stack, "control")
        os.kill(control, signal.SIGSTOP)
        try:
            # Looked at in the answer itself: a supervisor replaces what does not answer it.
            wait_for(lambda: version() == 0, what="expiry")
            assert receipts[-1].level == 0
            assert counters(stack)["policy_expired"] >= 1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(control, signal.SIGCONT)
        wait_for(lambda: version() > 0, what="a policy again")


# --- engine ------------------------------------------------------------------------------------


def test_engine_killed_idle_is_served_after_its_restart(real_stack: BackgroundStack) -> None:
    assert serves(real_stack)
    victim = pid(real_stack, "engine")
    kill(victim)
    # The next request may wait for the restart, but it is served.
    answer = ask(real_stack, timeout_s=PATIENCE_S)
    assert answer.output_tokens > 0
    assert pid(real_stack, "engine") != victim


def test_engine_killed_busy_ends_streams_with_a_clear_error(real_stack: BackgroundStack) -> None:
    started, errors = threading.Barrier(4, timeout=PATIENCE_S), []

    def stream() -> None:
        first = threading.Event()

        def on_text(_: str) -> None:
            if not first.is_set():
                first.set()
                started.wait()

        try:
            ask(
                real_stack,
                "Count from one to five hundred.",
                max_tokens=600,
                on_text=on_text,
                options={"min_tokens": 500},
                timeout_s=2 * PATIENCE_S,
            )
        except EngineError as error:
            errors.append(str(error))

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(stream) for _ in range(3)]
        started.wait()
        victim = pid(real_stack, "engine")
        kill(victim)
        for future in futures:
            future.result(PATIENCE_S)
    assert len(errors) == 3
    assert all("engine" in error for error in errors)
    wait_for(lambda: serves(real_stack), what="service after the engine's death")
    wait_for(lambda: open_flights(real_stack) == 0, what="no flight leaked")


# --- Triton's stubs ----------------------------------------------------------------------------


def stub_of(stack: BackgroundStack, model: str) -> int:
    """Pid of a model's stub: its name stands in the stub's command line."""
    for stub in stack.state()["processes"]["triton"]["stubs"]:
        arguments = Path(f"/proc/{stub}/cmdline").read_bytes().split(b"\0")
        if any(f"/{model}/".encode() in argument for argument in arguments):
            return int(stub)
    pytest.fail(f"no stub of {model}")


@pytest.mark.parametrize(
    "model", ["preprocessing", "tensorrt_llm", "postprocessing", "tensorrt_llm_bls"]
)
def test_stub_killed_service_is_back(echo: BackgroundStack, model: str) -> None:
    """Open streams end with UNAVAILABLE, Triton is restarted, service is back."""
    ended: list[Exception] = []
    first = threading.Event()

    def stream() -> None:
        try:
            ask(echo, max_tokens=6000, on_text=lambda _: first.set(), timeout_s=2 * PATIENCE_S)
        except EngineError as error:
            ended.append(error)

    thread = threading.Thread(target=stream)
    thread.start()
    assert first.wait(PATIENCE_S)
    kill(stub_of(echo, model))
    thread.join(PATIENCE_S)  # the stream itself would take twice as long
    assert not thread.is_alive(), "the stream hangs"
    assert [type(error) for error in ended] == [EngineUnavailable]
    wait_for(lambda: serves(echo), what="service")
    wait_for(lambda: open_flights(echo) == 0, what="flights of the dead are reclaimed")
    wait_for(lambda: bool(echo.state().get("ready")), what="ready again")


# --- cancellation --------------------------------------------------------------------------------


def test_200_streams_a_third_cancelled_through_the_ensemble(echo: BackgroundStack) -> None:
    """What an ensemble can't stop runs to its end and is counted; nothing leaks."""
    before = settled(echo)

    def one(index: int) -> bool:
        with Client(echo.endpoint("grpc")) as client:
            if index % 3:
                return client.ask(PROMPT, max_tokens=40, timeout_s=120).output_tokens == 40
            with contextlib.suppress(EngineError):
                # Gives up after its time, which closes and cancels the stream.
                client.ask(PROMPT, max_tokens=40, timeout_s=0.4)
            return True

    with ThreadPoolExecutor(200) as pool:
        assert all(pool.map(one, range(200)))
    assert 133 <= settled(echo) - before <= 200  # who gave up may have come to nothing
    assert serves(echo)


def test_200_streams_a_third_cancelled_on_the_engine(echo: BackgroundStack) -> None:
    """There a cancel arrives: exactly those are stopped, the others end whole."""
    settled(echo)
    before = counters(echo)["engine_cancelled"]

    def one(index: int) -> int:
        """Tokens that came."""
        # A stream to be cancelled must not end by itself, however late its cancel is.
        tokens = 20_000 if index % 3 == 0 else 60
        ends: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with grpcclient.InferenceServerClient(echo.endpoint("grpc")) as client:
            client.start_stream(lambda result, error: ends.put((result, error)))
            client.async_stream_infer(
                "tensorrt_llm", engine_inputs(tokens), enable_empty_final_response=True
            )
            came = ends.get(timeout=120)[0].as_numpy("output_ids").size
            if index % 3 == 0:
                client.stop_stream(cancel_requests=True)
                return 0
            while came < tokens:
                came += ends.get(timeout=120)[0].as_numpy("output_ids").size
            client.stop_stream()
            return came

    with ThreadPoolExecutor(200) as pool:
        came = list(pool.map(one, range(200)))
    assert came == [0 if index % 3 == 0 else 60 for index in range(200)]
    wait_for(lambda: counters(echo)["engine_cancelled"] - before == 67, what="67 stopped")
    assert serves(echo)


def engine_inputs(tokens: int) -> list[grpcclient.InferInput]:
    given = {
        "input_ids": np.array([[1, 2, 3]], np.int32),
        "input_lengths": np.array([[3]], np.int32),
        "request_output_len": np.array([[tokens]], np.int32),
        "streaming": np.array([[True]]),
    }
    made = []
    for name, array in given.items():
        tensor = grpcclient.InferInput(
            name, array.shape, "BOOL" if array.dtype == bool else "INT32"
        )
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


# --- hostile requests ---------------------------------------------------------------------------


def test_repeated_and_empty_request_ids_are_served_each_on_its_own(echo: BackgroundStack) -> None:
    before = settled(echo)
    ids = ["", "7", "7", "", "7", "x" * 500] * 4

    def one(request_id: str) -> Answer:
        return ask(echo, request_id=request_id, max_tokens=10)

    with ThreadPoolExecutor(len(ids)) as pool:
        answers = list(pool.map(one, ids))
    assert len({answer.text for answer in answers}) <= 3  # one per level
    assert all(answer.output_tokens == 10 and answer.receipt for answer in answers)
    assert settled(echo) - before == len(ids)  # one outcome each


def test_a_prompt_of_a_megabyte_fails_alone_with_the_limit(
    echo: BackgroundStack, real_stack: BackgroundStack
) -> None:
    with (
        Load(echo, clients=2) as load_,
        pytest.raises(RequestError, match="limit is 1048576"),
    ):
        ask(echo, "a " * (1 << 19) + "b")
    assert load_.errors == []
    # Within the limit of bytes, beyond that of tokens.
    with pytest.raises(RequestError, match="at most 2048 tokens"):
        ask(real_stack, "a " * (1 << 18))


@pytest.mark.parametrize(
    ("name", "array", "dtype"),
    [
        ("max_tokens", np.array([[5, 6]], np.int32), "INT32"),
        ("max_tokens", np.array([[5]], np.int64), "INT64"),
        ("temperature", np.array([[np.nan]], np.float32), "FP32"),
        ("beam_width", np.array([[4]], np.int32), "INT32"),
        ("unheard_of", np.array([[1]], np.int32), "INT32"),
        ("stop_words", np.array([[b"\xff"]], object), "BYTES"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_malformed_tensors_fail_by_name(
    echo: BackgroundStack, name: str, array: np.ndarray, dtype: str
) -> None:
    given = {"text_input": (np.array([[b"Hi"]], object), "BYTES")}
    given["max_tokens"] = (np.array([[2]], np.int32), "INT32")
    given[name] = (array, dtype)
    tensors = []
    for key, (value, kind) in given.items():
        tensor = grpcclient.InferInput(key, value.shape, kind)
        tensor.set_data_from_numpy(value)
        tensors.append(tensor)
    ends: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with grpcclient.InferenceServerClient(echo.endpoint("grpc")) as client:
        client.start_stream(lambda result, error: ends.put((result, error)))
        client.async_stream_infer("ensemble", tensors)
        _, error = ends.get(timeout=PATIENCE_S)
        client.stop_stream()
    assert error is not None
    assert name in error.message()
    assert serves(echo)
