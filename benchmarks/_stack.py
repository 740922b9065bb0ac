# SPDX-License-Identifier: Apache-2.0
"""A whole stack for a benchmark, in a folder of its own, and what the result must say of itself."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from _turns import commit

from sprout.config import Config, load
from sprout.serve.background import BackgroundStack

__all__ = ["Stack", "commit", "machine"]


class Stack:
    """`with Stack(folder, engine="echo") as stack:` - up and ready, on free ports."""

    def __init__(
        self,
        work: Path,
        *,
        engine: str,
        repositories: Sequence[Path] = (),
        name: str = "bench",
        **engine_settings: Any,
    ) -> None:
        flags: dict[str, Any] = {
            "stack.name": f"{name}-{os.getpid()}",
            "stack.state_dir": str(work / "state"),
            "triton.http_port": 0,
            "triton.grpc_port": 0,
            "triton.metrics_port": 0,
            "triton.model_repositories": [str(path) for path in repositories],
            "control.port": 0,
            "carbon.sources": "constant",
            "carbon.constant_g_per_kwh": 300.0,
            "engine.kind": engine,
        }
        flags |= {f"engine.{key}": value for key, value in engine_settings.items()}
        self.cfg: Config = load(flags=flags)
        self._background = BackgroundStack(self.cfg)

    def __enter__(self) -> Self:
        self._background.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._background.__exit__(*error)

    def endpoint(self, name: str) -> str:
        """ "host:port" of "http", "grpc", "engine" …"""
        return self._background.endpoint(name)

    @property
    def grpc_port(self) -> int:
        return int(self.endpoint("grpc").rpartition(":")[2])

    @property
    def tokenizer_dir(self) -> Path:
        return next((self._background.paths.state / "tokenizer").iterdir())


def machine() -> str:
    """Processor, cores, system."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    )
