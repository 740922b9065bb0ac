# SPDX-License-Identifier: Apache-2.0
"""An engine that is started here: its health check does not look at what computes behind it."""

from sprout.config import Config
from sprout.serve import deployment
from sprout.serve.process import Process
from sprout.serve.standstill import Standstill
from sprout.serve.state import StackPaths
from sprout.serve.supervisor import Service


class EngineProcess(Service):
    """Found to hang by the ledger, and made sure of by a question for one token."""

    name = "engine"

    def __init__(self, cfg: Config, paths: StackPaths) -> None:
        self._cfg = cfg
        self._paths = paths
        self._standstill = Standstill(paths.shm)
        self._hangs: tuple[Process, str] | None = None

    def prepare(self) -> None:
        self._standstill.reset()

    def check(self, process: Process) -> str | None:
        problem = self.ready(process)
        if problem is None and (still := self._standstill.look()) is not None:
            if (why := self.silent(process)) is None:
                self._standstill.reset()
            else:
                words = f"hangs: {still}; asked for one by the supervisor: {why}"
                self._hangs = process, words
        return problem

    def silent(self, process: Process) -> str | None:
        """Why it has no token for the supervisor; None where it does not hang."""
        return deployment.absent(self._cfg)

    def watch(self, process: Process) -> str | None:
        # A check that takes its time may end after its process, which has a successor then.
        if self._hangs is None or self._hangs[0] is not process:
            return None
        return self._hangs[1]
