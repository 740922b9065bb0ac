# SPDX-License-Identifier: Apache-2.0
"""NVML: each GPU's own counter of the energy that its board has drawn since the driver was loaded.

`nvmlDeviceGetTotalEnergyConsumption`, in millijoules, from Volta on. It moves in steps of about
100 ms. Its place is the whole board; MIG instances have no counter of their own.
https://docs.nvidia.com/deploy/nvml-api/
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sprout.energy.tally import NOTHING, Memory, Tally
from sprout.errors import PrerequisiteError

log = logging.getLogger(__name__)

RETRY_S = 5.0  # between attempts to open NVML again
_MJ_PER_JOULE = 1e3
_MW_PER_WATT = 1e3


@dataclass
class Gpu:
    handle: Any
    uuid: str
    name: str

    def __str__(self) -> str:
        return f"GPU {self.uuid} ({self.name})"


@dataclass(frozen=True)
class Computing:
    """A process on a GPU. Another container's has the host's pid, or is not listed at all."""

    uuid: str
    pid: int
    used_bytes: int | None  # None: NVML does not tell


class NvmlMeter:
    """Joules of the chosen GPUs.

    gpus: NVML's indices or UUIDs; none = every GPU that NVML lists. (NVML does not heed
    CUDA_VISIBLE_DEVICES.) PrerequisiteError names the GPU that has no counter, and the remedy.

    A GPU that fails later holds its place: the others are read on, `problem` names it, and NVML is
    opened again every few seconds. A counter that comes back lower has begun anew. Opening waits
    for the driver, for seconds or for ever, so it has a thread of its own; meanwhile nothing is
    read, and nothing is lost: the counters go on.
    """

    estimated = False

    def __init__(
        self,
        gpus: Sequence[int | str] = (),
        memory: Memory = NOTHING,
        *,
        nvml: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """nvml: what stands for the `pynvml` module."""
        self._nv = _library() if nvml is None else nvml
        self._clock = clock
        self.problem = ""
        self._retry_at = 0.0
        self._recovery: Recovery | None = None
        _open(self._nv)
        try:
            self._gpus = self._chosen(gpus)
            self._tally = Tally(
                memory, {gpu.uuid for gpu in self._gpus}, raw_per_joule=_MJ_PER_JOULE
            )
            for gpu in self._gpus:
                self._tally.update(gpu.uuid, self._first_reading(gpu))
            self.prior_watts = sum(map(self._limit_watts, self._gpus))
        except BaseException:
            self.close()
            raise
        models = Counter(gpu.name for gpu in self._gpus)
        self.name = f"nvml ({', '.join(f'{n} x {model}' for model, n in models.items())})"

    @property
    def models(self) -> list[str]:
        """NVML's name of each GPU that is metered."""
        return [gpu.name for gpu in self._gpus]

    @property
    def whole(self) -> bool:
        """Every GPU gave its counter at the last read, and none has seemingly begun anew in it."""
        return not self.problem and not self._tally.doubtful

    @property
    def uuids(self) -> list[str]:
        """Of each GPU that is metered."""
        return [gpu.uuid for gpu in self._gpus]

    def read(self) -> float:
        """Joules since the meter's start. Takes a few milliseconds per GPU, and never waits for a
        driver that is away."""
        if not self._recovered():
            return self._tally.joules
        problem = ""
        for gpu in self._gpus:
            try:
                mj = self._nv.nvmlDeviceGetTotalEnergyConsumption(gpu.handle)
            except self._nv.NVMLError as error:
                problem = f"{gpu}: {error}"
            else:
                self._tally.update(gpu.uuid, mj)
        if problem and not self.problem:
            self._retry_at = self._clock() + RETRY_S
        if problem and problem != self.problem:
            log.warning("%s; its energy stands still", problem)
        elif self.problem and not problem:
            log.warning("every GPU is metered again")
        self.problem = problem
        return self._tally.joules

    def memory(self) -> Memory:
        return self._tally.memory()

    def close(self) -> None:
        if self._recovery is None or self._recovery.stop():
            _shutdown(self._nv)

    def _recovered(self) -> bool:
        """Whether the GPUs may be read: no attempt to open NVML again is under way."""
        if self._recovery is not None:
            if not self._recovery.done.is_set():
                return False
            for gpu in self._gpus:
                gpu.handle = self._recovery.handles.get(gpu.uuid, gpu.handle)
            self._recovery = None
            self._retry_at = self._clock() + RETRY_S
        elif self.problem and self._clock() >= self._retry_at:
            self._recovery = Recovery(self._nv, [gpu.uuid for gpu in self._gpus])
            return False
        return True

    def _chosen(self, gpus: Sequence[int | str]) -> list[Gpu]:
        nv = self._nv
        named = gpus or range(nv.nvmlDeviceGetCount())
        found = [self._gpu(name) for name in named]
        if not found:
            raise PrerequisiteError("NVML lists no GPU: give the container its GPUs (--gpus)")
        twice = [str(gpu) for gpu in found if [g.uuid for g in found].count(gpu.uuid) > 1]
        if twice:
            raise PrerequisiteError(f"energy.gpus names {twice[0]} twice: name it once")
        if not gpus:  # nobody asked for this one: say what it is before it is counted
            for gpu in found:
                self._refuse_mig(gpu)
        return found

    def _gpu(self, name: int | str) -> Gpu:
        nv = self._nv
        if str(name).startswith("MIG-"):
            raise PrerequisiteError(
                f"energy.gpus names {name}, and a MIG instance has no energy counter: name its GPU "
                "by index or GPU-… UUID; all its instances count then"
            )
        try:
            if isinstance(name, int) or name.isdigit():
                handle = nv.nvmlDeviceGetHandleByIndex(int(name))
            else:
                handle = nv.nvmlDeviceGetHandleByUUID(name)
            return Gpu(handle, nv.nvmlDeviceGetUUID(handle), nv.nvmlDeviceGetName(handle))
        except nv.NVMLError as error:
            raise PrerequisiteError(
                f"NVML does not give GPU {name} ({error}): `nvidia-smi -L` lists what energy.gpus "
                "may name"
            ) from None

    def _refuse_mig(self, gpu: Gpu) -> None:
        nv = self._nv
        try:
            mode, _ = nv.nvmlDeviceGetMigMode(gpu.handle)
        except nv.NVMLError:  # too old to have instances
            return
        if mode == nv.NVML_DEVICE_MIG_ENABLE:
            raise PrerequisiteError(
                f"{gpu} is split into MIG instances, which have no energy counters of their own: "
                "name the GPU in energy.gpus to meter it whole, with whatever else runs on it"
            )

    def _first_reading(self, gpu: Gpu) -> int:
        try:
            return int(self._nv.nvmlDeviceGetTotalEnergyConsumption(gpu.handle))
        except self._nv.NVMLError as error:
            raise PrerequisiteError(
                f"{gpu} gives no energy counter ({error}): NVML has it from Volta on; leave this "
                "GPU out of energy.gpus, or choose others of energy.meters"
            ) from None

    def _limit_watts(self, gpu: Gpu) -> float:
        try:
            return float(self._nv.nvmlDeviceGetEnforcedPowerLimit(gpu.handle)) / _MW_PER_WATT
        except self._nv.NVMLError:  # it is only a prior
            return 0.0


