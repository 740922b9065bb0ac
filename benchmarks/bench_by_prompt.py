# SPDX-License-Identifier: Apache-2.0
"""What levels by prompt add to an ensemble's latency: real Triton, echo engine, policies in turn.

One server, one client that waits for each answer before it asks again. The policy on the board
changes between blocks of requests, A B B A …: A draws every level from the mix, B has every level
chosen by its prompt, with weights of the usual size (2^15 slots, 3 levels, 6 classes; what they say
is random, which costs the same). Prices make both serve the same level, so that prompts are equally
long. Reported: the median over blocks of each block's p50, and of B's over the A's beside it, with
the range; and how many requests were chosen by their prompt, from the ledger.

    python benchmarks/bench_by_prompt.py [--blocks 30] [--requests 200] [--json FILE]
"""

import argparse
import json
import queue
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from _stack import commit, machine
from _turns import ratio, spread
from bench_prepare import LONG, by_prompt, tokenizer_dir
from triton_process import TritonProcess

from sprout import directives
from sprout.config import Config
from sprout.serve.render import placeholder_values, render, repository_source
from sprout_ext.board import BoardPoint, BoardPolicy, BoardWriter, Flag
from sprout_ext.ledger import SegmentReader, segments

LEVEL = 1  # of every request, under both policies


def policies(shm: Path, pack: str) -> tuple[BoardPolicy, BoardPolicy]:
    """Levels from the mix, and levels by prompt: the same level for all."""
    deadline = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 3600 * 10**9
    shares = (0.0, 1.0, 0.0)
    pack_hash = directives.pack(pack).hash
    plain = BoardPolicy(1, 2, pack_hash, shares, 0.0, 1.0, False, deadline, 100.0, 1.2, 1e-4)
    points = (BoardPoint(1.0, 1e-6, (1.0, 0.0, 1.0)),)
    prompt = replace(by_prompt(shm), g_per_joule=(1e-30,) * 3, points=points)
    return plain, replace(plain, version=2, prompt=prompt)


class Server(TritonProcess):
    """Without an agent: the benchmark itself writes the board, and releases flights."""

    def __init__(self, folder: Path, shm: Path) -> None:
        self.cfg = Config.model_validate(
            {
                "stack": {"shm_dir": shm},
                "engine": {"kind": "echo", "chunk_interval_ms": 0, "chunks_per_s": 0},
            }
        )
        values = placeholder_values(
            self.cfg,
            engine_url="",
            tokenizer_dir=tokenizer_dir(folder / "tokenizer"),
            probe_token_file=None,
        )
        render(repository_source(), folder / "repository", values)
        super().__init__(folder, folder / "repository")


class Asker:
    """One stream; each request waits for the last answer of the one before."""

    def __init__(self, server: Server) -> None:
        self._client = triton.InferenceServerClient(server.grpc)
        self._answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self._client.start_stream(lambda result, error: self._answers.put((result, error)))
        text = triton.InferInput("text_input", [1, 1], "BYTES")
        text.set_data_from_numpy(np.array([[LONG]], object))
        tokens = triton.InferInput("max_tokens", [1, 1], "INT32")
        tokens.set_data_from_numpy(np.array([[1]], np.int32))
        self._inputs = [text, tokens]

    def block(self, requests: int) -> list[float]:
        """Seconds of each."""
        times = []
        for _ in range(requests):
            started = time.perf_counter()
            self._client.async_stream_infer(
                "ensemble", self._inputs, enable_empty_final_response=True
            )
            while True:
                result, error = self._answers.get(timeout=30)
                if error is not None:
                    raise SystemExit(str(error))
                if result.get_response().parameters["triton_final_response"].bool_param:
                    break
            times.append(time.perf_counter() - started)
        return times

    def close(self) -> None:
        self._client.stop_stream()
        self._client.close()


def drained(table: SegmentReader) -> list[tuple[int, int]]:
    """Level and flags of the flights of a block, which are released."""
    rows = table.scan()
    for row in rows:
        table.release(int(row["slot"]), int(row["generation"]))
    return [(int(row["level"]), int(row["flags"])) for row in rows]


def measure(blocks: int, requests: int) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory(dir="/dev/shm") as memory,
    ):
        shm = Path(memory)
        board = BoardWriter(shm / "policy.board")
        server = Server(Path(folder), shm)
        try:
            both = policies(shm, server.cfg.request.pack)
            asker = Asker(server)
            (table,) = (SegmentReader(s.path) for s in segments(shm) if s.records)
            p50: tuple[list[float], list[float]] = ([], [])
            served: list[set[tuple[int, int]]] = [set(), set()]
            for turn in range(-2, 2 * blocks):
                which = (turn // 2 + turn) % 2  # A B B A
                board.publish(both[which])
                asker.block(10)
                drained(table)
                times = asker.block(requests)
                seen = set(drained(table))
                if turn >= 0:  # the first pair warms up
                    p50[which].append(statistics.median(times))
                    served[which] |= seen
            asker.close()
        finally:
            server.stop()
            board.close()
    if served != [{(LEVEL, 0)}, {(LEVEL, int(Flag.PROMPT))}]:
        raise SystemExit(f"not what was to be compared: {served}")
    return {
        "machine": machine(),
        "commit": commit(),
        "blocks": blocks,
        "requests": requests,
        "mix_p50_ms": spread(1e3 * s for s in p50[0]),
        "by_prompt_p50_ms": spread(1e3 * s for s in p50[1]),
        "ratio": ratio(p50[1], p50[0]),
        "quartiles": statistics.quantiles(
            (b / a for a, b in zip(*p50, strict=True)), n=4, method="inclusive"
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--blocks", type=int, default=30, help="of each policy")
    parser.add_argument("--requests", type=int, default=200, help="of a block")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    found = measure(args.blocks, args.requests)
    print(f"{found['machine']}, commit {found['commit']}")
    for name in ("mix_p50_ms", "by_prompt_p50_ms", "ratio"):
        one = found[name]
        print(f"{name:18}{one['median']:8.3f}  ({one['min']:.3f}-{one['max']:.3f})")
    print(f"{'ratio, quartiles':18}{found['quartiles'][0]:8.3f} - {found['quartiles'][2]:.3f}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
