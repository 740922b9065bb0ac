# SPDX-License-Identifier: Apache-2.0
"""A local server of OpenAI's completions API in token ids, for tests: no model, known answers.

Its answers have the shape, and its ends the meaning, of vLLM 0.20.2's: tests/system/
test_engine_vllm.py asks the same of a real one.
"""

import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from engine_fakes import FakeServer, text_of

END = 2  # the model's own end token
VOCABULARY = 50_000


class CompletionsServer(FakeServer):
    """tokens: of the answer to any prompt; None: 10, 11, 12, …

    max_model_len: None, as trtllm-serve, does not say. key: that requests must bear.
    """

    path = "/v1"

    def __init__(
        self,
        port: int = 0,
        token_s: float = 0.0,
        *,
        tokens: Sequence[int] | None = None,
        max_model_len: int | None = 1024,
        owned_by: str = "vllm",
        key: str = "",
        detokenizes: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.tokens = tokens
        self.max_model_len = max_model_len
        self.owned_by = owned_by
        self.key = key
        self.detokenizes = detokenizes
        self.models = ["the-model"]
        self.text_only = False
        self.busy = False
        self.questions: list[str] = []  # paths asked, completions apart
        self._tls = tls is not None
        super().__init__(port, token_s, tls)

    @property
    def url(self) -> str:
        return super().url.replace("http:", "https:" if self._tls else "http:")

    def get(self, handler: Any) -> None:
        self.questions.append(handler.path)
        if self._locked_out(handler):
            return
        if handler.path == "/health":
            handler.answer({})
            return
        card: dict[str, Any] = {"object": "model", "owned_by": self.owned_by}
        if self.max_model_len is not None:
            card["max_model_len"] = self.max_model_len
        handler.answer({"object": "list", "data": [{"id": name} | card for name in self.models]})

    def post(self, handler: Any, body: dict[str, Any]) -> None:
        if self._locked_out(handler):
            return
        if handler.path == "/detokenize" and self.detokenizes:
            handler.answer({"prompt": text_of(body["tokens"])})
        elif handler.path != "/v1/completions":
            self._refuse(handler, 404, "Not Found")
        elif self.busy:
            self._refuse(handler, 429, "too many requests are waiting")
        elif body["model"] not in self.models:
            self._refuse(handler, 404, f"The model `{body['model']}` does not exist.")
        elif self.owned_by == "tensorrt_llm" and "return_token_ids" in body:
            self._refuse(handler, 400, "return_token_ids: Extra inputs are not permitted")
        elif self._too_long(body):
            said = f"This model's maximum context length is {self.max_model_len} tokens."
            self._refuse(handler, 400, said)
        elif not body.get("stream"):
            choice = {"text": "k", "token_ids": None if self.text_only else [10]}
            handler.answer({"choices": [choice | {"finish_reason": "length"}]})
        else:
            self.complete(handler, body)

    def events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if max(body["prompt"]) >= VOCABULARY:  # found once it has begun to answer
            said = f"Token id {max(body['prompt'])} is out of vocabulary"
            yield {"error": {"message": said, "type": "BadRequestError", "code": 400}}
            return
        answer: list[int] = []
        for token in self._tokens():
            time.sleep(self.token_s)
            answer.append(token)
            finish, reason = self._end(answer, body)
            yield self.token(token, finish=finish, stop_reason=reason)
            if finish:
                break
        used = {"prompt_tokens": len(body["prompt"]), "completion_tokens": len(answer)}
        yield {"choices": [], "usage": used}

    def token(
        self, *ids: int, finish: str | None = None, stop_reason: int | str | None = None
    ) -> dict[str, Any]:
        """One event."""
        choice = {
            "index": 0,
            "text": text_of([*ids]),
            "token_ids": None if self.text_only else [*ids],
            "finish_reason": finish,
            "stop_reason": stop_reason,
        }
        return {"object": "text_completion", "choices": [choice]}

    def _tokens(self) -> Iterator[int]:
        yield from self.tokens if self.tokens is not None else range(10, VOCABULARY)

    def _end(self, answer: list[int], body: dict[str, Any]) -> tuple[str | None, int | str | None]:
        count, last = len(answer), answer[-1]
        if count >= body["min_tokens"]:
            if last == END and not body["ignore_eos"]:
                return "stop", None
            if last in body["stop_token_ids"]:
                return "stop", last
            for word in body.get("stop", ()):
                if text_of(answer).endswith(word):
                    return "stop", word
        if count == body["max_tokens"] or (self.tokens and count == len(self.tokens)):
            return "length", None
        return None, None

    def _too_long(self, body: dict[str, Any]) -> bool:
        asked = len(body["prompt"]) + int(body["max_tokens"])
        return self.max_model_len is not None and asked > self.max_model_len

    def _locked_out(self, handler: Any) -> bool:
        if not self.key or handler.headers["Authorization"] == f"Bearer {self.key}":
            return False
        # As vLLM: not in the form of its other errors.
        handler.answer({"error": "Unauthorized"}, 401)
        return True

    def _refuse(self, handler: Any, status: int, message: str) -> None:
        handler.answer({"error": {"message": message, "type": "BadRequestError"}}, status)


DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
ENGINE_DEAD = {
    "error": {"message": DEAD, "type": "InternalServerError", "param": None, "code": 500}
}
OUTLIVES_S = 1.0  # vLLM's server looks every 5 s whether its engine is dead


class DyingServer(CompletionsServer):
    """Its engine may die under it, as vLLM's (0.20.2) does of a CUDA error or of no memory."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.dead = threading.Event()
        self.hung = threading.Event()
        self.ended = threading.Event()
        super().__init__(*args, **settings)

    def engine_hangs(self) -> None:
        """The server goes on and calls itself healthy; no token comes any more."""
        self.hung.set()

    def engine_dies(self) -> None:
        self.dead.set()
        threading.Timer(OUTLIVES_S, self.ended.set).start()

    def get(self, handler: Any) -> None:
        if handler.path == "/health" and self.dead.is_set():
            handler.answer({}, 503)
            return
        super().get(handler)

    def post(self, handler: Any, body: dict[str, Any]) -> None:
        if self.dead.is_set():
            handler.answer(ENGINE_DEAD, 500)
            return
        if self.hung.is_set():
            self.ended.wait()
        super().post(handler, body)

    def events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for event in super().events(body):
            if self.dead.is_set():
                yield ENGINE_DEAD
                return
            if self.hung.is_set():
                self.ended.wait()
            yield event
