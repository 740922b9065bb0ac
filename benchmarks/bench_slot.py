# SPDX-License-Identifier: Apache-2.0
"""What a streamed token costs the engine slot, without Triton: CPU time of the slot's process, by
how many streams are at work.

An engine of the benchmark's own gives every stream a token in each step, as a GPU does; responses
go nowhere. The slot shares its interpreter with the engine's client, so what it takes here that
client can't have. Figures are medians over rounds, with their range.

    python benchmarks/bench_slot.py
"""

import argparse
import statistics
import threading
import time
from typing import Any

import numpy as np
from _stack import commit, machine

from sprout.engines.base import Chunk, End, Generation, Reason, Sink
from sprout.engines.settings import SlotSettings
from sprout.engines.slot import Slot


class Steps:
    """An engine: `run` is what it does."""

    name = "echo"

    def __init__(self) -> None:
        self.sinks: list[Sink] = []

    def submit(self, generation: Generation, sink: Sink) -> "Steps":
        self.sinks.append(sink)
        return self

    def cancel(self, *_: str) -> int:
        return 0

    def close(self) -> None:
        pass

    def run(self, tokens: int, step_s: float) -> None:
        started = time.monotonic()
        for number in range(tokens):
            time.sleep(max(0.0, started + number * step_s - time.monotonic()))
            for sink in self.sinks:
                sink.on_chunk(Chunk([number]), time.monotonic_ns())
        for sink in self.sinks:
            end = End(Reason.LENGTH, 3, tokens, 1, 2, 3, 4)
            sink.on_chunk(Chunk([], end), time.monotonic_ns())


class Nowhere:
    """A responder that counts."""

    def __init__(self) -> None:
        self.chunks = 0
        self.over = threading.Event()

    def send(self, tensors: Any, final: bool) -> None:
        self.chunks += 1
        if final:
            self.over.set()

    def fail(self, error: Exception) -> None:
        raise error

    abandon = is_cancelled = lambda self: False


def measure(settings: SlotSettings, streams: int, tokens: int, step_s: float) -> tuple[float, int]:
    """CPU microseconds a token, the engine's own calls among them, and chunks sent."""
    engine = Steps()
    slot = Slot(settings, engine)
    request = {
        "input_ids": np.array([[1, 2, 3]], np.int32),
        "request_output_len": np.array([tokens], np.int32),
        "streaming": np.array([True]),
    }
    responders = [Nowhere() for _ in range(streams)]
    for responder in responders:
        slot.accept("", request, responder)
    began = time.process_time()
    engine.run(tokens, step_s)
    for responder in responders:
        responder.over.wait()
    took = time.process_time() - began
    slot.close()
    return took * 1e6 / (streams * tokens), sum(responder.chunks for responder in responders)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--streams", type=int, nargs="+", default=[8, 32, 128, 256])
    parser.add_argument("--intervals-ms", type=float, nargs="+", default=[0.0, 100.0])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--step-s", type=float, default=0.031)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"{machine()}, commit {commit()}, a step of {args.step_s:g} s, {args.rounds} rounds")
    print(f"{'streams':>8}{'interval ms':>12}{'us a token (range)':>26}{'chunks':>8}")
    for streams in args.streams:
        for interval in args.intervals_ms:
            settings = SlotSettings(engine="echo", chunk_interval_ms=interval, chunks_per_s=0)
            runs = [
                measure(settings, streams, args.tokens, args.step_s) for _ in range(args.rounds)
            ]
            took = [us for us, _ in runs]
            spread = f"{statistics.median(took):.1f} ({min(took):.1f}-{max(took):.1f})"
            print(f"{streams:8}{interval:12g}{spread:>26}{runs[-1][1]:8}")


if __name__ == "__main__":
    main()
