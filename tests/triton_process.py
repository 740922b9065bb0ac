# SPDX-License-Identifier: Apache-2.0
"""A real Triton on a model repository, for tests and benchmarks."""

import os
import secrets
import signal
import subprocess
from pathlib import Path

import httpx
from waiting import PATIENCE_S, wait_for

from sprout.config import Config, TritonConfig
from sprout.serve import bundle, ports
from sprout.serve.triton import find_stubs, remove_leftovers, server_command

START_S = 2 * PATIENCE_S


class TritonProcess:
    """Started and ready; everything that it makes is gone after `stop`."""

    def __init__(self, folder: Path, repository: Path) -> None:
        cfg = Config(triton=TritonConfig(http_port=0, grpc_port=0, metrics_port=0))
        cfg = ports.resolve(cfg, {"triton"})
        parts = bundle.find()
        bundle.install_backend(parts, folder / "backends")
        self._prefix = f"sprout-test-{os.getpid()}-{secrets.token_hex(4)}."
        self.http = f"http://127.0.0.1:{cfg.triton.http_port}"
        self.grpc = f"127.0.0.1:{cfg.triton.grpc_port}"
        self._log = folder / "triton.log"
        command = server_command(
            parts,
            cfg,
            repository=repository,
            backends=folder / "backends",
            region_prefix=self._prefix,
            exit_timeout_s=3,
        )
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=bundle.environment(parts, os.environ),
                start_new_session=True,
            )
        try:
            wait_for(self._ready, START_S, "Triton's readiness")
        except BaseException:
            self.stop()
            raise

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.log()[-6000:]
        try:
            return httpx.get(f"{self.http}/v2/health/ready", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def stubs(self) -> dict[int, int]:
        return find_stubs(self.process.pid)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> list[Path]:
        """Regions that it left behind, though it had time to end by itself."""
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        left = list(Path("/dev/shm").glob(f"{self._prefix}*"))
        remove_leftovers(self._prefix)
        return left
