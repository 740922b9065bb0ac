# SPDX-License-Identifier: Apache-2.0
"""Requests on a stack while its engine dies, and what must be true of them afterwards."""

import contextlib
import itertools
import math
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Self

from outcomes import open_flights, settled, status
from waiting import PATIENCE_S, wait_for

from sprout.errors import EngineError
from sprout.serve.background import BackgroundStack
from sprout.serve.client import Answer, Client
from sprout.v1 import control_pb2 as pb
from sprout_ext.clock import ClockReader, ClockState
from sprout_ext.ledger import segments

PROMPT = "Tell me about the sea."
REST_S = 0.2  # of a client that was refused
ANSWER_S = 300.0  # none may be silent for longer


class Load:
    """Clients that ask one after the other within the block; keeps how each request ended, when."""

    def __init__(self, stack: BackgroundStack, clients: int, max_tokens: int) -> None:
        self._stack, self._clients, self._max_tokens = stack, clients, max_tokens
        self._stop = threading.Event()
        self._began = itertools.count()
        self.asked = 0
        self.answers: list[tuple[float, Answer]] = []  # with the monotonic time of its end
        self.errors: list[tuple[float, str]] = []
        self.strange: list[BaseException] = []  # what no client should have to expect

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._client) for _ in range(self._clients)]
        for thread in self._threads:
            thread.start()
        wait_for(lambda: len(self.answers) >= self._clients, what="first answers")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(ANSWER_S)
        assert not any(thread.is_alive() for thread in self._threads), "a request has no end"
        self.asked = next(self._began)
        assert not self.strange, self.strange
        assert len(self.answers) + len(self.errors) == self.asked

    def _client(self) -> None:
        with Client(self._stack.endpoint("grpc")) as client:
            while not self._stop.is_set():
                next(self._began)
                try:
                    answer = client.ask(
                        PROMPT,
                        max_tokens=self._max_tokens,
                        options={"min_tokens": self._max_tokens},
                        timeout_s=ANSWER_S,
                    )
                    self.answers.append((time.monotonic(), answer))
                except EngineError as error:
                    self.errors.append((time.monotonic(), str(error)))
                    self._stop.wait(REST_S)
                except BaseException as error:  # the test's, not this thread's
                    self.strange.append(error)
                    return

    def answered_since(self, at: float) -> int:
        return sum(time_ > at for time_, _ in self.answers)

    def said(self, since: float) -> str:
        """How requests failed: how many, how, and when the first one did."""
        kinds = Counter(text for _, text in self.errors)
        first = min((at for at, _ in self.errors), default=math.nan) - since
        lines = [f"{n} x {text}" for text, n in kinds.most_common()]
        return f"first error after {first:.1f} s, {len(self.answers)} answered\n" + "\n".join(lines)


class ClockWatch:
    """Reads the energy clock within the block; it must never run backwards."""

    def __init__(self, stack: BackgroundStack) -> None:
        self._reader = ClockReader(stack.paths.shm / "energy.clock")
        self._stop = threading.Event()
        self.states: list[ClockState] = []

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        for before, after in itertools.pairwise(self.states):
            for name in ("t_ns", "metered", "settled", "idle", "unattributed"):
                assert getattr(after, name) >= getattr(before, name), (name, before, after)
        last = self.states[-1]
        parts = last.settled + last.idle + last.unattributed
        assert math.isclose(last.metered, parts, rel_tol=1e-9, abs_tol=1e-6)
        assert last.t_ns > self.states[0].t_ns

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            state = self._reader.state()
            if state is not None and state.t_ns:
                self.states.append(state)


def wait_begun(stack: BackgroundStack) -> None:
    """Until a stream has its first token, so that one is decoding; streams may go in step."""

    def begun() -> set[int]:
        flights = [segment.scan() for segment in segments(stack.paths.shm)]
        return {int(ns) for found in flights for ns in found["first_token_ns"] if ns}

    before = begun()
    wait_for(lambda: bool(begun() - before), what="a stream that begins")


def engine(stack: BackgroundStack) -> dict[str, object]:
    found: dict[str, object] = stack.state()["processes"]["engine"]
    return found


def wait_replaced(stack: BackgroundStack, victim: int, timeout_s: float) -> None:
    """Until the stack is ready with another engine process."""

    def replaced() -> bool:
        state = stack.state()
        return bool(state.get("ready")) and engine(stack)["pid"] not in (victim, None)

    wait_for(replaced, timeout_s, what="another engine")


def wait_clean(stack: BackgroundStack) -> None:
    """No flight is left, and all outcomes have arrived."""
    settled(stack)
    assert open_flights(stack) == 0


def endings(stack: BackgroundStack) -> Counter[str]:
    """Of all outcomes but Sprout's own probes."""
    query = "select ending, count(*) from outcomes where not flags & 64 group by ending"
    with contextlib.closing(sqlite3.connect(_store(stack))) as db:
        rows = db.execute(query).fetchall()
    return Counter({pb.Ending.Name(e).removeprefix("ENDING_").lower(): n for e, n in rows})


def given_joules(stack: BackgroundStack) -> float:
    """Of all outcomes, probes too."""
    with contextlib.closing(sqlite3.connect(_store(stack))) as db:
        return float(db.execute("select total(energy_joules) from outcomes").fetchone()[0])


def balanced(stack: BackgroundStack) -> bool:
    """What the flights were given is what the node's clock settled."""
    wait_clean(stack)
    [node] = status(stack).nodes
    return math.isclose(given_joules(stack), node.settled_joules, rel_tol=1e-6, abs_tol=1e-3)


def _store(stack: BackgroundStack) -> Path:
    return stack.paths.state / "control.sqlite"
