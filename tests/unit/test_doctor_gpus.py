# SPDX-License-Identifier: Apache-2.0
"""What the doctor says where the engine's GPUs and the metered ones differ."""

import sys
from pathlib import Path
from typing import Any

import pytest
from nvml_double import Card, Nvml

from sprout.config import Config
from sprout.serve.doctor_gpus import gpu_memory, gpu_meter, parallel, visible
from sprout.serve.finding import Finding, Mark
from sprout.serve.state import StackLock, StackPaths

HERE = ["GPU-aaaa", "GPU-bbbb", "GPU-abcd", "GPU-dddd"]


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    nvml = Nvml(*map(Card, HERE))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


def configured(
    tmp_path: Path,
    *args: str,
    kind: str = "vllm",
    gpus: tuple[int | str, ...] = (),
    meters: tuple[str, ...] = ("nvml",),
) -> Config:
    return Config.model_validate(
        {
            "stack": {"state_dir": tmp_path, "shm_dir": tmp_path / "shm"},
            "engine": {"kind": kind, "vllm_args": args},
            "energy": {"gpus": gpus, "meters": meters},
        }
    )


def found(tmp_path: Path, *args: str, seen: str | None = None, **more: Any) -> list[Finding]:
    environ = {} if seen is None else {"CUDA_VISIBLE_DEVICES": seen}
    return list(gpu_meter(configured(tmp_path, *args, **more), environ))


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


def test_a_vllm_of_several_hosts(four: Nvml, tmp_path: Path) -> None:
    """Its GPUs here are compared; that there are others is a note, and nothing is wrong."""
    for args, why in (
        (("-tp", "2", "-pp", "2", "--nnodes", "2"), "(2 hosts)"),
        (("-dp", "4", "--data-parallel-size-local", "2"), "(2 of 4 replicas are here)"),
    ):
        note, fine = found(tmp_path, *args, gpus=(0, 1))
        assert (note.mark, fine.mark) == (Mark.NOTE, Mark.OK)
        assert note.found == f"vLLM computes on other hosts, too {why}"
        note, wrong, _ = found(tmp_path, *args, gpus=(1, 2))
        assert "computes on GPU-aaaa" in wrong.found
    [only] = found(tmp_path, "-dp", "4", "-dpl", "0")
    assert only.found == "vLLM computes on other hosts, too (0 of 4 replicas are here)"
    # Each host must have its own.
    [few] = found(tmp_path, "-tp", "8", "-pp", "2", "--nnodes", "2")
    assert (few.mark, few.found) == (Mark.BAD, "vLLM is to compute on 8 GPUs and sees 4")


def test_workers_that_may_be_placed_on_other_hosts(four: Nvml, tmp_path: Path) -> None:
    [note] = found(tmp_path, "-tp", "8", "--distributed-executor-backend", "ray")
    assert note.mark is Mark.NOTE
    assert "sees 4; --distributed-executor-backend ray may place the others" in note.found
    [few] = found(tmp_path, "-tp", "8", "--distributed-executor-backend=mp")
    assert few.mark is Mark.BAD
    [fine] = found(tmp_path, "-tp", "2", "--distributed-executor-backend", "ray", gpus=(0, 1))
    assert fine.mark is Mark.OK


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


def test_who_else_is_on_the_engine_s_gpus(four: Nvml, tmp_path: Path) -> None:
    cfg = configured(tmp_path, "-tp", "2")
    assert list(gpu_memory(cfg, {})) == []
    four.cards[1].computing = [(4711, 71_000 << 20), (4712, None)]
    four.cards[2].computing = [(4713, 1 << 20)]  # not the engine's
    [finding] = gpu_memory(cfg, {})
    assert (finding.what, finding.mark) == ("gpu memory", Mark.NOTE)
    assert finding.found == (
        "on GPU-bbbb (NVIDIA H100 80GB HBM3): process 4711 (71000 MiB), "
        "process 4712 (of unknown size)"
    )
    assert "--gpu-memory-utilization" in finding.remedy
    [third] = gpu_memory(cfg, {"CUDA_VISIBLE_DEVICES": "2,0"})
    assert "process 4713 (1 MiB)" in third.found
    assert list(gpu_memory(cfg, {"CUDA_VISIBLE_DEVICES": "MIG-1"})) == []
    four.cards[1].lost = True
    assert list(gpu_memory(cfg, {})) == []
    assert four.opened == 0


def test_the_engine_of_a_stack_that_is_up_is_no_stranger(four: Nvml, tmp_path: Path) -> None:
    four.cards[0].computing = [(4711, 71_000 << 20)]
    cfg = configured(tmp_path)
    paths = StackPaths.of(cfg)
    paths.ensure()
    with StackLock(paths):
        assert list(gpu_memory(cfg, {})) == []
    assert len(list(gpu_memory(cfg, {}))) == 1
    assert list(gpu_memory(configured(tmp_path, kind="openai"), {})) == []


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
        (("-tp", "2", "-dp", "8", "--data-parallel-size-local", "4"), 8),
        (("--data_parallel_size_local=0", "-dp", "8"), 0),
        (("-tp", "2", "-dp", "8", "--data-parallel-rank", "3"), 2),
        (("--tensor-parallel-size", "8", "--pipeline-parallel-size", "2", "--nnodes", "2"), 8),
        (("-tp", "4", "-dp", "4", "-dpl", "2", "-n", "2"), 8),
    ],
)
def test_how_many_gpus_vllm_has(args: tuple[str, ...], wanted: int) -> None:
    assert parallel(args) == wanted
