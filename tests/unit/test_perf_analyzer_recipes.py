# SPDX-License-Identifier: Apache-2.0
"""The perf_analyzer recipes' own arithmetic, and their script over a perf_analyzer that only says
what it was asked. With the real one: tests/system/test_perf_analyzer.py."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import stock_tables as stock

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "perf_analyzer"))
from inputs import InputError, document
from summary import (
    ExportError,
    Request,
    Run,
    comparison,
    figures,
    mix,
    read,
    table,
    tail,
)

FOLDER = Path(__file__).parents[2] / "benchmarks" / "perf_analyzer"
MS = 1_000_000


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text('  First?\n\nSecond "é" 😀\n')
    return path


def test_text_is_one_prompt_a_line(prompts: Path) -> None:
    made = document(prompts, max_tokens=8, seed=2**64 - 2, temperature=0.5)
    shared = {
        "max_tokens": [8],
        "stream": [True],
        "temperature": [0.5],
        "return_num_output_tokens": [True],
    }
    assert made["data"] == [
        {"text_input": ["First?"], "seed": [2**64 - 2]} | shared,
        {"text_input": ['Second "é" 😀'], "seed": [2**64 - 1]} | shared,
    ]
    with pytest.raises(InputError, match=r"prompts.txt:3: seed 18446744073709551616: .* UINT64"):
        document(prompts, max_tokens=8, seed=2**64 - 1)


def test_lines_of_json_may_have_their_own_values(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(
        '{"prompt": "a", "max_tokens": 3, "id": "x"}\n'
        '{"prompt": "b\\nc", "temperature": 0, "seed": 9}\n{"prompt": "d"}\n'
    )
    made = document(path, max_tokens=8, seed=1, streaming=False, counts=False, most=2)
    whole = {"stream": [False], "exclude_input_in_output": [True]}
    assert made["data"] == [
        {"text_input": ["a"], "max_tokens": [3], "seed": [1]} | whole,
        {"text_input": ["b\nc"], "max_tokens": [8], "temperature": [0], "seed": [9]} | whole,
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "x.jsonl:1: Expecting value"),
        ('["prompt"]', "x.jsonl:1: no object with a text `prompt`"),
        ('{"prompt": 3}', "x.jsonl:1: no object with a text `prompt`"),
        ('{"prompt": "\\ud800"}', "x.jsonl:1: prompt: .*surrogates"),
        ('{"prompt": "a", "max_tokens": 0}', "x.jsonl:1: max_tokens 0: must be an INT32 from 1"),
        ('{"prompt": "a", "max_tokens": true}', "x.jsonl:1: max_tokens True"),
        ('{"prompt": "a", "max_tokens": 2147483648}', "x.jsonl:1: max_tokens 2147483648"),
        ('{"prompt": "a", "temperature": -0.1}', "x.jsonl:1: temperature -0.1"),
        ('{"prompt": "a", "temperature": NaN}', "x.jsonl:1: temperature nan"),
        ('{"prompt": "a", "temperature": "0"}', "x.jsonl:1: temperature '0'"),
        ('{"prompt": "a", "seed": -1}', "x.jsonl:1: seed -1: must be a UINT64"),
        ("  ", "x.jsonl: no prompt"),
    ],
)
def test_what_no_server_would_take_is_refused_by_line(
    tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        document(path, max_tokens=8)


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
def test_inputs_are_stock_tensors(prompts: Path, model: str) -> None:
    tensors = {
        words[0]: words[1:] for words in map(str.split, stock.INPUTS[model].splitlines()) if words
    }
    types: dict[str, type | tuple[type, ...]] = {
        "STRING": str, "INT32": int, "UINT64": int, "BOOL": bool, "FP32": (int, float),
    }  # fmt: skip
    streaming = model == "ensemble"
    for sent in document(prompts, max_tokens=8, seed=1, temperature=1, streaming=streaming)["data"]:
        assert {name for name, (_, _, *marks) in tensors.items() if "?" not in marks} <= set(sent)
        for name, elements in sent.items():
            kind, dims, *_ = tensors[name]
            assert (dims, len(elements)) == ("1", 1), name
            assert isinstance(elements[0], types[kind]), name


def request(sent_ms: float, *answered_ms: float, **last: Any) -> dict[str, Any]:
    """As perf_analyzer writes it: outputs that a response doesn't have are empty text."""
    empty = {"text_output": "x", "directive_level": "", "energy_joules": "", "carbon_grams": ""}
    outputs = [dict(empty) for _ in answered_ms]
    if outputs:
        outputs[-1] |= last
    return {
        "timestamp": int(sent_ms * MS),
        "request_inputs": {"text_input": "a"},
        "response_timestamps": [int(at * MS) for at in answered_ms],
        "response_outputs": outputs,
    }


