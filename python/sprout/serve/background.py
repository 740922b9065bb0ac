# SPDX-License-Identifier: Apache-2.0
"""A stack beside the calling process: `sprout up` as a child, for demo, tests and benchmarks."""

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from sprout.config import Config
from sprout.errors import StackError
from sprout.serve.process import log_tail, tied
from sprout.serve.services import child_environment
from sprout.serve.state import StackPaths, dump_toml, read_stack, write_private


class BackgroundStack:
    """As a context manager: up and ready on entry, down on exit, whatever happened between."""

    def __init__(self, cfg: Config, *, start_timeout_s: float = 180.0) -> None:
        self.cfg = cfg
        self.paths = StackPaths.of(cfg)
        self._timeout_s = start_timeout_s
        self._child: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="sprout-")

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _log(self) -> Path:
        return Path(self._folder.name) / "up.log"

    def start(self) -> None:
        """On the main thread, as every process that is tied to this one's life."""
        config = Path(self._folder.name) / "sprout.toml"
        write_private(config, dump_toml(self.cfg))
        with self._log.open("ab") as output:
            self._child = subprocess.Popen(
                tied([sys.executable, "-m", "sprout.cli", "--config", str(config), "up"]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=child_environment(self.paths),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        if self._child is None:
            raise StackError("the stack was not started")
        return self._child.pid

    def state(self) -> dict[str, Any]:
        """`stack.json` now; empty while there is none."""
        found = read_stack(self.paths)
        return found if found is not None and found.get("pid") == self.pid else {}

    def wait_ready(self, timeout_s: float | None = None) -> dict[str, Any]:
        """`stack.json` once everything serves. StackError quotes the supervisor's last words."""
        deadline = time.monotonic() + (timeout_s or self._timeout_s)
        while True:
            if self._child is None or self._child.poll() is not None:
                raise StackError(f"the stack did not come up:\n{log_tail(self._log, 25)}")
            state = self.state()
            if state.get("ready"):
                return state
            if time.monotonic() > deadline:
                raise StackError(f"the stack is not ready in time:\n{log_tail(self._log, 25)}")
            time.sleep(0.05)

    def endpoint(self, name: str) -> str:
        """ "host:port" of "http", "grpc", "metrics", "control" or "engine"."""
        return str(self.state()["endpoints"][name])

    def stop(self, timeout_s: float = 10.0) -> int | None:
        """Exit status of the supervisor; None if there was none to stop."""
        child, self._child = self._child, None
        if child is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
        try:
            return child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()  # its children die with it
            child.wait()
            raise StackError(f"the stack was not down within {timeout_s:g} s") from None
        finally:
            self._folder.cleanup()
