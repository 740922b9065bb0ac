# SPDX-License-Identifier: Apache-2.0
"""Sampled prompts, from the node's rings to the control plane; never to a disk.

A thread of its own does it all, so that neither a slow redaction nor an absent control plane is
felt by the tick or the reports. What waits is bounded at each step, and the oldest goes first.
"""

import logging
import random
import secrets
import threading
import time
from collections import deque
from pathlib import Path

import grpc

from sprout.agent.redact import Redactor
from sprout.agent.relay import REPORT_TIMEOUT_S, backoff_s, describe
from sprout.agent.rings import Rings
from sprout.config import SamplingConfig
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub
from sprout_ext.board import Flag
from sprout_ext.ring import RingPrompt

log = logging.getLogger(__name__)

QUEUE = 1024  # prompts that wait for the control plane
BATCH = 256  # prompts of a report: what the control plane takes
BATCH_BYTES = 2 << 20  # of their texts, about
SWEEP_S = 60.0  # where sampling is off: between looks at what the dead left
# The control plane will never take them: they are not sent again.
_REFUSED = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,  # sampling is off there
    grpc.StatusCode.UNIMPLEMENTED,
)


class Prompts:
    """One thread calls `run`; `counters` may be called from any."""

    def __init__(
        self,
        stub: ControlStub,
        sampling: SamplingConfig,
        shm: Path,
        *,
        node: str,
        interval_s: float,
    ) -> None:
        """ConfigError where `redact_command` can't be run."""
        self._stub = stub
        self._on = sampling.share > 0
        self._rings = Rings(shm)
        self._node = node
        self._interval_s = interval_s
        self._redactor: Redactor | None = None
        if self._on and sampling.redact_command:
            self._redactor = Redactor(
                sampling.redact_command, longest=sampling.prompt_bytes, backoff_s=backoff_s
            )
        self._queue: deque[pb.SampledPrompt] = deque()
        self._unanswered = False
        self._sent = 0
        self._dropped = 0  # there was no room while the control plane was away
        self._refused = 0  # by the control plane
        self._failed = 0  # they could not be made ready to travel

    def run(self, stop: threading.Event) -> None:
        """Once per interval until `stop`. What is under way then is forgotten."""
        while True:
            self.look(stop)
            pause_s = self._interval_s if self._on else SWEEP_S
            if stop.wait(pause_s * random.uniform(0.9, 1.1)):  # noqa: S311
                return

    def look(self, stop: threading.Event) -> None:
        """Drain, redact, send."""
        if not self._on:
            self._rings.sweep()
            return
        wall_offset_ns = time.time_ns() - time.monotonic_ns()
        for prompt in self._rings.drain():
            if stop.is_set():
                return
            try:
                message = self._message(prompt, wall_offset_ns)
            except Exception as error:  # it costs this prompt; its words may quote it
                log.error("a prompt is dropped: %s", type(error).__name__)
                self._failed += 1
                continue
            if message is not None:
                self._queue.append(message)
        while len(self._queue) > QUEUE:
            self._queue.popleft()
            self._dropped += 1
        self._send(stop)

    def counters(self) -> dict[str, int]:
        """By name, for the node's status; {} where sampling is off."""
        if not self._on:
            return {}
        counts = self._rings.counts()
        return {
            "prompts_sampled": counts.written,
            "prompts_too_long": counts.too_long,
            "prompts_refused": counts.refused,
            "prompts_unknown": counts.unknown,
            "prompts_missed": counts.missed,
            "prompts_withheld": self._redactor.withheld if self._redactor else 0,
            "prompts_redaction_failed": self._redactor.failed if self._redactor else 0,
            "prompts_failed": self._failed,
            "prompts_dropped": self._dropped,
            "prompts_not_taken": self._refused,
            "prompts_sent": self._sent,
        }

    def close(self) -> None:
        """Ends the redaction's program."""
        if self._redactor:
            self._redactor.close()

    def _message(self, prompt: RingPrompt, wall_offset_ns: int) -> pb.SampledPrompt | None:
        """As it travels; None: it must not."""
        text = prompt.text.decode(errors="replace")
        redacted = self._redactor.redact(text) if self._redactor else text
        if redacted is None:
            return None
        message = pb.SampledPrompt(
            id=secrets.randbelow(2**64 - 1) + 1,
            text=redacted,
            task=prompt.task.decode("ascii", "replace"),
            tenant=prompt.tenant.decode("ascii", "replace"),
            level=prompt.level,
            propensity=prompt.propensity,
            pinned=bool(prompt.flags & Flag.PINNED),
            off=bool(prompt.flags & Flag.OFF),
            control=bool(prompt.flags & Flag.CONTROL),
            max_tokens=prompt.max_tokens,
            policy_version=prompt.policy_version,
            redacted=redacted != text,
        )
        message.sampled_at.FromNanoseconds(prompt.opened_ns + wall_offset_ns)
        return message

    def _send(self, stop: threading.Event) -> None:
        while self._queue and not stop.is_set():
            batch = self._batch()
            request = pb.ReportPromptsRequest(node=self._node, prompts=batch)
            try:
                self._stub.ReportPrompts(request, timeout=REPORT_TIMEOUT_S)
            except grpc.RpcError as error:
                if not self._unanswered and not stop.is_set():
                    log.warning("prompts: %s", describe(error))
                self._unanswered = True
                if error.code() not in _REFUSED:
                    return  # they wait
                self._refused += len(batch)
            else:
                self._unanswered = False
                self._sent += len(batch)
            for _ in batch:
                self._queue.popleft()

    def _batch(self) -> list[pb.SampledPrompt]:
        batch: list[pb.SampledPrompt] = []
        size = 0
        for message in self._queue:
            size += message.ByteSize()
            if batch and (len(batch) == BATCH or size > BATCH_BYTES):
                break
            batch.append(message)
        return batch
