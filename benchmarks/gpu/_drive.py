# SPDX-License-Identifier: Apache-2.0
"""Feeds requests to an engine and writes down what happened when."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, Protocol, TypeVar

import numpy as np
from _engine import Engine
from _work import Floats, Request

from sprout.profile.power import Window
from sprout.profile.spans import active_seconds, busy_seconds

R_co = TypeVar("R_co", covariant=True)  # a request: here one of lengths, with a stack one of text


class Feed(Protocol[R_co]):
    def due(self, now: float, in_flight: int) -> tuple[float, R_co] | None:
        """The next request, with when it arrived; None: not yet. now: seconds since the start."""

    def wait(self, now: float) -> float:
        """Seconds until the next can be due while nothing is in flight; inf: there is none."""


@dataclass
class Closed(Generic[R_co]):
    """So many in flight at all times."""

    concurrency: int
    requests: Iterator[R_co]

    def due(self, now: float, in_flight: int) -> tuple[float, R_co] | None:
        return (now, next(self.requests)) if in_flight < self.concurrency else None

    def wait(self, now: float) -> float:
        return 0.0


@dataclass
class Open(Generic[R_co]):
    """At set times, whatever is in flight."""

    times: Floats
    requests: list[R_co]
    _next: int = 0

    def due(self, now: float, in_flight: int) -> tuple[float, R_co] | None:
        i = self._next
        if i >= len(self.times) or self.times[i] > now:
            return None
        self._next += 1
        return float(self.times[i]), self.requests[i]

    def wait(self, now: float) -> float:
        if self._next >= len(self.times):
            return math.inf
        return max(0.0, float(self.times[self._next]) - now)


@dataclass
class Batches:
    """A whole batch at once, the next when all of it has ended, until `seconds` have passed."""

    size: int
    request: Request
    seconds: float
    whole: int = 0  # batches begun
    _left: int = 0

    def due(self, now: float, in_flight: int) -> tuple[float, Request] | None:
        if self._left == 0 and in_flight == 0 and (now < self.seconds or self.whole == 0):
            self._left, self.whole = self.size, self.whole + 1
        if self._left == 0:
            return None
        self._left -= 1
        return now, self.request

    def wait(self, now: float) -> float:
        return 0.0 if now < self.seconds else math.inf


@dataclass
class Flight:
    request: Request
    arrived: float
    first: float = math.nan  # first token
    ended: float = math.nan


@dataclass
class Trace:
    """Times on the driver's clock."""

    started: float
    ended: float = 0.0
    flights: list[Flight] = field(default_factory=list)
    token_times: list[float] = field(default_factory=list)  # of each step's answer …
    token_counts: list[int] = field(default_factory=list)  # … and its tokens

    def tokens(self, since: float, until: float) -> int:
        at = np.array(self.token_times)
        return int(np.array(self.token_counts)[(at >= since) & (at < until)].sum())

    def latencies(self, since: float, until: float) -> list[float]:
        """Of the requests that ended within."""
        return [f.ended - f.arrived for f in self.flights if since <= f.ended < until]

    def window(
        self, joules: float, since: float, until: float, *, block: int, level: str, kind: str,
        setting: float,
    ) -> Window:  # fmt: skip
        """For the fit of the power model. The first token is the prefill's."""
        begun = [f for f in self.flights if since <= f.first < until]
        starts = np.array([f.arrived for f in self.flights])
        ends = np.array([self.ended if math.isnan(f.ended) else f.ended for f in self.flights])
        return Window(
            block=block,
            level=level,
            kind=kind,
            setting=setting,
            seconds=until - since,
            joules=joules,
            prefill_tokens=float(sum(f.request.prompt_tokens for f in begun)),
            decode_tokens=float(self.tokens(since, until) - len(begun)),
            busy_seconds=busy_seconds(starts, ends, since, until),
            active_seconds=active_seconds(starts, ends, since, until),
            requests=len(self.latencies(since, until)),
        )


_KEYS = count()


def drive(
    engine: Engine,
    feed: Feed[Request],
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Trace:
    """For `seconds`, or until the feed has no more and all has ended. What is still in flight
    then is aborted. An open feed's requests count from when they were due, not from when the
    driver came round to them.
    """
    trace = Trace(clock())
    flying: dict[str, Flight] = {}
    while (now := clock() - trace.started) < seconds:
        while (found := feed.due(now, len(flying))) is not None:
            arrived, request = found
            key = str(next(_KEYS))
            flying[key] = Flight(request, trace.started + arrived)
            trace.flights.append(flying[key])
            engine.submit(key, request.prompt_tokens, request.output_tokens)
        if not flying:
            wait = feed.wait(now)
            if math.isinf(wait):
                break
            sleep(min(wait, seconds - now))
            continue
        answers = engine.step()
        at = clock()
        for step in answers:
            flight = flying.get(step.key)
            if flight is None:  # aborted by an earlier drive
                continue
            if math.isnan(flight.first) and step.tokens:
                flight.first = at
            trace.token_times.append(at)
            trace.token_counts.append(step.tokens)
            if step.ended:
                flight.ended = at
                del flying[step.key]
    trace.ended = clock()
    engine.abort(flying)
    return trace
