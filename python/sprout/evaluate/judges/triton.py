# SPDX-License-Identifier: Apache-2.0
"""A Triton ensemble as the judge, over gRPC streaming; it may be the server that is being judged.

Its prompts opt out of directives and of being sampled. Where the server does not honour that, the
judge would be told to be brief like anybody else: the receipt says so, and the evaluation stops.
"""

import queue
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace

from sprout.errors import (
    EngineError,
    EngineUnavailable,
    JudgeError,
    RequestCancelled,
    RequestError,
)
from sprout.evaluate.asking import EVALUATION_MARK
from sprout.evaluate.judges.instructions import Prompt
from sprout.evaluate.judges.model import Reply, Turn
from sprout.evaluate.judges.reply import MAX_CHARS
from sprout.evaluate.judges.verdict import Reason
from sprout.serve.client import Answer, Client

# Greedy, and without the penalty that an engine may have by default: JSON repeats itself.
_OPTIONS = {"top_k": 1, "temperature": 0.0, "repetition_penalty": 1.0}
MAX_REPLY_CHARS = 64 * MAX_CHARS  # a trace of reasoning, and then some


class _Oversized(Exception):  # noqa: N818 - leaves the callback, never this file
    pass


class TritonLine:
    """address: "host:port" of Triton's gRPC service. model: what it serves, for people and for the
    version; "" = the address stands for it. token: marks its requests as an evaluation's, so that
    they are in nobody's statistics; looked up for each. turn: entered around each call.
    """

    def __init__(
        self,
        address: str,
        model: str = "",
        *,
        timeout_s: float = 60.0,
        max_tokens: int = 512,
        token: Callable[[], str] | None = None,
        turn: Turn = nullcontext,
    ) -> None:
        self._address, self._model = address, model or address
        self._timeout_s, self._max_tokens = timeout_s, max_tokens
        self._token, self._turn = token, turn
        # A client is for one thread at a time. Made when needed: as many as threads ask at once.
        self._idle: queue.SimpleQueue[Client] = queue.SimpleQueue()

    @property
    def name(self) -> str:
        return f"triton {self._model}"

    @property
    def identity(self) -> dict[str, object]:
        return {"kind": "triton", "model": self._model, "max_tokens": self._max_tokens}

    def ask(self, prompt: Prompt, stop: threading.Event) -> Reply:
        try:
            client = self._idle.get_nowait()
        except queue.Empty:
            client = Client(self._address)
        try:
            with self._turn(stop):
                answer = self._ask(client, prompt, stop)
        except _Oversized:
            return Reply(failed=Reason.OVERSIZED)
        except RequestError as error:
            if EVALUATION_MARK in str(error):
                raise JudgeError(
                    f"Triton at {self._address} does not know this evaluation's token ({error}): "
                    "name the same file for both (evaluate.schedule.token_file), and start Triton "
                    "again"
                ) from None
            return Reply(failed=Reason.REJECTED)
        except EngineUnavailable:
            return Reply(failed=Reason.UNAVAILABLE)
        except EngineError as error:
            late = str(error).startswith("no end of the answer")
            return Reply(failed=Reason.TIMEOUT if late else Reason.UNAVAILABLE)
        finally:
            self._idle.put(client)
        return self._reply(answer)

    def _ask(self, client: Client, prompt: Prompt, stop: threading.Event) -> Answer:
        said = 0

        def watch(text: str) -> None:
            nonlocal said
            said += len(text)
            if stop.is_set():
                raise RequestCancelled("the evaluation was stopped")
            if said > MAX_REPLY_CHARS:
                raise _Oversized

        marks: dict[str, str | bool] = {"sprout_sample": False}
        if self._token is not None:
            marks[EVALUATION_MARK] = self._token()
        return client.ask(
            f"{prompt.system}\n\n{prompt.user}",
            max_tokens=self._max_tokens,
            # With the token a level is heard whatever hints the operator allows.
            level=None if self._token is None else "L0",
            off=self._token is None,
            marks=marks,
            options=_OPTIONS,
            timeout_s=self._timeout_s,
            on_text=watch,
        )

    def _reply(self, answer: Answer) -> Reply:
        receipt = answer.receipt
        if receipt is not None and receipt.level != 0:
            raise JudgeError(
                f"Triton at {self._address} put a directive into the judge's own prompt: allow "
                'the hint "sprout_off" there (request.hints), let it know this evaluation\'s token '
                "(evaluate.schedule.token_file), or name another judge"
            )
        metered = receipt is not None and receipt.energy_joules >= 0  # nan: nothing was metered
        reply = Reply(
            text=answer.text,
            input_tokens=answer.input_tokens or None,
            output_tokens=answer.output_tokens or None,
            receipt_joules=receipt.energy_joules if receipt is not None and metered else None,
        )
        if answer.output_tokens >= self._max_tokens:
            return replace(reply, text="", failed=Reason.TRUNCATED)
        return reply

    def close(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()
