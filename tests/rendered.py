# SPDX-License-Identifier: Apache-2.0
"""Rendered deployments for tests: the stock tool on them, and a real Triton with another engine."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from string import Template

import httpx

from sprout.config import Config, TritonConfig, load
from sprout.serve import bundle, ports
from sprout.serve.render import repository_source
from sprout.serve.triton import remove_leftovers, server_command
from sprout.serve.trtllm.deployment import Deployment, Engine
from sprout.serve.trtllm.write import write

START_S = 90.0


def rendered(folder: Path, engine: Engine, **fields: object) -> Path:
    """The model repository of a deployment in `folder`, named node-1."""
    cfg = load(environ={}, flags={"agent.node": "node-1"})
    write(cfg, Deployment(engine, **fields), folder / engine)  # type: ignore[arg-type]
    return folder / engine / "model_repository"


def fill_template(text: str, substitutions: str) -> str:
    """What the stock tool does, written again: it takes backslashes away twice, so that a comma in
    a value is \\, and a colon is two backslashes before it."""
    values = {"max_queue_size": "0", "max_queue_delay_microseconds": "0"}
    for pair in _split(substitutions, ","):
        key, value = _split(pair, ":")
        assert key in text, f"key '{key}' does not exist in the file"
        values[key] = value
    return Template(text).safe_substitute(values)


def _split(text: str, delimiter: str) -> list[str]:
    """At each delimiter without a backslash; the backslash goes, what follows it stays."""
    return [re.sub(r"\\(.)", r"\1", part) for part in re.split(rf"(?<!\\){delimiter}", text)]


def put_in_the_slot(repository: Path, substitutions: str, model: str | None = None) -> None:
    """Another engine in the slot, and nothing else: model.py (default: Sprout's own), the backend
    and unset parameters, filled by the stock tool."""
    slot = repository / "tensorrt_llm"
    if model is None:
        shutil.copy(repository_source() / "tensorrt_llm" / "1" / "model.py", slot / "1")
    else:
        (slot / "1" / "model.py").write_text(model)
    config = slot / "config.pbtxt"
    text = config.read_text().replace('backend: "tensorrtllm"', 'backend: "python"')
    config.write_text(fill_template(text, substitutions))


def move(repository: Path, folders: Mapping[str, Path]) -> None:
    """The container's folders to where a test has them."""
    for config in repository.glob("*/config.pbtxt"):
        text = config.read_text()
        for there, here in folders.items():
            text = text.replace(f'"{there}"', f'"{here}"')
        config.write_text(text)


class Server:
    """A real Triton on a repository; everything that it makes is gone after `stop`."""

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
            self._wait_ready()
        except BaseException:
            self.stop()
            raise

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            assert self.process.poll() is None, self.log()[-6000:]
            assert time.monotonic() < deadline, self.log()[-6000:]
            try:
                if httpx.get(f"{self.http}/v2/health/ready", trust_env=False).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        remove_leftovers(self._prefix)
