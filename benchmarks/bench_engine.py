# SPDX-License-Identifier: Apache-2.0
"""Decode rate of the embedded engine: its server called directly, through the client, through the
slot, and through the whole ensemble.

    python benchmarks/bench_engine.py [--streams 8] [--tokens 64] [--rounds 5] [--json FILE]

One stack whose engine has as many slots as streams. Rounds of the four ways in turn, to and fro, so
that a slow minute of the machine hits all; medians, and ratios within a round. Direct: a thread and
a plain HTTP/1.1 connection per stream, which reads the events and takes the ids out, nothing more.
The prompt is rendered already, so that all four send the same ids.
"""

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from _stack import Stack, commit, machine
from engine_process import EngineProcess

from sprout.engines.base import Chunk, Generation
from sprout.engines.llama_body import INFO_PROBE, body, model_info
from sprout.engines.llama_client import LlamaClient
from sprout.engines.settings import SlotSettings
from sprout.engines.slot import Slot
from sprout.errors import SproutError
from sprout.serve.client import Client

PENALTY = 1.1
CONTEXT = 1024
TEXT = "Photosynthesis is the process by which plants turn light into sugar. " * 6
PROMPT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    f"<|im_start|>user\n{TEXT.strip()}<|im_end|>\n<|im_start|>assistant\n"
)
ENDLESS = -1  # as end_id: every answer has the full length


class Attached(EngineProcess):
    """The engine of a stack that is up."""

    def __init__(self, address: str) -> None:
        self.port = int(address.rpartition(":")[2])


