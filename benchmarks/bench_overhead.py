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
import shutil
import statistics
import string
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _stack import Stack, commit, machine
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sprout.serve.render import repository_source

HERE = Path(__file__).parent
# Sprout's own tensors, and wires between the models.
SPROUT = {
    *("FLIGHT", "_FLIGHT", "_ENGINE_FLIGHT", "flight", "LAST_TOKEN_TIME_NS"),
    *("DIRECTIVE_LEVEL", "POLICY_VERSION", "ENERGY_JOULES", "CARBON_GRAMS", "CARBON_INTENSITY"),
    *("directive_level", "policy_version", "energy_joules", "carbon_grams", "carbon_intensity"),
}
# All that tokenizing and detokenizing needs.
BARE = {
    *("text_input", "max_tokens", "stream", "text_output", "QUERY", "REQUEST_OUTPUT_LEN"),
    *("INPUT_ID", "REQUEST_INPUT_LEN", "TOKENS_BATCH", "SEQUENCE_LENGTH", "OUTPUT"),
}
BARE_WIRES = {
    *("_INPUT_ID", "_REQUEST_INPUT_LEN", "_REQUEST_OUTPUT_LEN"),
    *("_TOKENS_BATCH", "_SEQUENCE_LENGTH"),
}
PLACEHOLDERS = {
    "triton_max_batch_size": "64",
    "max_queue_size": "0",
    "max_queue_delay_microseconds": "0",
    "logits_datatype": "TYPE_FP32",
    "preprocessing_instance_count": "1",
    "postprocessing_instance_count": "1",
}
SENTENCE = "The quick brown fox jumps over the lazy dog while the river runs to the sea. "


@dataclass(frozen=True)
class Case:
    prompt_tokens: int
    output_tokens: int
    concurrency: int

    def __str__(self) -> str:
        return f"{self.prompt_tokens} in, {self.output_tokens} out, c={self.concurrency}"


@dataclass(frozen=True)
class Sample:
    p50_ms: float
    p99_ms: float
    requests_per_s: float
    chunks_per_s: float


def prompt(tokens: int, tokenizer_dir: Path) -> str:
    """English text of exactly this many tokens, by the model's own tokenizer."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    ids = tokenizer.encode(SENTENCE * tokens, add_special_tokens=False).ids[:tokens]
    return str(tokenizer.decode(ids))


def baseline_repository(out: Path, tokenizer_dir: Path, *, bare: bool = False) -> Path:
    """The baseline's models: their code from `baseline/`, their tensors from Sprout's own configs,
    less what is Sprout's; with `bare` also less what the baseline does not use."""
    for model in ("baseline", "baseline_preprocessing", "baseline_postprocessing"):
        source = repository_source() / (
            model.removeprefix("baseline_").replace("baseline", "ensemble")
        )
        filled = string.Template((source / "config.pbtxt").read_text()).safe_substitute(
            PLACEHOLDERS
        )
        config = text_format.Parse(filled, model_config_pb2.ModelConfig())
        config.name = model
        config.parameters.clear()
        config.parameters["tokenizer_dir"].string_value = str(tokenizer_dir)
        keep_tensors(config.input, bare)
        keep_tensors(config.output, bare)
        keep_wires(config.ensemble_scheduling.step, bare)
        (out / model / "1").mkdir(parents=True)
        (out / model / "config.pbtxt").write_text(text_format.MessageToString(config))
        code = HERE / "baseline" / f"{model}.py"
        if code.exists():
            shutil.copy(code, out / model / "1" / "model.py")
    return out


def keep_tensors(tensors: Any, bare: bool) -> None:
    kept = [t for t in tensors if t.name not in SPROUT and (not bare or t.name in BARE)]
    del tensors[:]
    tensors.extend(kept)


def keep_wires(steps: Any, bare: bool) -> None:
    for step in steps:
        if step.model_name != "tensorrt_llm":
            step.model_name = f"baseline_{step.model_name}"
        for wires in (step.input_map, step.output_map):
            for name, value in [*wires.items()]:
                own = {name, value} & SPROUT
                if own or (bare and value not in BARE and value not in BARE_WIRES):
                    del wires[name]


def measure(args: argparse.Namespace, model: str, case: Case, inputs: Path, url: str) -> Sample:
    with tempfile.TemporaryDirectory() as folder:
        export = Path(folder) / "profile.json"
        command = [
            args.perf_analyzer, "-m", model, "-i", "grpc", "-u", url, "--async",
            *([] if model == "tensorrt_llm_bls" else ["--streaming"]),
            "--input-data", str(inputs), "--concurrency-range", str(case.concurrency),
            "--request-count", str(args.requests), "--warmup-request-count", str(args.warmup),
            "--profile-export-file", str(export),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if not export.exists():
            sys.exit(f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        requests = json.loads(export.read_text())["experiments"][0]["requests"]
    latencies = sorted((r["response_timestamps"][-1] - r["timestamp"]) / 1e6 for r in requests)
    span_s = (
        max(r["response_timestamps"][-1] for r in requests) - min(r["timestamp"] for r in requests)
    ) / 1e9
    chunks = sum(len(r["response_timestamps"]) for r in requests)
    return Sample(
        p50_ms=statistics.median(latencies),
        p99_ms=latencies[int(0.99 * (len(latencies) - 1))],
        requests_per_s=len(requests) / span_s,
        chunks_per_s=chunks / span_s,
    )


def run_case(args: argparse.Namespace, case: Case, text: str, url: str, work: Path) -> dict:
    inputs = work / "inputs.json"
    row = {"text_input": [text], "max_tokens": [case.output_tokens], "stream": [True]}
    inputs.write_text(json.dumps({"data": [row]}))
    samples: dict[str, list[Sample]] = {"baseline": [], "ensemble": []}
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
        with Stack(work, engine="echo", chunk_interval_ms=0) as stack:
            chunks = ceiling(args, f"127.0.0.1:{stack.grpc_port}", work, texts[100])
    print(f"{machine()}, commit {commit()}, baseline {'bare' if args.bare else 'of stock tensors'}")
    print_table(rows)
    print(f"postprocessing, one instance, one token a chunk: {chunks:.0f} chunks/s")
    if args.json:
        result = {"machine": machine(), "commit": commit(), "cases": rows}
        args.json.write_text(json.dumps(result | {"chunks_per_s": chunks}, indent=2) + "\n")


if __name__ == "__main__":
    main()
