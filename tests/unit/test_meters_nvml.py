# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802 - NVML's own names
"""NVML's counter through a module object that stands for `pynvml`; the real one: tests/gpu."""

import sys
import threading

import pytest

from sprout.energy.nvml import RETRY_S, NvmlMeter
from sprout.energy.tally import Memory
from sprout.errors import PrerequisiteError


class NvmlError(Exception):
    pass


class Card:
    def __init__(self, uuid: str, name: str = "NVIDIA H100 80GB HBM3") -> None:
        self.uuid, self.name = uuid, name
        self.mj: int | None = 1_000_000  # None: no counter
        self.mig: int | None = 0  # None: does not know of instances
        self.lost = False


class Nvml:
    """What is used of pynvml. A handle is void once the driver was loaded again."""

    NVMLError = NvmlError
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(self, *cards: Card) -> None:
        self.cards = cards
        self.driver = True
        self.loaded = 1
        self.opened = 0

    def reload(self) -> None:
        self.loaded += 1
        self.opened = 0
        for card in self.cards:
            card.mj = 0

    def nvmlInit(self) -> None:
        if not self.driver:
            raise NvmlError("Driver Not Loaded")
        self.opened += 1

    def nvmlShutdown(self) -> None:
        if not self.opened:
            raise NvmlError("Uninitialized")
        self.opened -= 1

    def _card(self, handle: tuple[int, int]) -> Card:
        loaded, index = handle
        if not self.opened or loaded != self.loaded or not self.driver:
            raise NvmlError("Uninitialized")
        return self.cards[index]

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> tuple[int, int]:
        if index >= len(self.cards):
            raise NvmlError("Invalid Argument")
        return self.loaded, index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> tuple[int, int]:
        for index, card in enumerate(self.cards):
            if card.uuid == uuid:
                return self.loaded, index
        raise NvmlError("Not Found")

    def nvmlDeviceGetUUID(self, handle: tuple[int, int]) -> str:
        return self._card(handle).uuid

    def nvmlDeviceGetName(self, handle: tuple[int, int]) -> str:
        return self._card(handle).name

    def nvmlDeviceGetMigMode(self, handle: tuple[int, int]) -> tuple[int, int]:
        mode = self._card(handle).mig
        if mode is None:
            raise NvmlError("Not Supported")
        return mode, mode

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: tuple[int, int]) -> int:
        card = self._card(handle)
        if card.lost:
            raise NvmlError("GPU is lost")
        if card.mj is None:
            raise NvmlError("Not Supported")
        return card.mj

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: tuple[int, int]) -> int:
        self._card(handle)
        return 700_000


def two() -> tuple[Nvml, Card, Card]:
    cards = Card("GPU-a"), Card("GPU-b")
    return Nvml(*cards), *cards


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
