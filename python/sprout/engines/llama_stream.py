# SPDX-License-Identifier: Apache-2.0
"""llama.cpp's event stream, one completion, back to exact token ids.

Two habits of its server are undone here. A token that ends inside a UTF-8 character is held back
and its id is never sent: only the count jumps, and the text comes with the token that completes
the character. And the token that ended the answer is streamed like any other, before the event
that says so; TensorRT-LLM leaves it out.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from sprout.engines.base import Reason
from sprout.engines.events import token_ids
from sprout.errors import EngineError

_REASONS = {"eos": Reason.END_ID, "word": Reason.STOP_WORD, "limit": Reason.LENGTH}


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
        """The ids that this event makes known. The last event sets `reason`. Raises EngineError."""
        predicted = event.get("tokens_predicted", self.predicted)
        if event.get("stop"):
            return self._finish(event, predicted)
        try:
            ids = token_ids(event["tokens"])
            text: str = event["content"]
            missing = predicted - self.predicted - len(ids)
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(f"the engine sent no completion: {error!r}") from None
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
