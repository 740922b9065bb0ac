# SPDX-License-Identifier: Apache-2.0
"""HTTP towards llama.cpp's server: its model, tokens to text and back, its errors."""

from typing import Any

import httpx

from sprout.engines.events import token_ids
from sprout.engines.http import EngineHttp, Remembered, error_of
from sprout.engines.llama_body import INFO_PROBE, ModelInfo, model_info
from sprout.errors import EngineError, EngineUnavailable, PromptTooLong, RequestError


class LlamaHttp(EngineHttp[ModelInfo]):
    """One server."""

    def __init__(self, url: str, *, connections: int, retry_s: float, stall_s: float) -> None:
        super().__init__(url, connections=connections, retry_s=retry_s, stall_s=stall_s)
        self._texts: Remembered[tuple[int, ...], str] = Remembered()
        self._ids: Remembered[str, list[int]] = Remembered()

    async def ask_info(self) -> ModelInfo:
        probe = await self.json("/completion", INFO_PROBE)
        models = await self.json("/v1/models", None)
        try:
            return model_info(models, probe)
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise EngineUnavailable(f"{self.url} is no llama.cpp server: {error!r}") from None

    def refused(self, status: int, answer: Any, text: str) -> str:
        message, kind = error_of(answer)
        message = message or text
        if status == httpx.codes.SERVICE_UNAVAILABLE:
            return message  # loading its model
        if kind == "exceed_context_size_error":
            raise PromptTooLong(message)
        if httpx.codes.is_client_error(status):
            raise RequestError(f"the engine refused the request: {message}")
        raise EngineError(f"the engine failed: {message}")

    async def detokenize(self, ids: list[int]) -> str:
        """Text of ids, special tokens included; remembered."""
        key = tuple(ids)
        text = self._texts.get(key)
        if text is None:
            answer = await self.json("/detokenize", {"tokens": ids})
            text = self._texts.put(key, str(answer["content"]))
        return text

    async def retokenize(self, text: str) -> list[int]:
        """Ids of text that stands inside a text; remembered."""
        ids = self._ids.get(text)
        if ids is None:
            info = await self.info()
            # SentencePiece puts a space before a text: a line break takes it, and goes.
            lead = await self._tokenize("\n") if info.sentencepiece else []
            found = await self._tokenize(("\n" if lead else "") + text)
            ids = self._ids.put(text, found[len(lead) :])
        return ids

    async def _tokenize(self, text: str) -> list[int]:
        question = {"content": text, "add_special": False, "parse_special": False}
        answer = await self.json("/tokenize", question)
        try:
            return token_ids(answer["tokens"])
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(f"the engine sent no tokens of a text: {error!r}") from None
