# SPDX-License-Identifier: Apache-2.0
"""HTTP towards a server with OpenAI's completions API: its model, its key, its errors."""

import logging
import re
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from sprout.engines.http import EngineHttp, Remembered, error_of
from sprout.engines.openai_body import ServedModel, probe, served_model
from sprout.engines.openai_stream import ids_of
from sprout.errors import (
    ConfigError,
    EngineBusy,
    EngineError,
    EngineUnavailable,
    PromptTooLong,
    RequestError,
)

log = logging.getLogger(__name__)

_BUSY = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_AWAY = {HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT}  # a gateway without its server
_NO_KEY = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
# What vLLM's server answers for the seconds that it outlives its engine, which died of a CUDA
# error, of no memory, of a signal; then it ends itself. It says so before it looks at the request.
_DEAD = re.compile(r"EngineCore encountered an issue|EngineDeadError")
# How vLLM and TensorRT-LLM speak of a prompt that does not fit.
_TOO_LONG = re.compile(r"context length|max_model_len|max_seq_len|max_num_tokens|max_input_len")


class NotServed(EngineUnavailable):
    """The server has no such model, or no such path."""


class OpenAIHttp(EngineHttp[ServedModel]):
    """url: up to and with /v1. model: to ask for; empty: the first that the server lists.

    key_file: a bearer key, read anew for each request, so that it may be replaced under way.
    ca_file: certificates that the server's is checked against, in place of this machine's.
    Raises ConfigError where a file can't be read.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        key_file: Path | None,
        ca_file: Path | None,
        connections: int,
        retry_s: float,
        stall_s: float,
    ) -> None:
        self._model = model
        self._key_file = key_file
        self._texts: Remembered[tuple[str, tuple[int, ...]], str] = Remembered()
        self._tells_text = True
        try:
            self.headers()
            tls = ssl.create_default_context(cafile=ca_file) if ca_file else None
        except EngineUnavailable as error:
            raise ConfigError(f"engine.key_file: {error}") from None
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"engine.ca_file: can't use {ca_file}: {error}") from None
        super().__init__(
            url.removesuffix("/v1"),
            connections=connections,
            retry_s=retry_s,
            stall_s=stall_s,
            tls=tls,
        )

    def headers(self) -> Mapping[str, str]:
        if self._key_file is None:
            return {}
        try:
            key = self._key_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            # Only the file's name: an error of decoding quotes what it holds.
            raise EngineUnavailable(
                f"the engine's key can't be read from {self._key_file} ({type(error).__name__})"
            ) from None
        if not key or not key.isascii() or not key.isprintable():
            raise EngineUnavailable(f"the engine's key in {self._key_file} is no line of ASCII")
        return {"Authorization": f"Bearer {key}"}

    async def ask_info(self) -> ServedModel:
        listed = await self.json("/v1/models", None)
        try:
            model = served_model(listed, self._model)
            answer = await self.json("/v1/completions", probe(model))
            ids_of(answer["choices"][0])
        except LookupError as error:
            # A KeyError or IndexError is one too: its text is the key alone.
            said = error if type(error) is LookupError else repr(error)
            raise EngineUnavailable(f"{self.url} can't be the engine: {said}") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise EngineUnavailable(f"{self.url} speaks no completions API: {error!r}") from None
        self._tells_text = True
        return model

    def refused(self, status: int, answer: Any, text: str) -> str:
        message, _ = error_of(answer)
        message = message or text or "no reason given"
        if status in _BUSY:
            raise EngineBusy(f"the engine is full (HTTP {status}): {message}")
        if status in _AWAY or (status >= 500 and _DEAD.search(message)):
            return f"HTTP {status}: {message}"
        if status in _NO_KEY:
            how = "the key in engine.key_file" if self._key_file else "requests without a key"
            raise EngineError(f"the engine at {self.url} refuses {how} (HTTP {status})")
        if status == HTTPStatus.NOT_FOUND:
            raise NotServed(f"the engine at {self.url} does not serve that: {message}")
        if 400 <= status < 500 and _TOO_LONG.search(message):
            raise PromptTooLong(f"the engine refused the request: {message}")
        if 400 <= status < 500:
            raise RequestError(f"the engine refused the request: {message}")
        raise EngineError(f"the engine failed (HTTP {status}): {message}")

    async def text(self, ids: tuple[int, ...], model: ServedModel) -> str:
        """Text of ids, as vLLM's server tells it; remembered. Empty where a server can't."""
        known = self._texts.get((model.name, ids))
        if known is not None or not self._tells_text:
            return known or ""
        try:
            answer = await self.json("/detokenize", {"model": model.name, "tokens": [*ids]})
            return self._texts.put((model.name, ids), str(answer["prompt"]))
        except (NotServed, RequestError, KeyError, TypeError) as error:
            log.info("%s turns no ids into text (%s): stop words match as ids", self.url, error)
            self._tells_text = False
            return ""
