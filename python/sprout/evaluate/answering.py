# SPDX-License-Identifier: Apache-2.0
"""Has every question answered at every level, without clients feeling it.

Through the same Triton that serves them, or another one. A request starts only while fewer than a
set number of clients' are in flight, with a bounded number of its own at once. One that fails is
tried again a few times; then its question is left out, and counted: half a comparison is none.
"""

import logging
import math
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sprout.config import Config
from sprout.errors import (
    ConfigError,
    EngineError,
    RequestCancelled,
    RequestError,
    SproutError,
)
from sprout.evaluate.answers import Answer, Question
from sprout.evaluate.asking import Asker, TritonAsker
from sprout.evaluate.traffic import Gate, LedgerTraffic, Slots, Traffic
from sprout.serve import client
from sprout.serve.state import StackPaths, evaluate_token_file

log = logging.getLogger(__name__)

GIVE_UP_AFTER = 5  # questions in a row without an answer: it is not the questions


@dataclass(frozen=True, slots=True)
class Answered:
    question: Question
    answers: tuple[Answer, ...]  # (levels,)


@dataclass(frozen=True, slots=True)
class Tally:
    """What has happened so far."""

    requests: int = 0  # started, repeats included
    answered: int = 0  # questions, at every level
    left_out: int = 0  # questions
    repeated: int = 0  # requests
    held: int = 0  # requests that had to wait for clients
    held_s: float = 0.0
    unmetered: int = 0  # answers whose receipt names no joules
    # Requests that were started and ended without a receipt: the engine failed, or was not waited
    # for. What they used is not known. One that was refused used nothing.
    failed: int = 0
    # Of every receipt, whether its question is answered in the end or not.
    output_tokens: int = 0
    energy_joules: float = 0.0
    estimated: int = 0  # receipts whose joules are estimated, or missing
    carbon_g: float = 0.0
    carbon_unknown: int = 0  # receipts that name no grams


