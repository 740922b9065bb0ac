# SPDX-License-Identifier: Apache-2.0
"""The agent's process: five threads, and an end as soon as one of them ends."""

import fcntl
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sprout import channel
from sprout.agent.drain import Drain
from sprout.agent.policy import boottime_ns
from sprout.agent.prompts import Prompts
from sprout.agent.relay import Reporter, Watcher
from sprout.agent.spool import Spool
from sprout.agent.weights import Weights
from sprout.config import Config, no_core_dumps, private_folder
from sprout.directives import pack
from sprout.energy.choose import meter
from sprout.energy.meters import short
from sprout.errors import StackError
from sprout.units import node_id
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub
from sprout_ext.board import BoardReader, BoardWriter
from sprout_ext.clock import ClockWriter

log = logging.getLogger(__name__)

# The last tick and the last report together: an agent is gone a second after it is told to.
LAST_REPORT_S = 0.5
LAST_TICK_S = 0.3
CLOSE_S = 0.05  # for a thread to see it; it is a daemon
BOARD, CLOCK, SPOOL, LOCK = "policy.board", "energy.clock", "spool.sqlite", "agent.lock"


def node_name(cfg: Config) -> str:
    return cfg.agent.node or socket.gethostname()


def serve(cfg: Config, *, stop: threading.Event | None = None) -> None:
    """Be this node's agent until SIGTERM, SIGINT or `stop`.

    Raises StackError if a folder is another user's, if the node has an agent already, or if a part
    of this one died: better a process that its supervisor restarts than one that lives by half.
    """
    stop = stop or threading.Event()
    for directory in (cfg.stack.state, cfg.stack.shm):
        private_folder(directory)
    if cfg.evaluate.sampling.share > 0:
        no_core_dumps()
    with ExitStack() as exits:
        exits.enter_context(only_one(cfg.stack.state / LOCK))
        exits.enter_context(told_to_stop(stop))
        try:
            agent = Agent(cfg)
        except OSError as error:  # no room in shared memory, another node's files, …
            raise StackError(
                f"agent: {error.filename or cfg.stack.shm}: {error.strerror}"
            ) from error
        exits.callback(agent.close)
        agent.run(stop)


class Agent:
    def __init__(self, cfg: Config) -> None:
        self._cfg = cfg
        self._node = node_name(cfg)
        number = node_id(self._node)
        directives = pack(cfg.request.pack)
        shm = cfg.stack.shm
        self._meter = meter(cfg)
        self._clock = ClockWriter(shm / CLOCK)
        self._spool = Spool(cfg.stack.state / SPOOL, cfg.agent.spool_outcomes)
        self._drain = Drain(cfg, number, self._meter, self._clock, self._spool)
        self._board = BoardWriter(shm / BOARD)
        self._reader = BoardReader(shm / BOARD, directives.hash, number, 0, 0)
        address = channel.control_address(cfg.control)
        self._channel = channel.connect(address, cfg.control.tls)
        self._threads: list[threading.Thread] = []
        stub = ControlStub(self._channel)
        self._weights = Weights(stub, shm)
        self._watcher = Watcher(stub, self._board, self._node, directives, self._weights)
        self._reporter = Reporter(
            stub,
            self._spool,
            self._watcher,
            self.status,
            node=self._node,
            batch=cfg.agent.batch,
            interval_s=cfg.agent.report_interval_s,
        )
        self._prompts = Prompts(
            stub,
            cfg.evaluate.sampling,
            shm,
            node=self._node,
            interval_s=cfg.agent.report_interval_s,
        )
        log.info(
            "agent of node %s, meter %s, control plane %s", self._node, self._meter.said, address
        )

    def run(self, stop: threading.Event) -> None:
        """Until `stop`, then drain once more. StackError if a thread died."""
        died: list[str] = []

        def guarded(name: str, work: Callable[[threading.Event], None]) -> threading.Thread:
            def body() -> None:
                try:
                    work(stop)
                except BaseException as error:
                    log.exception("%s died", name)
                    died.append(f"{name}: {error}")
                else:
                    if not stop.is_set():
                        died.append(f"{name} returned")
                finally:
                    stop.set()

            return threading.Thread(target=body, name=name, daemon=True)

        ticker = guarded("ticker", self._tick)
        watcher = guarded("watcher", self._watcher.run)
        reporter = guarded("reporter", self._reporter.run)
        prompts = guarded("prompts", self._prompts.run)
        weights = guarded("weights", lambda s: self._weights.run(s, self._watcher.complete))
        self._threads = [ticker, watcher, reporter, prompts, weights]
        for thread in self._threads:
            thread.start()
        stop.wait()
        self._watcher.reset()
        self._weights.wake()
        ticker.join(LAST_TICK_S)  # its last tick drains
        if died:
            raise StackError(f"agent: {'; '.join(died)}")
        self._reporter.report(threading.Event(), until=time.monotonic() + LAST_REPORT_S)
        log.info("agent stopped, %d outcomes wait in the spool", len(self._spool))

    def _tick(self, stop: threading.Event) -> None:
        """Tick at an even pace until `stop`, and once after it."""
        tick_s = self._cfg.agent.tick_s
        due = time.monotonic()
        while True:
            stopping = stop.is_set()
            self._drain.tick()
            if stopping:
                return
            due = max(due + tick_s, time.monotonic())
            stop.wait(due - time.monotonic())

    def status(self) -> pb.NodeStatus:
        """The node as of the last tick."""
        sample, policy = self._drain.sample, self._reader.policy()
        counters = {
            **sample.counters,
            "policies_refused": self._watcher.refused,
            "weights_failed": self._weights.failed,
            "spool_failed": sample.spool_failed,
            "outcomes_refused": self._reporter.refused,
            **self._prompts.counters(),
        }
        status = pb.NodeStatus(
            node=self._node,
            policy_version=policy.version if policy else 0,
            policy_expired=bool(policy and policy.deadline_boottime_ns <= boottime_ns()),
            policy_error=self._watcher.error,
            active=sample.active,
            meter=self._meter.said,
            energy_estimated=self._meter.estimated,
            metered_joules=sample.metered_joules,
            settled_joules=sample.settled_joules,
            idle_joules=sample.idle_joules,
            unattributed_joules=sample.unattributed_joules,
            meter_problem=short(self._meter.problem),
            spooled=len(self._spool),
            dropped=self._spool.dropped,
            counters=counters,
        )
        status.time.GetCurrentTime()
        return status

    def close(self) -> None:
        self._channel.close()  # ends the calls that threads are in
        self._prompts.close()
        for thread in self._threads:
            thread.join(CLOSE_S)
        self._meter.close()
        self._spool.close()
        self._board.close()
        self._clock.close()


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Hold the node's lock; the kernel lets go of it when the process dies. StackError if held."""
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(fd, 32).decode(errors="replace").strip()
            raise StackError(f"this node has an agent already (pid {pid}, {lock})") from None
        os.truncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


@contextmanager
def told_to_stop(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop`, where this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
