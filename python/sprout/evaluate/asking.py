# SPDX-License-Identifier: Apache-2.0
"""One question at one level, from an engine that knows levels.

Levels are pinned with a token that Triton's preprocessing knows: operators may switch clients'
hints off and still evaluate, and what an evaluation asks is in nobody's statistics.
"""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from sprout.channel import read_secret
from sprout.config import Config
from sprout.errors import ConfigError, RequestError
from sprout.evaluate.answers import Question
from sprout.serve import client

SEED = 1  # of the engine's sampling, for all: levels are compared, not luck
# Carries the token; a server that refuses it says so by this name.
EVALUATION_MARK = "sprout_evaluate"


def engine(cfg: Config) -> str:
    """Who answers, as far as this node knows: another one's answers are another evaluation's."""
    if cfg.evaluate.schedule.endpoint:
        return f"endpoint {cfg.evaluate.schedule.endpoint}"
    own, request = cfg.engine, cfg.request
    weights: list[object] = []
    if own.model is not None:
        weights = [str(own.model)]
        if own.model.exists():  # another one may take the place of a file
            found = own.model.stat()
            weights += [found.st_size, found.st_mtime_ns]
    answers = {
        "model": weights,
        "served_model": own.served_model,
        "url": own.url,
        "context_tokens": own.context_tokens,
        "repetition_penalty": own.repetition_penalty,
        "chat_template": request.chat_template,
        "accept_rendered": request.accept_rendered,
    }
    return f"{own.kind} {json.dumps(answers)}"


class Asker(Protocol):
    """Called from several threads at once."""

    def ask(
        self, question: Question, level: str, max_tokens: int, on_text: Callable[[str], None]
    ) -> client.Answer:
        """SproutError where that fails, or what `on_text` raises; ConfigError: no other request
        can succeed."""

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
        # Whoever hears of nothing else hears this: an evaluation's prompt is no client's.
        marks: dict[str, str | bool] = {"sprout_sample": False}
        if self._token_file is not None:
            marks[EVALUATION_MARK] = token(self._token_file)
        try:
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
        except RequestError as error:
            if EVALUATION_MARK not in str(error):
                raise
            raise ConfigError(
                f"Triton at {self._address} does not know the token in {self._token_file} "
                f"({error}). It reads its own when it starts: name the same file for both "
                "(evaluate.schedule.token_file), and start Triton again"
            ) from None

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


def token(file: Path) -> str:
    """ConfigError where there is none: without it an evaluation would count as a client."""
    try:
        return read_secret(file, "evaluate.schedule.token_file").decode().strip()
    except (ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"no token of evaluations: {error}. The stack's Triton writes one when it starts"
        ) from None
