# SPDX-License-Identifier: Apache-2.0
"""What Sprout adds on a GPU: `ensemble` against the least that such an ensemble can do.

Both stand in the same Triton in front of the same engine; `bench_overhead.py` says what the
baseline does and leaves out. An operator pins L0 meanwhile, so that levels are drawn as ever and
both give the engine as many tokens: 128 in, template and all, and 64 out (`min_tokens`). No two
prompts are alike, so the engine's cache helps neither. perf_analyzer measures in turns, A B and
then B A; rounds go on while the time lasts, and the first always ends.

Then how often a stream should send: tokens/s with 128 in flight by `engine.chunk_interval_ms` alone
and with `engine.chunks_per_s`, each in a stack of its own in front of the same engine, against
answers that come whole. And the most chunks/s that the one postprocessing instance delivers on this
machine, with an engine that costs nothing.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from _alone import alone
from _baseline import SENTENCE, baseline_repository
from _figures import percentile
from _live import Live, made
from _meter import Joules
from _perf import Profile, profile

from sprout import directives, policy_version
from sprout.config import Config
from sprout.console import operator
from sprout.errors import EngineError
from sprout.request.prompts import Prompter
from sprout.request.tokenizer import Tokenizer, load
from sprout.serve import gguf, weights

PROMPT_TOKENS, OUTPUT_TOKENS = 128, 64
PROMPTS = 1024  # with their answers more than the engine's cache holds
REQUESTS = {1: 5, 8: 32, 32: 96, 128: 256}  # that a measurement counts, by concurrency: seconds
# chunk_interval_ms, chunks_per_s; the last is the default
SENDING = ((0.0, 0.0), (20.0, 0.0), (50.0, 0.0), (100.0, 0.0), (20.0, 500.0), (20.0, 1000.0))
MODELS = ("baseline", "ensemble")
CEILING_TOKENS, CEILING_REQUESTS, CEILING_IN_FLIGHT, CEILING_RUNS = 256, 48, 16, 3
IN_FORCE_S = 30.0
RUN_S = 45.0  # a run takes ten at most
MOST_ROUNDS = 10
TRIES = 8
WORDS = SENTENCE.split()


class Case(NamedTuple):
    concurrency: int
    stream: bool


# The most telling first: a second round may not get through all.
FULL = Case(128, True)
CASES = (
    *(Case(n, stream=True) for n in (128, 32, 8, 1)),
    *(Case(n, stream=False) for n in (128, 32)),
)


@dataclass(frozen=True)
class Measured:
    """One run of perf_analyzer."""

    model: str
    concurrency: int
    stream: bool
    round: int
    requests_per_s: float
    chunks_per_s: float
    latencies_ms: list[float]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--perf-analyzer", default="perf_analyzer")
    parser.add_argument("--overhead-seconds", type=float, default=120.0, help="of the comparison")
    parser.add_argument(
        "--overhead-requests", type=float, default=1.0, help="times as many in each measurement"
    )


def repository(out: Path, given: argparse.Namespace) -> Path:
    """The baseline's, for the stack that is measured."""
    folder = given.tokenizer or gguf.tokenizer_dir(
        weights.default_weights(), out.with_name("tokenizer")
    )
    return baseline_repository(out, folder.absolute())


def measure(live: Live, joules: Joules, given: argparse.Namespace, found: dict[str, Any]) -> None:
    work = live.work / "overhead"
    work.mkdir()
    tokenizer = load(live.tokenizer_dir)
    texts = {model: prompts(model, tokenizer, live.cfg, given.seed, PROMPTS) for model in MODELS}
    found |= {"prompt_tokens": PROMPT_TOKENS, "output_tokens": OUTPUT_TOKENS}
    found |= {"runs": [], "ratios": [], "intervals": [], "ceiling_chunks_per_s": [], "failures": []}
    runner = Runner(given, work / "inputs.json", texts, found["failures"])
    pin_l0(live)
    try:
        compare(live.grpc, runner, found["runs"])
        found["ratios"] = ratios(found["runs"])
        whole = runner.run(live.grpc, "ensemble", FULL._replace(stream=False), 0)
    finally:
        operator.unpin(live.cfg)
    found["intervals"].append({"interval_ms": None, **tokens(whole)})
    if live.cfg.engine.kind != "echo":
        found["alone_tokens_per_s"] = engine_alone(live, given, found["failures"])
    for interval, budget in SENDING:
        folder = work / f"sending-{interval:g}-{budget:g}"
        with second(live, given, folder, interval, budget) as other:
            pin_l0(other)
            streamed = runner.run(other.grpc, "ensemble", FULL, 0)
            sending = {"interval_ms": interval, "budget_chunks_per_s": budget}
            found["intervals"].append(sending | tokens(streamed))
    found["ceiling_chunks_per_s"] = ceiling(given, work, texts["ensemble"][0])


