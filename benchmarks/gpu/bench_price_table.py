# SPDX-License-Identifier: Apache-2.0
"""Totals at many prices on a GPU, beside the CPU, HiGHS and what the chip can do at most; then the
scoring of texts and the drawing of levels.

Prompts are made up: 4 levels, gamma costs, Dirichlet preferences. A pass is timed twice: by the
device's own clock, and by the caller's, from the prices to the totals. The bound is the longer of

    bytes         what a pass must read, over the bandwidth of a copy or of a plain reading of
                  device memory, whichever is higher, measured here
    arithmetic    the double-precision operations that a pass must do, over the rate of fused
                  multiplications and additions, measured here

Of a prompt at a price these are, for L levels and R rows: R L products, R L differences, L - 1
comparisons, 1 + R additions. Choosing between numbers is not counted, though it takes as long.
Choices are compared with the CPU's bit by bit before anything is timed.

    python benchmarks/gpu/bench_price_table.py [--rounds 15] [--json FILE] [--commit NAME]
                                          [--prompts 1e6,1e7] [--highs 1e4,1e5]
"""

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
from _turns import commit, spread, summary

from sprout.optimize.price import TOGETHER, meet
from sprout.optimize.prompt import Row
from sprout.predict.first import BITS, ORDERS
from sprout_ext.price_table import PriceTable
from sprout_ext.sampler import cuda_available, cuda_built, draw_batch, fold_key
from sprout_ext.scorer import Scorer

Array = NDArray[np.float64]

LEVELS, ROWS = 4, 1
COUNTS = (1, 8, 32, 64)
TARGET = 1.1  # mean preference, of L0's
ENOUGH = 0.40  # of the bound
HIGHS_WAYS, HIGHS_LIMIT_S = ("simplex", "ipm"), 100.0
TEXTS, TEXT_BYTES = 1_000_000, 500
DRAWS = 100_000_000
BUFFER = 1 << 30  # of the ceilings


