# SPDX-License-Identifier: Apache-2.0
"""Writers of the shared files, to be killed. Run as a script: `core_writers.py KIND DIRECTORY`.

For each line read (microseconds to live), forks a writer of that kind, waits until it is at work,
kills it with -9 that much later, and answers with a line. Ends when its input ends.

Every value written is a function of one number, so a reader can tell a mix of two writings.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sprout_ext.board import BoardMix, BoardPolicy, BoardWriter
from sprout_ext.clock import ClockWriter
from sprout_ext.ledger import Flights, Phase, Segment, segments
from sprout_ext.ring import Ring, rings

S = 1_000_000_000
FAR = 2**63 - 1


def policy_of(n: int) -> BoardPolicy:
    share = (n % 64) / 64
    shares = (share, 1 - share) if n % 2 else (share / 2, share / 2, 1 - share)
    names = [(f"{n}.{i}", "") if i % 3 else ("", f"{n}.{i}") for i in range(n % 33)]
    return BoardPolicy(
        version=n,
        seed=n * 7,
        pack_hash=n * 11,
        shares=shares,
        control_share=(n % 128) / 128,
        canary_share=(n % 256) / 256,
        paused=n % 5 == 0,
        deadline_boottime_ns=FAR - n,
        intensity_g_per_kwh=float(n),
        pue=1.0 + n,
        embodied_g_per_s=n / 2,
        mixes=tuple(BoardMix(tenant, task, shares[::-1]) for tenant, task in names),
    )


def opening_of(n: int) -> dict[str, Any]:
    return {
        "level": n % 8,
        "flags": n % 64,
        "policy_version": n * 3,
        "policy_seed": n * 5,
        "sequence": n,
        "task": b"%d" % n,
        "tenant": b"tenant %d" % (n // 3),
        "input_tokens": n % 4096,
        "max_tokens": n % 1024,
        "opened_ns": n * 13,
        "intensity_g_per_kwh": float(n),
        "pue": float(n + 1),
        "embodied_g_per_s": float(n + 2),
    }


def sampled_of(n: int) -> dict[str, Any]:
    return {
        "text": b"%d" % n * (n % 20),
        "level": n % 8,
        "flags": n % 128,
        "policy_version": n,
        "propensity": (n % 100) / 100,
        "max_tokens": n % 4096,
        "opened_ns": n * 13,
        "task": b"task %d" % n,
        "tenant": b"%d" % (n // 2),
    }


def write_board(directory: Path, up: Callable[[], None]) -> None:
    writer = BoardWriter(directory / "policy.board")
    n = int(time.monotonic_ns() // 100)
    up()
    while True:
        n += 1
        writer.publish(policy_of(n))


def write_clock(directory: Path, up: Callable[[], None]) -> None:
    """Tick n comes at n seconds; each third interval is idle and takes 1 J, the others 2 J."""
    writer = ClockWriter(directory / "energy.clock")
    n = writer.last_t_ns // S
    up()
    while True:
        n += 1
        idle = n % 3 == 0
        writer.tick(n * S, 0.0 if idle else 1.0, 1.0 if idle else 2.0, float(n), False)


def open_flights(directory: Path, up: Callable[[], None]) -> None:
    up()  # the making of the segment is among what is killed
    segment = Segment.create(directory, 1, 0, 0, records=4)
    n = segment.uid % 2**40
    while True:
        n += bool(segment.open_flight(**opening_of(n)))


def run_engine(directory: Path, up: Callable[[], None]) -> None:
    flights, (table,) = Flights(directory), segments(directory)
    up()
    while True:
        for ticket in table.scan()["ticket"].tolist():
            g = ticket & 0xFFFFFFFF
            flights.scheduled(ticket, g * 10)
            flights.first_token(ticket, g * 20)
            flights.progress(ticket, g % 1000, g * 30)
            flights.finished(
                ticket,
                Phase(3 + g % 3),
                input_tokens=g % 100 + 1,
                output_tokens=g % 500,
                first_scheduled_ns=g * 11,
                first_token_ns=g * 21,
                last_token_ns=g * 31,
            )


def close_flights(directory: Path, up: Callable[[], None]) -> None:
    flights, (table,) = Flights(directory), segments(directory)
    up()
    while True:
        for ticket in table.scan()["ticket"].tolist():
            g = ticket & 0xFFFFFFFF
            flights.close(ticket, g * 17, float(g % 1024))


def release_flights(directory: Path, up: Callable[[], None]) -> None:
    (table,) = segments(directory)
    up()
    while True:
        for row in table.scan():
            table.release(int(row["slot"]), int(row["generation"]))


def write_prompts(directory: Path, up: Callable[[], None]) -> None:
    up()  # the making of the ring is among what is killed
    ring = Ring.create(directory, 0, 0, slots=4, prompt_bytes=1000)
    n = ring.uid % 2**40
    while True:
        n += 1
        ring.write(**sampled_of(n))


def drain_prompts(directory: Path, up: Callable[[], None]) -> None:
    up()  # what its predecessor held is given back first
    (ring,) = rings(directory)
    while True:
        for prompt in ring.drain():
            if prompt.text != sampled_of(prompt.policy_version)["text"]:
                return  # which is noticed


WRITERS = {
    "board": write_board,
    "clock": write_clock,
    "opener": open_flights,
    "engine": run_engine,
    "closer": close_flights,
    "agent": release_flights,
    "prompts": write_prompts,
    "drain": drain_prompts,
}


def live_and_die(kind: str, directory: Path, lifetime_s: float) -> None:
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            WRITERS[kind](directory, lambda: os.close(tell))
        finally:
            os._exit(3)
    os.close(tell)
    os.read(ready, 1)  # returns when the writer, too, has closed its end
    os.close(ready)
    until = time.perf_counter() + lifetime_s
    while time.perf_counter() < until:
        pass
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status):
        raise RuntimeError(f"the {kind} ended by itself")


def main(kind: str, directory: Path) -> None:
    for line in sys.stdin:
        live_and_die(kind, directory, int(line) * 1e-6)
        sys.stdout.write("dead\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
