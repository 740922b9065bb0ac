# SPDX-License-Identifier: Apache-2.0
"""A chat-completions API on loopback: a program answers, and what it was asked is kept."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from carbon_api import Answer, answer

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


class Api(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.program: Callable[[Asked], Answer] = lambda _: better("tie")
        self.asked: list[Asked] = []
        self.arrived = threading.Semaphore(0)  # released for each request
        self.done = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def script(self, *answers: Answer) -> None:
        """One after the other; the last one for the rest."""
        left = list(answers)

        def program(_: Asked) -> Answer:
            with self.lock:
                return left.pop(0) if len(left) > 1 else left[0]

        self.program = program


class _Handler(BaseHTTPRequestHandler):
    server: Api
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        api = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.path, body, headers)
        with api.lock:
            api.asked.append(asked)
        api.arrived.release()
        told = api.program(asked)
        if told.deaf:
            api.done.wait()
            self.close_connection = True
            return
        with suppress(OSError):
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            length = len(told.body) if told.declared is None else told.declared
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(told.body)
            while told.drip and not api.done.wait(0.02):
                self.wfile.write(b" ")
                self.wfile.flush()
            if told.declared is not None:
                self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Api]:
    server = Api()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.done.set()
        server.shutdown()
        thread.join()
        server.server_close()


def question(number: int = 0, **fields: Any) -> Question:
    return Question(**({"id": f"q{number}", "text": f"What is {number} + {number}?"} | fields))


def given(*texts: str) -> list[Given]:
    """At L0, L1, …"""
    return [Given(level, text, output_tokens=len(text)) for level, text in enumerate(texts)]
