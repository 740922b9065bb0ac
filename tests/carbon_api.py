# SPDX-License-Identifier: Apache-2.0
"""A carbon API on loopback that answers what it is told to and keeps what it was asked."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    declared: int | None = None  # Content-Length, if not the true one
    drip: bool = False  # spaces for ever, too often for a time-out per read to trip
    deaf: bool = False  # nothing at all


def answer(content: Any, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(json.dumps(content).encode(), status, named)


@dataclass(frozen=True)
class Asked:
    path: str
    query: dict[str, str]
    headers: dict[str, str]


class Api(ThreadingHTTPServer):
    """`answers` by path; `any` for the rest. A list is used up, down to its last one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.any = Answer(status=404)
        self.answers: dict[str, Answer | list[Answer]] = {}
        self.asked: list[Asked] = []
        self.done = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]

    def next(self, path: str) -> Answer:
        found = self.answers.get(path, self.any)
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found


class _Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        api, parts = self.server, urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        api.asked.append(Asked(parts.path, dict(parse_qsl(parts.query)), headers))
        told = api.next(parts.path)
        if told.deaf:
            api.done.wait()
            return
        with suppress(OSError):
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            length = len(told.body) if told.declared is None else told.declared
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(told.body)
            while told.drip and not api.done.wait(0.05):
                self.wfile.write(b" ")
                self.wfile.flush()

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
