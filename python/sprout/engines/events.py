# SPDX-License-Identifier: Apache-2.0
"""Server-sent events of an engine's stream, and where an answer ends by its token ids."""

import json
from typing import Any

from sprout.engines.base import Reason
from sprout.errors import EngineUnavailable, RequestError


class EventParser:
    """Server-sent events out of a response body, piece by piece."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[dict[str, Any]]:
        """The events that are complete now. Comments (keep-alive pings) are skipped.

        Raises RequestError for an error event that calls the request bad (what a server finds only
        after it has begun to answer), EngineUnavailable for any other, or for what is no JSON.
        """
        *complete, self._rest = (self._rest + piece).replace(b"\r\n", b"\n").split(b"\n\n")
        return [event for raw in complete if (event := _parse(raw)) is not None]


def _parse(raw: bytes) -> dict[str, Any] | None:
    kind, _, data = raw.partition(b":")
    if kind not in (b"data", b"error") or data.strip() == b"[DONE]":
        return None
    try:
        event: dict[str, Any] = json.loads(data)
    except ValueError:
        raise EngineUnavailable(f"the engine sent no JSON: {data[:100]!r}") from None
    if kind == b"error" or "error" in event:
        error = event.get("error", event)
        message, code = error, None
        if isinstance(error, dict):
            message, code = error.get("message", error), error.get("code")
        if isinstance(code, int) and 400 <= code < 500:
            raise RequestError(f"the engine refused the request: {message}")
        raise EngineUnavailable(f"the engine failed: {message}")
    return event


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
