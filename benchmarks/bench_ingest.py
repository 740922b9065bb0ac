# SPDX-License-Identifier: Apache-2.0
"""How fast the control plane takes outcomes in, while policies are watched, and what it loses.

The control plane is the real process with its real store. Agents are processes that hold their
batches ready as bytes, so that the server is what is measured; each has one report under way, as
the real one has. The watchers are processes too, with a connection for each watch. Every outcome
is counted three times over: acknowledged, in the totals, and as a row of the database.

    python benchmarks/bench_ingest.py --outcomes 1000000 --agents 4 --batch 2000 --watchers 100

The store lies in --folder (default: the system's temporary one), so commits cost what they cost
on its disk.
"""

import argparse
import json
import multiprocessing
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import grpc
import psutil
from _stack import commit, machine

from sprout.channel import connect
from sprout.v1 import control_pb2 as pb
from sprout.v1 import control_pb2_grpc

METHOD = "/sprout.v1.Control/ReportOutcomes"
WAIT_S = 60.0
SPAWN = multiprocessing.get_context("spawn")  # grpc does not live through a fork


def batches(agent: int, outcomes: int, batch: int, version: int) -> list[bytes]:
    """Reports of distinct outcomes as a node under load makes them, encoded."""
    draw = random.Random(agent)
    made: list[bytes] = []
    for first in range(0, outcomes, batch):
        request = pb.ReportOutcomesRequest(node=f"node-{agent}", batch=first + 1)
        request.node_status.CopyFrom(pb.NodeStatus(active=3, meter="cpu_model"))
        for i in range(first, min(first + batch, outcomes)):
            tokens = draw.randrange(10, 300)
            o = request.outcomes.add()
            o.segment_uid = (agent + 1) * 0x9E3779B97F4A7C15 % 2**64
            o.ticket = 1 + i
            o.level = draw.choices((0, 1, 2), (2, 5, 3))[0]
            o.level_name = f"L{o.level}"
            o.control = draw.random() < 0.02
            o.policy_version, o.policy_seed = version, 2**63 + 5
            o.node_id, o.stub_index, o.sequence = 2**62 + agent, 1, i
            o.task = draw.choice(("", "chat", "math"))
            o.ending = pb.ENDING_DELIVERED
            o.input_tokens, o.output_tokens, o.max_tokens = 200, tokens, 512
            o.opened_at.seconds, o.opened_at.nanos = 1_800_000_000 + i // 100, i % 1000
            o.queue_seconds, o.device_seconds = draw.random(), 0.01 * tokens
            o.first_token_seconds = draw.random()
            o.energy_joules = 0.17 * tokens * draw.random()
            o.receipt_joules, o.energy_estimated = o.energy_joules, True
            o.carbon_g, o.intensity_g_per_kwh = o.energy_joules * 8e-5, 300.0
        made.append(request.SerializeToString())
    return made


def agent(
    number: int, args: argparse.Namespace, address: str, version: int, go: Event, told: Any
) -> None:
    """Make the batches, wait for `go`, send them; tells (stored, duplicates, worst s)."""
    mine = args.outcomes // args.agents + (number < args.outcomes % args.agents)
    ready = batches(number, mine, args.batch, version)
    with connect(address) as channel:
        send = channel.unary_unary(METHOD, None, pb.ReportOutcomesResponse.FromString)
        grpc.channel_ready_future(channel).result(WAIT_S)
        told.send("ready")
        go.wait()
        stored = duplicates = 0
        worst_s = 0.0
        for request in ready:
            start = time.monotonic()
            answer = send(request, timeout=WAIT_S)
            worst_s = max(worst_s, time.monotonic() - start)
            stored, duplicates = stored + answer.stored, duplicates + answer.duplicates
    told.send((stored, duplicates, worst_s))


