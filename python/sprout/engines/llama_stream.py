# SPDX-License-Identifier: Apache-2.0
"""llama.cpp's event stream, one completion, back to exact token ids.

Two habits of its server are undone here. A token that ends inside a UTF-8 character is held back
and its id is never sent: only the count jumps, and the text comes with the token that completes
the character. And the token that ended the answer is streamed like any other, before the event
that says so; TensorRT-LLM leaves it out.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from sprout.engines.base import Reason
from sprout.errors import EngineUnavailable

_REASONS = {"eos": Reason.END_ID, "word": Reason.STOP_WORD, "limit": Reason.LENGTH}


class EventParser:
    """Server-sent events out of a response body, piece by piece."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[dict[str, Any]]:
        """The events that are complete now. Comments (keep-alive pings) are skipped.

        Raises EngineUnavailable for an error event, or for what is no JSON.
        """
        *complete, self._rest = (self._rest + piece).split(b"\n\n")
        return [event for raw in complete if (event := _parse(raw)) is not None]


def _parse(raw: bytes) -> dict[str, Any] | None:
    kind, _, data = raw.partition(b": ")
    if kind not in (b"data", b"error") or data == b"[DONE]":
        return None
    try:
        event: dict[str, Any] = json.loads(data)
    except ValueError:
        raise EngineUnavailable(f"the engine sent no JSON: {data[:100]!r}") from None
    if kind == b"error" or "error" in event:
        error = event.get("error", event)
        message = error.get("message", error) if isinstance(error, dict) else error
        raise EngineUnavailable(f"the engine failed: {message}")
    return event


@dataclass(slots=True)
class Tokens:
    """The ids of one completion, from its events.

    retokenize: text → ids, for characters whose first ids the server kept to itself. They are the
    canonical ones, which is what a model writes; their text is the same in any case.
    detokenize: ids → text.
    """

    retokenize: Callable[[str], Awaitable[list[int]]]
    detokenize: Callable[[list[int]], Awaitable[str]]
    predicted: int = 0  # the server's count
    reason: Reason | None = None
    _held: list[int] = field(default_factory=list)  # a silent token that may end the answer
    _silent: list[int] = field(default_factory=list)  # passed on, their text is still to come

    async def take(self, event: dict[str, Any]) -> list[int]:
        """The ids that this event makes known. The last event sets `reason`."""
        predicted = event.get("tokens_predicted", self.predicted)
        if event.get("stop"):
            return self._finish(event, predicted)
        ids: list[int] = event["tokens"]
        text: str = event["content"]
        missing = predicted - self.predicted - len(ids)
        self.predicted = predicted
        known, self._held = self._held, []
        self._silent += known
        if missing > 0:
            ids = await self._recover(text)
        if text:
            self._silent.clear()
        else:
            # Special tokens and pieces of a possible stop word have no text (yet).
            ids, self._held = [], ids
        return known + ids

    def _finish(self, event: dict[str, Any], predicted: int) -> list[int]:
        self.reason = _REASONS.get(event.get("stop_type", ""), Reason.LENGTH)
        held, self._held = self._held, []
        # If the count moved, the token that ended the answer was never sent, and the held one is
        # not it.
        ended_by_held = self.reason is Reason.END_ID and predicted == self.predicted
        return [] if ended_by_held else held

    async def _recover(self, text: str) -> list[int]:
        if self._silent:
            before = await self.detokenize(self._silent)
            text = text.removeprefix(before)
        return await self.retokenize(text)


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