def engine_alone(live: Live, given: argparse.Namespace, failures: list[str]) -> float | None:
    """What there is to keep up with."""
    try:
        return alone(
            live.engine_root,
            in_flight=FULL.concurrency,
            requests=max(FULL.concurrency, round(REQUESTS[128] * given.overhead_requests)),
            prompt=PROMPT_TOKENS,
            output=OUTPUT_TOKENS,
            seed=given.seed,
        )
    except (EngineError, httpx.HTTPError) as error:
        failures.append(f"the engine alone: {error!r}")
        return None


class Runner:
    """perf_analyzer; a run that fails is written down, and the next one goes on. Each goes on in
    the prompts where that model's last one ended, so that the engine's cache has none of them."""

    def __init__(
        self,
        given: argparse.Namespace,
        inputs: Path,
        texts: Mapping[str, Sequence[str]],
        failures: list[str],
    ) -> None:
        self.given, self._inputs, self._failures = given, inputs, failures
        self._texts = {model: itertools.cycle(own) for model, own in texts.items()}

    def run(self, url: str, model: str, case: Case, number: int) -> Measured | None:
        n = case.concurrency
        counted = max(n, round(REQUESTS[n] * self.given.overhead_requests))
        texts = list(itertools.islice(self._texts[model], n + counted))
        write(self._inputs, texts, tokens=OUTPUT_TOKENS, stream=case.stream)
        try:
            seen: Profile = profile(
                self.given.perf_analyzer,
                model,
                url,
                self._inputs,
                concurrency=n,
                requests=counted,
                warmup=n,
                timeout_s=RUN_S,
            )
        except (SystemExit, subprocess.TimeoutExpired) as error:
            self._failures.append(f"{model}, {n} in flight, stream {case.stream}: {error}")
            return None
        latencies = [round(ms, 2) for ms in seen.latencies_ms]
        rates = seen.requests_per_s, seen.chunks_per_s
        return Measured(model, n, case.stream, number, *rates, latencies)


def compare(url: str, runner: Runner, runs: list[dict[str, Any]]) -> None:
    """Appends pairs of runs."""
    began, took = time.monotonic(), dict.fromkeys(CASES, 0.0)
    for number in range(MOST_ROUNDS):
        order = MODELS if number % 2 == 0 else MODELS[::-1]
        for case in CASES:
            left = runner.given.overhead_seconds - (time.monotonic() - began)
            if number > 0 and took[case] > left:
                return
            started = time.monotonic()
            pair = [runner.run(url, model, case, number) for model in order]
            runs += [asdict(one) for one in pair if None not in pair and one is not None]
            took[case] = time.monotonic() - started


