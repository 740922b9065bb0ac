# SPDX-License-Identifier: Apache-2.0
"""One question at one level, from an engine that knows levels.

Levels are pinned with a token that Triton's preprocessing knows: operators may switch clients'
hints off and still evaluate, and what an evaluation asks is in nobody's statistics.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from sprout.errors import ConfigError
from sprout.evaluate.answers import Question
from sprout.serve import client

SEED = 1  # of the engine's sampling, for all: levels are compared, not luck


class Asker(Protocol):
    """Called from several threads at once."""

    def ask(
        self, question: Question, level: str, max_tokens: int, on_text: Callable[[str], None]
    ) -> client.Answer:
        """SproutError where that fails, or what `on_text` raises."""

    def close(self) -> None: ...


class TritonAsker:
    """`ensemble` over gRPC; a connection for each thread."""

    def __init__(self, address: str, *, token_file: Path | None, timeout_s: float) -> None:
        """token_file: looked into at each request, because Triton's next start writes another."""
        self._address, self._token_file, self._timeout_s = address, token_file, timeout_s
        self._own = threading.local()
        self._lock = threading.Lock()
        self._clients: list[client.Client] = []

    def ask(
        self, question: Question, level: str, max_tokens: int, on_text: Callable[[str], None]
    ) -> client.Answer:
        marks: dict[str, str | bool] = {}
        if self._token_file is not None:
            marks = {"sprout_evaluate": _read(self._token_file), "sprout_sample": False}
        return self._client().ask(
            question.text,
            level=level,
            task=question.task or None,
            max_tokens=max_tokens,
            options={"seed": SEED},
            marks=marks,
            timeout_s=self._timeout_s,
            on_text=on_text,
        )

    def close(self) -> None:
        with self._lock:
            while self._clients:
                self._clients.pop().close()

    def _client(self) -> client.Client:
        own: client.Client | None = getattr(self._own, "client", None)
        if own is None:
            own = self._own.client = client.Client(self._address)
            with self._lock:
                self._clients.append(own)
        return own


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError as error:
        raise ConfigError(
            f"can't read the evaluation's token: {file}: {error.strerror}. The stack's Triton "
            "writes it; name another with evaluate.schedule.token_file"
        ) from None
