# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802 - NVML's own names
"""What stands for the module `pynvml`: GPUs that fall off the bus, drivers that are reloaded."""

from types import SimpleNamespace


class NvmlError(Exception):
    pass


class Card:
    def __init__(self, uuid: str, name: str = "NVIDIA H100 80GB HBM3") -> None:
        self.uuid, self.name = uuid, name
        self.mj: int | None = 1_000_000  # None: no counter
        self.mig: int | None = 0  # None: does not know of instances
        self.lost = False
        self.computing: list[tuple[int, int | None]] = []  # (pid, bytes)


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

    def nvmlDeviceGetComputeRunningProcesses(
        self, handle: tuple[int, int]
    ) -> list[SimpleNamespace]:
        card = self._card(handle)
        if card.lost:
            raise NvmlError("GPU is lost")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in card.computing]

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: tuple[int, int]) -> int:
        self._card(handle)
        return 700_000


def two() -> tuple[Nvml, Card, Card]:
    cards = Card("GPU-a"), Card("GPU-b")
    return Nvml(*cards), *cards