def ratios(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ensemble over baseline. Throughput: the median over rounds, each with its neighbour's;
    latencies: of all rounds together."""
    found = []
    for case in CASES:
        own = [r for r in runs if Case(r["concurrency"], r["stream"]) == case]
        by = {model: [r for r in own if r["model"] == model] for model in MODELS}
        pairs = list(zip(by["baseline"], by["ensemble"], strict=True))
        if not pairs:
            continue
        rates = [b["requests_per_s"] / a["requests_per_s"] for a, b in pairs]
        ms = {m: [x for r in by[m] for x in r["latencies_ms"]] for m in MODELS}
        quantiles = {q: [percentile(ms[m], q) for m in MODELS] for q in (50, 99)}
        found.append(
            {
                **case._asdict(),
                "rounds": len(pairs),
                "requests": len(ms["ensemble"]),
                "requests_per_s": {
                    m: statistics.median(r["requests_per_s"] for r in by[m]) for m in MODELS
                },
                "throughput_ratio": statistics.median(rates),
                "throughput_ratio_range": [min(rates), max(rates)],
                "p50_ms": quantiles[50],
                "p99_ms": quantiles[99],
                "p50_ratio": over(quantiles[50]),
                "p99_ratio": over(quantiles[99]),
            }
        )
    return found


def over(pair: Sequence[float | None]) -> float | None:
    base, other = pair
    return None if base is None or other is None else other / base


def tokens(seen: Measured | None) -> dict[str, float | None]:
    if seen is None:
        return dict.fromkeys(("tokens_per_s", "chunks_per_s", "p50_ms"))
    return {
        "tokens_per_s": seen.requests_per_s * OUTPUT_TOKENS,
        "chunks_per_s": seen.chunks_per_s,
        "p50_ms": statistics.median(seen.latencies_ms),
    }


def second(
    live: Live, given: argparse.Namespace, work: Path, interval_ms: float, chunks_per_s: float
) -> Live:
    """One more stack in front of the same engine."""
    echo = live.cfg.engine.kind == "echo"
    return made(
        given, work,
        engine_url="echo" if echo else f"{live.engine_root}/v1",
        tokenizer=live.tokenizer_dir,
        engine__chunk_interval_ms=interval_ms,
        engine__chunks_per_s=chunks_per_s,
    )  # fmt: skip


def ceiling(given: argparse.Namespace, work: Path, prompt: str) -> list[float]:
    """Chunks/s with the echo engine, every token its own chunk."""
    file = write(work / "ceiling.json", [prompt], tokens=CEILING_TOKENS, stream=True)
    options = {"engine_url": "echo"}
    options |= {"engine__chunk_interval_ms": 0.0, "engine__chunks_per_s": 0.0}
    with made(given, work / "ceiling", **options) as echo:
        return [
            profile(
                given.perf_analyzer, "ensemble", echo.grpc, file, concurrency=CEILING_IN_FLIGHT,
                requests=CEILING_REQUESTS, warmup=CEILING_IN_FLIGHT, timeout_s=RUN_S,
            ).chunks_per_s
            for _ in range(CEILING_RUNS)
        ]  # fmt: skip


def pin_l0(live: Live) -> None:
    """Returns when the node has it."""
    version = policy_version.version(operator.pin(live.cfg, {"L0": 1.0}, 3600.0, "benchmark"))
    deadline = time.monotonic() + IN_FORCE_S
    while not any(node.policy_version >= version for node in operator.status(live.cfg).nodes):
        if time.monotonic() > deadline:
            raise SystemExit("L0 was pinned, and the node does not have it")
        time.sleep(0.1)


def prompts(model: str, tokenizer: Tokenizer, cfg: Config, seed: int, count: int) -> list[str]:
    """The ensemble's are shorter by what the template adds."""
    prompter = None
    if model == "ensemble":
        prompter = Prompter(
            tokenizer, directives.pack(cfg.request.pack), chat_template=cfg.request.chat_template
        )
    rng = np.random.default_rng((seed, MODELS.index(model)))
    return [text(tokenizer, prompter, PROMPT_TOKENS, rng) for _ in range(count)]


def write(file: Path, texts: Sequence[str], *, tokens: int, stream: bool) -> Path:
    """perf_analyzer's input data."""
    row = {"max_tokens": [tokens], "min_tokens": [tokens], "stream": [stream]}
    file.write_text(json.dumps({"data": [{"text_input": [one]} | row for one in texts]}))
    return file


def text(
    tokenizer: Tokenizer, prompter: Prompter | None, count: int, rng: np.random.Generator
) -> str:
    """Words at random that the engine gets as exactly so many tokens, under L0."""

    def length(words: Sequence[str]) -> int:
        joined = " ".join(words)
        pieces = [joined] if prompter is None else prompter.pieces(joined, 0)
        return len(tokenizer.encode([pieces])[0])

    while True:
        many = count
        for _ in range(TRIES):
            words: list[str] = rng.choice(WORDS, many).tolist()
            excess = length(words) - count
            if excess == 0:
                return " ".join(words)
            per_word = max(1.0, (count + excess) / many)
            many = max(1, many - (round(excess / per_word) or (1 if excess > 0 else -1)))
