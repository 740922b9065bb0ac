# SPDX-License-Identifier: Apache-2.0
"""One engine and one meter for any number of measurements, and what a result says of itself."""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from _engine import SHAPES, TOGETHER, Engine, Vllm
from _meter import Sampled
from _turns import commit
from _work import CHARACTERS_PER_TOKEN, JOULES_PER_TOKEN, Lengths, read

from sprout.energy.nvml import NvmlMeter

IDLE_S = 6.0


@dataclass
class Bench:
    engine: Engine
    joules: Callable[[float, float], float]  # between two moments of time.monotonic
    lengths: Lengths | None  # None: energy_tokens.py alone needs none
    seed: int

    def idle(self, seconds: float = IDLE_S) -> dict[str, float]:
        """Watts with the model loaded and nothing to do."""
        time.sleep(1.0)  # clocks and power settle
        since = time.monotonic()
        time.sleep(seconds)
        until = time.monotonic()
        joules = self.joules(since, until)
        return {"seconds": until - since, "joules": joules, "watts": joules / (until - since)}


Measure = Callable[[Bench, argparse.Namespace], dict[str, Any]]


def parser(about: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=about.splitlines()[0] if about else None)
    made.add_argument("--model", choices=sorted(SHAPES), required=True, help="shape of the weights")
    made.add_argument("--bundle", type=Path, help="folder with requests.csv.gz (docs/replay.md)")
    made.add_argument("--longest", type=int, default=1024, help="tokens that an answer may have")
    made.add_argument("--gpu", help="index or UUID; needed where there are several")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--commit", help="where the checkout can't tell it")
    made.add_argument("--out", type=Path, required=True, help="folder for the JSON")
    made.add_argument("--quick", action="store_true", help="everything once and short: a trial")
    return made


@contextmanager
def bench(given: argparse.Namespace) -> Iterator[tuple[Bench, dict[str, Any]]]:
    """The bench, and the head of every result."""
    lengths = None if given.bundle is None else read(given.bundle, given.longest)
    given.out.mkdir(parents=True, exist_ok=True)
    meter = NvmlMeter([] if given.gpu is None else [given.gpu])
    if len(meter.models) > 1:
        raise SystemExit("several GPUs: name the one to measure, --gpu, and CUDA_VISIBLE_DEVICES")
    began = time.monotonic()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    with tempfile.TemporaryDirectory() as folder:
        engine = Vllm(given.model, Path(folder), given.seed)
        head = {
            "commit": given.commit or commit(),
            "gpu": meter.models[0],
            "driver": driver(),
            "vllm": version("vllm"),
            "torch": version("torch"),
            "model": f"Llama-2-{given.model}-shaped, random weights, bfloat16",
            "shape": given.model,
            "requests_at_once": TOGETHER,
            "seed": given.seed,
            "start_s": round(time.monotonic() - began, 1),
            "lengths": None
            if lengths is None
            else {
                "joules_per_token": JOULES_PER_TOKEN,
                "characters_per_token": CHARACTERS_PER_TOKEN,
                "longest_answer": given.longest,
                "mean_prompt_tokens": lengths.prompt.mean(axis=0).tolist(),
                "mean_output_tokens": lengths.output.mean(axis=0).tolist(),
            },
        }
        with Sampled(meter.read) as sampled:

            def joules(since: float, until: float) -> float:
                if meter.problem:
                    raise SystemExit(f"the meter stands still: {meter.problem}")
                return sampled.joules(since, until)

            yield Bench(engine, joules, lengths, given.seed), head
    meter.close()


def driver() -> str:
    import pynvml  # noqa: PLC0415

    found = pynvml.nvmlSystemGetDriverVersion()
    return found if isinstance(found, str) else found.decode()


def write(given: argparse.Namespace, name: str, found: dict[str, Any]) -> Path:
    path: Path = given.out / f"{name}-{given.model}-{given.seed}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    return path


def main(name: str, about: str | None, add: Callable[..., None], measure: Measure) -> int:
    """One measurement alone, from the command line."""
    from table import render  # noqa: PLC0415

    options = parser(about)
    add(options)
    given = options.parse_args()
    with bench(given) as (made, head):
        found = {"measurement": name, **head, **measure(made, given)}
    print(f"{write(given, name, found)}\n\n{render([found])}")
    return 0
