# SPDX-License-Identifier: Apache-2.0
"""What the doctor says where the engine's GPUs and the metered ones differ."""

import sys
from pathlib import Path

import pytest
from nvml_double import Card, Nvml

from sprout.config import Config
from sprout.serve.doctor_gpus import gpu_meter, parallel, visible
from sprout.serve.finding import Finding, Mark

HERE = ["GPU-aaaa", "GPU-bbbb", "GPU-abcd", "GPU-dddd"]


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    nvml = Nvml(*map(Card, HERE))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


def found(
    tmp_path: Path,
    *args: str,
    kind: str = "vllm",
    gpus: tuple[int | str, ...] = (),
    meters: tuple[str, ...] = ("nvml",),
    seen: str | None = None,
) -> list[Finding]:
    cfg = Config.model_validate(
        {
            "stack": {"state_dir": tmp_path, "shm_dir": tmp_path},
            "engine": {"kind": kind, "vllm_args": args},
            "energy": {"gpus": gpus, "meters": meters},
        }
    )
    return list(gpu_meter(cfg, {} if seen is None else {"CUDA_VISIBLE_DEVICES": seen}))


def test_tensor_parallel_2_of_4_with_all_metered(four: Nvml, tmp_path: Path) -> None:
    [finding] = found(tmp_path, "--tensor-parallel-size", "2")
    assert finding.mark is Mark.NOTE
    assert "GPU-abcd (NVIDIA H100 80GB HBM3), GPU-dddd" in finding.found
    assert "GPU-aaaa" not in finding.found
    assert finding.remedy.endswith('energy.gpus = ["GPU-aaaa", "GPU-bbbb"]')
    [fine] = found(tmp_path, "--tensor-parallel-size", "2", gpus=("GPU-aaaa", 1))
    assert fine.mark is Mark.OK
    assert four.opened == 0


def test_what_cuda_is_shown_counts(four: Nvml, tmp_path: Path) -> None:
    [fine] = found(tmp_path, gpus=(2,), seen="2,3")
    assert fine.mark is Mark.OK
    wrong = found(tmp_path, gpus=(0,), seen="2,3")
    assert [f.mark for f in wrong] == [Mark.BAD, Mark.NOTE]
    assert "computes on GPU-abcd (NVIDIA H100 80GB HBM3), which is not metered" in wrong[0].found
    assert wrong[0].remedy == 'energy.gpus = ["GPU-abcd"]'
    [few] = found(tmp_path, "-tp", "4", seen="0,1")
    assert (few.mark, few.found) == (Mark.BAD, "vLLM is to compute on 4 GPUs and sees 2")


def test_a_mig_instance_is_metered_with_its_neighbours(four: Nvml, tmp_path: Path) -> None:
    [finding] = found(tmp_path, gpus=(0,), seen="MIG-1234")
    assert finding.mark is Mark.NOTE
    assert "the engine has MIG-1234, and only whole GPUs" in finding.found
    # Split and not named: the meter refuses it, and the meter's own line says so.
    four.cards[0].mig = 1
    assert found(tmp_path) == []


def test_an_engine_that_is_started_elsewhere(four: Nvml, tmp_path: Path) -> None:
    for kind in ("openai", "external"):
        [finding] = found(tmp_path, kind=kind)
        assert "all 4 GPUs of this host are metered" in finding.found
        assert found(tmp_path, kind=kind, gpus=(0,)) == []


def test_gpus_that_nobody_meters(four: Nvml, tmp_path: Path) -> None:
    [finding] = found(tmp_path, meters=("cpu_model",))
    assert "no GPU is metered (cpu_model), and here are 4" in finding.found
    assert found(tmp_path, meters=("cpu_model",), kind="llama_cpp") == []
    # "auto" goes on to the next meter where a GPU is split.
    four.cards[0].mig = 1
    [passed_over] = found(tmp_path, meters=("auto",))
    assert "no GPU is metered" in passed_over.found


def test_triton_s_own_figure_is_of_the_same_boards(four: Nvml, tmp_path: Path) -> None:
    [finding] = found(tmp_path, meters=("triton",))
    assert "not this engine's: GPU-bbbb" in finding.found
    [fine] = found(tmp_path, meters=("triton",), gpus=("GPU-aaaa",))
    assert fine.mark is Mark.OK


def test_no_driver_nothing_to_say(four: Nvml, tmp_path: Path) -> None:
    four.driver = False
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, HERE),
        ("", []),
        ("-1", []),
        ("1", ["GPU-bbbb"]),
        ("3, 0", ["GPU-dddd", "GPU-aaaa"]),
        ("GPU-ab", ["GPU-abcd"]),
        ("GPU-a", []),  # of two
        ("0,9,1", ["GPU-aaaa"]),  # what names none ends the list
        ("MIG-7,1", ["MIG-7", "GPU-bbbb"]),
    ],
)
def test_what_cuda_makes_of_its_variable(value: str | None, wanted: list[str]) -> None:
    assert visible(HERE, value) == wanted


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        ((), 1),
        (("--enforce-eager",), 1),
        (("--tensor-parallel-size", "2"), 2),
        (("--tensor_parallel_size=2", "-pp", "3"), 6),
        (("-tp=8", "--data-parallel-size", "2", "--tensor-parallel-size", "4"), 8),
    ],
)
def test_how_many_gpus_vllm_has(args: tuple[str, ...], wanted: int) -> None:
    assert parallel(args) == wanted
