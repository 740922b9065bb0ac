# SPDX-License-Identifier: Apache-2.0
"""Triton as a supervised service, with a readiness of our own.

Triton's is not enough: a Python stub that dies is never restarted, its requests hang, and server
and model still say ready (seen on 2.51). So the stubs' pids are watched and a canary goes through
the whole chain. Whatever is found dead, the server is killed with its group, which ends open
streams with UNAVAILABLE at once, and started again.
"""

import logging
import os
import secrets
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sprout.channel import connectable
from sprout.config import Config
from sprout.serve import bundle, probes
from sprout.serve.process import Process, log_tail, start_time
from sprout.serve.render import BLS_THREAD_POOL, placeholder_values, render, repository_source
from sprout.serve.services import child_environment
from sprout.serve.standstill import at_work
from sprout.serve.state import StackPaths, evaluate_token_file, write_private
from sprout.serve.supervisor import Service

log = logging.getLogger(__name__)

_REGIONS = Path("/dev/shm")  # noqa: S108 - where Triton's Python backend puts its regions
_REGION_BYTES = 4 << 20  # per stub at first; a prompt or answer that needs more lets it grow
_GROWTH_BYTES = 1 << 20
_STUB = "triton_python_backend_stub"
# How a canary ends where the engine may be the reason.
_THE_ENGINES = (probes.Canary.REFUSED, probes.Canary.SILENT)


class TritonService(Service):
    """One tritonserver on a freshly rendered repository."""

    name = "triton"
    stop_grace_s = 2.4
    tolerated_failures = 0  # a canary that fails has been patient already
    check_interval_s = 10.0

    def __init__(
        self,
        cfg: Config,
        paths: StackPaths,
        *,
        engine_url: str,
        tokenizer_dir: Path,
        engine_ready: Callable[[], bool] = lambda: True,
        canary_timeout_s: float = 15.0,
    ) -> None:
        self._cfg = cfg
        self._paths = paths
        self._engine_url = engine_url
        self._tokenizer_dir = tokenizer_dir
        self._engine_ready = engine_ready
        self._canary_timeout_s = canary_timeout_s
        self._bundle = bundle.find()
        self._stubs: dict[int, int] = {}  # pid → start time
        self._prefix = ""
        self._token = ""
        self.start_timeout_s = cfg.triton.start_timeout_s
        # Bounded: the grace must leave room for the others within the stack's 5 s.
        self._exit_timeout_s = min(cfg.triton.exit_timeout_s, int(self.stop_grace_s))

    @property
    def url(self) -> str:
        return f"http://{connectable(self._cfg.triton.host)}:{self._cfg.triton.http_port}"

    @property
    def stubs(self) -> list[int]:
        """Pids of the Python stubs that serve."""
        return list(self._stubs)

    def prepare(self) -> None:
        self._stubs = {}
        self._prefix = f"{self._paths.region_prefix}{secrets.token_hex(4)}."
        self._token = secrets.token_hex(16)
        write_private(self._paths.probe_token, self._token)
        if self._cfg.evaluate.schedule.token_file is None:
            write_private(self._paths.evaluate_token, secrets.token_hex(16))
        bundle.install_backend(self._bundle, self._backends)
        values = placeholder_values(
            self._cfg,
            engine_url=self._engine_url,
            tokenizer_dir=self._tokenizer_dir,
            probe_token_file=self._paths.probe_token,
            evaluate_token_file=evaluate_token_file(self._cfg),
        )
        render(repository_source(), self._repository, values)

    @property
    def _backends(self) -> Path:
        return self._paths.triton / "backends"

    @property
    def _repository(self) -> Path:
        return self._paths.triton / "repository"

    def command(self) -> Sequence[str]:
        return server_command(
            self._bundle,
            self._cfg,
            repository=self._repository,
            backends=self._backends,
            region_prefix=self._prefix,
            exit_timeout_s=self._exit_timeout_s,
        )

    def environment(self) -> Mapping[str, str]:
        return bundle.environment(self._bundle, child_environment(self._paths))

    def ready(self, process: Process) -> str | None:
        problem = probes.http_ok(f"{self.url}/v2/health/ready")
        if problem is not None:
            return problem
        stubs = find_stubs(process.pid)
        how, said = probes.canary(self.url, self._token, self._canary_timeout_s)
        # Triton can't heal an engine that is away or hangs: it is ready to say so.
        if how is not probes.Canary.OK and not self._for_the_engine(how):
            return f"canary {how}: {said}"
        self._stubs = stubs
        return None

    def check(self, process: Process) -> str | None:
        before = progress(self._paths.shm)
        how, said = probes.canary(self.url, self._token, self._canary_timeout_s)
        if how in (probes.Canary.OK, probes.Canary.REFUSED):
            return None
        # A canary that waits behind other requests is no sign of death while those move on.
        if how is probes.Canary.SILENT and (
            progress(self._paths.shm) != before or self._for_the_engine(how)
        ):
            return None
        return f"canary {how}: {said}"

    def _for_the_engine(self, how: probes.Canary) -> bool:
        """Whether a canary may have ended so for the engine's sake: one that hangs is restarted by
        itself, and one that reads a prompt for long is waited for by its slot.
        """
        if how is probes.Canary.SILENT and at_work(self._paths.shm):
            return True
        return how in _THE_ENGINES and not self._engine_ready()

    def watch(self, process: Process) -> str | None:
        for pid, started in self._stubs.items():
            if start_time(pid) != started:
                return f"lost a Python stub (process {pid})"
        return None

    def last_words(self, log: Path) -> str:
        """The errors of the last start: what Triton says at the very end is that it ends."""
        lines = log_tail(log, lines=400, limit_bytes=1 << 17).splitlines()
        marks = ("failed to load '", "error: ", "Failed to initialize Python stub")
        found = [line[:600] for line in lines if any(mark in line for mark in marks)]
        return "\n".join(found[-6:]) or log_tail(log)

    def cleanup(self) -> None:
        self._stubs = {}
        remove_leftovers(self._prefix)