def export(path: Path, requests: list[dict[str, Any]], mode: str = "concurrency") -> Path:
    experiment = {"mode": mode, "value": 2}
    document = {"experiments": [{"experiment": experiment, "requests": requests}]}
    path.write_text(json.dumps(document))
    return path


def test_figures_are_of_the_requests_themselves(tmp_path: Path) -> None:
    receipt = {"energy_joules": 2.0, "carbon_grams": 0.001}
    counted = {"num_output_tokens": 7}
    path = export(
        tmp_path / "x.json",
        [
            request(1100, 1150, 1300, directive_level=0, **receipt, **counted),
            request(1000, 1010, 1100, 1200, directive_level=2, **receipt, **counted),
            request(1050, 1500),  # its receipt got lost
            request(1060),
        ],
        mode="request_rate",
    )
    (run,) = read(path)
    found = figures(run)
    assert (run.name, run.load, run.unanswered, found.requests) == ("x", "2/s", 1, 3)
    assert found.in_flight == pytest.approx((0.2 + 0.2 + 0.45) / 0.5)
    assert found.sent_per_s == pytest.approx(2 / 0.1)
    assert found.done_per_s == pytest.approx(3 / 0.5)
    assert found.chunks_per_s == pytest.approx(6 / 0.5)
    assert (found.first_p50_ms, found.whole_p50_ms) == (50, 200)
    assert found.first_p99_ms is found.whole_p99_ms is None
    assert (found.tokens, found.joules, found.milligrams) == (7, 2, 1)
    assert found.levels == {0: 0.5, 2: 0.5}
    assert mix(found) == "0: 50% 2: 50% (33% without)"
    assert table([run]).splitlines()[-1] == "x: 1 requests without an answer"


def test_tokens_are_counted_on_the_last_response_or_on_each(tmp_path: Path) -> None:
    each = request(0, 1, 2, 3)
    for output, tokens in zip(each["response_outputs"], (1, 3, 2), strict=True):
        output["num_output_tokens"] = tokens
    (run,) = read(export(tmp_path / "x.json", [each, request(0, 1, 2, num_output_tokens=6)]))
    assert [r.tokens for r in run.requests] == [6, 6]


def test_a_tail_stands_on_a_hundred_requests() -> None:
    assert tail([1.0] * 99) is None
    assert tail(list(map(float, range(101)))) == 99.0
    assert tail(list(map(float, range(100)))) == pytest.approx(98.01)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no export"),
        ('{"experiments": 3}', "is no export"),
        ('{"experiments": [{"experiment": {}}]}', "is no export"),
        ("[]", "is no export"),
    ],
)
def test_what_is_no_export_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(ExportError, match=message):
        read(path)
    with pytest.raises(ExportError, match="No such file"):
        read(tmp_path / "none.json")
    with pytest.raises(ExportError, match="no request was answered"):
        figures(Run("x", "c=1", (), 3))


def test_chunks_that_end_within_a_character_can_be_read(tmp_path: Path) -> None:
    path = export(tmp_path / "x.json", [request(0, 1, text_output="?")])
    path.write_bytes(path.read_bytes().replace(b'"?"', b'"\xf0\x9f"'))
    assert len(read(path)[0].requests) == 1


def run_of(*whole_ms: float, load: str = "c=1", level: int | None = None) -> Run:
    requests = tuple(
        Request(n * MS, (int((n + ms) * MS),), None, level, None, None)
        for n, ms in enumerate(whole_ms)
    )
    return Run("r", load, requests, 0)


