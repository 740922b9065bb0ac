# SPDX-License-Identifier: Apache-2.0
"""A stub's part of the ledger, as a process: it opens, runs and closes flights, and burns CPU.

usage: flier.py SHM RECORDS [FLIGHTS_PER_S]   with a rate: flights until "stop" arrives on stdin
Commands on stdin, each answered by one line: "open" → ticket; "schedule|token|finish|fail|cancel|
close TICKET" → True or False; "count" → True; "burn CPU_S" → True. Under load "stop COUNT", which
ends it as soon as there were so many → all tickets, in order.
"""

import random
import select
import sys
import time
from pathlib import Path

from sprout_ext.ledger import Counter, Flights, Phase, Role, Segment

CONCURRENT = 16


def main() -> None:
    shm, records = Path(sys.argv[1]), int(sys.argv[2])
    segment = Segment.create(shm, Role.PREPROCESSING, 3, 77, records)
    flights = Flights(shm)
    print(f"{segment.tag:04x}", segment.uid, flush=True)
    if len(sys.argv) > 3:
        print(*load(segment, flights, float(sys.argv[3])), flush=True)
    for line in sys.stdin:
        print(command(segment, flights, *line.split()), flush=True)


def open_flight(segment: Segment) -> int:
    return segment.open_flight(
        level=1,
        flags=0,
        policy_version=5,
        policy_seed=6,
        sequence=7,
        task=b"test",
        input_tokens=10,
        max_tokens=20,
        opened_ns=time.monotonic_ns(),
        intensity_g_per_kwh=100.0,
        pue=1.0,
        embodied_g_per_s=0.0,
    )


def end(flights: Flights, ticket: int, phase: Phase) -> bool:
    return flights.finished(
        ticket,
        phase,
        input_tokens=10,
        output_tokens=5,
        first_scheduled_ns=0,
        first_token_ns=0,
        last_token_ns=time.monotonic_ns(),
    )


def command(segment: Segment, flights: Flights, verb: str, argument: str = "0") -> int:
    now_ns = time.monotonic_ns()
    if verb == "burn":
        until = time.process_time() + float(argument)
        while time.process_time() < until:
            pass
        return True
    ticket = int(argument)
    match verb:
        case "open":
            return open_flight(segment)
        case "schedule":
            return flights.scheduled(ticket, now_ns)
        case "token":
            return flights.first_token(ticket, now_ns) and flights.progress(ticket, 1, now_ns)
        case "finish":
            return end(flights, ticket, Phase.FINISHED)
        case "fail":
            return end(flights, ticket, Phase.FAILED)
        case "cancel":
            return end(flights, ticket, Phase.CANCELLED)
        case "close":
            return flights.close(ticket, now_ns, 1.5)
        case "count":
            segment.count(Counter.REQUESTS)
            return True
    raise SystemExit(f"unknown command {verb}")


def load(segment: Segment, flights: Flights, per_s: float) -> list[int]:
    """Up to CONCURRENT flights at once, 5 to 100 ms each, until it is told to stop."""
    draw = random.Random(1)
    tickets: list[int] = []
    running: list[tuple[float, int]] = []  # (due, ticket)
    following = time.monotonic()
    least: int | None = None  # not told yet
    while least is None or len(tickets) < least:
        if least is None and select.select([sys.stdin], [], [], 0)[0]:
            least = int(sys.stdin.readline().split()[1])
        now = time.monotonic()
        for due, ticket in [one for one in running if one[0] <= now]:
            running.remove((due, ticket))
            finish(flights, ticket)
        if now >= following and len(running) < CONCURRENT:
            following = now + 1 / per_s
            ticket = open_flight(segment)  # 0: the table is full, no flight
            if ticket:
                tickets.append(ticket)
                flights.scheduled(ticket, time.monotonic_ns())
                flights.first_token(ticket, time.monotonic_ns())
                running.append((now + draw.uniform(0.005, 0.1), ticket))
        time.sleep(0.001)
    for _, ticket in running:
        finish(flights, ticket)
    return tickets


def finish(flights: Flights, ticket: int) -> None:
    flights.progress(ticket, 5, time.monotonic_ns())
    end(flights, ticket, Phase.FINISHED)
    flights.close(ticket, time.monotonic_ns(), 1.5)


if __name__ == "__main__":
    main()
