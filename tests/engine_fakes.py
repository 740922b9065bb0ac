# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for the tests of the engine side: a sink, a responder, engines' HTTP servers."""

import contextlib
import json
import queue
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from waiting import PATIENCE_S

from sprout.engines.base import Chunk, End, Generation
from sprout.errors import SproutError


def generation(*ids: int, max_tokens: int = 4, **more: Any) -> Generation:
    given = {"request_id": "", "input_ids": np.array(ids or (1, 2, 3), np.int32)}
    return Generation(**(given | more), max_tokens=max_tokens)


class Recorder:
    """A sink that remembers, and fails the test that breaks its rules."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.scheduled: list[int] = []
        self.error: SproutError | None = None
        self.over = threading.Event()
        self.begun = threading.Event()
        self.broken: list[str] = []

    def on_scheduled(self, now_ns: int) -> None:
        self._rule(not self.scheduled and not self.chunks and not self.over.is_set(), "scheduled")
        self.scheduled.append(now_ns)

    def on_chunk(self, chunk: Chunk, now_ns: int) -> None:
        self._rule(not self.over.is_set(), "chunk")
        self.chunks.append(chunk)
        self.begun.set()
        if chunk.end is not None:
            self.over.set()

    def on_error(self, error: SproutError) -> None:
        self._rule(not self.over.is_set(), "error")
        self.error = error
        self.over.set()

    def _rule(self, kept: bool, what: str) -> None:
        if not kept:
            self.broken.append(what)

    def wait(self, timeout_s: float = PATIENCE_S) -> "Recorder":
        assert self.over.wait(timeout_s), "no end"
        assert not self.broken, self.broken
        return self

    @property
    def ids(self) -> list[int]:
        return [token for chunk in self.chunks for token in chunk.token_ids]

    @property
    def end(self) -> End:
        assert self.error is None, self.error
        end = self.chunks[-1].end
        assert end is not None
        return end


class FakeResponder:
    """Triton's side of one request."""

    def __init__(self) -> None:
        self.sent: list[dict[str, np.ndarray]] = []
        self.error: SproutError | None = None
        self.abandoned = False
        self.cancelled = False
        self.finals = 0
        self.after_final: list[str] = []
        self.over = threading.Event()

    def send(self, tensors: Mapping[str, np.ndarray], final: bool) -> None:
        self._late("send")
        self.sent.append(dict(tensors))
        if final:
            self._final()

    def fail(self, error: SproutError) -> None:
        self._late("fail")
        self.error = error
        self._final()

    def abandon(self) -> None:
        self._late("abandon")
        self.abandoned = True
        self._final()

    def is_cancelled(self) -> bool:
        self._late("is_cancelled")
        return self.cancelled

    def _late(self, what: str) -> None:
        if self.finals:
            self.after_final.append(what)

    def _final(self) -> None:
        self.finals += 1
        self.over.set()

    def wait(self) -> "FakeResponder":
        assert self.over.wait(PATIENCE_S), "no final response"
        assert self.finals == 1
        assert not self.after_final
        return self

    @property
    def ids(self) -> list[int]:
        return [int(token) for tensors in self.sent for token in tensors["output_ids"].flat]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # as a real one's, what asks one that is stopped waits for its answer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what many tests are about."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class FakeServer:
    """An engine's HTTP server, scripted: as much of a dialect as its client uses.

    `plans`: what the next completions do, in order: a list of events, or a callable that gets the
    handler. A completion without a plan streams token 10, 11, … at `token_s` each.
    """

    def __init__(
        self, port: int = 0, token_s: float = 0.0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.plans: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.bodies: list[dict[str, Any]] = []
        self.token_s = token_s
        self.open = 0
        self.most_open = 0
        self.broken_off = 0
        self.sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                fake.sockets.append(self.connection)

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                fake.get(self)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.post(self, body)

            def answer(self, value: Any, status: int = 200) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def begin(self) -> None:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()

            def event(self, value: dict[str, Any]) -> None:
                data = b"data: " + json.dumps(value).encode() + b"\n\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

        self.server = _Server(("127.0.0.1", port), Handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    # What a dialect says.

    path = ""  # of `url`

    def get(self, handler: Any) -> None:
        raise NotImplementedError

    def post(self, handler: Any, body: dict[str, Any]) -> None:
        """Anything; a streamed completion is for `complete`."""
        raise NotImplementedError

    def events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Of a completion without a plan."""
        raise NotImplementedError

    # What is the same in all.

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}{self.path}"

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def complete(self, handler: Any, body: dict[str, Any]) -> None:
        with self._lock:
            self.bodies.append(body)
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        try:
            plan = None if self.plans.empty() else self.plans.get()
            if callable(plan):
                plan(handler)
            else:
                self._stream(handler, body, plan)
        except (BrokenPipeError, ConnectionResetError):
            self.broken_off += 1
            handler.close_connection = True
        finally:
            with self._lock:
                self.open -= 1

    def _stream(self, handler: Any, body: dict[str, Any], plan: Any) -> None:
        handler.begin()
        for event in self.events(body) if plan is None else plan:
            handler.event(event)
        handler.wfile.write(b"0\r\n\r\n")

    def dies_after(self, *events: dict[str, Any]) -> None:
        """The next completion sends these and hangs up."""

        def die(handler: Any) -> None:
            handler.begin()
            for event in events:
                handler.event(event)
            handler.close_connection = True

        self.plans.put(die)

    def refuses(self, status: int, answer: Any) -> None:
        """The next completion is answered so."""
        self.plans.put(lambda handler: handler.answer(answer, status))

    def close(self) -> None:
        self.server.shutdown()
        for connection in self.sockets:  # those that are kept alive too
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server.server_close()
        self.thread.join()


class FakeLlama(FakeServer):
    """Speaks llama.cpp's HTTP."""

    def __init__(self, port: int = 0, token_s: float = 0.0) -> None:
        self.tokenized = {"🎉": [10813, 232, 227]}
        super().__init__(port, token_s)

    def get(self, handler: Any) -> None:
        meta = {"n_vocab": 50_000, "n_ctx": 1024, "vocab_type": 2}
        handler.answer({"data": [{"meta": meta}]})

    def post(self, handler: Any, body: dict[str, Any]) -> None:
        if handler.path == "/detokenize":
            handler.answer({"content": text_of(body["tokens"])})
        elif handler.path == "/tokenize":
            handler.answer({"tokens": self.tokenized[body["content"]]})
        elif not body.get("stream"):
            handler.answer({"generation_settings/logit_bias": [{"token": 2}, {"token": 0}]})
        else:
            self.complete(handler, body)

    def events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for number in range(body["n_predict"]):
            time.sleep(self.token_s)
            yield self.token(10 + number, number + 1)
        count = body["n_predict"]
        yield {"stop": True, "stop_type": "limit", "tokens_predicted": count}

    def token(self, token: int, predicted: int = 1) -> dict[str, Any]:
        return {"content": text_of([token]), "tokens": [token], "tokens_predicted": predicted}


def text_of(ids: list[int]) -> str:
    """What the fakes' tokens stand for: one letter each."""
    return "".join(chr(97 + token % 26) for token in ids)
