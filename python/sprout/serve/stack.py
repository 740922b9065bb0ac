# SPDX-License-Identifier: Apache-2.0
"""One stack: control plane, agent, engine and Triton on this machine, up and down together."""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sprout
from sprout.channel import connectable
from sprout.config import Config
from sprout.errors import ConfigError, StackError
from sprout.serve import deployment, engine, ports, reaper, weights
from sprout.serve.process import start_time, wait_gone
from sprout.serve.services import (
    AgentService,
    ControlService,
    EngineService,
    EvaluatorService,
)
from sprout.serve.state import (
    StackLock,
    StackPaths,
    dump_toml,
    lock_owner,
    remove_shared_memory,
    write_private,
    write_stack,
)
from sprout.serve.supervisor import Phase, Service, Supervisor
from sprout.serve.triton import TritonService, remove_leftovers
from sprout.serve.vllm import VllmService

log = logging.getLogger(__name__)

DOWN_TIMEOUT_S = 10.0
_NOBODY = -1  # no session's number
PROCESSES = ("control", "agent", "engine", "triton", "evaluator")  # in the order of their start


class Stack:
    """`run` brings it up, keeps it up and returns after SIGINT, SIGTERM or `stop`."""

    def __init__(
        self,
        cfg: Config,
        *,
        processes: Sequence[str] = PROCESSES,
        on_change: Callable[["Stack"], None] = lambda _: None,
    ) -> None:
        """processes: all of them, or ("triton",) for the server under its watch alone."""
        self.cfg = cfg
        self.paths = StackPaths.of(cfg)
        self._processes = processes
        self._whole = set(processes) == set(PROCESSES)
        self._on_change = on_change
        self._supervisor: Supervisor | None = None
        self._stopping = False
        self._started = datetime.now(UTC)

    @property
    def ready(self) -> bool:
        return self._supervisor is not None and self._supervisor.ready

    def stop(self) -> None:
        """Safe on any thread and in a signal handler."""
        self._stopping = True
        if self._supervisor is not None:
            self._supervisor.request_stop()

    def run(self) -> None:
        """On the main thread. Raises StackError, PrerequisiteError, ConfigError."""
        self._refuse_external()
        self.paths.ensure()
        with StackLock(self.paths, whole=self._whole), self._signals():
            clean_stale(self.paths, self._processes)
            if self._whole:
                self.paths.stack_json.unlink(missing_ok=True)
            try:
                self.cfg = ports.resolve(self.cfg, self._processes)
                self._write_config()
                supervisor = Supervisor(self._services(), self.paths, on_change=self._changed)
                self._supervisor = supervisor
                if not self._stopping:
                    supervisor.run()
            finally:
                self._clear()

    # --- parts -------------------------------------------------------------------------------

    def _write_config(self) -> None:
        stack = self.cfg.stack.model_copy(
            update={"state_dir": self.paths.state, "shm_dir": self.paths.shm}
        )
        resolved = self.cfg.model_copy(update={"stack": stack})
        write_private(self.paths.config, dump_toml(resolved))

    def _services(self) -> list[Service]:
        cfg, paths = self.cfg, self.paths
        makers: dict[str, Callable[[], Service | None]] = {
            "control": lambda: ControlService(cfg, paths),
            "agent": lambda: AgentService(cfg, paths),
            "engine": self._engine,
            "triton": self._triton,
            "evaluator": self._evaluator,
        }
        made = [makers[name]() for name in PROCESSES if name in self._processes]
        return [service for service in made if service is not None]

    def _refuse_external(self) -> None:
        if self.cfg.engine.kind == "external" and {"engine", "triton"} & set(self._processes):
            raise ConfigError(
                'engine.kind = "external" is for an engine that is started elsewhere; this command '
                f"starts Triton for one that its slot speaks to: {', '.join(engine.DIALECTS)}"
            )

    def _engine(self) -> Service | None:
        """None where it runs elsewhere, or in the slot."""
        if self.cfg.engine.kind == "llama_cpp":
            return EngineService(self.cfg, self.paths, weights.model_path(self.cfg))
        if self.cfg.engine.kind == "vllm":
            return VllmService(self.cfg, self.paths)
        return None

    def _triton(self) -> Service:
        return TritonService(
            self.cfg,
            self.paths,
            engine_url=engine.address(self.cfg),
            tokenizer_dir=engine.tokenizer_dir(self.cfg),
            engine_ready=self._engine_ready,
        )

    def _evaluator(self) -> Service | None:
        if self.cfg.evaluate.schedule.rule == "off":
            return None
        return EvaluatorService(self.cfg, self.paths)

    def _engine_ready(self) -> bool:
        """Whether it would answer; asked where a request through Triton was not answered."""
        units = self._supervisor.units if self._supervisor else []
        own = [unit for unit in units if unit.service.name == "engine"]
        if any(unit.phase is not Phase.READY or unit.bad_checks for unit in own):
            return False
        return self.cfg.engine.kind == "echo" or deployment.absent(self.cfg) is None

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        before = {
            signum: signal.signal(signum, lambda *_: self.stop())
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    # --- what others see ---------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """The content of `stack.json`."""
        cfg = self.cfg
        units = self._supervisor.units if self._supervisor else []
        now, wall = time.monotonic(), time.time()
        return {
            "name": cfg.stack.name,
            "version": sprout.__version__,
            "pid": os.getpid(),
            "started_at": self._started.isoformat(timespec="seconds"),
            "ready": self.ready,
            "engine": cfg.engine.kind,
            "endpoints": {
                "http": f"{connectable(cfg.triton.host)}:{cfg.triton.http_port}",
                "grpc": f"{connectable(cfg.triton.host)}:{cfg.triton.grpc_port}",
                "metrics": f"{connectable(cfg.triton.host)}:{cfg.triton.metrics_port}",
                "control": f"{connectable(cfg.control.host)}:{cfg.control.port}",
                "engine": engine.place(cfg),
            },
            "processes": {
                u.service.name: {
                    "phase": str(u.phase),
                    "pid": u.process.pid if u.process else None,
                    "since": round(wall - (now - u.since), 1),
                    "restarts": u.restarts,
                    "problem": u.problem if u.restarts or u.phase is Phase.BACKOFF else "",
                    "stubs": u.service.stubs if isinstance(u.service, TritonService) else [],
                }
                for u in units
            },
        }

    def _changed(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        if self._whole:
            write_stack(self.paths, self.describe())
        self._on_change(self)

    def _clear(self) -> None:
        self.paths.probe_token.unlink(missing_ok=True)
        self.paths.evaluate_token.unlink(missing_ok=True)
        remove_leftovers(self.paths.region_prefix)
        if self._whole:  # else the agent's, which is not ours to stop
            self.paths.stack_json.unlink(missing_ok=True)
            remove_shared_memory(self.paths)


def clean_stale(paths: StackPaths, processes: Sequence[str] = PROCESSES) -> None:
    """What a supervisor that was killed may have left. The caller holds the stack's lock."""
    ours = f"SPROUT_CONFIG={paths.config}".encode()
    for file in map(paths.pid, processes):
        if not file.exists():
            continue
        text = file.read_text().strip()
        pid = int(text) if text.isdigit() else _NOBODY
        output = paths.log(file.stem).resolve()
        # A pid may have been given to somebody else's process since; and ours may be gone while its
        # children go on, which are known by its log.
        if reaper.look(pid) and ours not in _environ(pid).split(b"\0"):
            pid = _NOBODY
        own = reaper.family(pid, output)
        if pid in own or any(reaper.writes(member, output) for member in own):
            log.warning("killing %s (%s) of a supervisor that is gone", file.stem, sorted(own))
            if left := reaper.kill(pid, output):
                log.warning("%s: SIGKILL does not end %s", file.stem, sorted(left))
        file.unlink(missing_ok=True)
    remove_leftovers(paths.region_prefix)


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def down(cfg: Config, timeout_s: float = DOWN_TIMEOUT_S) -> bool:
    """Asks the supervisor to stop and waits. False if there was none. Raises StackError."""
    paths = StackPaths.of(cfg)
    pid = lock_owner(paths)
    if pid is None:
        return False
    started = start_time(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if started is not None and not wait_gone(pid, timeout_s):
        raise StackError(f"the supervisor (process {pid}) did not end within {timeout_s:g} s")
    return True