class Ceilings:
    """`ceilings.cu`, compiled here. SystemExit where that fails."""

    def __init__(self, folder: Path, rounds: int) -> None:
        nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
        library = folder / "ceilings.so"
        source = Path(__file__).with_name("ceilings.cu")
        command = [nvcc, "-O3", "-std=c++17", "-arch=native", "-Xcompiler=-fPIC", "-shared"]
        host = os.environ.get("CUDAHOSTCXX")
        command += ["-ccbin", host] if host else []
        done = subprocess.run(
            [*command, str(source), "-o", str(library)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stderr}")
        self._library, self._rounds = ctypes.CDLL(str(library)), rounds
        name = ctypes.create_string_buffer(257)
        self._library.device_name(name, 256)
        self.device = name.value.decode()
        self.copy_bytes_per_s = 2 * BUFFER / self._seconds("copy_seconds", BUFFER)
        self.read_bytes_per_s = BUFFER / self._seconds("read_seconds", BUFFER)
        self.upload_bytes_per_s = BUFFER / 4 / self._seconds("upload_seconds", BUFFER // 4)
        count = ctypes.c_double()
        rate = self._library.multiply_seconds
        rate.restype, rate.argtypes = ctypes.c_double, [ctypes.c_int, ctypes.c_void_p]
        seconds = rate(rounds, ctypes.addressof(count))
        self.operations_per_s = count.value / self._good(seconds)

    def _seconds(self, name: str, size: int) -> float:
        call = getattr(self._library, name)
        call.restype, call.argtypes = ctypes.c_double, [ctypes.c_size_t, ctypes.c_int]
        return self._good(call(size, self._rounds))

    def _good(self, seconds: float) -> float:
        if seconds <= 0:
            raise SystemExit("the ceilings can't be measured")
        return seconds

    def bound(self, prompts: int, prices: int) -> tuple[float, float]:
        """Seconds of a pass: by bytes, by arithmetic."""
        read = 8 * prompts * LEVELS * (1 + ROWS)
        each = 2 * ROWS * LEVELS + (LEVELS - 1) + (1 + ROWS)
        best = max(self.copy_bytes_per_s, self.read_bytes_per_s)
        return read / best, prompts * prices * each / self.operations_per_s


def timed(call: Callable[[], object], rounds: int) -> list[float]:
    call()  # warms up
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return found


def made_up(prompts: int) -> tuple[Array, Array]:
    """Costs in grams and preferences over L0's mean, (n, L)."""
    rng = np.random.default_rng(prompts)
    costs = rng.gamma(2.0, 1e-4, (prompts, LEVELS)) * np.linspace(2.0, 0.5, LEVELS)
    odds = rng.exponential(1.0, (prompts, LEVELS))
    q = odds / odds.sum(axis=1, keepdims=True)
    return costs, q / q[:, 0].mean()


def grid(prices: int) -> Array:
    return np.geomspace(1e-6, 1e-2, prices)[:, None]


def same(cpu: PriceTable, cuda: PriceTable) -> dict[str, Any]:
    prices = grid(8)
    ours, theirs = cuda.choose(prices), cpu.choose(prices)
    if not np.array_equal(ours, theirs):
        raise SystemExit(f"{int((ours != theirs).sum())} choices differ from the CPU's")
    off = np.abs(cuda.totals(prices) / cpu.totals(prices) - 1).max()
    return {"choices_equal": int(ours.size), "largest_relative_difference_of_sums": float(off)}


def passes(prompts: int, ceilings: Ceilings, rounds: int) -> dict[str, Any]:
    costs, gains = made_up(prompts)
    began = time.perf_counter()
    cuda = PriceTable(costs, [gains], device="cuda")
    upload_s = time.perf_counter() - began
    by_threads = {n: PriceTable(costs, [gains], threads=n) for n in (1, 2)}
    rows = []
    agreed = same(by_threads[2], cuda)
    for prices in COUNTS:
        given = grid(prices)
        on_device: list[float] = []

        def run(given: Array = given, to: list[float] = on_device) -> None:
            cuda.totals(given)
            to.append(cuda.device_seconds())

        called = timed(run, rounds)
        device = on_device[1:]
        few = max(3, rounds // 5)
        cpu = {n: timed(lambda t=t, g=given: t.totals(g), few) for n, t in by_threads.items()}
        read_s, count_s = ceilings.bound(prompts, prices)
        bound_s = max(read_s, count_s)
        rows.append(
            {
                "prices": prices,
                "device_ms": summary("x_ms", device),
                "called_ms": summary("x_ms", called),
                "cpu_1_ms": summary("x_ms", cpu[1]),
                "cpu_2_ms": summary("x_ms", cpu[2]),
                "bytes_bound_ms": 1e3 * read_s,
                "arithmetic_bound_ms": 1e3 * count_s,
                "binds": "bytes" if read_s >= count_s else "arithmetic",
                "of_bound": spread(bound_s / s for s in device),
                "over_cpu_2": float(np.median(cpu[2]) / np.median(called)),
            }
        )
    return {"prompts": prompts, "upload_s": upload_s, **agreed, "passes": rows}


def searches(prompts: int, rounds: int) -> dict[str, Any]:
    """The whole search, upload included, for a price that meets the target."""
    costs, gains = made_up(prompts)
    weights, row = np.ones(prompts), Row("mean preference", gains, TARGET)
    found: dict[str, Any] = {"prompts": prompts}
    answers = {}
    for device in ("cuda", "cpu"):
        seconds = timed(
            lambda device=device: answers.__setitem__(
                device, meet(costs, weights, row, device=device)
            ),
            max(1, rounds // 5),
        )
        answer = answers[device]
        found[device] = {
            "ms": summary("x_ms", seconds),
            "passes": answer.rounds,
            "together": TOGETHER[device],
            "cost_g": answer.cost_g,
            "gap_g": answer.gap_g,
            "price": float(answer.marginal[0]),
        }
    found["relative_difference_of_cost"] = abs(answers["cuda"].cost_g / answers["cpu"].cost_g - 1.0)
    return found


def highs(prompts: int, way: str) -> dict[str, Any]:
    """HiGHS on the whole program: its simplex, or its interior points with crossover; two threads,
    else its own defaults."""
    import highspy  # noqa: PLC0415

    costs, gains = made_up(prompts)
    columns = prompts * LEVELS
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = columns, prompts + 1
    scale = float(costs.mean())
    lp.col_cost_ = costs.ravel() / scale / prompts
    lp.col_lower_, lp.col_upper_ = np.zeros(columns), np.full(columns, highspy.kHighsInf)
    lp.row_lower_ = np.concatenate([np.ones(prompts), [TARGET]])
    lp.row_upper_ = np.concatenate([np.ones(prompts), [highspy.kHighsInf]])
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    starts = np.arange(0, columns + 1, LEVELS)
    lp.a_matrix_.start_ = np.concatenate([starts, [2 * columns]]).astype(np.int32)
    lp.a_matrix_.index_ = np.tile(np.arange(columns), 2).astype(np.int32)
    lp.a_matrix_.value_ = np.concatenate([np.ones(columns), gains.ravel() / prompts])
    solver = highspy.Highs()
    options = {"output_flag": False, "solver": way, "threads": 2, "time_limit": HIGHS_LIMIT_S}
    for name, value in options.items():
        solver.setOptionValue(name, value)
    began = time.perf_counter()
    solver.passModel(lp)
    solver.run()
    seconds = time.perf_counter() - began
    status = solver.modelStatusToString(solver.getModelStatus())
    weights, row = np.ones(prompts), Row("mean preference", gains, TARGET)
    ours = {}
    for device in ("cuda", "cpu"):
        taken = timed(lambda device=device: meet(costs, weights, row, device=device), 5)
        ours[f"{device}_ms"] = summary("x_ms", taken)
    cost = meet(costs, weights, row, device="cuda").cost_g
    optimum = solver.getObjectiveValue() * scale if status == "Optimal" else None
    return {
        "prompts": prompts,
        "way": way,
        "highs_s": seconds,
        "status": status,
        **ours,
        "relative_difference_of_cost": None if optimum is None else abs(cost / optimum - 1),
    }


def scoring(ceilings: Ceilings, rounds: int) -> dict[str, Any]:
    rng, levels, classes = np.random.default_rng(1), 3, 6
    heads = levels + classes
    scorer = Scorer.of(
        orders=ORDERS,
        bits=BITS,
        table=rng.integers(-127, 128, (1 << BITS, heads)).astype(np.int8),
        scales=rng.uniform(1e-3, 1e-2, heads),
        biases=rng.normal(size=heads),
        second=rng.normal(size=(2 * levels, classes + 1, levels + 2)) / 10,
    )
    # Words of a vocabulary in Zipf's proportions, so that some grams are far more frequent.
    words = [bytes(w) for w in rng.integers(97, 123, (5000, 6)).astype(np.uint8)]
    often = 1.0 / np.arange(1, len(words) + 1)
    picks = rng.choice(len(words), TEXTS // 10 * TEXT_BYTES // 7 + 100, p=often / often.sum())
    stream = b" ".join(words[i] for i in picks)
    distinct = [stream[i * TEXT_BYTES : (i + 1) * TEXT_BYTES] for i in range(TEXTS // 10)]
    texts = distinct * 10
    some = texts[:20_000]
    if not np.array_equal(scorer.heads_many(some, cuda=True), scorer.heads_many(some)):
        raise SystemExit("the heads differ from the CPU's")
    ours, theirs = scorer.score_many(some, cuda=True), scorer.score_many(some)
    cuda = timed(lambda: scorer.score_many(texts, cuda=True), max(3, rounds // 3))
    cpu = timed(lambda: scorer.score_many(some), 3)
    bytes_per_s = TEXTS * TEXT_BYTES / float(np.median(cuda))
    return {
        "texts": TEXTS,
        "bytes_each": TEXT_BYTES,
        "heads_equal": len(some) * heads,
        "largest_relative_difference": float(np.abs(ours / theirs - 1).max()),
        "cuda_ms": summary("x_ms", cuda),
        "cuda_texts_per_s": TEXTS / float(np.median(cuda)),
        "cpu_1_texts_per_s": len(some) / float(np.median(cpu)),
        "of_upload_bound": bytes_per_s / ceilings.upload_bytes_per_s,
    }


def draws(rounds: int) -> dict[str, Any]:
    shares, key = (0.5, 0.3, 0.2), fold_key(1, 2, 3, 4)
    if not np.array_equal(
        draw_batch(shares, key, 3, DRAWS // 10, device="cuda"),
        draw_batch(shares, key, 3, DRAWS // 10),
    ):
        raise SystemExit("the draws differ from the CPU's")
    few = max(3, rounds // 3)
    cuda = timed(lambda: draw_batch(shares, key, 0, DRAWS, device="cuda"), few)
    cpu = timed(lambda: draw_batch(shares, key, 0, DRAWS), few)
    hour = timed(lambda: draw_batch(shares, key, 0, 10_000, device="cuda"), rounds)
    hour_cpu = timed(lambda: draw_batch(shares, key, 0, 10_000), rounds)
    return {
        "draws": DRAWS,
        "equal_to_cpu": DRAWS // 10,
        "cuda_ms": summary("x_ms", cuda),
        "cpu_1_ms": summary("x_ms", cpu),
        "cuda_10000_us": summary("x_us", hour),
        "cpu_10000_us": summary("x_us", hour_cpu),
    }


def driver() -> str:
    try:
        import pynvml  # noqa: PLC0415

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception as error:  # of no consequence to what is measured
        return f"unknown ({error})"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.split(':')[1].strip()}, {os.cpu_count()} processors"
    return "unknown"


def measure(given: argparse.Namespace) -> dict[str, Any]:
    def say(what: str) -> None:
        print(f"... {what}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        say("ceilings")
        ceilings = Ceilings(Path(folder), given.rounds)
    found: dict[str, Any] = {
        "commit": given.commit or commit(),
        "device": ceilings.device,
        "driver": driver(),
        "processor": processor(),
        "rounds": given.rounds,
        "levels": LEVELS,
        "copy_gb_per_s": ceilings.copy_bytes_per_s / 1e9,
        "read_gb_per_s": ceilings.read_bytes_per_s / 1e9,
        "upload_gb_per_s": ceilings.upload_bytes_per_s / 1e9,
        "double_operations_per_s": ceilings.operations_per_s,
        "sizes": [],
        "searches": [],
        "highs": [],
    }
    for prompts in given.prompts:
        say(f"passes over {prompts:,} prompts")
        found["sizes"].append(passes(prompts, ceilings, given.rounds))
        say(f"searches over {prompts:,} prompts")
        found["searches"].append(searches(prompts, given.rounds))
    for prompts in given.highs:
        for way in HIGHS_WAYS:
            say(f"HiGHS on {prompts:,} prompts, {way}")
            found["highs"].append(highs(prompts, way))
    say("texts")
    found["scoring"] = scoring(ceilings, given.rounds)
    say("draws")
    found["draws"] = draws(given.rounds)
    largest = found["sizes"][-1]
    found["targets"] = {
        f"{row['prices']} prices on {largest['prompts']:,} prompts: >= {100 * ENOUGH:.0f} % of the "
        f"bound ({row['binds']})": row["of_bound"]["median"] >= ENOUGH
        for row in largest["passes"]
    }
    return found


def ms(each: dict[str, float]) -> str:
    return f"{each['median']:.3f} ({each['min']:.3f}-{each['max']:.3f})"


def show(found: dict[str, Any]) -> str:
    lines = [
        f"{found['device']}, driver {found['driver']}, commit {found['commit']}; "
        f"{found['processor']}; {found['rounds']} rounds, median (range)",
        f"ceilings: copy {found['copy_gb_per_s']:.0f} GB/s (read and written), read "
        f"{found['read_gb_per_s']:.0f} GB/s, upload {found['upload_gb_per_s']:.1f} GB/s, "
        f"{found['double_operations_per_s'] / 1e12:.2f}e12 double operations/s",
    ]
    for size in found["sizes"]:
        lines += [
            "",
            f"{size['prompts']:,} prompts x {found['levels']} levels; upload "
            f"{size['upload_s']:.2f} s; {size['choices_equal']:,} choices equal, sums within "
            f"{size['largest_relative_difference_of_sums']:.1e}",
            f"{'prices':>6}{'device ms':>26}{'called ms':>26}{'bound ms':>11}{'binds':>12}"
            f"{'of bound':>10}{'CPU 1 ms':>11}{'CPU 2 ms':>11}{'over CPU 2':>12}",
        ]
        for row in size["passes"]:
            bound = max(row["bytes_bound_ms"], row["arithmetic_bound_ms"])
            lines.append(
                f"{row['prices']:6}{ms(row['device_ms']):>26}{ms(row['called_ms']):>26}"
                f"{bound:11.3f}{row['binds']:>12}{100 * row['of_bound']['median']:9.0f}%"
                f"{row['cpu_1_ms']['median']:11.2f}{row['cpu_2_ms']['median']:11.2f}"
                f"{row['over_cpu_2']:11.0f}x"
            )
    lines += ["", "search for the price of a mean, upload included:"]
    for each in found["searches"]:
        for device in ("cuda", "cpu"):
            row = each[device]
            lines.append(
                f"{each['prompts']:12,} {device:5}{ms(row['ms']):>32} ms, {row['passes']} passes "
                f"of {row['together']}"
            )
        lines.append(f"{'':13}costs differ by {each['relative_difference_of_cost']:.1e}")
    lines += ["", "HiGHS on the whole program, and the search:"]
    for row in found["highs"]:
        off = row["relative_difference_of_cost"]
        lines.append(
            f"{row['prompts']:12,} HiGHS {row['way']} {row['highs_s']:.2f} s ({row['status']}), "
            f"cuda {ms(row['cuda_ms'])} ms, cpu {ms(row['cpu_ms'])} ms; costs differ by "
            f"{'-' if off is None else f'{off:.1e}'}"
        )
    score, draw = found["scoring"], found["draws"]
    lines += [
        "",
        f"{score['texts']:,} texts of {score['bytes_each']} bytes: {ms(score['cuda_ms'])} ms, "
        f"{score['cuda_texts_per_s'] / 1e6:.2f}e6/s, {100 * score['of_upload_bound']:.0f} % of the "
        f"upload's rate; one core {score['cpu_1_texts_per_s'] / 1e6:.2f}e6/s; "
        f"{score['heads_equal']:,} heads equal, scores within "
        f"{score['largest_relative_difference']:.1e}",
        f"{draw['draws']:,} draws: {ms(draw['cuda_ms'])} ms, one core {ms(draw['cpu_1_ms'])} ms; "
        f"10,000: {ms(draw['cuda_10000_us'])} us, one core {ms(draw['cpu_10000_us'])} us",
        "",
        *(f"{'met' if met else 'MISSED'}: {what}" for what, met in found["targets"].items()),
    ]
    return "\n".join(lines)


def sizes(text: str) -> list[int]:
    return [int(float(part)) for part in text.split(",") if part]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--commit", help="what is measured, where there is no git")
    parser.add_argument("--prompts", type=sizes, default=sizes("1e6,1e7"))
    parser.add_argument("--highs", type=sizes, default=sizes("1e4,1e5"))
    arguments = parser.parse_args()
    if not (cuda_built() and cuda_available()):
        sys.exit("bench_price_table.py needs a core built with CUDA, and a GPU")
    measured = measure(arguments)
    print(show(measured))
    if arguments.json:
        arguments.json.write_text(json.dumps(measured, indent=2) + "\n")
    sys.exit(0 if all(measured["targets"].values()) else 1)
