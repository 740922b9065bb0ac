# SPDX-License-Identifier: Apache-2.0
"""One exchange with an API that does everything wrong, over a real socket."""

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from carbon_api import Api, serving
from loopback_api import Answer, answer

from sprout.carbon.http import MAX_ANSWER_BYTES, MAX_RETRY_AFTER_S, get_json, retry_after_s
from sprout.errors import (
    FeedError,
    FeedForbidden,
    FeedMalformed,
    FeedRateLimited,
    FeedUnauthorized,
    FeedUnavailable,
    FeedZoneError,
)

NOW = datetime(2026, 11, 22, 1, 17, tzinfo=UTC)


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as server:
        yield server


def get(api: Api, timeout_s: float = 10.0, **kwargs: Any) -> Any:
    return asyncio.run(get_json("api", f"{api.url}/x", timeout_s=timeout_s, **kwargs))


def test_what_is_sent_and_what_comes_back(api: Api) -> None:
    api.any = answer({"a": [1, None]})
    got = get(api, params={"zone": "DE"}, headers={"auth-token": "k"}, auth=("u", "p"))
    assert got == {"a": [1, None]}
    asked = api.asked[0]
    assert (asked.path, asked.query) == ("/x", {"zone": "DE"})
    assert asked.headers["auth-token"] == "k"
    assert asked.headers["authorization"] == "Basic dTpw"
    assert asked.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (204, FeedMalformed),
        (301, FeedMalformed),
        (400, FeedZoneError),
        (401, FeedUnauthorized),
        (403, FeedForbidden),
        (404, FeedZoneError),
        (410, FeedMalformed),
        (422, FeedZoneError),
        (429, FeedRateLimited),
        (500, FeedUnavailable),
        (503, FeedUnavailable),
    ],
)
def test_a_status_is_an_error_of_its_kind(api: Api, status: int, kind: type[FeedError]) -> None:
    api.any = Answer(status=status)
    with pytest.raises(FeedError, match=f"api: HTTP {status}") as error:
        get(api)
    assert type(error.value) is kind
    assert error.value.retry_after_s is None


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_kept(api: Api, status: int) -> None:
    api.any = Answer(status=status, headers={"Retry-After": "120"})
    with pytest.raises(FeedError) as error:
        get(api)
    assert error.value.retry_after_s == 120
    later = datetime.now(UTC) + timedelta(hours=2)
    api.any = Answer(status=status, headers={"Retry-After": format_datetime(later, usegmt=True)})
    with pytest.raises(FeedError) as error:
        get(api)
    assert error.value.retry_after_s == pytest.approx(7200, abs=60)


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("0", 0),
        (" 90 ", 90),
        ("99999999999999999999", MAX_RETRY_AFTER_S),
        ("Sun, 22 Nov 2026 01:27:00 GMT", 600),
        ("Sun, 22 Nov 2026 01:27:00 -0000", 600),
        ("Sun, 22 Nov 2026 01:00:00 GMT", 0),
        ("Sun, 22 Nov 2099 01:00:00 GMT", MAX_RETRY_AFTER_S),
        ("-5", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_in_both_forms(header: str, wait_s: float | None) -> None:
    assert retry_after_s(header, NOW) == wait_s


@pytest.mark.parametrize("told", [Answer(deaf=True), Answer(drip=True, declared=100_000)])
def test_the_time_out_is_for_the_whole_exchange(api: Api, told: Answer) -> None:
    api.any = told
    with pytest.raises(FeedUnavailable, match=r"api: no answer within 0\.3 s"):
        get(api, timeout_s=0.3)


def test_an_answer_that_is_cut_off(api: Api) -> None:
    api.any = Answer(b'{"a": 1', declared=5000)
    with pytest.raises(FeedUnavailable, match="api: RemoteProtocolError"):
        get(api)


def test_an_answer_without_end(api: Api) -> None:
    api.any = Answer(b" " * (MAX_ANSWER_BYTES + 1))
    with pytest.raises(FeedMalformed, match="larger than"):
        get(api)


def test_an_answer_up_to_the_bound_is_read(api: Api) -> None:
    body = b"[]"
    api.any = Answer(body + b" " * (MAX_ANSWER_BYTES - len(body)))
    assert get(api) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>maintenance</html>",
        b'{"a": 1',
        b"\xff\xfe",
        b"[" * 100_000,
        gzip.compress(json.dumps({"a": 1}).encode(), mtime=0),  # nobody asked for it
    ],
)
def test_what_is_no_json(api: Api, body: bytes) -> None:
    api.any = Answer(body, headers={"Content-Encoding": "gzip"} if body[:1] == b"\x1f" else {})
    with pytest.raises(FeedMalformed, match="api: the answer is no JSON"):
        get(api)


def test_a_redirect_does_not_carry_the_key_elsewhere(api: Api) -> None:
    with serving() as other:
        api.any = Answer(status=302, headers={"Location": f"{other.url}/x"})
        with pytest.raises(FeedMalformed, match="HTTP 302"):
            get(api, headers={"auth-token": "k"})
        assert other.asked == []


def test_no_error_quotes_what_the_api_said(api: Api) -> None:
    for status in (200, 401, 404, 429, 500):
        api.any = Answer(b"your key is s3cret", status=status)
        with pytest.raises(FeedError) as error:
            get(api, headers={"auth-token": "s3cret"})
        assert "s3cret" not in repr(error.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[", "ftp://127.0.0.1"])
def test_nobody_there(url: str) -> None:
    with pytest.raises(FeedUnavailable, match="api: "):
        asyncio.run(get_json("api", url, timeout_s=2))


def test_a_header_that_echoes_the_key_stays_unsaid() -> None:
    """httpx quotes a line that it can't parse, and the line may hold what we sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def echo() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nauth-token  SECRETKEY123\r\n\r\n")

        thread = threading.Thread(target=echo)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        with pytest.raises(FeedUnavailable) as caught:
            asyncio.run(get_json("api", url, timeout_s=10, headers={"auth-token": "SECRETKEY123"}))
        thread.join()
    assert "SECRETKEY123" not in str(caught.value)
    assert "RemoteProtocolError" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "nonsense://127.0.0.1:1"), ("SSL_CERT_FILE", "/nowhere/ca.pem")],
)
def test_a_machine_that_is_set_up_wrong_is_an_outage_and_no_crash(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(FeedUnavailable, match="proxy and certificates"):
        asyncio.run(get_json("api", "https://127.0.0.1:1/x", timeout_s=10))
