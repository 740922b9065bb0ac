# SPDX-License-Identifier: Apache-2.0
"""What keeps an engine fed by many streams: `engine.chunks_per_s` off and on, and answers whole.

The echo engine gives each stream tokens at a set rate, as a GPU gives them step by step: with the
defaults 128 streams could have 3,968 tokens/s together, and by `engine.chunk_interval_ms` alone
each of those travels as a chunk of its own. A stack for each budget stands side by side on one
machine, and perf_analyzer measures them in turn (A B C, then C B A), so that a drift of the machine
hits all. Reported are medians over rounds and the spread of the ratios.

    python benchmarks/bench_streams.py --perf-analyzer perf_analyzer --json streams.json
"""

import argparse
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from _baseline import prompt
from _perf import Profile, profile
from _stack import Stack, commit, machine

from sprout.config import EngineConfig

PROMPT_TOKENS = 128
WHOLE = "whole answers"
OF_STREAMS = ("tokens_per_s", "first_p50_ms", "first_p99_ms", "gap_p99_ms")


@dataclass(frozen=True)
class Seen:
    """One measurement. Gaps are those between two chunks of a stream."""

    tokens_per_s: float
    chunks_per_s: float
    first_p50_ms: float
    first_p99_ms: float
    gap_p50_ms: float
    gap_p99_ms: float
    latency_p50_ms: float

    @classmethod
    def of(cls, run: Profile, tokens: int) -> "Seen":
        return cls(
            tokens_per_s=run.requests_per_s * tokens,
            chunks_per_s=run.chunks_per_s,
            first_p50_ms=percentile(run.firsts_ms, 50),
            first_p99_ms=percentile(run.firsts_ms, 99),
            gap_p50_ms=percentile(run.gaps_ms, 50),
            gap_p99_ms=percentile(run.gaps_ms, 99),
            latency_p50_ms=run.p50_ms,
        )


def percentile(ascending: list[float], of: int) -> float:
    return ascending[int(of / 100 * (len(ascending) - 1))] if ascending else float("nan")


def measure(args: argparse.Namespace, stack: Stack, inputs: Path) -> Seen:
    run = profile(
        args.perf_analyzer,
        "ensemble",
        f"127.0.0.1:{stack.grpc_port}",
        inputs,
        concurrency=args.in_flight,
        requests=args.requests,
        warmup=args.in_flight,
    )
    return Seen.of(run, args.tokens)


def run(args: argparse.Namespace, work: Path) -> dict[str, list[Seen]]:
    """By case, of each round."""
    with ExitStack() as stacks:
        cases = {}
        for budget in args.budgets:
            stack = stacks.enter_context(
                Stack(
                    work / f"{budget:g}",
                    name=f"budget-{budget:g}",
                    engine="echo",
                    echo_tokens_per_s=args.tokens_per_s,
                    chunks_per_s=budget,
                )
            )
            text = prompt(PROMPT_TOKENS, stack.tokenizer_dir)
            streamed = write(work / "streamed.json", args, text, stream=True)
            cases[case(budget)] = partial(measure, args, stack, streamed)
        whole = write(work / "whole.json", args, text, stream=False)
        cases[WHOLE] = partial(measure, args, stack, whole)
        seen: dict[str, list[Seen]] = {name: [] for name in cases}
        for number in range(args.rounds):
            for name in [*cases][:: 1 if number % 2 == 0 else -1]:
                seen[name].append(cases[name]())
                print(number, name, seen[name][-1], file=sys.stderr, flush=True)
    return seen


def case(budget: float) -> str:
    return f"budget {budget:g}" if budget else "no budget"


def write(file: Path, args: argparse.Namespace, text: str, *, stream: bool) -> Path:
    row = {"text_input": [text], "max_tokens": [args.tokens], "stream": [stream]}
    file.write_text(json.dumps({"data": [row]}))
    return file


def ratios(seen: dict[str, list[Seen]], budgets: list[float]) -> list[dict[str, Any]]:
    """Of neighbours in a round: each case over the first, and each over whole answers."""
    first, *others = map(case, budgets)
    pairs = [(one, first, of) for one in others for of in OF_STREAMS]
    pairs += [(one, WHOLE, "tokens_per_s") for one in (first, *others)]
    found = []
    for one, other, of in pairs:
        each = [
            getattr(a, of) / getattr(b, of) for a, b in zip(seen[one], seen[other], strict=True)
        ]
        spread = {"median": statistics.median(each), "range": [min(each), max(each)]}
        found.append({"case": one, "over": other, "of": of, **spread})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--perf-analyzer", default="perf_analyzer")
    parser.add_argument("--in-flight", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--tokens-per-s", type=float, default=31.0, help="of each stream")
    parser.add_argument("--requests", type=int, default=512, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--budgets", type=float, nargs="+", default=[0.0, EngineConfig().chunks_per_s]
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seen = run(args, Path(folder))
    found = ratios(seen, args.budgets)
    to_be_had = args.in_flight * args.tokens_per_s
    print(f"{machine()}, commit {commit()}, {args.in_flight} in flight, {args.tokens} tokens each, "
          f"{to_be_had:.0f} tokens/s to be had, {args.rounds} rounds")  # fmt: skip
    for name, runs in seen.items():
        rows = [asdict(one) for one in runs]
        medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        print(f"{name:16}" + "  ".join(f"{key} {value:.0f}" for key, value in medians.items()))
    for one in found:
        low, high = one["range"]
        over = f"{one['case']} / {one['over']}"
        print(f"{over:28}{one['of']:14}{one['median']:.2f} ({low:.2f}-{high:.2f})")
    if args.json:
        runs_of = {name: [asdict(one) for one in runs] for name, runs in seen.items()}
        result = {"machine": machine(), "commit": commit(), "runs": runs_of, "ratios": found}
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
