# SPDX-License-Identifier: Apache-2.0
"""NVML's counter through a module object that stands for `pynvml`; the real one: tests/gpu."""

import sys
import threading

import pytest
from nvml_double import Nvml, two

from sprout.energy.nvml import RETRY_S, NvmlMeter
from sprout.energy.tally import Memory
from sprout.errors import PrerequisiteError


def hanging(nvml: Nvml) -> tuple[threading.Event, threading.Event]:
    """Opening it hangs, beside this thread: inside, let go."""
    inside, let_go = threading.Event(), threading.Event()
    opening, tick = nvml.nvmlInit, threading.get_ident()

    def hangs() -> None:
        assert threading.get_ident() != tick
        inside.set()
        let_go.wait()
        opening()

    nvml.nvmlInit = hangs  # type: ignore[method-assign]
    return inside, let_go


def recovered(meter: NvmlMeter) -> None:
    """Until the attempt that the last read began is over."""
    assert meter._recovery is not None
    assert meter._recovery.done.wait(60)


def test_sums_every_gpu_from_where_it_finds_them() -> None:
    nvml, a, b = two()
    meter = NvmlMeter(nvml=nvml)
    assert meter.read() == 0.0
    a.mj += 1500  # type: ignore[operator]
    b.mj += 250  # type: ignore[operator]
    assert meter.read() == 1.75
    assert not meter.estimated
    assert meter.prior_watts == 1400
    assert meter.name == "nvml (2 x NVIDIA H100 80GB HBM3)"
    meter.close()
    assert nvml.opened == 0


@pytest.mark.parametrize("gpus", [[1], ["1"], ["GPU-b"]])
def test_meters_the_named_gpus_alone(gpus: list[int | str]) -> None:
    nvml, a, b = two()
    meter = NvmlMeter(gpus, nvml=nvml)
    a.mj += 1000  # type: ignore[operator]
    b.mj += 3000  # type: ignore[operator]
    assert meter.read() == 3.0


def test_goes_on_after_a_restart_with_what_was_used_meanwhile() -> None:
    nvml, a, b = two()
    first = NvmlMeter(nvml=nvml)
    a.mj += 2000  # type: ignore[operator]
    first.read()
    memory = first.memory()
    b.mj += 5000  # type: ignore[operator]
    second = NvmlMeter((), memory, nvml=nvml)
    assert second.read() == 7.0


def test_a_driver_that_was_reloaded_between_two_agents_counts_from_nought() -> None:
    nvml, a, _ = two()
    memory = Memory(10.0, {"GPU-a": 1_000_000, "GPU-b": 1_000_000})
    nvml.reload()
    meter = NvmlMeter((), memory, nvml=nvml)
    assert meter.read() == 10.0
    a.mj = 4000
    assert meter.read() == 14.0


def test_a_driver_reload_under_it_is_survived(caplog: pytest.LogCaptureFixture) -> None:
    nvml, a, _ = two()
    now = 0.0
    meter = NvmlMeter(nvml=nvml, clock=lambda: now)
    a.mj += 1000  # type: ignore[operator]
    assert meter.read() == 1.0
    nvml.driver = False
    assert meter.read() == 1.0
    assert "Uninitialized" in meter.problem
    nvml.driver = True
    nvml.reload()
    a.mj = 2990
    assert meter.read() == 1.0  # not looked for at every tick
    now = RETRY_S
    assert meter.read() == 1.0
    recovered(meter)
    assert meter.read() == 1.0  # a low reading that could be false
    assert meter.problem == ""
    a.mj = 3000
    assert meter.read() == 4.0
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


def test_a_driver_that_stays_away_is_looked_for_again_and_again() -> None:
    nvml, a, _ = two()
    now = 0.0
    meter = NvmlMeter(nvml=nvml, clock=lambda: now)
    nvml.driver = False
    for now in (1.0, 2 * RETRY_S, 4 * RETRY_S, 6 * RETRY_S):
        assert meter.read() == 0.0
        if now >= RETRY_S:
            recovered(meter)
        assert meter.read() == 0.0
        assert meter.problem
    nvml.driver = True
    nvml.reload()
    now = 8 * RETRY_S
    meter.read()
    recovered(meter)
    meter.read()
    a.mj = 500
    assert meter.read() == 0.5


