# SPDX-License-Identifier: Apache-2.0
"""What the compiled core costs: draws beside Python's and NumPy's own, and each request's calls.

`choose_R_rows_ns` is per request of a batch of 32 under a policy with R mixes, half of tenants and
half of task classes: `named` by a tenant that has one, `class` by a tenant without and a class that
has one, which is the longest way.

All cases take turns in each round, so that a drift of the machine hits them alike; reported are the
median over rounds and the range. First of all the draws are checked against the NumPy reference.

    python benchmarks/bench_sampler.py [--rounds 15] [--json FILE]
"""

import random
import sys
import tempfile
import time
from bisect import bisect
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from _turns import Case, looped, made_on, main, ratio, summary, table, take_turns

from sprout_ext import reference
from sprout_ext.board import MAX_MIXES, BoardMix, BoardPolicy, BoardReader, BoardWriter
from sprout_ext.clock import ClockReader, ClockWriter
from sprout_ext.ledger import Flights, Phase, Segment, SegmentReader
from sprout_ext.sampler import Sampler, cuda_available, draw_batch, fold_key

SHARES = (0.5, 0.3, 0.2)
BATCH = 1_000_000
LOOP = 20_000
RECORDS = 4096
TOGETHER = 32  # requests of a batch, where mixes are measured
ROWS = (0, MAX_MIXES // 2, MAX_MIXES)
# target: (the better way, the bound)
DRAW_NS, BATCH_RATIO = 150.0, 10.0


def per_request(call: Callable[[], object]) -> Case:
    """Mean over the requests of 32 batches, the least of 40 times: what differs here is less than
    what others on the machine take.
    """
    case = looped(call, 32)
    return lambda: min(case() for _ in range(40)) / TOGETHER


def draws(key: int) -> dict[str, Case]:
    """One draw from Python, in three ways."""
    draw, cumulated = Sampler(SHARES, key).draw, list(accumulate(SHARES))
    generator = np.random.default_rng(1)
    return {
        "draw_ns": looped(lambda: draw(123_456), LOOP),
        "bisect_random_ns": looped(lambda: bisect(cumulated, random.random()), LOOP),
        "generator_choice_ns": looped(lambda: generator.choice(3, p=SHARES), LOOP // 10),
    }


def batches(key: int) -> dict[str, Case]:
    """A million draws at once, in two ways (three with a GPU)."""
    generator = np.random.default_rng(1)
    cases = {
        "batch_1e6_ms": looped(lambda: draw_batch(SHARES, key, 0, BATCH), 3),
        "generator_choice_1e6_ms": looped(lambda: generator.choice(3, BATCH, p=SHARES), 1),
    }
    if cuda_available():
        cases["cuda_batch_1e6_ms"] = looped(
            lambda: draw_batch(SHARES, key, 0, BATCH, device="cuda"), 3
        )
    return cases


def request_path(directory: Path) -> dict[str, Case]:
    """What each request calls: choose, open, finished, view and close."""
    writer = BoardWriter(directory / "policy.board")
    deadline = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 3600 * 10**9
    writer.publish(BoardPolicy(1, 2, 3, SHARES, 0.05, 0.9, False, deadline, 100.0, 1.2, 1e-4))
    board = BoardReader(directory / "policy.board", 3, 4, 5, 0)
    segment, flights = Segment.create(directory, 1, 0, 0, records=RECORDS), Flights(directory)
    agent = SegmentReader(segment.path)
    clock = ClockWriter(directory / "energy.clock")
    for i in range(9000):
        clock.tick((i + 1) * 10**8, 0.1, 1.0, 0.0, False)
    energy = ClockReader(directory / "energy.clock")
    kept: list[int] = []

    def each_ticket(call: Callable[[int], object]) -> Case:
        def run() -> float:
            started = time.perf_counter()
            for ticket in kept:
                call(ticket)
            return (time.perf_counter() - started) / RECORDS

        return run

    def opened() -> float:
        kept.clear()
        started = time.perf_counter()
        for i in range(RECORDS):
            kept.append(
                segment.open_flight(
                    level=1,
                    flags=0,
                    policy_version=1,
                    policy_seed=2,
                    sequence=i,
                    task=b"chat",
                    tenant=b"acme",
                    input_tokens=10,
                    max_tokens=64,
                    opened_ns=1,
                    intensity_g_per_kwh=100.0,
                    pue=1.2,
                    embodied_g_per_s=1e-4,
                )
            )
        return (time.perf_counter() - started) / RECORDS

    def released() -> float:
        started = time.perf_counter()
        rows = agent.scan()
        for slot, generation in zip(
            rows["slot"].tolist(), rows["generation"].tolist(), strict=True
        ):
            agent.release(slot, generation)
        return (time.perf_counter() - started) / RECORDS

    end = {"input_tokens": 1, "output_tokens": 2, "first_scheduled_ns": 3}
    return {
        "choose_us": looped(lambda: board.choose(7), LOOP),
        "choose_many_32_us": looped(lambda: board.choose_many(7, 32), LOOP // 10),
        "open_flight_us": opened,
        "scheduled_us": each_ticket(lambda ticket: flights.scheduled(ticket, 1)),
        "progress_us": each_ticket(lambda ticket: flights.progress(ticket, 5, 2)),
        "finished_us": each_ticket(
            lambda ticket: flights.finished(
                ticket, Phase.FINISHED, **end, first_token_ns=4, last_token_ns=5
            )
        ),
        "energy_us": looped(lambda: energy.energy(400 * 10**8, 8000 * 10**8 + 7), LOOP // 4),
        "view_close_us": each_ticket(
            lambda ticket: (flights.view(ticket), flights.close(ticket, 6, 1.0))
        ),
        "scan_release_us": released,
    }


def mixes(directory: Path) -> dict[str, Case]:
    """One request's part of `choose_many`, by how many mixes there are and by who asks."""
    deadline = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 3600 * 10**9
    cases: dict[str, Case] = {}
    for rows in ROWS:
        given = [BoardMix(f"tenant-of-many-{i}", "", SHARES) for i in range(rows // 2)]
        given += [BoardMix("", f"class-of-many-{i}", SHARES) for i in range(rows // 2)]
        path = directory / f"{rows}.board"
        policy = BoardPolicy(1, 2, 3, SHARES, 0.0, 1.0, False, deadline, 100.0, 1.2, 1e-4)
        BoardWriter(path).publish(replace(policy, mixes=tuple(given)))
        board = BoardReader(path, 3, 4, 5, 0)
        known = max(rows // 2, 1)
        by_tenant = [(b"tenant-of-many-%d" % (i % known), b"") for i in range(TOGETHER)]
        by_class = [
            (b"stranger-%d" % i, b"class-of-many-%d" % (i % known)) for i in range(TOGETHER)
        ]
        choose = board.choose_many
        # Bound as defaults: each case has its own board and names.
        cases[f"choose_{rows}_rows_ns"] = per_request(lambda choose=choose: choose(7, TOGETHER))
        for who, names in (("named", by_tenant), ("class", by_class)):
            cases[f"choose_{rows}_rows_{who}_ns"] = per_request(
                lambda choose=choose, names=names: choose(7, TOGETHER, names)
            )
    return cases


def check_reference(key: int) -> int:
    """The draws are the reference's, one by one and in a batch. Returns how many were compared."""
    for first in (0, 3, 2**33 + 1):
        expected = reference.draw_batch(SHARES, key, first, BATCH // 4)
        if not np.array_equal(draw_batch(SHARES, key, first, BATCH // 4), expected):
            raise SystemExit("the batch is not the reference's")
        sampler = Sampler(SHARES, key)
        if [sampler.draw(first + i) for i in range(1000)] != expected[:1000].tolist():
            raise SystemExit("the draw is not the reference's")
    return 3 * (BATCH // 4)


def measure(rounds: int) -> dict[str, Any]:
    """Everything, as what `--json` writes."""
    key = fold_key(1, 2, 3, 4)
    compared = check_reference(key)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as at:
        cases = draws(key) | batches(key) | request_path(Path(at)) | mixes(Path(at))
        times = take_turns(cases, rounds)
    draw = summary("draw_ns", times["draw_ns"])["median"]
    batch = ratio(times["generator_choice_1e6_ms"], times["batch_1e6_ms"])
    return {
        **made_on(rounds),
        "numpy": np.__version__,
        "draws_equal_to_reference": compared,
        "results": {name: summary(name, seconds) for name, seconds in times.items()},
        "bisect_over_draw": ratio(times["bisect_random_ns"], times["draw_ns"]),
        "choice_over_draw": ratio(times["generator_choice_ns"], times["draw_ns"]),
        "choice_over_batch": batch,
        "targets": {
            f"draw <= {DRAW_NS:.0f} ns": draw <= DRAW_NS,
            f"batch >= {BATCH_RATIO:.0f}x Generator.choice": batch["median"] >= BATCH_RATIO,
        },
    }


def show(found: dict[str, Any]) -> str:
    first = f"{found['draws_equal_to_reference']:,} draws equal to the NumPy reference"
    return table(first, found)


if __name__ == "__main__":
    sys.exit(main(__doc__, 15, measure, show))