def cells(text: str, row: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(row)).split()[-4:]


def test_ratios_are_taken_round_by_round() -> None:
    first = [run_of(100, level=0), run_of(200, level=0), run_of(50, level=0)]
    second = [run_of(50, level=1), run_of(300, level=1), run_of(50, level=2)]
    text = comparison(first, second)
    assert cells(text, "whole p50 ms") == ["100.0", "50.0", "1.000", "0.500-1.500"]
    assert cells(text, "J") == ["-", "-", "-", "-"]
    assert text.splitlines()[-2:] == ["levels of A: 0: 100%", "levels of B: 1: 100%; 2: 100%"]


def test_arms_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ExportError, match="2 runs of A and 1 of B"):
        comparison([run_of(1), run_of(1)], [run_of(1)])
    with pytest.raises(ExportError, match=r"at 5/s, c=1: .* one load"):
        comparison([run_of(1)], [run_of(1, load="5/s")])


# Answers at once, and says in the export what it was asked.
ONLY_SAYS = """#!{python}
import json, sys
asked = sys.argv[1:]
if "sprout_level:L9:string" in asked:
    print("Usage:\\n\\t an option\\nThread [1] had error: unknown level 'L9'")
    sys.exit(99)
if "--request-rate-range" in asked:
    print("    [WARNING] Perf Analyzer was not able to keep up")
requests = [{{"timestamp": n * 10**6, "response_timestamps": [(n + 1) * 10**6]}} for n in range(3)]
experiment = {{"experiment": {{"mode": "concurrency", "value": 1}}, "requests": requests}}
with open(asked[asked.index("--profile-export-file") + 1], "w") as file:
    json.dump({{"asked": asked, "experiments": [experiment]}}, file)
"""


