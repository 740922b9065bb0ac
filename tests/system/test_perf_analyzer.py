# SPDX-License-Identifier: Apache-2.0
"""The perf_analyzer recipes with a real perf_analyzer: on a whole stack, and on the repository that
`sprout render` writes for TensorRT-LLM's C++ backend, with the echo engine in its slot.

perf_analyzer is the one that PERF_ANALYZER names, or that is on the PATH.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiny_tokenizer
from rendered import move, put_in_the_slot, rendered
from triton_process import TritonProcess
from waiting import PATIENCE_S

from sprout.serve.background import BackgroundStack

RECIPES = Path(__file__).parents[2] / "benchmarks" / "perf_analyzer"
ANALYZER = os.environ.get("PERF_ANALYZER") or shutil.which("perf_analyzer")
TOKENS = 4
PROMPTS = 'Hi\n"😀"\n'

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(find_spec("pytriton") is None, reason="needs nvidia-pytriton"),
    pytest.mark.skipif(
        ANALYZER is None, reason="no perf_analyzer on the PATH or named by PERF_ANALYZER"
    ),
]


class Recipes:
    """run.sh against one server."""

    def __init__(self, folder: Path, grpc: str) -> None:
        host, _, port = grpc.rpartition(":")
        self.out = folder / "out"
        (folder / "prompts.txt").write_text(PROMPTS)
        self.variables = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", str(folder)),
            "PYTHON": sys.executable,
            "PERF_ANALYZER": str(ANALYZER),
            "HOST": host,
            "PORT": port,
            "OUT": str(self.out),
            "PROMPTS": str(folder / "prompts.txt"),
            "MAX_TOKENS": str(TOKENS),
            "WARMUP": "4",
        }

    def __call__(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        with subprocess.Popen(
            [RECIPES / "run.sh", *arguments],
            env=self.variables | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as child:
            try:
                output, errors = child.communicate(timeout=PATIENCE_S)
            except BaseException:
                os.killpg(child.pid, signal.SIGKILL)  # perf_analyzer too
                raise
        return subprocess.CompletedProcess(child.args, child.returncode, output, errors)

    def table(self, *arguments: str, **variables: str) -> list[dict[str, str]]:
        """What the recipe printed, by the column's name."""
        done = self(*arguments, **variables)
        assert done.returncode == 0, done.stderr
        head, *rows = ([*filter(None, line.split("  "))] for line in done.stdout.splitlines())
        names = [name.strip() for name in head]
        return [dict(zip(names, (c.strip() for c in row), strict=True)) for row in rows]

    def requests(self, name: str) -> list[dict[str, Any]]:
        document = json.loads((self.out / f"{name}.json").read_bytes().decode(errors="replace"))
        return list(document["experiments"][0]["requests"])


@pytest.fixture
def recipes(stack: BackgroundStack, tmp_path: Path) -> Recipes:
    return Recipes(tmp_path, stack.endpoint("grpc"))


def test_closed_loop(recipes: Recipes) -> None:
    rows = recipes.table("closed", "1", "4", ARM="L1")
    assert [(row["run"], row["load"]) for row in rows] == [
        ("closed-L1-c1", "c=1"),
        ("closed-L1-c4", "c=4"),
    ]
    for row in rows:
        assert (row["requests"], row["tokens"], row["levels"]) == ("100", "4.0", "1: 100%")
        assert float(row["J"]) > 0
        assert float(row["first p50 ms"]) <= float(row["whole p50 ms"])
        assert float(row["chunks/s"]) >= float(row["done/s"])
    sent = Counter(r["request_inputs"]["text_input"] for r in recipes.requests("closed-L1-c4"))
    assert set(sent) == {"Hi", '"😀"'}


def test_open_loop(recipes: Recipes) -> None:
    (row,) = recipes.table("open", "50", DURATION_S="2", ARM="off")
    assert (row["run"], row["load"]) == ("open-off-r50", "50/s")
    assert (row["requests"], row["levels"]) == ("100", "0: 100%")


