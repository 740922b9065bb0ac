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
from sprout.serve import engine, probes
from sprout.serve.engine_process import EngineProcess
from sprout.serve.process import Process, log_tail
from sprout.serve.services import child_environment
from sprout.serve.state import StackPaths

# Of our interpreter, or of another server of the user's: they would lead vLLM astray.
_NOT_ITS_OWN = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "VLLM_API_KEY"}
# The model is a local folder: nothing is downloaded, and nothing reported.
_OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
# Python's name for a shared memory segment; vLLM's workers have some of 100 MB and more.
_SEGMENT = re.compile(r"/dev/shm/psm_\w+$", re.MULTILINE)  # noqa: S108
# "(EngineCore pid=3703) ERROR 11-25 13:19:00 [core.py:1108] text": who, how bad, what. A traceback
# that was not logged has no level.
_LINE = re.compile(r"(\([^)]*pid=\d+\) )?(?:([A-Z]+) \d\d-\d\d [\d:]+ \[[^]]*\] )?(.*)")
_RAISED = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception)(?:: .*)?")
_SERVER = "(APIServer "
_WORDS = 8  # lines of what was raised, and of each message three more
_LOOK_S = 5.0
_SOCKET_BYTES = 107 - 37  # of a socket's path, less the name that vLLM gives it


class VllmService(EngineProcess):
    """`vllm serve` on this machine.

    Stands in the engine's place of the stack. It takes as many requests at once as the slot sends,
    so `first_scheduled` is the time at which it began, but for the token budget of a step.
    """

    # A start takes minutes, so silence must last half a minute; an end is seen at once.
    check_interval_s = 5.0
    tolerated_failures = 5
    # Its own shutdown of an engine with open streams takes seconds; the kill that follows reaches
    # its workers too, and the driver frees what they held.
    stop_grace_s = 2.0

    def __init__(self, cfg: Config, paths: StackPaths) -> None:
        engine.check_vllm(cfg)
        super().__init__(cfg, paths)
        self._python = engine.vllm_python(cfg)
        self._model = engine.model_folder(cfg)
        self.start_timeout_s = cfg.engine.vllm_start_timeout_s
        self._sockets = paths.shm / "vllm"
        self._segments: set[Path] = set()
        self._looked = 0.0

    def prepare(self) -> None:
        super().prepare()
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

    def last_words(self, log: Path) -> str:
        """What its processes raised, the cause first: at the very end stands only that it lies
        above, with the server's own traceback between."""
        tail = log_tail(log, lines=4000, limit_bytes=1 << 18)
        return "\n".join(raised(tail.splitlines())[-_WORDS:]) or log_tail(log)


def raised(lines: Sequence[str]) -> list[str]:
    """Each thing once that was raised in the last start, with the process that raised it."""
    parts = [match for line in lines if (match := _LINE.fullmatch(line))]
    servers = [who for match in parts if (who := match[1] or "").startswith(_SERVER)]
    begun = [match[1] for match in parts].index(servers[-1]) if servers else 0
    found: dict[str, list[str]] = {}
    more: list[str] | None = None  # of the message before
    for match in parts[begun:]:
        who, level, text = match.groups("")
        if level in ("", "ERROR", "CRITICAL") and _RAISED.fullmatch(text):
            more = [] if text in found else found.setdefault(text, [f"{who}{text}"[:600]])
        elif more is not None and text.startswith(" ") and len(more) < 4:
            more.append(f"{who}{text}"[:600])
        else:
            more = None
    return [line for words in found.values() for line in words]


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