def watchers(count: int, address: str, told: Any) -> None:
    """Hold watches, each on a connection of its own, until the policy is paused.

    Tells "ready" once all have the policy in force, then for how many the pause arrived, and
    how long after it was issued the last one had it, s.
    """
    left = threading.Semaphore(0)
    heard: list[float] = []

    def hold(number: int) -> None:
        with connect(address) as channel:
            stub = control_pb2_grpc.ControlStub(channel)
            request = pb.WatchPolicyRequest(node=f"node-{number}")
            first = True
            for policy in stub.WatchPolicy(request):
                if first:
                    left.release()
                first = False
                if policy.paused:
                    heard.append(time.time() - policy.issued_at.ToNanoseconds() / 1e9)
                    left.release()
                    return

    threads = [threading.Thread(target=hold, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()
    if all(left.acquire(timeout=WAIT_S) for _ in threads):
        told.send("ready")
    done = all(left.acquire(timeout=1200) for _ in threads)
    told.send((len(heard), max(heard) if done else None))


class Memory(threading.Thread):
    """Resident memory of a process, (seconds, MB) once a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process, self._stop_it = psutil.Process(pid), threading.Event()
        self.samples: list[tuple[float, float]] = []

    def run(self) -> None:
        start = time.monotonic()
        while not self._stop_it.wait(1.0):
            mb = self._process.memory_info().rss / 1e6
            self.samples.append((time.monotonic() - start, mb))

    def stop(self) -> list[tuple[float, float]]:
        self._stop_it.set()
        self.join()
        return self.samples


@contextmanager
def control_plane(folder: Path, profile: Path | None) -> Iterator[tuple[str, subprocess.Popen]]:
    """(address, process); with `profile`, under cProfile (its event loop's thread alone)."""
    config = folder / "sprout.toml"
    config.write_text(
        f'[stack]\nstate_dir = "{folder / "state"}"\n[control]\nport = 0\n'
        "[carbon]\nconstant_g_per_kwh = 300\n"
    )
    port = folder / "state" / "control.port"
    how = ["-m", "cProfile", "-o", str(profile)] if profile else []
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SPROUT_")}
    with (folder / "control.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *how, "-m", "sprout.control.run"],
            env={**environ, "SPROUT_CONFIG": str(config)},
            stderr=log,
        )
    try:
        until = time.monotonic() + WAIT_S
        while not port.exists():
            if process.poll() is not None or time.monotonic() > until:
                sys.exit((folder / "control.log").read_text())
            time.sleep(0.05)
        yield f"127.0.0.1:{int(port.read_text())}", process
    finally:
        process.terminate()
        process.wait(WAIT_S)


def start(target: Any, *args: Any) -> tuple[Any, Any]:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=target, args=(*args, theirs), daemon=True)
    process.start()
    return process, ours


def told_by(process: Any, pipe: Any) -> Any:
    while not pipe.poll(0.5):
        if not process.is_alive():
            sys.exit(f"a client process died: {process.exitcode}")
    return pipe.recv()


def run(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    with (
        control_plane(folder, args.profile) as (address, process),
        connect(address) as channel,
    ):
        stub = control_pb2_grpc.ControlStub(channel)
        policy = next(iter(stub.WatchPolicy(pb.WatchPolicyRequest(), timeout=WAIT_S)))
        version = policy.epoch << 32 | policy.counter
        watching = start(watchers, args.watchers, address)
        told_by(*watching)
        go = SPAWN.Event()
        agents = [start(agent, n, args, address, version, go) for n in range(args.agents)]
        for each in agents:
            told_by(*each)
        us = psutil.Process(process.pid)
        memory = Memory(process.pid)
        memory.start()
        before = us.cpu_times()
        began = time.monotonic()
        go.set()
        answers = [told_by(*each) for each in agents]
        wall_s = time.monotonic() - began
        after = us.cpu_times()
        samples = memory.stop()
        stub.Pause(pb.PauseRequest(reason="benchmark"), timeout=WAIT_S)
        reached, slowest_s = told_by(*watching)
        totals = stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S).outcomes
    with sqlite3.connect(folder / "state" / "control.sqlite") as db:
        rows = db.execute("SELECT count(*) FROM outcomes").fetchone()[0]
    db.close()
    cpu_s = after.user + after.system - before.user - before.system
    return {
        "machine": machine(),
        "commit": commit(),
        "outcomes": args.outcomes,
        "agents": args.agents,
        "batch": args.batch,
        "watchers": args.watchers,
        "wall_s": wall_s,
        "outcomes_per_s": args.outcomes / wall_s,
        "cpu_us_per_outcome": 1e6 * cpu_s / args.outcomes,
        "slowest_report_s": max(a[2] for a in answers),
        "acknowledged": sum(a[0] for a in answers),
        "duplicates": sum(a[1] for a in answers),
        "in_totals": totals,
        "rows": rows,
        "lost": args.outcomes - min(sum(a[0] for a in answers), totals, rows),
        "watchers_reached_by_a_pause": reached,
        "slowest_watcher_s": slowest_s,
        "rss_mb": samples,
    }


def show(result: dict[str, Any]) -> None:
    r = result
    print(f"{r['machine']}, commit {r['commit']}")
    print(
        f"{r['outcomes']} outcomes, {r['agents']} agents, batches of {r['batch']}, "
        f"{r['watchers']} watchers\n"
        f"{r['outcomes_per_s']:.0f} outcomes/s ({r['wall_s']:.1f} s, "
        f"{r['cpu_us_per_outcome']:.1f} us of CPU each, slowest report "
        f"{r['slowest_report_s']:.2f} s)\n"
        f"lost {r['lost']}: acknowledged {r['acknowledged']}, in totals {r['in_totals']}, "
        f"rows {r['rows']}, duplicates {r['duplicates']}\n"
        f"a pause reached {r['watchers_reached_by_a_pause']} watchers, the last after "
        f"{r['slowest_watcher_s']:.3f} s"
    )
    samples = r["rss_mb"]
    shown = [samples[len(samples) * i // 8] for i in range(8)] + samples[-1:] if samples else []
    print("memory, MB: " + "  ".join(f"{mb:.0f} at {s:.0f} s" for s, mb in shown))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--outcomes", type=int, default=1_000_000)
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--batch", type=int, default=2000)
    parser.add_argument("--watchers", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="Where the store lies while it runs.")
    parser.add_argument("--profile", type=Path, help="Write the server's cProfile data here.")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        result = run(args, Path(folder))
    show(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    if result["lost"] or result["watchers_reached_by_a_pause"] != args.watchers:
        sys.exit(1)


if __name__ == "__main__":
    main()
