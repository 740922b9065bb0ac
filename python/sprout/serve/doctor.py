# SPDX-License-Identifier: Apache-2.0
"""What is installed, found and reachable on this machine, and what to do about what is not."""

import asyncio
import ctypes
import importlib.metadata
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from sprout.carbon import check as carbon
from sprout.channel import control_address
from sprout.config import Config
from sprout.energy import choose, embodied
from sprout.energy.nvml import NvmlMeter
from sprout.errors import PrerequisiteError, SproutError
from sprout.serve import bundle, doctor_engine, doctor_gpus, ports, weights
from sprout.serve.finding import Finding, Mark
from sprout.serve.state import StackPaths, lock_owner, read_stack

_SHM_MB = 128  # four stubs' regions with room to grow, ledger, board, clock


def examine(cfg: Config) -> Iterator[Finding]:
    """Every check, one after the other; none raises."""
    for check in (
        _python,
        _compiler,
        _core,
        _numpy,
        _triton,
        _weights,
        _engine,
        _shared_memory,
        _ports,
        _render,
        _control_plane,
        _carbon,
        _meter,
        _accounting,
        _gpu,
        doctor_gpus.gpu_meter,
        doctor_gpus.gpu_memory,
    ):
        yield from _guarded(check, cfg)


def _guarded(check: Callable[[Config], Iterator[Finding]], cfg: Config) -> Iterator[Finding]:
    name = check.__name__.strip("_").replace("_", " ")
    try:
        yield from check(cfg)
    except SproutError as error:
        problem, _, remedy = str(error).partition(": ")
        yield Finding(name, Mark.BAD, problem, remedy)
    except Exception as error:  # a report that stops half-way helps nobody
        yield Finding(name, Mark.BAD, f"{type(error).__name__}: {error}")


def _python(_: Config) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    good = (3, 11) <= sys.version_info < (3, 13)
    remedy = "" if good else "use 3.11 or 3.12: Triton's Python backend needs NumPy < 2"
    yield Finding("python", Mark.OK if good else Mark.BAD, f"{version}, {sys.prefix}", remedy)
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    if bundle.python_libraries() is None:
        try:
            ctypes.CDLL(name)
        except OSError:
            yield Finding(
                "python library",
                Mark.BAD,
                f"{name} is not found, and Triton's stubs embed it",
                "Debian/Ubuntu: apt-get install python3-dev",
            )


def _compiler(_: Config) -> Iterator[Finding]:
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    yield (
        Finding("compiler", Mark.OK, found)
        if found
        else Finding("compiler", Mark.NOTE, "none", "needed only to build: apt-get install g++")
    )


def _core(_: Config) -> Iterator[Finding]:
    try:
        from sprout_ext import _core as core  # noqa: PLC0415 - what is being looked for
        from sprout_ext import sampler  # noqa: PLC0415
    except ImportError as error:
        yield Finding("compiled core", Mark.BAD, str(error), "run `make build`")
        return
    cuda = "with CUDA" if sampler.cuda_built() else "without CUDA (no nvcc when it was built)"
    yield Finding("compiled core", Mark.OK, f"{core.__file__}, {cuda}")


def _numpy(_: Config) -> Iterator[Finding]:
    version = importlib.metadata.version("numpy")
    good = int(version.split(".")[0]) < 2
    remedy = "" if good else "pip install 'numpy<2': STRING tensors kill Triton's stubs under 2"
    yield Finding("numpy", Mark.OK if good else Mark.BAD, version, remedy)


def _triton(_: Config) -> Iterator[Finding]:
    found = bundle.find()
    version = importlib.metadata.version("nvidia-pytriton")
    yield Finding("triton", Mark.OK, f"{found.server} (nvidia-pytriton {version})")


def _weights(cfg: Config) -> Iterator[Finding]:
    if cfg.engine.kind in ("openai", "vllm"):
        yield from doctor_engine.tokenizer(cfg)
    elif cfg.engine.model is None:
        path = weights.verify_default()
        yield Finding("weights", Mark.OK, f"{path}, SHA-256 as expected")
    else:
        yield Finding("weights", Mark.OK, f"{weights.model_path(cfg)} (yours, not checked)")


def _engine(cfg: Config) -> Iterator[Finding]:
    if cfg.engine.kind == "echo":
        yield Finding("engine", Mark.NOTE, "echo: repeats the prompt", "engine.kind = llama_cpp")
        return
    if cfg.engine.kind in ("openai", "vllm"):
        deployed = cfg.engine.kind == "openai"
        yield from doctor_engine.deployed(cfg) if deployed else doctor_engine.vllm(cfg)
        return
    try:
        version = importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("engine", Mark.BAD, "xllamacpp is missing", "run `make setup`")
        return
    flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    lacking = sorted({"avx2", "fma", "f16c"} - set(flags))
    if lacking:
        yield Finding("engine", Mark.BAD, f"this CPU lacks {', '.join(lacking)}", "another machine")
    else:
        cores = len(os.sched_getaffinity(0))
        yield Finding("engine", Mark.OK, f"llama.cpp (xllamacpp {version}), {cores} cores")


