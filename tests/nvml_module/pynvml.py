# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802 - NVML's own names
"""What stands for `pynvml` in the processes of a stack: this folder is put on their PYTHONPATH.

Two GPUs of 300 W, whose counters move every 100 ms. A file `<UUID>.lost` in the folder that
NVML_DOUBLE names takes one off the bus; its counter goes on.
"""

import os
import time
from pathlib import Path

NVML_DEVICE_MIG_ENABLE = 1
UUIDS = ("GPU-a", "GPU-b")
WATTS = 300
STEP_S = 0.1


class NVMLError(Exception):
    """As the real one, it says what is wrong."""


def nvmlInit() -> None:
    """Nothing to open."""


def nvmlShutdown() -> None:
    """Nothing to close."""


def nvmlDeviceGetCount() -> int:
    return len(UUIDS)


def nvmlDeviceGetHandleByIndex(index: int) -> str:
    return UUIDS[index]


def nvmlDeviceGetHandleByUUID(uuid: str) -> str:
    return uuid


def nvmlDeviceGetUUID(handle: str) -> str:
    return handle


def nvmlDeviceGetName(handle: str) -> str:
    return "NVIDIA H100 80GB HBM3"


def nvmlDeviceGetMigMode(handle: str) -> tuple[int, int]:
    return 0, 0


def nvmlDeviceGetEnforcedPowerLimit(handle: str) -> int:
    return 700_000


def nvmlDeviceGetTotalEnergyConsumption(handle: str) -> int:
    if (Path(os.environ["NVML_DOUBLE"]) / f"{handle}.lost").exists():
        raise NVMLError("GPU is lost")
    steps = int(time.clock_gettime(time.CLOCK_MONOTONIC) / STEP_S)
    return int(steps * STEP_S * WATTS * 1e3)
