# SPDX-License-Identifier: Apache-2.0
"""The stack's processes besides Triton, as the supervisor sees them."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from sprout.channel import connectable
from sprout.config import ENV_PREFIX, ENV_RESERVED, Config
from sprout.serve import probes
from sprout.serve.engine_process import EngineProcess
from sprout.serve.process import Process
from sprout.serve.state import StackPaths
from sprout.serve.supervisor import Service

CLOCK_STILL_S = 10.0  # agent.tick_s is a tenth of a second by default
AT_WORK_CORES = 0.1  # llama.cpp's server uses about none while it only answers health checks


def child_environment(paths: StackPaths) -> dict[str, str]:
    """This process's, with the settings replaced by the stack's resolved configuration file.

    A SPROUT_* variable would win over the file, and so undo flags that `sprout up` was given.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ENV_PREFIX) or name in ENV_RESERVED
    }
    return env | {"SPROUT_CONFIG": str(paths.config)}


class _Sprout(Service):
    """A process that is a command of Sprout's own."""

    def __init__(self, cfg: Config, paths: StackPaths) -> None:
        self._cfg = cfg
        self._paths = paths

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", "sprout.cli", self.name]

    def environment(self) -> Mapping[str, str]:
        return child_environment(self._paths)


class ControlService(_Sprout):
    name = "control"
    check_interval_s = 5.0
    stop_grace_s = 0.6

    def ready(self, process: Process) -> str | None:
        return probes.control_serving(self._cfg)


class AgentService(_Sprout):
    """Ready when it meters, whether or not it has seen a policy: requests need none."""

    name = "agent"
    stop_grace_s = 1.2  # settles and reports the last flights

    def ready(self, process: Process) -> str | None:
        return probes.clock_ticking(self._paths.shm / "energy.clock", CLOCK_STILL_S)


class EvaluatorService(_Sprout):
    """Asks the control plane whether an evaluation is due. No request waits for it."""

    name = "evaluator"
    stop_grace_s = 0.8  # an answer in flight is let go of; what was judged is on disk

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", "sprout.cli", "evaluate", "watch"]


class EngineService(EngineProcess):
    """The embedded engine: llama.cpp's server in a process of its own."""

    start_timeout_s = 120.0  # a large file from a cold disk
    stop_grace_s = 0.4  # holds nothing that outlives it

    def __init__(self, cfg: Config, paths: StackPaths, model: Path) -> None:
        super().__init__(cfg, paths)
        self._model = model

    @property
    def url(self) -> str:
        return f"http://{connectable(self._cfg.engine.host)}:{self._cfg.engine.port}"

    def command(self) -> Sequence[str]:
        engine = self._cfg.engine
        options = {
            "model": self._model,
            "host": engine.host,
            "port": engine.port,
            "slots": engine.slots,
            "context-tokens": engine.context_tokens,
            "threads": engine.threads,
        }
        flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
        return [sys.executable, "-m", "sprout.engines.llama_cpp", *flags]

    def environment(self) -> Mapping[str, str]:
        return child_environment(self._paths)

    def ready(self, process: Process) -> str | None:
        return probes.http_ok(f"{self.url}/health")

    def silent(self, process: Process) -> str | None:
        """Its server pings its clients while it reads a prompt, so no slot gives up one that takes
        minutes, and our question waits behind it: but then its threads work.
        """
        begun, before_s = time.monotonic(), _cpu_s(process.pid)
        why = super().silent(process)
        worked_s = _cpu_s(process.pid) - before_s
        return None if worked_s > AT_WORK_CORES * (time.monotonic() - begun) else why


def _cpu_s(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:  # it has ended, which is seen elsewhere
        return 0.0
    return float(times.user + times.system)
