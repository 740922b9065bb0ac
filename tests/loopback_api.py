# SPDX-License-Identifier: Apache-2.0
"""An HTTP API on loopback that answers what it is told to, also badly."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar


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


class LoopbackApi(ThreadingHTTPServer):
    """What it answers is its handler's part."""

    daemon_threads = True

    def __init__(self, handler: type["LoopbackHandler"]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.done = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


Api = TypeVar("Api", bound=LoopbackApi)


class LoopbackHandler(BaseHTTPRequestHandler):
    server: LoopbackApi

    def lower_headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def tell(self, told: Answer) -> None:
        done = self.server.done
        if told.deaf:
            done.wait()
            self.close_connection = True
            return
        with suppress(OSError):  # the client may have had enough
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            length = len(told.body) if told.declared is None else told.declared
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(told.body)
            while told.drip and not done.wait(0.02):
                self.wfile.write(b" ")
                self.wfile.flush()
            if told.declared is not None:
                self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(api: Api) -> Iterator[Api]:
    thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield api
    finally:
        api.done.set()
        api.shutdown()
        thread.join()
        api.server_close()
