# SPDX-License-Identifier: Apache-2.0
"""Stacks of real processes for tests: on free ports, in temporary folders, gone afterwards."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sprout.config import Config, load
from sprout.serve.background import BackgroundStack

MakeConfig = Callable[..., Config]


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory: what holds prompts is made nowhere else."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="sprout-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def stack_config(tmp_path_factory: pytest.TempPathFactory) -> MakeConfig:
    """Makes the configuration of one more stack: a name, then settings as `section__key=value`."""
    made = 0

    def make(name: str, **settings: object) -> Config:
        nonlocal made
        made += 1
        flags: dict[str, object] = {
            "stack.name": f"{name}-{os.getpid()}-{made}",
            "stack.state_dir": tmp_path_factory.mktemp(name) / "state",
            "triton.http_port": 0,
            "triton.grpc_port": 0,
            "triton.metrics_port": 0,
            "control.port": 0,
            "control.control_share": 0,
            "carbon.sources": "constant",
            "carbon.constant_g_per_kwh": 300,
            "energy.meters": "cpu_model",  # the same joules whatever this machine has
            "engine.kind": "echo",
            "engine.slots": 8,
        }
        own = {key.replace("__", "."): value for key, value in settings.items()}
        return load(environ={}, flags=flags | own)

    return make


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the default weights; made once."""
    from sprout.serve import gguf, weights

    return gguf.tokenizer_dir(weights.default_weights(), tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def stack(stack_config: MakeConfig, tokenizer_dir: Path) -> Iterator[BackgroundStack]:
    """A whole stack with the echo engine."""
    with BackgroundStack(stack_config("echo", engine__tokenizer_dir=tokenizer_dir)) as running:
        yield running


@pytest.fixture(scope="module")
def real_stack(stack_config: MakeConfig, tokenizer_dir: Path) -> Iterator[BackgroundStack]:
    """A whole stack with llama.cpp and the default weights."""
    cfg = stack_config(
        "real",
        engine__kind="llama_cpp",
        engine__slots=4,
        engine__threads=1,  # spinning threads crawl where they share a core with other tests
        engine__tokenizer_dir=tokenizer_dir,
    )
    with BackgroundStack(cfg) as running:
        yield running
