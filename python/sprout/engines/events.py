# SPDX-License-Identifier: Apache-2.0
"""Server-sent events of an engine's stream, and where an answer ends by its token ids."""

import json
import operator
from collections.abc import Iterable
from typing import Any

from sprout.engines.base import Reason
from sprout.errors import EngineUnavailable, RequestError

_EVENT_BYTES = 1 << 20  # of one event; a token takes some hundred
_PROMPT_TOKEN_BYTES = 64  # an id takes 12 at most, text of a token seldom more than this, escaped
_NO_ID = 1 << 31  # the first number that is none


class EventParser:
    """Server-sent events out of a response body, piece by piece.

    prompt_tokens: of the request; a server may repeat its prompt in an event, as ids or as text.
    """

    __slots__ = ("_data", "_error", "_held_bytes", "_limit_bytes", "_line")

    def __init__(self, prompt_tokens: int = 0) -> None:
        self._limit_bytes = _EVENT_BYTES + prompt_tokens * _PROMPT_TOKEN_BYTES
        self._line = bytearray()  # its end is still to come
        self._data: list[bytes] = []  # of the event that is still to end, line by line
        self._held_bytes = 0  # in these
        self._error = False  # it says that it is one

    def feed(self, piece: bytes) -> list[dict[str, Any]]:
        """The events that are complete now. Comments (keep-alive pings) are skipped.

        Raises RequestError for an error event that calls the request bad (what a server finds only
        after it has begun to answer), EngineUnavailable for any other, for what is no JSON, and for
        an event without an end.
        """
        *complete, rest = piece.split(b"\n")
        events = []
        for end in complete:
            self._line += end
            line = bytes(self._line).removesuffix(b"\r")
            self._line.clear()
            if line:
                self._take(line)
            elif (event := self._dispatch()) is not None:
                events.append(event)
        self._line += rest
        if len(self._line) + self._held_bytes > self._limit_bytes:
            raise EngineUnavailable(
                f"the engine sent an event of more than {self._limit_bytes} bytes"
            )
        return events

    def _take(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        if field in (b"data", b"error"):
            self._data.append(value.removeprefix(b" "))
            self._held_bytes += len(value) + 1
        # llama.cpp writes `error:` where others write `event: error` before the data.
        self._error |= field == b"error" or (field == b"event" and value.strip() == b"error")

    def _dispatch(self) -> dict[str, Any] | None:
        data, failed = b"\n".join(self._data), self._error
        self._data, self._held_bytes, self._error = [], 0, False
        return None if not data or data.strip() == b"[DONE]" else _parse(data, failed)


def _parse(data: bytes, failed: bool) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise EngineUnavailable(f"the engine sent no JSON object: {data[:100]!r}")
    if failed or "error" in event:
        error = event.get("error", event)
        message, code = error, None
        if isinstance(error, dict):
            message, code = error.get("message") or error, error.get("code")
        if isinstance(code, int) and 400 <= code < 500:
            raise RequestError(f"the engine refused the request: {message}")
        raise EngineUnavailable(f"the engine failed: {message}")
    return event


def token_ids(values: Iterable[Any]) -> list[int]:
    """Ids out of a server's JSON. Raises TypeError or ValueError where one is none: they become
    int32 tensors.
    """
    ids = [operator.index(value) for value in values]
    for token in ids:
        if not 0 <= token < _NO_ID:
            raise ValueError(f"{token} is no token id")
    return ids


def cut(
    before: list[int], ids: list[int], end_id: int | None, stop_words: tuple[tuple[int, ...], ...]
) -> tuple[list[int], Reason | None]:
    """The part of `ids` up to the first end, and that end's reason: an end id, which is left out,
    or a stop word, which stays in. Stop words count as ids here; as text the server finds them.

    before: the ids of the answer so far.
    """
    if end_id is None and not stop_words:
        return ids, None
    answer = list(before[-max(map(len, stop_words), default=1) :])
    for number, token in enumerate(ids):
        if token == end_id:
            return ids[:number], Reason.END_ID
        answer.append(token)
        if any(tuple(answer[-len(word) :]) == word for word in stop_words):
            return ids[: number + 1], Reason.STOP_WORD
    return ids, None
