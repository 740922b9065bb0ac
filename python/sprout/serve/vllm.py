# SPDX-License-Identifier: Apache-2.0
"""A local vLLM as a supervised service: its own process, in an environment of its own."""

import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sprout.channel import connectable
from sprout.config import Config
from sprout.serve import deployment, engine, probes
from sprout.serve.process import Process
from sprout.serve.services import child_environment
from sprout.serve.standstill import Standstill
from sprout.serve.state import StackPaths
from sprout.serve.supervisor import Service

# Of our interpreter, or of another server of the user's: they would lead vLLM astray.
_NOT_ITS_OWN = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "VLLM_API_KEY"}
# The model is a local folder: nothing is downloaded, and nothing reported.
_OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
# Python's name for a shared memory segment; vLLM's workers have some of 100 MB and more.
_SEGMENT = re.compile(r"/dev/shm/psm_\w+$", re.MULTILINE)  # noqa: S108
_LOOK_S = 5.0
_SOCKET_BYTES = 107 - 37  # of a socket's path, less the name that vLLM gives it


class VllmService(Service):
    """`vllm serve` on this machine.

    Stands in the engine's place of the stack. It takes as many requests at once as the slot sends,
    so `first_scheduled` is the time at which it began, but for the token budget of a step.
    """

    name = "engine"
    # A start takes minutes, so silence must last half a minute; an end is seen at once.
    check_interval_s = 5.0
    tolerated_failures = 5
    # Its own shutdown of an engine with open streams takes seconds; the kill that follows reaches
    # its workers too, and the driver frees what they held.
    stop_grace_s = 2.0
    # Its health check does not look at what computes. Less than the slot's patience with a stream,
    # after which a request fails and the next one takes its place.
    standstill_s = 100.0

    def __init__(self, cfg: Config, paths: StackPaths) -> None:
        engine.check_vllm(cfg)
        self._cfg = cfg
        self._paths = paths
        self._python = engine.vllm_python(cfg)
        self._model = engine.model_folder(cfg)
        self.start_timeout_s = cfg.engine.vllm_start_timeout_s
        self._sockets = paths.shm / "vllm"
        self._segments: set[Path] = set()
        self._looked = 0.0
        self._standstill = Standstill(paths.shm, self.standstill_s)
        self._hangs: str | None = None

    def prepare(self) -> None:
        self._hangs = None
        self._standstill.reset()
        self._sockets.mkdir(mode=0o700, exist_ok=True)

    def command(self) -> Sequence[str]:
        settings = self._cfg.engine
        options: dict[str, Any] = {
            "host": settings.host,
            "port": settings.port,
            "served-model-name": settings.served_model or self._model.name,
            "max-num-seqs": settings.slots,
            "max-model-len": settings.context_tokens,
            "uvicorn-log-level": "warning",  # a line for each request otherwise
        }
        flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
        serve = ["-m", "vllm.entrypoints.cli.main", "serve", str(self._model)]
        return [str(self._python), *serve, *flags, *settings.vllm_args]

    def environment(self) -> Mapping[str, str]:
        inherited = child_environment(self._paths)
        own = {name: value for name, value in inherited.items() if name not in _NOT_ITS_OWN}
        if len(os.fsencode(self._sockets)) <= _SOCKET_BYTES:
            own |= {"VLLM_RPC_BASE_PATH": str(self._sockets)}
        return _OFFLINE | own  # what the user sets stands

    def cleanup(self) -> None:
        """What a vLLM that was killed can't take away itself."""
        for segment in self._segments:
            segment.unlink(missing_ok=True)
        self._segments.clear()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def ready(self, process: Process) -> str | None:
        here = f"{connectable(self._cfg.engine.host)}:{self._cfg.engine.port}"
        problem = probes.http_ok(f"http://{here}/health")
        # While it starts this is asked ten times a second.
        if problem is None or time.monotonic() - self._looked > _LOOK_S:
            self._looked = time.monotonic()
            self._segments |= segments_of(process.pid)
        return problem

    def check(self, process: Process) -> str | None:
        problem = self.ready(process)
        if problem is None and (still := self._standstill.look()) is not None:
            if (why := deployment.absent(self._cfg)) is None:
                self._standstill.reset()
            else:
                self._hangs = f"hangs: {still}; asked for one by the supervisor: {why}"
        return problem

    def watch(self, process: Process) -> str | None:
        return self._hangs


def segments_of(group: int) -> set[Path]:
    """Shared memory that processes of a group have mapped."""
    found: set[Path] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == group:
                    found |= {Path(name) for name in _SEGMENT.findall((entry / "maps").read_text())}
            except OSError:  # it has ended since
                continue
    return found