def server_command(
    parts: bundle.Bundle,
    cfg: Config,
    *,
    repository: Path,
    backends: Path,
    region_prefix: str,
    exit_timeout_s: int,
) -> list[str]:
    """Command line of the server. No response cache: it would freeze a directive drawn once."""
    triton = cfg.triton
    addresses = [
        argument
        for kind, port in (
            ("http", triton.http_port),
            ("grpc", triton.grpc_port),
            ("metrics", triton.metrics_port),
        )
        for argument in (f"--{kind}-address={triton.host}", f"--{kind}-port={port}")
    ]
    return [
        str(parts.server),
        f"--model-repository={repository}",
        *(f"--model-repository={path}" for path in triton.model_repositories),
        f"--backend-directory={backends}",
        "--disable-auto-complete-config",
        "--model-control-mode=none",
        "--strict-readiness=true",
        f"--exit-timeout-secs={exit_timeout_s}",
        *addresses,
        f"--backend-config=python,shm-region-prefix-name={region_prefix}",
        f"--backend-config=python,shm-default-byte-size={_REGION_BYTES}",
        f"--backend-config=python,shm-growth-byte-size={_GROWTH_BYTES}",
        f"--backend-config=python,thread-pool-size={BLS_THREAD_POOL}",
    ]


def find_stubs(server_pid: int) -> dict[int, int]:
    """Python stubs that are children of a server: pid → start time."""
    found = {}
    try:
        children = Path(f"/proc/{server_pid}/task").glob("*/children")
        pids = [int(pid) for file in children for pid in file.read_text().split()]
    except OSError:
        return {}
    for pid in pids:
        started = start_time(pid)
        if started is not None and _STUB in _command_line(pid):
            found[pid] = started
    return found


def remove_leftovers(region_prefix: str) -> None:
    """Kills stubs that outlived their server and unlinks its regions, by their own prefix."""
    if not region_prefix:
        return
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            command = _command_line(int(entry.name))
            if _STUB in command and region_prefix in command:
                log.warning("triton: killing orphaned stub %s", entry.name)
                try:
                    os.kill(int(entry.name), signal.SIGKILL)
                except ProcessLookupError:
                    continue
    for region in _REGIONS.glob(f"{region_prefix}*"):
        region.unlink(missing_ok=True)


def _command_line(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf8", "replace")
        )
    except OSError:
        return ""


def progress(shm: Path) -> int:
    """A number that grows while requests move through the chain."""
    from sprout_ext.ledger import Counter, segments  # noqa: PLC0415 - compiled; see probes

    moving = [Counter.CHUNKS, Counter.DELIVERED, Counter.ENGINE_FAILED]
    return sum(int(segment.counters()[moving].sum()) for segment in segments(shm))
