# SPDX-License-Identifier: Apache-2.0
"""A chat-completions API on loopback: a program answers, and what it was asked is kept."""

import json
import re
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from loopback_api import Answer, LoopbackApi, LoopbackHandler, answer, served

from sprout.evaluate.answers import Answer as Given
from sprout.evaluate.answers import Question


@dataclass(frozen=True)
class Asked:
    path: str
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def system(self) -> str:
        return str(self.body["messages"][0]["content"])

    @property
    def user(self) -> str:
        return str(self.body["messages"][1]["content"])

    @property
    def blocks(self) -> dict[str, str]:
        """Title → text, as who believes in markers alone reads it; the last of a title counts."""
        token = re.search(r"bear the token (\S+)\. ", self.system)
        assert token is not None
        mark = re.escape(f"[{token[1]}]")
        found = re.findall(rf"^{mark} BEGIN (.+?)\n(.*?)\n{mark} END \1$", self.user, re.S | re.M)
        return dict(found)


def said(content: Any, *, finish: str = "stop", tokens: tuple[int, int] = (100, 7)) -> Answer:
    """A completion; `content` is text, or becomes JSON."""
    text = content if isinstance(content, str) or content is None else json.dumps(content)
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return answer({"model": "judge", "choices": [choice], "usage": usage})


def better(letter: str) -> Answer:
    return said({"better": letter})


class Api(LoopbackApi):
    def __init__(self) -> None:
        super().__init__(_Handler)
        self.program: Callable[[Asked], Answer] = lambda _: better("tie")
        self.asked: list[Asked] = []
        self.arrived = threading.Semaphore(0)  # released for each request
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"{super().url}/v1"

    def script(self, *answers: Answer) -> None:
        """One after the other; the last one for the rest."""
        left = list(answers)

        def program(_: Asked) -> Answer:
            with self.lock:
                return left.pop(0) if len(left) > 1 else left[0]

        self.program = program


class _Handler(LoopbackHandler):
    server: Api
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:  # noqa: N802
        api = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = Asked(self.path, body, self.lower_headers())
        with api.lock:
            api.asked.append(asked)
        api.arrived.release()
        self.tell(api.program(asked))


def serving() -> AbstractContextManager[Api]:
    return served(Api())


def question(number: int = 0, **fields: Any) -> Question:
    return Question(**({"id": f"q{number}", "text": f"What is {number} + {number}?"} | fields))


def given(*texts: str) -> list[Given]:
    """At L0, L1, …"""
    return [Given(level, text, output_tokens=len(text)) for level, text in enumerate(texts)]