def test_a_tick_never_waits_for_the_driver() -> None:
    """Opening NVML hangs: reads go on at once, and the counter is caught up with behind it."""
    nvml, a, _ = two()
    now = 0.0
    meter = NvmlMeter(nvml=nvml, clock=lambda: now)
    inside, let_go = hanging(nvml)
    a.lost = True
    meter.read()
    now = RETRY_S
    assert meter.read() == 0.0
    assert inside.wait(60)
    a.lost = False
    a.mj += 2000  # type: ignore[operator]
    for now in (RETRY_S, 9 * RETRY_S):  # noqa: B007 - the clock reads it
        assert meter.read() == 0.0
        assert "GPU is lost" in meter.problem
    let_go.set()
    recovered(meter)
    assert meter.read() == 2.0
    assert meter.problem == ""
    meter.close()
    assert nvml.opened == 0


def test_closed_while_the_driver_is_away() -> None:
    nvml, a, _ = two()
    now = 0.0
    meter = NvmlMeter(nvml=nvml, clock=lambda: now)
    inside, let_go = hanging(nvml)
    a.lost = True
    meter.read()
    now = RETRY_S
    meter.read()
    assert inside.wait(60)
    meter.close()  # returns
    let_go.set()
    recovered(meter)
    for thread in threading.enumerate():
        if thread.name == "nvml-recovery":
            thread.join(60)
    assert nvml.opened == 0


def test_one_lost_gpu_does_not_stop_the_others() -> None:
    nvml, a, b = two()
    meter = NvmlMeter(nvml=nvml)
    a.lost = True
    b.mj += 1000  # type: ignore[operator]
    assert meter.read() == 1.0
    assert meter.problem == "GPU GPU-a (NVIDIA H100 80GB HBM3): GPU is lost"


@pytest.mark.parametrize(
    ("gpus", "setting", "message"),
    [
        ([], {"mj": None}, r"GPU-b \(NVIDIA H100 80GB HBM3\) gives no energy counter.*: .*leave"),
        ([], {"mig": 1}, r"GPU-b .* is split into MIG instances.*: name the GPU"),
        ([7], {}, r"GPU 7 \(Invalid Argument\): .*nvidia-smi -L"),
        (["GPU-x"], {}, r"GPU GPU-x \(Not Found\)"),
        (["MIG-1234"], {}, r"MIG-1234, and a MIG instance has no energy counter: name its GPU"),
        (["GPU-a", 0], {}, r"GPU-a .* twice"),
    ],
)
def test_what_can_not_be_metered_is_named_with_a_remedy(
    gpus: list[int | str], setting: dict[str, int | None], message: str
) -> None:
    nvml, _, b = two()
    for key, value in setting.items():
        setattr(b, key, value)
    with pytest.raises(PrerequisiteError, match=message):
        NvmlMeter(gpus, nvml=nvml)
    assert nvml.opened == 0


def test_a_gpu_that_is_split_is_metered_whole_where_it_is_named() -> None:
    nvml, a, b = two()
    b.mig, a.mig = 1, None
    meter = NvmlMeter(["GPU-b", "GPU-a"], nvml=nvml)
    b.mj += 1000  # type: ignore[operator]
    assert meter.read() == 1.0


def test_no_driver_no_gpu_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml, *_ = two()
    nvml.driver = False
    with pytest.raises(
        PrerequisiteError, match=r"no NVIDIA driver answers \(Driver Not Loaded\): "
    ):
        NvmlMeter(nvml=nvml)
    with pytest.raises(PrerequisiteError, match="NVML lists no GPU: "):
        NvmlMeter(nvml=Nvml())
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(PrerequisiteError, match="pip install nvidia-ml-py"):
        NvmlMeter()


def test_a_lost_gpu_leaves_no_reading_whole_until_all_are_back() -> None:
    nvml, a, b = two()
    now = 0.0
    meter = NvmlMeter(nvml=nvml, clock=lambda: now)
    meter.read()
    assert meter.whole
    a.lost = True
    b.mj += 1000  # type: ignore[operator]
    meter.read()
    assert not meter.whole
    now = RETRY_S
    meter.read()  # the attempt to find it again is under way: nothing is read
    assert not meter.whole
    recovered(meter)
    meter.read()
    assert not meter.whole
    a.lost = False
    a.mj += 500  # type: ignore[operator]
    assert meter.read() == 1.5
    assert meter.whole


def test_a_counter_that_seems_to_begin_anew_is_in_doubt_for_a_reading() -> None:
    nvml, a, _ = two()
    meter = NvmlMeter(nvml=nvml)
    meter.read()
    a.mj = 100
    assert meter.read() == 0.0
    assert not meter.whole
    assert meter.problem == ""
    a.mj = 300
    assert meter.read() == 0.3
    assert meter.whole
