# SPDX-License-Identifier: Apache-2.0
"""What Sprout adds to an ensemble: `ensemble` against the least that such an ensemble can do.

Both stand in the same Triton, with the same tokenizer and the same engine slot (echo, as fast as it
can); the baseline only tokenizes and detokenizes: no template, no draw, no ledger, no receipt. It
takes and gives the tensors of TensorRT-LLM's ensemble, as whatever one would use instead has to.
`--bare` measures against one of three inputs and one output, which no client of TensorRT-LLM could
use: Triton and its Python backend charge for each tensor that is wired, asked for or not.

perf_analyzer measures them in turn (A B B A …), so that a drift of the machine hits both. Reported
are medians over rounds and the spread of the ratios.

    python benchmarks/bench_overhead.py --perf-analyzer perf_analyzer --json overhead.json
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from _baseline import baseline_repository, prompt
from _perf import Profile, profile
from _stack import Stack, commit, machine


@dataclass(frozen=True)
class Case:
    prompt_tokens: int
    output_tokens: int
    concurrency: int

    def __str__(self) -> str:
        return f"{self.prompt_tokens} in, {self.output_tokens} out, c={self.concurrency}"


def measure(args: argparse.Namespace, model: str, case: Case, inputs: Path, url: str) -> Profile:
    return profile(
        args.perf_analyzer,
        model,
        url,
        inputs,
        concurrency=case.concurrency,
        requests=args.requests,
        warmup=args.warmup,
        streaming=model != "tensorrt_llm_bls",
    )


def run_case(args: argparse.Namespace, case: Case, text: str, url: str, work: Path) -> dict:
    inputs = work / "inputs.json"
    row = {"text_input": [text], "max_tokens": [case.output_tokens], "stream": [True]}
    inputs.write_text(json.dumps({"data": [row]}))
    samples: dict[str, list[Profile]] = {"baseline": [], "ensemble": []}
    for round_ in range(args.rounds):
        order = ("baseline", "ensemble") if round_ % 2 == 0 else ("ensemble", "baseline")
        for model in order:
            samples[model].append(measure(args, model, case, inputs, url))
    bls_inputs = work / "bls.json"
    bls_inputs.write_text(json.dumps({"data": [row | {"stream": [False]}]}))
    bls = [measure(args, "tensorrt_llm_bls", case, bls_inputs, url) for _ in range(args.bls_rounds)]
    pairs = list(zip(samples["ensemble"], samples["baseline"], strict=True))
    p50 = [a.p50_ms / b.p50_ms for a, b in pairs]
    rate = [a.requests_per_s / b.requests_per_s for a, b in pairs]
    median = statistics.median
    return {
        "case": str(case),
        "rounds": args.rounds,
        "baseline_p50_ms": median(s.p50_ms for s in samples["baseline"]),
        "ensemble_p50_ms": median(s.p50_ms for s in samples["ensemble"]),
        "bls_p50_ms": median(s.p50_ms for s in bls) if bls else None,
        "baseline_requests_per_s": median(s.requests_per_s for s in samples["baseline"]),
        "ensemble_requests_per_s": median(s.requests_per_s for s in samples["ensemble"]),
        "bls_requests_per_s": median(s.requests_per_s for s in bls) if bls else None,
        "ensemble_chunks_per_s": max(s.chunks_per_s for s in samples["ensemble"]),
        "p50_ratio": median(p50),
        "p50_ratio_range": [min(p50), max(p50)],
        "throughput_ratio": median(rate),
        "throughput_ratio_range": [min(rate), max(rate)],
    }


def print_table(rows: list[dict]) -> None:
    print(f"{'case':26}{'p50 ms base':>12}{'sprout':>8}{'bls':>8}{'ratio (range)':>22}"
          f"{'req/s base':>12}{'sprout':>8}{'bls':>8}{'ratio (range)':>22}")  # fmt: skip
    for r in rows:
        p50 = "{:.2f} ({:.2f}-{:.2f})".format(r["p50_ratio"], *r["p50_ratio_range"])
        rate = "{:.2f} ({:.2f}-{:.2f})".format(r["throughput_ratio"], *r["throughput_ratio_range"])
        print(f"{r['case']:26}{r['baseline_p50_ms']:12.2f}{r['ensemble_p50_ms']:8.2f}"
              f"{r['bls_p50_ms'] or float('nan'):8.2f}{p50:>22}"
              f"{r['baseline_requests_per_s']:12.0f}{r['ensemble_requests_per_s']:8.0f}"
              f"{r['bls_requests_per_s'] or float('nan'):8.0f}{rate:>22}")  # fmt: skip


def ceiling(args: argparse.Namespace, url: str, work: Path, text: str) -> float:
    """Chunks/s that the one postprocessing instance delivers, every token its own chunk."""
    inputs = work / "ceiling.json"
    row = {"text_input": [text], "max_tokens": [256], "stream": [True]}
    inputs.write_text(json.dumps({"data": [row]}))
    case = Case(100, 256, 16)
    runs = [measure(args, "ensemble", case, inputs, url).chunks_per_s for _ in range(3)]
    return statistics.median(runs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--perf-analyzer", default="perf_analyzer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bls-rounds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--bare", action="store_true", help="see above")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cases = [Case(p, o, c) for p in (100, 1000) for o in (1, 32) for c in (1, 16)]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        with Stack(work, engine="echo") as stack:
            tokenizer_dir = stack.tokenizer_dir
        repository = baseline_repository(work / "baseline", tokenizer_dir, bare=args.bare)
        texts = {n: prompt(n, tokenizer_dir) for n in (100, 1000)}
        with Stack(work, engine="echo", repositories=[repository]) as stack:
            url = f"127.0.0.1:{stack.grpc_port}"
            rows = []
            for case in cases:
                rows.append(run_case(args, case, texts[case.prompt_tokens], url, work))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        with Stack(work, engine="echo", chunk_interval_ms=0, chunks_per_s=0) as stack:
            chunks = ceiling(args, f"127.0.0.1:{stack.grpc_port}", work, texts[100])
    print(f"{machine()}, commit {commit()}, baseline {'bare' if args.bare else 'of stock tensors'}")
    print_table(rows)
    print(f"postprocessing, one instance, one token a chunk: {chunks:.0f} chunks/s")
    if args.json:
        result = {"machine": machine(), "commit": commit(), "cases": rows}
        args.json.write_text(json.dumps(result | {"chunks_per_s": chunks}, indent=2) + "\n")


if __name__ == "__main__":
    main()
