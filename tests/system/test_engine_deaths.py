# SPDX-License-Identifier: Apache-2.0
"""The engine that a stack started dies or hangs under load: every way that vLLM has, and what a
client sees of it. Triton, agent, control plane and supervisor are real; in vLLM's place stands a
server that behaves as its (tests/vllm_double.py). A real one: tests/gpu/test_stack_vllm.py.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import vllm_double
from engine_load import (
    ClockWatch,
    Load,
    balanced,
    endings,
    engine,
    wait_begun,
    wait_clean,
    wait_replaced,
)
from outcomes import settled
from waiting import wait_for

from sprout.config import Config
from sprout.serve.background import BackgroundStack

pytestmark = [pytest.mark.system, pytest.mark.timeout(480)]

BACK_S = 300.0  # a core that hangs behind its server is given 150 s


@pytest.fixture(scope="module")
def stack(
    stack_config: Callable[..., Config],
    tokenizer_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[BackgroundStack]:
    folder = tmp_path_factory.mktemp("vllm")
    model = folder / "a-model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    cfg = stack_config(
        "deaths",
        engine__kind="vllm",
        engine__model=model,
        engine__tokenizer_dir=tokenizer_dir,
        engine__vllm_python=vllm_double.interpreter(folder, token_s=0.02, life_s=400.0),
        engine__slots=4,
        engine__context_tokens=512,
        agent__abandoned_after_s=1.0,
        agent__report_interval_s=0.2,
    )
    with BackgroundStack(cfg) as running:
        yield running


@pytest.mark.parametrize(
    ("blow", "words", "problem"),
    [
        (signal.SIGKILL, "went away during the", "was killed by SIGKILL"),
        (signal.SIGUSR1, "EngineCore encountered an issue", "ended with status 0"),
        (signal.SIGSTOP, "went away during the", "/health: ReadTimeout"),
        (signal.SIGUSR2, "hangs: ReadTimeout", "hangs: no token for"),
    ],
    ids=["killed", "its core died", "hangs", "its core hangs"],
)
def test_every_request_ends_by_name_and_service_comes_back(
    stack: BackgroundStack, blow: signal.Signals, words: str, problem: str
) -> None:
    settled(stack)
    before = endings(stack)
    process = engine(stack)
    victim, restarts = int(str(process["pid"])), int(str(process["restarts"]))
    triton = stack.state()["processes"]["triton"]["pid"]
    with ClockWatch(stack), Load(stack, clients=6, max_tokens=40) as load:
        wait_begun(stack)
        at = time.monotonic()
        try:
            os.kill(victim, blow)
            wait_replaced(stack, victim, BACK_S)
            back = time.monotonic()
            wait_for(lambda: load.answered_since(back) >= 12, what="answers afterwards")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGCONT)
    print(f"\n{blow.name}: {load.said(at)}")
    # Of those that were decoding, no more: the others waited for its return.
    assert 1 <= len(load.errors) <= 4
    assert all(words in text for _, text in load.errors)
    after = engine(stack)
    assert int(str(after["restarts"])) == restarts + 1
    assert problem in str(after["problem"])
    assert stack.state()["processes"]["triton"]["pid"] == triton
    wait_clean(stack)
    found = endings(stack) - before
    assert found == {"delivered": len(load.answers), "failed": len(load.errors)}
    assert all(a.receipt and a.receipt.energy_joules >= 0 for _, a in load.answers)
    assert balanced(stack)