class Recipes:
    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        self._analyzer = folder / "perf_analyzer"
        self._analyzer.write_text(ONLY_SAYS.format(python=sys.executable))
        self._analyzer.chmod(0o755)

    def __call__(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        own = {"PERF_ANALYZER": str(self._analyzer), "OUT": str(self.out), "PYTHON": sys.executable}
        return subprocess.run(
            [FOLDER / "run.sh", *arguments],
            env={"PATH": os.environ["PATH"]} | own | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def asked(self, name: str) -> list[str]:
        return list(json.loads((self.out / f"{name}.json").read_text())["asked"])


@pytest.fixture
def recipes(tmp_path: Path) -> Recipes:
    return Recipes(tmp_path)


def option(asked: list[str], name: str) -> str:
    return asked[asked.index(name) + 1]


def test_closed_loop(recipes: Recipes) -> None:
    done = recipes("closed", "1", "32", HOST="gpu-1", PORT="9001", FLAGS="-v --percentile 95")
    assert done.returncode == 0, done.stderr
    few, many = recipes.asked("closed-on-c1"), recipes.asked("closed-on-c32")
    assert option(few, "-u") == "gpu-1:9001"
    assert option(few, "-m") == "ensemble"
    assert "--streaming" in few
    assert option(few, "--percentile") == "95"
    assert "--request-parameter" not in few
    assert [option(asked, "--concurrency-range") for asked in (few, many)] == ["1", "32"]
    assert [option(asked, "--request-count") for asked in (few, many)] == ["100", "640"]
    sent = json.loads(Path(option(few, "--input-data")).read_text())["data"]
    assert len(sent) == 16
    assert sent[0]["stream"] == [True]
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == [
        "closed-on-c1",
        "closed-on-c32",
    ]


def test_open_loop(recipes: Recipes) -> None:
    done = recipes("open", "2.5", "40", DURATION_S="3", ARM="L1", PARAMETERS="a:b:string c:1:int")
    assert done.returncode == 0, done.stderr
    asked = recipes.asked("open-L1-r2.5")
    assert option(asked, "--request-distribution") == "poisson"
    assert option(asked, "--request-count") == "8"
    assert option(recipes.asked("open-L1-r40"), "--request-count") == "120"
    given = [value for flag, value in pairwise(asked) if flag == "--request-parameter"]
    assert given == ["sprout_level:L1:string", "a:b:string", "c:1:int"]
    assert "not able to keep up" in done.stderr


def test_arrivals_never_hang_in_the_warm_up(recipes: Recipes) -> None:
    done = recipes("open", "5", WARMUP="3")
    assert done.returncode == 1
    assert "WARMUP 3: with arrivals it must be 0, or 4 or more" in done.stderr
    assert recipes("open", "5", WARMUP="0").returncode == 0


def test_whole_answers(recipes: Recipes) -> None:
    done = recipes("unary", "2", ARM="sprout_task:chat:string")
    assert done.returncode == 0, done.stderr
    asked = recipes.asked("unary-sprout_task_chat_string-c2")
    assert option(asked, "-m") == "tensorrt_llm_bls"
    assert "--streaming" not in asked
    assert option(asked, "--request-parameter") == "sprout_task:chat:string"
    sent = json.loads(Path(option(asked, "--input-data")).read_text())["data"]
    assert sent[0]["stream"] == [False]


def test_comparison_takes_turns(recipes: Recipes) -> None:
    done = recipes("compare", "off", "L2", ROUNDS="3", C="4")
    assert done.returncode == 0, done.stderr
    order = [line.split("--profile-export-file ")[1] for line in done.stderr.splitlines()]
    assert [Path(words.split()[0]).stem for words in order] == [
        *("compare-01-a", "compare-01-b", "compare-02-b"),
        *("compare-02-a", "compare-03-a", "compare-03-b"),
    ]
    assert option(recipes.asked("compare-03-a"), "--request-parameter") == "sprout_off:true:bool"
    assert option(recipes.asked("compare-02-b"), "--request-parameter") == "sprout_level:L2:string"
    assert option(recipes.asked("compare-02-b"), "--concurrency-range") == "4"
    assert done.stdout.startswith("A: off, B: L2\n3 rounds, c=1")


def test_comparison_at_equal_arrivals(recipes: Recipes) -> None:
    done = recipes("compare", "on", "off", ROUNDS="1", RATE="5", MODEL="tensorrt_llm_bls")
    assert done.returncode == 0, done.stderr
    asked = recipes.asked("compare-01-a")
    load = option(asked, "--request-rate-range"), option(asked, "--request-count")
    assert load == ("5:5", "300")
    assert "--streaming" not in asked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "run.sh compare A B"),
        (("closed",), "run.sh closed C..."),
        (("other", "1"), "run.sh closed C..."),
        (("compare", "off"), "run.sh compare A B"),
        (("closed", "0"), "'0' is no number of requests in flight"),
        (("unary", "1:8"), "'1:8' is no number of requests in flight"),
        (("open", "1:8"), "'1:8' is no rate of requests per second"),
        (("open", "0"), "'0' is no rate of requests per second"),
    ],
)
def test_a_wrong_recipe_runs_nothing(
    recipes: Recipes, arguments: tuple[str, ...], message: str
) -> None:
    done = recipes(*arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "--profile-export-file" not in done.stderr


def test_no_run_is_written_over(recipes: Recipes) -> None:
    assert recipes("closed", "1").returncode == 0
    again = recipes("closed", "1")
    assert again.returncode == 1
    assert "closed-on-c1.json is there already" in again.stderr


def test_a_failure_ends_it_with_its_reason(recipes: Recipes) -> None:
    done = recipes("compare", "L9", "off")
    assert done.returncode == 1
    assert "Thread [1] had error: unknown level 'L9'" in done.stderr
    assert "an option" not in done.stderr
    assert not done.stdout
    assert [path.name for path in recipes.out.glob("compare*")] == ["compare-01-a.log"]


def test_prompts_that_cannot_be_sent_end_it(recipes: Recipes, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    done = recipes("closed", "1", PROMPTS=str(tmp_path / "empty.txt"))
    assert done.returncode != 0
    assert "empty.txt: no prompt" in done.stderr
    assert "--profile-export-file" not in done.stderr