class Direct:
    """As little client as an honest reader of the stream can be."""

    def __init__(self, engine: EngineProcess, streams: int) -> None:
        self._port = engine.port
        probe = engine.post("/completion", INFO_PROBE)
        self._info = model_info(engine.get("/v1/models"), probe)
        self._pool = ThreadPoolExecutor(streams)

    def __call__(self, generation: Generation, streams: int) -> int:
        asked = body(
            generation, self._info, stop=[], repetition_penalty=PENALTY, cache_prompt=False
        )
        asked |= {"prompt": generation.input_ids.tolist(), "n_predict": generation.max_tokens}
        text = json.dumps(asked)
        return sum(self._pool.map(self._one, [text] * streams))

    def _one(self, text: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        connection.request("POST", "/completion", text, {"Content-Type": "application/json"})
        count = 0
        for line in connection.getresponse():
            if line.startswith(b"data: "):
                count += len(json.loads(line[6:]).get("tokens", ()))
        connection.close()
        return count


class Waiter:
    """Waits for a number of ends; a sink of the client, and a responder of the slot."""

    def __init__(self, streams: int) -> None:
        self._left = threading.Semaphore(0)
        self._streams = streams
        self._lock = threading.Lock()
        self.tokens = 0
        self.error: SproutError | None = None

    def on_scheduled(self, now_ns: int) -> None:
        pass

    def on_chunk(self, chunk: Chunk, now_ns: int) -> None:
        self._add(len(chunk.token_ids), chunk.end is not None)

    def on_error(self, error: SproutError) -> None:
        self.error = error
        self._left.release()

    fail = on_error

    def send(self, tensors: Mapping[str, NDArray[Any]], final: bool) -> None:
        self._add(tensors["output_ids"].size, final)

    def abandon(self) -> None:
        self._left.release()

    def is_cancelled(self) -> bool:
        return False

    def _add(self, tokens: int, last: bool) -> None:
        with self._lock:
            self.tokens += tokens
        if last:
            self._left.release()

    def wait(self) -> int:
        for _ in range(self._streams):
            self._left.acquire()
        if self.error is not None:
            raise self.error
        return self.tokens


def through_client(client: LlamaClient) -> Callable[[Generation, int], int]:
    def run(generation: Generation, streams: int) -> int:
        waiter = Waiter(streams)
        for _ in range(streams):
            client.submit(generation, waiter)
        return waiter.wait()

    return run


def through_slot(slot: Slot) -> Callable[[Generation, int], int]:
    def run(generation: Generation, streams: int) -> int:
        waiter = Waiter(streams)
        inputs = {
            "input_ids": generation.input_ids[None, :],
            "input_lengths": np.array([len(generation.input_ids)], np.int32),
            "request_output_len": np.array([generation.max_tokens], np.int32),
            "end_id": np.array([ENDLESS], np.int32),
            "streaming": np.array([True]),
        }
        for _ in range(streams):
            slot.accept("", inputs, waiter)
        return waiter.wait()

    return run


def through_ensemble(address: str, streams: int) -> Callable[[Generation, int], int]:
    clients = [Client(address) for _ in range(streams)]
    pool = ThreadPoolExecutor(streams)

    def one(client: Client, tokens: int) -> int:
        options = {"end_id": ENDLESS}
        return client.ask(PROMPT, max_tokens=tokens, off=True, options=options).output_tokens

    def run(generation: Generation, streams: int) -> int:
        return sum(pool.map(one, clients, [generation.max_tokens] * streams))

    return run


def measure(args: argparse.Namespace, stack: Stack) -> dict[str, Any]:
    engine = Attached(stack.endpoint("engine"))
    client = LlamaClient(
        engine.url,
        slots=args.streams,
        queue=0,
        context_tokens=CONTEXT,
        repetition_penalty=PENALTY,
    )
    slot = Slot(
        SlotSettings(
            engine_url=engine.url,
            engine_slots=args.streams,
            engine_queue=0,
            engine_context_tokens=CONTEXT,
            repetition_penalty=PENALTY,
        )
    )
    try:
        ways: dict[str, Callable[[Generation, int], int]] = {
            "direct": Direct(engine, args.streams),
            "client": through_client(client),
            "slot": through_slot(slot),
            "ensemble": through_ensemble(stack.endpoint("grpc"), args.streams),
        }
        ids = np.array(engine.tokenize(PROMPT), np.int32)
        generation = Generation("", ids, args.tokens, end_id=ENDLESS)
        rates: dict[str, list[float]] = {way: [] for way in ways}
        cpu_us: dict[str, list[float]] = {way: [] for way in ways}
        for round_number in range(args.rounds + 1):
            order = [*ways.items()] if round_number % 2 else [*reversed(ways.items())]
            for way, run in order:
                begun, cpu = time.perf_counter(), time.process_time()
                count = run(generation, args.streams)
                took, cpu = time.perf_counter() - begun, time.process_time() - cpu
                if count != args.streams * args.tokens:
                    raise RuntimeError(f"{way}: {count} tokens instead of all")
                engine.wait_idle()
                if round_number:  # the first one warms up
                    rates[way].append(count / took)
                    cpu_us[way].append(cpu / count * 1e6)
    finally:
        slot.close()
        client.close()
    return {
        "machine": machine(),
        "commit": commit(),
        "streams": args.streams,
        "tokens": args.tokens,
        "prompt_tokens": len(ids),
        "rounds": args.rounds,
        "tokens_per_s": {way: statistics.median(values) for way, values in rates.items()},
        "client_cpu_us_per_token": {way: statistics.median(v) for way, v in cpu_us.items()},
        "ratio_to_direct": {
            way: statistics.median(a / b for a, b in zip(rates[way], rates["direct"], strict=True))
            for way in ("client", "slot", "ensemble")
        },
        "all_tokens_per_s": rates,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write everything")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = {"slots": args.streams, "context_tokens": CONTEXT}
        with Stack(Path(folder), engine="llama_cpp", **settings) as stack:
            result = measure(args, stack)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{result['machine']}, commit {result['commit']}")
    print(f"{args.streams} streams of {args.tokens} tokens, medians of {args.rounds} rounds")
    print(f"{'':9}{'tokens/s':>10}{'of direct':>11}{'CPU us/token here':>20}")
    for way, rate in result["tokens_per_s"].items():
        ratio = result["ratio_to_direct"].get(way, 1.0)
        cpu = result["client_cpu_us_per_token"][way]
        print(f"{way:9}{rate:10.1f}{ratio:11.3f}{cpu:20.0f}")


if __name__ == "__main__":
    main()
