# SPDX-License-Identifier: Apache-2.0
"""A whole stack that starts vLLM on a GPU and meters it with NVML: receipts, and every way to die.

    VLLM_PYTHON=/opt/vllm/bin/python python -m pytest -s tests/gpu/test_stack_vllm.py

The GPU is the first one that CUDA would have (CUDA_VISIBLE_DEVICES is heeded). It need not be
idle, but what else runs on it is metered too. With `-s` it prints what clients saw of each death,
and when. The same without a GPU, with a stand-in for vLLM: tests/system/test_engine_deaths.py.
"""

import contextlib
import json
import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vllm_model import ABSENT, PYTHON, START_S, make

from sprout.config import Config
from sprout.energy.nvml import NvmlMeter, listed
from sprout.errors import PrerequisiteError

pytest.importorskip("tritonclient.grpc")

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
from outcomes import settled, status
from waiting import wait_for

from sprout.serve.background import BackgroundStack
from sprout.serve.client import Client
from sprout.serve.doctor_gpus import VISIBLE, gpu_meter, visible
from sprout.serve.finding import Mark

try:
    SEEN = visible(list(listed()), os.environ.get(VISIBLE))
    NvmlMeter(SEEN[:1]).close()
    NO_GPU = "" if SEEN else f"{VISIBLE} shows no GPU"
except PrerequisiteError as error:
    SEEN, NO_GPU = [], str(error)

pytestmark = [
    *(pytest.mark.gpu, pytest.mark.system, pytest.mark.timeout(900)),
    pytest.mark.skipif(bool(ABSENT or NO_GPU), reason=ABSENT or NO_GPU),
]

SLOTS, CLIENTS, TOKENS = 16, 20, 200
# So large that a token takes a while, so small that it starts soon.
SHAPE = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
}


