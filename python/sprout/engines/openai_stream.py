# SPDX-License-Identifier: Apache-2.0
"""The event stream of POST /v1/completions, one completion, to token ids and the reason of its end.

    {"choices": [{"token_ids": […], "finish_reason": null | "stop" | "length" | …,
                  "stop_reason": null | an id | a text}]}

The token that ended an answer comes like any other in vLLM, and in trtllm-serve if it is the
model's own; TensorRT-LLM's tensors leave it out, so it is left out here. A stop word stays in.
"""

from typing import Any

from sprout.engines.base import Reason
from sprout.engines.events import token_ids
from sprout.errors import EngineError, EngineUnavailable

_CUT_OFF = {"abort", "cancelled"}  # by the server, not by us: we do not listen then


class Tokens:
    """The ids of one completion, from its events."""

    __slots__ = ("reason",)

    def __init__(self) -> None:
        self.reason: Reason | None = None  # there after the last event with ids

    def take(self, event: dict[str, Any]) -> list[int]:
        """The ids of this event. Raises EngineError for what is no completion in token ids."""
        try:
            # None but in the event that counts what was used.
            choices = event["choices"]
            if not choices or self.reason is not None:
                return []
            ids = ids_of(choices[0])
            finish = choices[0].get("finish_reason")
            stop = choices[0].get("stop_reason")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(f"the engine sent no completion: {error!r}") from None
        if finish is None:
            return ids
        if finish in _CUT_OFF:
            raise EngineUnavailable(f"the engine cut the answer off: {finish}")
        if finish == "length":
            self.reason = Reason.LENGTH
        elif finish == "stop" and isinstance(stop, str):
            self.reason = Reason.STOP_WORD
        elif finish == "stop":
            self.reason = Reason.END_ID
            if ids and stop in (None, ids[-1]):
                ids.pop()
        else:
            raise EngineError(f"the engine ended the answer in an unknown way: {finish}")
        return ids


def ids_of(choice: dict[str, Any]) -> list[int]:
    """Token ids of a choice. Raises EngineError where it has text and no ids, and what `token_ids`
    does.
    """
    ids = choice.get("token_ids")
    if ids is None:
        if choice.get("text"):
            raise EngineError(
                "the engine sends text without token ids: it must be vLLM 0.10.2 or later, "
                "trtllm-serve, or another that takes return_token_ids"
            )
        return []
    return token_ids(ids)