def _shared_memory(cfg: Config) -> Iterator[Finding]:
    shm = cfg.stack.shm
    parent = next(folder for folder in (shm, *shm.parents) if folder.exists())
    free_mb = shutil.disk_usage("/dev/shm").free >> 20  # noqa: S108
    yield Finding(
        "shared memory",
        Mark.OK if free_mb >= _SHM_MB else Mark.BAD,
        f"{free_mb} MB free in /dev/shm",
        "" if free_mb >= _SHM_MB else f"{_SHM_MB} MB are needed; containers: --shm-size=1g",
    )
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    types = {mount[1]: mount[2] for mount in mounts}
    under = next((types[str(f)] for f in (parent, *parent.parents) if str(f) in types), "?")
    if under not in ("tmpfs", "ramfs"):
        yield Finding(
            "stack.shm_dir", Mark.BAD, f"{shm} is on {under}", "choose a memory-backed folder"
        )


def _ports(cfg: Config) -> Iterator[Finding]:
    owner = lock_owner(StackPaths.of(cfg))
    if owner is not None:
        yield Finding("ports", Mark.OK, f"stack {cfg.stack.name!r} is up (process {owner})")
        return
    ports.resolve(cfg)
    yield Finding("ports", Mark.OK, "free")


def _render(cfg: Config) -> Iterator[Finding]:
    import tempfile  # noqa: PLC0415

    from sprout.serve.render import (  # noqa: PLC0415 - its problems belong into the report
        placeholder_values,
        render,
        repository_source,
    )

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        values = placeholder_values(
            cfg, engine_url="http://127.0.0.1:1", tokenizer_dir=out, probe_token_file=out / "t"
        )
        render(repository_source(), out / "repository", values)
    yield Finding("model repository", Mark.OK, str(repository_source()))


def _meter(cfg: Config) -> Iterator[Finding]:
    """What is read, and every meter that could be."""
    kinds, note = choose.chosen(cfg)
    absent: list[str] = []
    for found in choose.survey(cfg):
        named = found.kind in kinds
        what = f"meter {found.kind}"
        if isinstance(found, choose.Found):
            yield Finding(what, Mark.OK, f"{found.name}{f', in use{note}' if named else ''}")
            continue
        # Triton starts after the agent, which waits for it.
        bad = named and found.kind != "triton"
        absent += [found.kind] if bad else []
        yield Finding(what, Mark.BAD if bad else Mark.NOTE, found.reason, found.remedy)
    if absent:
        problem = f"energy.meters names {', '.join(absent)}: the agent will not start"
        yield Finding("meter", Mark.BAD, problem, "see above, or leave it out")
    elif "cpu_model" in kinds:
        yield Finding(
            "meter",
            Mark.NOTE,
            f"a declared model, {cfg.energy.watts_per_core:g} W per core: receipts say estimated",
            "set energy.watts_per_core to your CPU's",
        )
    else:
        yield Finding("meter", Mark.OK, " + ".join(kinds))


def _accounting(cfg: Config) -> Iterator[Finding]:
    """What grams are made of besides joules and intensity."""
    energy = cfg.energy
    stated = bool(energy.pue_basis)
    remedy = "" if stated else "set energy.pue and energy.pue_basis (its source)"
    yield Finding("pue", Mark.OK if stated else Mark.NOTE, energy.pue_said, remedy)
    stated = energy.embodied_g_per_s > 0
    remedy = "" if stated else "set energy.embodied_device, or energy.embodied_g_per_s"
    yield Finding("embodied", Mark.OK if stated else Mark.NOTE, energy.embodied_said, remedy)


def _gpu(cfg: Config) -> Iterator[Finding]:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        yield Finding("gpu", Mark.NOTE, "no NVIDIA driver: the CPU serves")
        return
    devices = sorted(Path("/dev").glob("nvidia[0-9]*"))
    yield Finding("gpu", Mark.OK, f"NVML found, {len(devices)} device(s)")
    try:
        meter = NvmlMeter(cfg.energy.gpus)
    except PrerequisiteError:  # the meter's own line says why
        return
    meter.close()
    device = cfg.energy.embodied_device
    for model in sorted(set(meter.models)):
        match = embodied.match(model)
        if isinstance(match, embodied.Unmatched):
            remedy = "energy.embodied_g_per_s, from its maker's footprint"
            yield Finding("gpu embodied", Mark.NOTE, match.reason, remedy)
        elif match != device:
            said = f"here is a {model}; energy.embodied_device is {device or 'not set'}"
            yield Finding("gpu embodied", Mark.NOTE, said, f'set it to "{match}"')
        else:
            yield Finding("gpu embodied", Mark.OK, f"{model}: {match}")


def _carbon(cfg: Config) -> Iterator[Finding]:
    """Every configured source is asked once. Without any, requests are served at L0."""
    for check in asyncio.run(carbon.check(cfg.carbon)):
        mark = Mark.OK if check.value is not None else Mark.BAD if check.final else Mark.NOTE
        yield Finding(f"carbon: {check.source}", mark, check.found, check.remedy)


def _control_plane(cfg: Config) -> Iterator[Finding]:
    """It need not be there: requests go on without, at L0 once the last policy has expired."""
    stack = read_stack(StackPaths.of(cfg))
    if stack is None and cfg.control.port == 0:
        problem = "not up; control.port = 0 lets it choose"
        yield Finding("control plane", Mark.NOTE, problem, "`sprout up` starts one")
        return
    where = control_address(cfg.control) if stack is None else stack["endpoints"]["control"]
    host, _, port = where.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
    except OSError as error:
        problem = f"{where}: {error.strerror or error}"
        yield Finding("control plane", Mark.NOTE, problem, "`sprout up` starts one")
        return
    yield Finding("control plane", Mark.OK, where)
