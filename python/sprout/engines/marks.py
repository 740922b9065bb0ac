# SPDX-License-Identifier: Apache-2.0
"""The engine slot's marks in the flight ledger, and its counters. No ledger: no marks."""

import logging
import time
from pathlib import Path

from sprout.engines.base import End, Reason
from sprout_ext.ledger import Counter, Flights, Phase, Role, Segment

log = logging.getLogger(__name__)


class FlightMarks:
    """directory: of the stack's shared memory; None: every method does nothing.

    A ticket of 0 is no flight. Marks of one ticket must come from one thread at a time.
    """

    def __init__(self, directory: Path | None, node_id: int) -> None:
        self._segment: Segment | None = None
        self._flights: Flights | None = None
        if directory is not None:
            # Each without the other: a flight that nobody marks counts as one that never arrived.
            try:
                self._flights = Flights(directory)
            except OSError as error:
                log.warning("no flight ledger in %s, serving without: %s", directory, error)
            try:
                self._segment = Segment.create(directory, Role.ENGINE, 0, node_id)
            except OSError as error:
                log.warning("no counters in %s, serving without: %s", directory, error)

    def count(self, counter: Counter) -> None:
        if self._segment is not None:
            self._segment.count(counter)

    def arrived(self, ticket: int) -> None:
        """The slot has it: from here on it may wait for the engine for long."""
        if ticket and self._flights is not None:
            self._flights.arrived(ticket, time.monotonic_ns())

    def scheduled(self, ticket: int, now_ns: int) -> None:
        if ticket and self._flights is not None:
            self._seen(self._flights.scheduled(ticket, now_ns))

    def progress(self, ticket: int, output_tokens: int, now_ns: int) -> None:
        """Tokens so far; more than none is the mark of the first token too. A sign of life."""
        if ticket and self._flights is not None:
            self._flights.progress(ticket, output_tokens, now_ns)

    def first_token(self, ticket: int, now_ns: int) -> None:
        if ticket and self._flights is not None:
            self._flights.first_token(ticket, now_ns)

    def finished(self, ticket: int, end: End) -> None:
        cancelled = end.reason is Reason.CANCELLED
        if cancelled:
            self.count(Counter.ENGINE_CANCELLED)
        phase = Phase.CANCELLED if cancelled else Phase.FINISHED
        if ticket and self._flights is not None:
            self._flights.finished(
                ticket,
                phase,
                input_tokens=end.input_tokens,
                output_tokens=end.output_tokens,
                first_scheduled_ns=end.first_scheduled_ns,
                first_token_ns=end.first_token_ns,
                last_token_ns=end.last_token_ns,
            )

    def failed(self, ticket: int, input_tokens: int, output_tokens: int) -> None:
        """Ends a flight now; what was marked before stands."""
        self.count(Counter.ENGINE_FAILED)
        if ticket and self._flights is not None:
            self._flights.finished(
                ticket,
                Phase.FAILED,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                first_scheduled_ns=0,
                first_token_ns=0,
                last_token_ns=time.monotonic_ns(),
            )

    def close(self) -> None:
        """The segment's file stays: its counters are the agent's to read, and to take away."""
        if self._segment is not None:
            self._segment.close()

    def _seen(self, known: bool) -> None:
        if not known:
            self.count(Counter.UNATTRIBUTED)