def test_open_loop_below_one_request_per_second(recipes: Recipes) -> None:
    (row,) = recipes.table("open", "0.9", REQUESTS="2", WARMUP="0")
    assert (row["load"], row["requests"]) == ("0.9/s", "2")


def test_whole_answers(recipes: Recipes) -> None:
    (row,) = recipes.table("unary", "2", ARM="L2")
    assert (row["tokens"], row["levels"]) == ("4.0", "2: 100%")
    assert row["chunks/s"] == f"{float(row['done/s']):.1f}"


def test_comparison_of_two_arms(recipes: Recipes) -> None:
    done = recipes("compare", "off", "sprout_level:L2:string", C="2", ROUNDS="2", REQUESTS="20")
    assert done.returncode == 0, done.stderr
    first, *_, second, third = done.stdout.splitlines()
    assert first == "A: off, B: sprout_level:L2:string"
    assert (second, third) == ("levels of A: 0: 100%", "levels of B: 2: 100%")


def test_comparison_at_equal_arrivals(recipes: Recipes) -> None:
    done = recipes("compare", "L1", "on", RATE="20", DURATION_S="1", ROUNDS="1")
    assert done.returncode == 0, done.stderr
    assert "1 rounds, 20/s" in done.stdout


def test_a_refused_request_ends_it_with_the_servers_words(recipes: Recipes) -> None:
    done = recipes("closed", "1", ARM="L9")
    assert done.returncode == 1
    assert "sprout_level: unknown level 'L9': pack 'explicit' has L0, L1, L2" in done.stderr
    assert "Usage" not in done.stderr


def test_unary_calls_of_the_ensemble_are_refused(recipes: Recipes) -> None:
    assert recipes("unary", "1").returncode == 0  # for its inputs
    command = [ANALYZER, "-m", "ensemble", "-i", "grpc", "--async", "--request-count", "5"]
    command += ["-u", f"{recipes.variables['HOST']}:{recipes.variables['PORT']}"]
    command += ["--input-data", recipes.out / "inputs-tensorrt_llm_bls.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode != 0
    assert "Decoupled models must be run with `--async` and `--streaming`" in done.stderr


@pytest.fixture(scope="module")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonProcess]:
    """Rendered for the C++ backend, which can't echo a flight: an answer has no receipt."""
    folder = tmp_path_factory.mktemp("cpp")
    repository = rendered(folder, "tensorrtllm")
    put_in_the_slot(repository, "sprout_engine:echo")
    tokenizer = tiny_tokenizer.llama2(folder / "tokenizer")
    memory = folder / "memory"
    memory.mkdir(mode=0o700)
    move(repository, {"/models/checkpoint": tokenizer, "/run/sprout": memory})
    server = TritonProcess(folder, repository)
    yield server
    server.stop()


def texts(requests: list[dict[str, Any]]) -> set[str]:
    return {"".join(o["text_output"] for o in r["response_outputs"]) for r in requests}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("closed", "4"), "closed-L1-c4"),
        (("open", "50"), "open-L1-r50"),
        (("unary", "4"), "unary-L1-c4"),
    ],
)
def test_rendered_repository(
    cpp: TritonProcess, tmp_path: Path, arguments: tuple[str, str], name: str
) -> None:
    recipes = Recipes(tmp_path, cpp.grpc)
    (row,) = recipes.table(*arguments, ARM="L1", DURATION_S="2", MAX_TOKENS="16")
    assert (row["requests"], row["tokens"]) == ("100", "16.0")
    assert (row["levels"], row["J"]) == ("no receipts", "-")
    # Echo answers with the prompt, which begins with the directive: L1 was heard.
    assert texts(recipes.requests(name)) == {"[INST] <<SYS>>\n"}


def test_rendered_repository_compared(cpp: TritonProcess, tmp_path: Path) -> None:
    recipes = Recipes(tmp_path, cpp.grpc)
    done = recipes("compare", "off", "L1", ROUNDS="2", REQUESTS="20", C="2", MAX_TOKENS="16")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no receipts") == 2
    assert not any("<<SYS>>" in text for text in texts(recipes.requests("compare-02-a")))
    assert texts(recipes.requests("compare-02-b")) == {"[INST] <<SYS>>\n"}
