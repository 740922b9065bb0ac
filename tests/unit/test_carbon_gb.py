# SPDX-License-Identifier: Apache-2.0
"""The GB source against a real HTTP server with answers of the recorded shape."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sprout.carbon import GbSource
from sprout.errors import FeedError

NOW = datetime(2026, 11, 22, 1, 17, tzinfo=UTC)


def slot(start: str, end: str, forecast: int | None, actual: int | None) -> dict[str, Any]:
    values = {"forecast": forecast, "actual": actual, "index": "moderate"}
    return {"from": start, "to": end, "intensity": values}


RUNNING = slot("2026-11-22T01:00Z", "2026-11-22T01:30Z", 182, None)
ENDED = slot("2026-11-22T00:30Z", "2026-11-22T01:00Z", 175, 171)


class Api(ThreadingHTTPServer):
    """Answers every path with `body`, after noting it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.body: bytes = b""
        self.declared: int | None = None  # Content-Length, if not the true one
        self.drip = False
        self.paths: list[str] = []
        self.done = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        api = self.server
        api.paths.append(self.path)
        with suppress(OSError):
            self.send_response(api.status)
            self.send_header("Content-Type", "application/json")
            length = len(api.body) if api.declared is None else api.declared
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if not api.drip:
                self.wfile.write(api.body)
                return
            while not api.done.wait(0.05):  # a byte each 50 ms never trips a time-out per read
                self.wfile.write(b" ")
                self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.done.set()
    server.shutdown()
    thread.join()
    server.server_close()


def source(api: Api, timeout_s: float = 5.0) -> GbSource:
    return GbSource(api.url, timeout_s=timeout_s, clock=lambda: NOW)


def answer(*slots: dict[str, Any]) -> bytes:
    return json.dumps({"data": slots}).encode()


def test_actual_where_there_is_one(api: Api) -> None:
    api.body = answer(ENDED)
    value = asyncio.run(source(api).now())
    assert api.paths == ["/intensity"]
    assert (value.g_per_kwh, value.estimated) == (171, False)
    assert value.series == ("GB", "gb", "direct", "average")
    assert value.time == datetime(2026, 11, 22, 0, 30, tzinfo=UTC)


def test_running_half_hour_is_its_forecast(api: Api) -> None:
    api.body = answer(RUNNING)
    value = asyncio.run(source(api).now())
    assert (value.g_per_kwh, value.estimated) == (182, True)


def test_actual_of_zero_is_not_null(api: Api) -> None:
    api.body = answer(slot("2026-11-22T01:00Z", "2026-11-22T01:30Z", 20, 0))
    value = asyncio.run(source(api).now())
    assert (value.g_per_kwh, value.estimated) == (0, False)


def test_neither_actual_nor_forecast_is_an_error(api: Api) -> None:
    api.body = answer(slot("2026-11-22T01:00Z", "2026-11-22T01:30Z", None, None))
    with pytest.raises(FeedError, match="no half-hour"):
        asyncio.run(source(api).now())


def test_history_is_asked_for_by_time_and_sorted(api: Api) -> None:
    later = slot("2026-11-22T01:30Z", "2026-11-22T02:00Z", 190, None)  # in the future
    api.body = answer(RUNNING, ENDED, later)
    values = asyncio.run(source(api).history(24))
    assert api.paths == ["/intensity/2026-11-21T01:17Z/2026-11-22T01:17Z"]
    assert [v.g_per_kwh for v in values] == [171, 182]


def test_history_stays_within_what_the_api_allows(api: Api) -> None:
    api.body = answer()
    assert asyncio.run(source(api).history(9999)) == []
    assert api.paths == ["/intensity/2026-11-09T01:17Z/2026-11-22T01:17Z"]


@pytest.mark.parametrize("status", [301, 400, 404, 429, 500, 503])
def test_http_errors_are_named(api: Api, status: int) -> None:
    api.status, api.body = status, b'{"error": {"code": "x"}}'
    with pytest.raises(FeedError, match=f"HTTP {status}"):
        asyncio.run(source(api).now())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>maintenance</html>",
        answer(RUNNING)[:-20],
        b"\xff\xfe",
    ],
)
def test_broken_json(api: Api, body: bytes) -> None:
    api.body = body
    with pytest.raises(FeedError, match="no JSON"):
        asyncio.run(source(api).now())


def test_connection_that_ends_early(api: Api) -> None:
    api.body, api.declared = answer(RUNNING)[:-20], 5000
    with pytest.raises(FeedError, match="gb: RemoteProtocolError"):
        asyncio.run(source(api).now())


@pytest.mark.parametrize(
    "shape",
    [
        [],
        {"data": None},
        {"data": [None]},
        {"data": [{"from": "2026-11-22T01:00Z"}]},
        {"data": [{"from": "2026-11-22T01:00Z", "intensity": None}]},
        {"data": [{"from": "2026-11-22T01:00Z", "intensity": {"actual": "171"}}]},
        {"data": [{"from": "2026-11-22T01:00Z", "intensity": {"actual": True}}]},
        {"data": [{"from": "noon", "intensity": {"actual": 171}}]},
        {"data": [{"from": 5, "intensity": {"actual": 171}}]},
    ],
)
def test_wrong_shapes(api: Api, shape: object) -> None:
    api.body = json.dumps(shape).encode()
    with pytest.raises(FeedError, match="unexpected answer"):
        asyncio.run(source(api).now())


def test_impossible_value(api: Api) -> None:
    api.body = answer(slot("2026-11-22T01:00Z", "2026-11-22T01:30Z", -4, None))
    with pytest.raises(FeedError, match="no carbon intensity"):
        asyncio.run(source(api).now())


def test_time_out_holds_for_the_whole_answer(api: Api) -> None:
    api.drip, api.declared = True, 100_000
    start = time.monotonic()
    with pytest.raises(FeedError, match=r"no answer within 0\.3 s"):
        asyncio.run(source(api, timeout_s=0.3).now())
    assert time.monotonic() - start < 3


def test_answer_without_end(api: Api) -> None:
    api.body = b" " * (2 << 20)
    with pytest.raises(FeedError, match="larger than"):
        asyncio.run(source(api).now())


def test_nobody_there(api: Api) -> None:
    gone = GbSource("http://127.0.0.1:1", timeout_s=2)
    with pytest.raises(FeedError, match="gb: ConnectError"):
        asyncio.run(gone.now())
