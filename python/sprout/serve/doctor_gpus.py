# SPDX-License-Identifier: Apache-2.0
"""What the doctor finds of GPUs: those that the engine computes on, against those that are metered.

The meter counts whole boards, whoever computes on them. One that the engine has not got adds its
idle watts, or another stack's work, to the requests here; one that it has and nobody meters is
free.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from sprout.config import Config
from sprout.energy import choose
from sprout.energy.nvml import NvmlMeter, computing, listed
from sprout.errors import PrerequisiteError
from sprout.serve.finding import Finding, Mark
from sprout.serve.state import StackPaths, lock_owner

VISIBLE = "CUDA_VISIBLE_DEVICES"
# Flags of vLLM's (0.20.2) that say how many GPUs it computes on: the first of those that it sees.
_PARALLEL = {
    **{"--tensor-parallel-size": "tp", "-tp": "tp"},
    **{"--pipeline-parallel-size": "pp", "-pp": "pp"},
    **{"--data-parallel-size": "dp", "-dp": "dp"},
    **{"--prefill-context-parallel-size": "pcp", "-pcp": "pcp"},
    **{"--data-parallel-size-local": "local", "-dpl": "local"},  # of the replicas, here
    **{"--data-parallel-rank": "rank", "-dpn": "rank"},  # the one replica that is here
    **{"--nnodes": "hosts", "-n": "hosts"},
}
# Who places workers, and those that place them on this host alone.
_PLACING = ("--distributed-executor-backend", "--data-parallel-backend", "-dpb")
_HERE_ALONE = ("mp", "uni")


def gpu_meter(cfg: Config, environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Nothing where the engine computes on the CPU, or here is no GPU."""
    if cfg.engine.kind in choose.CPU_ENGINES:
        return
    try:
        here = listed()
    except PrerequisiteError:
        return
    kinds, _ = choose.chosen(cfg)
    if not choose.GPU_METERS & set(kinds):
        problem = f"no GPU is metered ({' + '.join(kinds)}), and here are {len(here)}"
        remedy = 'if the engine computes on them: energy.meters = ["nvml"]'
        yield Finding("gpu meter", Mark.NOTE, problem, remedy)
        return
    try:
        metered = _metered(cfg, list(here))
    except PrerequisiteError:  # the meter's own line says why
        return
    if cfg.engine.kind != "vllm":
        if not cfg.energy.gpus and len(here) > 1:
            problem = f"all {len(here)} GPUs of this host are metered, whoever computes on them"
            remedy = "energy.gpus: the engine's, if it has not all of them to itself"
            yield Finding("gpu meter", Mark.NOTE, problem, remedy)
        return
    seen = visible(list(here), environ.get(VISIBLE))
    yield from _of_vllm(cfg.engine.vllm_args, here, seen, metered)


def _of_vllm(
    args: Sequence[str], here: Mapping[str, str], seen: Sequence[str], metered: Sequence[str]
) -> Iterator[Finding]:
    wanted, elsewhere, may = parallel(args), spread(args), placed(args)
    if len(seen) < wanted:
        few = f"vLLM is to compute on {wanted} GPUs and sees {len(seen)}"
        if may:
            yield _of_other_hosts(f"{few}; {may} may place the others on other hosts")
        else:
            yield Finding("gpu meter", Mark.BAD, few, f"{VISIBLE}, or engine.vllm_args")
        return
    if elsewhere:
        yield _of_other_hosts(f"vLLM computes on other hosts, too ({elsewhere})")
    if wanted:  # else all replicas are elsewhere
        yield from _difference(here, seen[:wanted], metered)


def _of_other_hosts(problem: str) -> Finding:
    remedy = "a request's joules are of this host's GPUs alone; docs/energy.md"
    return Finding("gpu meter", Mark.NOTE, problem, remedy)


