# SPDX-License-Identifier: Apache-2.0
"""What an operator's own program makes of a prompt before it leaves the node.

The program lives as long as the agent. It reads one JSON object per line, {"text": …}, and answers
each with one, {"text": …} as it should leave the node, or {"text": null} to keep the prompt here.
Whatever else it does (no answer in time, an end, a line that is no such object) costs the prompt in
question and its process; the next one starts after a back-off. What it writes to its standard error
is discarded, since it may quote prompts.

It has a session of its own and ends with all that it started there: when its answer is given up,
when the agent stops, and when the agent is killed.
"""

import contextlib
import json
import logging
import os
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from sprout.errors import ConfigError

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0  # for one answer
# The program, and a guard beside it that is not its child. Standard error comes as the reading end
# of a pipe whose other end the agent alone has, so it ends with the agent however that ended; then
# the whole group goes. (A parent's death signal would reach the program and nothing it started.)
_GUARDED = (
    "/bin/sh",
    "-c",
    '( { read -r _ <&2; kill -KILL 0; } </dev/null >/dev/null & ); exec "$@" 2>/dev/null',
    "redact_command",
)


class _Unanswered(Exception):  # noqa: N818 - never leaves this file
    """Why there is no answer."""


class Redactor:
    """One thread calls `redact`; `close` may come from any."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        longest: int,
        backoff_s: Callable[[int], float],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """longest: bytes of an answer's text. ConfigError where there is no such program."""
        if shutil.which(command[0]) is None:
            raise ConfigError(
                f"evaluate.sampling.redact_command: {command[0]} is no program that can be run here"
            )
        self._command = tuple(command)
        self._longest = longest
        self._backoff_s = backoff_s
        self._timeout_s = timeout_s
        self._child: subprocess.Popen[bytes] | None = None
        self._lifeline = -1  # the agent's end of the guard's pipe, while there is a child
        self._killing = threading.Lock()  # whoever holds it knows that the child is not yet reaped
        self._failures = 0  # in a row
        self._not_before = 0.0  # time.monotonic() of the next start
        self._closed = threading.Event()
        self._busy = threading.Lock()
        self.withheld = 0  # prompts that the program kept here
        self.failed = 0  # prompts that it did not answer for

    def redact(self, text: str) -> str | None:
        """The text as it may leave the node; None: it may not. Waits out the back-off."""
        with self._busy:
            return self._redact(text)

    def _redact(self, text: str) -> str | None:
        try:
            answer = self._ask(text)
        except Exception as error:  # whatever it is, it costs this prompt alone
            self.failed += 1
            self._kill()
            if not self._closed.is_set():
                # Neither the prompt nor the answer: a log is a file on a disk. What others raise
                # may quote them.
                ours = isinstance(error, (_Unanswered, OSError))
                why = error if ours else type(error).__name__
                log.warning("redact_command: %s; the prompt is dropped", why)
            self._not_before = time.monotonic() + self._backoff_s(self._failures)
            self._failures += 1
            return None
        self._failures = 0
        self.withheld += answer is None
        return answer

    def close(self) -> None:
        """Ends the program, and a `redact` that waits for it."""
        self._closed.set()
        with self._killing:
            if self._child is not None:
                _kill_group(self._child)
        with self._busy:  # its pipes are closed under nobody's hands
            self._kill()

    def _ask(self, text: str) -> str | None:
        child = self._running()
        line = self._exchange(child, json.dumps({"text": text}).encode() + b"\n")
        try:
            answer = json.loads(line)
            redacted = answer["text"]
            size = 0 if redacted is None else len(redacted.encode())
        # UnicodeError is a ValueError; a line may be 40,000 brackets.
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise _Unanswered('its line is no {"text": …}') from None
        if size > self._longest:
            raise _Unanswered("its text is longer than prompt_bytes")
        return None if redacted is None else str(redacted)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None:
            return self._child
        self._closed.wait(self._not_before - time.monotonic())
        if self._closed.is_set():
            raise _Unanswered("the agent stops")
        watched, lifeline = os.pipe()
        try:
            child = subprocess.Popen(
                [*_GUARDED, *self._command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=watched,
                bufsize=0,
                start_new_session=True,
            )
        except OSError:
            os.close(lifeline)
            raise
        finally:
            os.close(watched)
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
        self._child, self._lifeline = child, lifeline
        if self._closed.is_set():  # by then there was none to kill
            self._kill()
            raise _Unanswered("the agent stops")
        return child

    def _exchange(self, child: subprocess.Popen[bytes], line: bytes) -> bytes:
        """Its answer to a line, without the end of it."""
        if child.stdin is None or child.stdout is None:
            raise AssertionError("both are pipes")
        until = time.monotonic() + self._timeout_s
        # JSON may write a byte of text in six.
        longest = 6 * self._longest + 64
        left, answer = memoryview(line), bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            if selector.select(0):  # else each answer would be taken for the next prompt's
                raise _Unanswered("it says something that it was not asked, or it ended")
            selector.register(child.stdin, selectors.EVENT_WRITE)
            while b"\n" not in answer:
                ready = selector.select(max(0.0, until - time.monotonic()))
                if not ready:
                    raise _Unanswered(f"no answer within {self._timeout_s:g} s")
                for key, _ in ready:
                    if key.fileobj is child.stdin:
                        left = left[os.write(key.fd, left) :]
                        if not left:
                            selector.unregister(child.stdin)
                        continue
                    chunk = os.read(key.fd, 1 << 16)
                    if not chunk:
                        raise _Unanswered("it ended")
                    answer += chunk
                    if len(answer) > longest:
                        raise _Unanswered("its line is too long")
        first, _, rest = answer.partition(b"\n")
        if rest or left:
            raise _Unanswered("it answers more than it was asked")
        return bytes(first)

    def _kill(self) -> None:
        with self._killing:
            child, self._child = self._child, None
            if child is None:
                return
            _kill_group(child)
            child.wait()
        os.close(self._lifeline)
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """The program and all that it started, at once. Before it is reaped its group is no other's."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
