# SPDX-License-Identifier: Apache-2.0
"""An endpoint that speaks OpenAI's chat completions: vLLM, trtllm-serve, llama.cpp, a hosted one.

    POST {url}/chat/completions   {"model", "messages", "max_tokens", "temperature": 0,
                                   "response_format": {"type": "json_schema", …}}
    →  {"choices": [{"message": {"content", "refusal"?}, "finish_reason"}], "usage": {…}}

Not every server or model takes every field. One that refuses a field by name, or all structured
answers, is asked without from then on; the instructions ask for the same JSON in words.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from sprout.carbon.http import retry_after_s
from sprout.carbon.secret import Secret
from sprout.channel import is_loopback
from sprout.errors import ConfigError, JudgeError
from sprout.evaluate.judges.exchange import Exchange, Response
from sprout.evaluate.judges.instructions import Prompt
from sprout.evaluate.judges.model import Reply
from sprout.evaluate.judges.verdict import Reason

log = logging.getLogger(__name__)

_TRANSIENT = {408, 409, 425, 500, 502, 503, 504, 529}
_BAD_REQUEST = {400, 415, 422, 501}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the server has been found to take."""

    schema: bool = True
    temperature: bool = True
    limit: str = "max_tokens"  # reasoning models of OpenAI's want "max_completion_tokens"


class OpenAILine:
    """`url` ends before /chat/completions, e.g. "http://127.0.0.1:9000/v1".

    ConfigError where the key would cross a network in the clear.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: Secret | None = None,
        timeout_s: float = 60.0,
        max_tokens: int = 512,
        connections: int = 4,
        allow_plain_http: bool = False,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("evaluate.judge.url must begin with http:// or https:// and a host")
        if parts.username is not None or parts.query or parts.fragment:
            raise ConfigError("evaluate.judge.url is host and path alone; a key goes by key_file")
        plain = parts.scheme == "http" and not is_loopback(parts.hostname)
        if plain and key is not None and not allow_plain_http:
            raise ConfigError(
                "evaluate.judge.url is http:// beyond loopback, so the key would cross the network "
                "in the clear: use https://, or set evaluate.judge.allow_plain_http"
            )
        self._model, self._key, self._max_tokens = model, key, max_tokens
        self._host = parts.netloc
        self._dialect = Dialect()
        self._proven: Dialect | None = None  # has been answered
        self._exchange = Exchange(
            f"{url.rstrip('/')}/chat/completions", timeout_s=timeout_s, connections=connections
        )

    @property
    def name(self) -> str:
        return f"openai {self._model}"

    @property
    def identity(self) -> dict[str, object]:
        # Not the address: the same model on another port says the same.
        return {"kind": "openai", "model": self._model, "max_tokens": self._max_tokens}

    def ask(self, prompt: Prompt, stop: threading.Event) -> Reply:
        while True:
            dialect = self._dialect
            headers = {"Authorization": f"Bearer {self._key.read()}"} if self._key else {}
            response = self._exchange.post(self._body(prompt, dialect), headers, stop)
            if response.failed is not None:
                log.debug("%s: %s", self.name, response.why)
                return Reply(failed=response.failed)
            if response.status not in _BAD_REQUEST:
                reply = self._reply(response)
                if response.status == 200:
                    self._proven = dialect
                return reply
            said = str(response.content)[:4000].lower()
            if "content_filter" in said or "content_policy" in said:
                return Reply(failed=Reason.REFUSED)
            if self._proven == dialect:  # it took other prompts like this, so it is this one
                return Reply(failed=Reason.REJECTED)
            plainer = _plainer(dialect, said)
            if plainer is None:
                raise JudgeError(
                    f"{self.name} at {self._host}: HTTP {response.status}: it does not take the "
                    "request; does it serve evaluate.judge.model, and have room for "
                    "evaluate.judge.max_answer_chars?"
                )
            log.warning(
                "%s does not take %s; asked as %s from here on", self.name, dialect, plainer
            )
            self._dialect = plainer

    def close(self) -> None:
        self._exchange.close()

    def _body(self, prompt: Prompt, dialect: Dialect) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": prompt.system},
                {"role": "user", "content": prompt.user},
            ],
            dialect.limit: self._max_tokens,
        }
        if dialect.temperature:
            body["temperature"] = 0
        if dialect.schema:
            schema = {"name": "verdict", "strict": True, "schema": prompt.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _reply(self, response: Response) -> Reply:
        status = response.status
        if status == 200:
            return _said(response.content)
        wait_s = None
        if response.retry_after is not None:
            wait_s = retry_after_s(response.retry_after, datetime.now(UTC))
        if status == 429:
            return Reply(failed=Reason.RATE_LIMITED, retry_after_s=wait_s)
        if status in _TRANSIENT:
            return Reply(failed=Reason.UNAVAILABLE, retry_after_s=wait_s)
        raise JudgeError(f"{self.name} at {self._host}: HTTP {status}: {_remedy(status)}")


def _said(content: Any) -> Reply:
    usage = _mapping(_mapping(content).get("usage"))
    reply = Reply(
        input_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_count(usage.get("completion_tokens")),
    )
    choices = _mapping(content).get("choices")
    choice = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
    message, ended = _mapping(choice.get("message")), choice.get("finish_reason")
    text = message.get("content")
    if message.get("refusal") or ended == "content_filter":
        return replace(reply, failed=Reason.REFUSED)
    if ended == "length":
        return replace(reply, failed=Reason.TRUNCATED)
    if not isinstance(text, str):
        return replace(reply, failed=Reason.MALFORMED)
    return replace(reply, text=text)


def _plainer(dialect: Dialect, said: str) -> Dialect | None:
    """One field less than before; None where nothing is left to leave out, so this ends.

    said: the error, in lower case; it may echo the request, which names all but the first of these.
    """
    if dialect.limit == "max_tokens" and "max_completion_tokens" in said:
        return replace(dialect, limit="max_completion_tokens")
    names_temperature = dialect.temperature and "temperature" in said
    if dialect.schema and ("response_format" in said or not names_temperature):
        return replace(dialect, schema=False)
    if names_temperature:
        return replace(dialect, temperature=False)
    return None


def _remedy(status: int) -> str:
    match status:
        case 401 | 403:
            return "the key of evaluate.judge.key_file is refused or missing"
        case 402:
            return "the account has no credit"
        case 404:
            return (
                "are evaluate.judge.url (it ends in /v1 with most) and evaluate.judge.model right?"
            )
        case 413:
            return "the prompt is too large for it: lower evaluate.judge.max_answer_chars"
        case _:
            return "not what the API promises; is evaluate.judge.url right?"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    """A number of tokens; None: not said, or nonsense."""
    return value if type(value) is int and 0 <= value < 1 << 40 else None