class Answering:
    """One evaluation's answers. `answers` is called once."""

    def __init__(
        self,
        asker: Asker,
        gate: Gate,
        levels: Sequence[str],
        *,
        concurrency: int,
        max_tokens: int,
        retries: int,
        energy_estimated: bool,
        retry_s: float = 1.0,
        slots: Slots | None = None,
    ) -> None:
        """levels: their names, L0 first; energy_estimated: whether the answering node's meter is;
        retry_s: before the first repeat, then twice as long each time; slots: shared with a judge
        on the same server."""
        self._asker, self._gate, self._levels = asker, gate, tuple(levels)
        self._concurrency, self._max_tokens = concurrency, max_tokens
        self._slots = slots or Slots(concurrency)
        self._retries, self._retry_s = retries, retry_s
        self._energy_estimated = energy_estimated
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._tally = Tally()
        self._held_too_long = ""
        self._in_vain = 0  # questions in a row
        self._left_out: dict[str, str] = {}

    @property
    def tally(self) -> Tally:
        return self._tally

    @property
    def left_out(self) -> dict[str, str]:
        """Questions that were not answered, by id, and the kind of error."""
        with self._lock:
            return dict(self._left_out)

    @property
    def held_too_long(self) -> str:
        """Why the answers ended before the questions; "": they did not."""
        return self._held_too_long

    def cancel(self) -> None:
        """Nothing starts any more; what runs is let go of at its next piece of text, and at its
        time-out at the latest. From any thread."""
        self._stop.set()

    def answers(self, questions: Iterable[Question]) -> Iterator[Answered]:
        """In the order of the questions: what is quick to answer is not like the rest, and whoever
        stops on what has come so far would see a biased sample.

        No more than `concurrency` questions are taken that are not given back yet, so a reader that
        stops in time costs that many at most; closing the iterator cancels those. Raises
        ConfigError where the level asked for is not the one served, and the last error after
        GIVE_UP_AFTER questions in a row that had to be left out.
        """
        running: deque[Future[Answered | SproutError | None]] = deque()
        with ThreadPoolExecutor(self._concurrency, "evaluation") as pool:
            try:
                for question in questions:
                    if self._stop.is_set():
                        break
                    running.append(pool.submit(self._question, question))
                    if len(running) == self._concurrency:
                        yield from self._taken(running.popleft())
                while running:
                    yield from self._taken(running.popleft())
            finally:
                self._stop.set()

    def _taken(self, future: Future[Answered | SproutError | None]) -> Iterator[Answered]:
        result = future.result()
        if isinstance(result, Answered):
            self._in_vain = 0
            yield result
        elif isinstance(result, RequestError):
            pass  # its own fault, and no sign of an engine that is gone
        elif result is not None:
            self._in_vain += 1
            if self._in_vain >= GIVE_UP_AFTER:
                raise result

    def _question(self, question: Question) -> Answered | SproutError | None:
        """None: cancelled. An error: left out."""
        try:
            answers = [self._level(question, index) for index in range(len(self._levels))]
        except RequestCancelled:
            return None
        except ConfigError:
            raise
        except SproutError as error:
            log.warning("question %s is left out: %s", question.id, error)
            self._count(left_out=1)
            with self._lock:
                self._left_out[question.id] = type(error).__name__
            return error
        self._count(answered=1)
        return Answered(question, tuple(answers))

    def _level(self, question: Question, index: int) -> Answer:
        max_tokens = question.max_tokens or self._max_tokens
        for attempt in range(self._retries + 1):
            if attempt:
                self._stop.wait(self._retry_s * 2 ** (attempt - 1))
            try:
                with self._slots.one(self._stop):
                    self._wait()
                    said = self._ask(question, index, max_tokens, repeated=attempt > 0)
                return self._answer(said, index, max_tokens)
            except EngineError:
                if attempt == self._retries:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _ask(
        self, question: Question, index: int, max_tokens: int, *, repeated: bool
    ) -> client.Answer:
        """What it took counts as soon as it has come."""
        self._count(requests=1, repeated=int(repeated))
        failed = 1
        try:
            with self._slots.asking():
                said = self._asker.ask(question, self._levels[index], max_tokens, self._check)
            failed = int(said.receipt is None)
        except (RequestError, ConfigError):
            failed = 0  # refused
            raise
        finally:
            self._count(failed=failed)
        if said.receipt is not None:
            self._receipt(said, said.receipt)
        return said

    def _receipt(self, said: client.Answer, receipt: client.Receipt) -> None:
        metered, known = math.isfinite(receipt.energy_joules), math.isfinite(receipt.carbon_g)
        self._count(
            output_tokens=said.output_tokens,
            unmetered=int(not metered),
            estimated=int(self._energy_estimated or not metered),
            carbon_unknown=int(not known),
            energy_joules=receipt.energy_joules if metered else 0.0,
            carbon_g=receipt.carbon_g if known else 0.0,
        )

    def _wait(self) -> None:
        """Until a request may start. RequestCancelled: it must not."""
        held_s, why = self._gate.wait(lambda: self._slots.in_flight, self._stop)
        self._count(held=int(held_s > 0), held_s=held_s)
        if why:
            with self._lock:
                if not self._stop.is_set():
                    self._held_too_long = why
            self._stop.set()
            raise RequestCancelled(why)

    def _check(self, _: str) -> None:
        if self._stop.is_set():
            raise RequestCancelled("the evaluation was cancelled")

    def _answer(self, said: client.Answer, index: int, max_tokens: int) -> Answer:
        receipt = said.receipt
        if receipt is None:
            raise EngineError("the answer came without a receipt: who knows its level")
        if receipt.level != index:
            raise ConfigError(
                f"{self._levels[index]} was asked for and L{receipt.level} served. Triton must "
                "know this evaluation's token (evaluate.schedule.token_file; in preprocessing's "
                "config.pbtxt sprout_evaluate_token_file), or request.hints must hold sprout_level "
                "and the policy not be paused"
            )
        metered = math.isfinite(receipt.energy_joules)
        return Answer(
            level=index,
            text=said.text,
            input_tokens=said.input_tokens,
            output_tokens=said.output_tokens,
            energy_joules=receipt.energy_joules if metered else 0.0,
            energy_estimated=self._energy_estimated or not metered,
            carbon_g=receipt.carbon_g if math.isfinite(receipt.carbon_g) else None,
            truncated=said.output_tokens >= max_tokens,
        )

    def _count(self, **more: float) -> None:
        """more: of Tally."""
        with self._lock:
            counts: dict[str, Any] = {
                name: getattr(self._tally, name) + n for name, n in more.items()
            }
            self._tally = replace(self._tally, **counts)


def answering(
    cfg: Config,
    address: str,
    levels: Sequence[str],
    *,
    energy_estimated: bool,
    traffic: Traffic | None = None,
    slots: Slots | None = None,
) -> tuple[Answering, Asker]:
    """As configured; the asker is to be closed afterwards.

    address: of the stack's Triton, "host:port" of gRPC. traffic: of the clients of another one
    (`evaluate.schedule.endpoint`), which this node's ledger knows nothing of. slots: of Answering.
    """
    schedule = cfg.evaluate.schedule
    token: Path | None = evaluate_token_file(cfg)
    if schedule.endpoint:
        if traffic is None:
            raise ConfigError(
                "evaluate.schedule.endpoint is another Triton: its load must come from the control "
                "plane, which is not reachable"
            )
        address, token = schedule.endpoint, schedule.token_file
    gate = Gate(
        traffic or LedgerTraffic(StackPaths.of(cfg).shm),
        schedule.max_client_requests,
        hold_s=schedule.hold_s,
    )
    asker = TritonAsker(address, token_file=token, timeout_s=schedule.timeout_s)
    made = Answering(
        asker,
        gate,
        levels,
        concurrency=schedule.concurrency,
        max_tokens=schedule.max_tokens,
        retries=schedule.retries,
        energy_estimated=energy_estimated,
        slots=slots,
    )
    return made, asker