def listed(nvml: Any = None) -> dict[str, str]:
    """Name by UUID of every GPU that NVML lists and that answers, in its order.

    PrerequisiteError: no driver.
    """
    nv = _library() if nvml is None else nvml
    _open(nv)
    found = {}
    try:
        for index in range(nv.nvmlDeviceGetCount()):
            try:
                handle = nv.nvmlDeviceGetHandleByIndex(index)
                found[str(nv.nvmlDeviceGetUUID(handle))] = str(nv.nvmlDeviceGetName(handle))
            except nv.NVMLError as error:
                log.debug("GPU %d: %s", index, error)
    finally:
        _shutdown(nv)
    return found


def computing(uuids: Sequence[str], nvml: Any = None) -> list[Computing]:
    """What computes on these GPUs now, as far as NVML tells. PrerequisiteError: no driver."""
    nv = _library() if nvml is None else nvml
    _open(nv)
    found = []
    try:
        for uuid in uuids:
            try:
                handle = nv.nvmlDeviceGetHandleByUUID(uuid)
                for process in nv.nvmlDeviceGetComputeRunningProcesses(handle):
                    found.append(Computing(uuid, process.pid, process.usedGpuMemory))
            except nv.NVMLError as error:
                log.debug("GPU %s: %s", uuid, error)
    finally:
        _shutdown(nv)
    return found


class Recovery:
    """One attempt to open NVML again, on a thread. After a driver reload handles are void; by UUID
    the same GPU is found again."""

    def __init__(self, nvml: Any, uuids: Sequence[str]) -> None:
        self._nv, self._uuids = nvml, uuids
        self.handles: dict[str, Any] = {}  # by UUID; to be read once it is done
        self.done = threading.Event()
        self._lock = threading.Lock()
        self._stopped = False
        # A daemon: it may be inside a driver that never answers.
        threading.Thread(target=self._run, name="nvml-recovery", daemon=True).start()

    def stop(self) -> bool:
        """Whether it is over, and NVML the caller's to shut down; else it does that itself."""
        with self._lock:
            self._stopped = True
            return self.done.is_set()

    def _run(self) -> None:
        try:
            _shutdown(self._nv)
            self._open()
        finally:
            with self._lock:
                self.done.set()
                if self._stopped:
                    _shutdown(self._nv)

    def _open(self) -> None:
        try:
            self._nv.nvmlInit()
        except self._nv.NVMLError as error:
            log.debug("NVML does not open: %s", error)
            return
        for uuid in self._uuids:
            try:
                self.handles[uuid] = self._nv.nvmlDeviceGetHandleByUUID(uuid)
            except self._nv.NVMLError as error:
                log.debug("GPU %s: %s", uuid, error)


def _open(nvml: Any) -> None:
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise PrerequisiteError(
            f"no NVIDIA driver answers ({error}): install it, or give the container its GPUs "
            "(--gpus, NVIDIA_DRIVER_CAPABILITIES=utility)"
        ) from None


def _shutdown(nvml: Any) -> None:
    try:
        nvml.nvmlShutdown()
    except nvml.NVMLError:
        log.debug("NVML was closed already")


def _library() -> Any:
    try:
        # An agent that does without stays light.
        import pynvml  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError:
        raise PrerequisiteError("the module pynvml is missing: pip install nvidia-ml-py") from None
    return pynvml