def gpu_memory(cfg: Config, environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Who else is on the GPUs that a vLLM is to be started on: it does not start beside much."""
    if cfg.engine.kind != "vllm" or lock_owner(StackPaths.of(cfg)) is not None:
        return
    try:
        here = listed()
        used = visible(list(here), environ.get(VISIBLE))[: parallel(cfg.engine.vllm_args)]
        others = computing([uuid for uuid in used if uuid in here])
    except PrerequisiteError:  # the meter's own line says why
        return
    for uuid in used:
        held = [other for other in others if other.uuid == uuid]
        if held:
            said = ", ".join(f"process {other.pid} ({_mib(other.used_bytes)})" for other in held)
            remedy = "end them, or leave them room: --gpu-memory-utilization in engine.vllm_args"
            yield Finding("gpu memory", Mark.NOTE, f"on {_named(here, [uuid])}: {said}", remedy)


def _mib(used_bytes: int | None) -> str:
    return "of unknown size" if used_bytes is None else f"{used_bytes / 2**20:.0f} MiB"


def _difference(
    here: Mapping[str, str], used: Sequence[str], metered: Sequence[str]
) -> Iterator[Finding]:
    slices = [name for name in used if name.startswith("MIG-")]
    if slices:
        problem = f"the engine has {', '.join(slices)}, and only whole GPUs have energy counters"
        remedy = "what runs on the other instances is counted too; docs/energy.md"
        yield Finding("gpu meter", Mark.NOTE, problem, remedy)
        return
    # As energy.gpus takes them.
    setting = ", ".join(f'"{uuid}"' for uuid in used)
    free = [uuid for uuid in used if uuid not in metered]
    more = [uuid for uuid in metered if uuid not in used]
    if free:
        problem = f"the engine computes on {_named(here, free)}, which is not metered"
        yield Finding("gpu meter", Mark.BAD, problem, f"energy.gpus = [{setting}]")
    if more:
        problem = f"metered, and not this engine's: {_named(here, more)}"
        remedy = f"its watts go to requests that never saw it: energy.gpus = [{setting}]"
        yield Finding("gpu meter", Mark.NOTE, problem, remedy)
    if not (free or more):
        yield Finding("gpu meter", Mark.OK, f"the engine's own: {_named(here, used)}")


def visible(here: Sequence[str], value: str | None) -> list[str]:
    """UUIDs in the order in which CUDA has them. here: NVML's. value: of CUDA_VISIBLE_DEVICES.

    An index counts as NVML counts: the order of the PCI bus, which is CUDA's too where all GPUs are
    alike. What names none ends the list, as it does for CUDA.
    """
    if value is None:
        return [*here]
    found: list[str] = []
    for name in map(str.strip, value.split(",")):
        if name.startswith("MIG-"):
            found.append(name)
            continue
        if name.isdigit():
            match = [here[int(name)]] if int(name) < len(here) else []
        else:  # the beginning of a UUID will do
            match = [uuid for uuid in here if name.startswith("GPU-") and uuid.startswith(name)]
        if len(match) != 1:
            break
        found += match
    return found


def parallel(vllm_args: Sequence[str]) -> int:
    """How many GPUs of this host a vLLM with these arguments computes on, if none are placed
    elsewhere by what `placed` names."""
    sizes = _sizes(vllm_args)
    one = math.prod(sizes.get(name, 1) for name in ("tp", "pp", "pcp"))
    if sizes.get("hosts", 1) > 1:  # each has as many
        return one * sizes.get("dp", 1) // sizes["hosts"]
    return one * _replicas_here(sizes)


def spread(vllm_args: Sequence[str]) -> str:
    """By which sizes it computes on other hosts, too; "": it does not."""
    sizes = _sizes(vllm_args)
    if (hosts := sizes.get("hosts", 1)) > 1:
        return f"{hosts} hosts"
    here, replicas = _replicas_here(sizes), sizes.get("dp", 1)
    return f"{here} of {replicas} replicas are here" if here < replicas else ""


def placed(vllm_args: Sequence[str]) -> str:
    """The argument by which its workers may be placed on other hosts; "": none."""
    return next(
        (
            f"{flag} {value}"
            for flag, value in _pairs(vllm_args)
            if flag in _PLACING and value not in _HERE_ALONE
        ),
        "",
    )


def _replicas_here(sizes: Mapping[str, int]) -> int:
    return 1 if "rank" in sizes else sizes.get("local", sizes.get("dp", 1))


def _sizes(vllm_args: Sequence[str]) -> dict[str, int]:
    return {
        _PARALLEL[flag]: int(value)
        for flag, value in _pairs(vllm_args)
        if flag in _PARALLEL and value.isdigit()
    }


def _pairs(vllm_args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each word, as a flag, and the next one."""
    words = [word for argument in vllm_args for word in argument.split("=", 1)]
    return ((flag.replace("_", "-"), value) for flag, value in pairwise(words))


def _metered(cfg: Config, here: Sequence[str]) -> list[str]:
    """UUIDs. PrerequisiteError where they can't be metered."""
    if "nvml" not in choose.chosen(cfg)[0]:  # Triton's figure
        return [str(gpu) for gpu in cfg.energy.gpus] or [*here]
    meter = NvmlMeter(cfg.energy.gpus)
    meter.close()
    return meter.uuids


def _named(here: Mapping[str, str], uuids: Sequence[str]) -> str:
    return ", ".join(f"{uuid} ({here[uuid]})" if uuid in here else uuid for uuid in uuids)