@pytest.fixture(scope="module")
def stack(
    stack_config: Callable[..., Config],
    tokenizer_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[BackgroundStack]:
    model = make(tmp_path_factory.mktemp("model") / "llama-shaped", tokenizer_dir, **SHAPE)
    cfg = stack_config(
        "gpu",
        engine__kind="vllm",
        engine__model=model,
        engine__vllm_python=PYTHON,
        engine__vllm_args=(
            *("--load-format", "dummy", "--enforce-eager"),
            *("--gpu-memory-utilization", "0.3"),
        ),
        engine__slots=SLOTS,
        engine__context_tokens=1024,
        energy__meters="nvml",
        energy__gpus=(SEEN[0],),
        agent__abandoned_after_s=1.0,
        agent__report_interval_s=0.2,
    )
    with BackgroundStack(cfg, start_timeout_s=START_S) as running:
        yield running


def core(stack: BackgroundStack) -> int:
    """Pid of vLLM's engine core: the process that computes, beside the one that serves."""
    group = int(str(engine(stack)["pid"]))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                named = (entry / "cmdline").read_bytes() + (entry / "comm").read_bytes()
                if os.getpgid(int(entry.name)) == group and b"EngineCore" in named:
                    return int(entry.name)
    pytest.fail("vLLM has no process that calls itself EngineCore")


def metered(stack: BackgroundStack) -> dict[str, object]:
    """What the agent's meter holds of NVML's counters."""
    found: dict[str, object] = json.loads((stack.paths.shm / "meter.json").read_text())
    return found


def test_receipts_are_nvml_s_joules_of_that_gpu(stack: BackgroundStack) -> None:
    limit_watts = NvmlMeter(SEEN[:1]).prior_watts
    with Client(stack.endpoint("grpc")) as client:
        answers = [
            client.ask("Tell me about the sea.", max_tokens=200, options={"min_tokens": 200})
            for _ in range(4)
        ]
    for answer in answers:
        assert answer.output_tokens == 200
        assert answer.receipt is not None
        assert 0 < answer.receipt.energy_joules < 1.5 * limit_watts * answer.seconds
        assert answer.receipt.carbon_g > 0
    assert balanced(stack)
    [node] = status(stack).nodes
    assert re.match(r"nvml \(1 x .+\)$", node.meter)
    assert (node.energy_estimated, node.meter_problem) == (False, "")
    parts = metered(stack)["parts"]
    assert isinstance(parts, dict)
    assert list(parts) == ["nvml"]
    assert list(parts["nvml"]["counters"]) == SEEN[:1]
    [finding] = gpu_meter(stack.cfg)
    assert (finding.mark, SEEN[0] in finding.found) == (Mark.OK, True)
    sample = answers[-1]
    assert sample.receipt is not None
    print(f"\n{sample.receipt.energy_joules:.1f} J in {sample.seconds:.2f} s, alone; {node.meter}")


def test_the_sum_of_receipts_is_the_node_s_energy_under_load(stack: BackgroundStack) -> None:
    settled(stack)
    [before] = status(stack).nodes
    with ClockWatch(stack), Load(stack, clients=CLIENTS, max_tokens=TOKENS) as load:
        wait_for(lambda: len(load.answers) >= 3 * CLIENTS, what="answers")
    assert load.errors == []
    assert balanced(stack)
    [after] = status(stack).nodes
    given = math.fsum(a.receipt.energy_joules for _, a in load.answers if a.receipt)
    node = after.settled_joules - before.settled_joules
    print(f"\nreceipts {given:.1f} J, settled {node:.1f} J, {len(load.answers)} answers")
    # Receipts are read before the last tick of their flight; outcomes are exact (`balanced`).
    assert given == pytest.approx(node, rel=0.05)


@pytest.mark.parametrize(
    ("whom", "blow", "words"),
    [
        ("core", signal.SIGKILL, ("EngineCore", "went away during the")),
        ("server", signal.SIGKILL, ("went away during the",)),
        ("server", signal.SIGSTOP, ("went away during the",)),
    ],
    ids=["core killed", "server killed", "all stopped"],
)
def test_every_request_ends_by_name_and_receipts_go_on(
    stack: BackgroundStack, whom: str, blow: signal.Signals, words: tuple[str, ...]
) -> None:
    settled(stack)
    before = endings(stack)
    process = engine(stack)
    victim, restarts = int(str(process["pid"])), int(str(process["restarts"]))
    triton = stack.state()["processes"]["triton"]["pid"]
    limit_watts = NvmlMeter(SEEN[:1]).prior_watts
    with ClockWatch(stack), Load(stack, clients=CLIENTS, max_tokens=TOKENS) as load:
        wait_begun(stack)
        at = time.monotonic()
        if blow is signal.SIGSTOP:
            os.killpg(victim, blow)
        else:
            os.kill(core(stack) if whom == "core" else victim, blow)
        wait_replaced(stack, victim, START_S)
        back = time.monotonic()
        wait_for(lambda: load.answered_since(back) >= 2 * CLIENTS, what="answers afterwards")
    print(f"\n{whom} {blow.name}: back after {back - at:.1f} s, {load.said(at)}")
    known = (*words, "no engine at", "cut the answer off", "slots are decoding")
    assert load.errors
    assert all(any(word in text for word in known) for _, text in load.errors), load.said(at)
    after = engine(stack)
    assert int(str(after["restarts"])) > restarts
    assert after["problem"]
    # A hung engine is no reason to end Triton, and the streams that wait in it.
    assert stack.state()["processes"]["triton"]["pid"] == triton
    wait_clean(stack)
    found = endings(stack) - before
    assert found["delivered"] == len(load.answers)
    assert set(found) == {"delivered", "failed"}
    for _, answer in load.answers:
        assert answer.receipt is not None
        # Of those that waited for its return, too: nobody gets the joules of the time between.
        assert 0 < answer.receipt.energy_joules < 1.5 * limit_watts * answer.seconds
    assert balanced(stack)
    [node] = status(stack).nodes
    assert (node.meter_problem, node.active) == ("", 0)
