# SPDX-License-Identifier: Apache-2.0
"""Which meters there are here, and which of them is read.

`energy.meters` names them. "auto" takes the first that works in this order: NVML, RAPL, Triton's
own figure, the declared model. One, not all that work: else a file's permission would change what
a node's joules mean. GPU meters are passed over where the engine computes on the CPU: the energy of
an idle GPU would go to requests that never saw it.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass

from sprout.channel import connectable
from sprout.config import Config
from sprout.energy.cpu_model import CpuModelMeter
from sprout.energy.meters import NodeMeter, Part
from sprout.energy.nvml import NvmlMeter
from sprout.energy.rapl import RaplMeter
from sprout.energy.tally import NOTHING, Memory
from sprout.energy.triton import POLL_S, TritonMeter
from sprout.errors import ConfigError, PrerequisiteError

log = logging.getLogger(__name__)

STATE_FILE = "meter.json"
ORDER = ("nvml", "rapl", "triton", "cpu_model")
GPU_METERS = {"nvml", "triton"}
CPU_ENGINES = {"llama_cpp", "echo"}


@dataclass(frozen=True)
class Found:
    """A meter that works here."""

    kind: str
    name: str
    estimated: bool


@dataclass(frozen=True)
class Absent:
    """A meter that can't be had here, or not now."""

    kind: str
    reason: str
    remedy: str


def meter(cfg: Config) -> NodeMeter:
    """The meter that the configuration names. PrerequisiteError where it can't be had here."""
    kinds, note = chosen(cfg)
    made = NodeMeter(
        kinds,
        lambda kind, memory: open_part(kind, cfg, memory),
        state=cfg.stack.shm / STATE_FILE,
        note=note,
    )
    log.info("meter: %s", made.said)
    return made


def chosen(cfg: Config) -> tuple[tuple[str, ...], str]:
    """(the kinds to be read, why these where nobody named them)"""
    if cfg.energy.meters != ("auto",):
        return cfg.energy.meters, ""
    passed: list[str] = []
    for kind in ORDER:
        if kind in GPU_METERS and cfg.engine.kind in CPU_ENGINES:
            passed.append(f"{kind}: engine.kind {cfg.engine.kind} computes on the CPU")
            continue
        found = probe(kind, cfg)
        if isinstance(found, Found):
            log.info("meter: auto takes %s; %s", kind, "; ".join(passed) or "the first choice")
            return (kind,), " (auto)"
        passed.append(f"{kind}: {found.reason}")
    raise AssertionError("the declared model always works")  # pragma: no cover


def survey(cfg: Config) -> Iterator[Found | Absent]:
    """Every meter there could be, in order of preference. None is left open."""
    return (probe(kind, cfg) for kind in ORDER)


def probe(kind: str, cfg: Config) -> Found | Absent:
    try:
        part = open_part(kind, cfg, NOTHING, once=True)
    except (PrerequisiteError, ConfigError) as error:
        reason, _, remedy = str(error).partition(": ")
        return Absent(kind, reason, remedy)
    part.close()
    if part.problem and kind != "cpu_model":  # its processes may start later
        return Absent(kind, part.problem.removeprefix(f"{kind}: "), "start Triton with GPUs first")
    return Found(kind, part.name, part.estimated)


def open_part(kind: str, cfg: Config, memory: Memory, *, once: bool = False) -> Part:
    """once: for a single look, without a thread. PrerequisiteError, ConfigError."""
    energy = cfg.energy
    cores = cfg.engine.threads or os.cpu_count() or 1
    declared_watts = energy.watts_per_core * cores
    match kind:
        case "nvml":
            return NvmlMeter(energy.gpus, memory)
        case "rapl":
            return RaplMeter(energy.rapl_root, memory, fallback_watts=declared_watts)
        case "triton":
            uuids = [str(gpu) for gpu in energy.gpus]
            url = metrics_url(cfg)
            poll_s = None if once else POLL_S
            return TritonMeter(
                url, memory, gpus=uuids, fallback_watts=declared_watts, poll_s=poll_s
            )
        case "cpu_model":
            return CpuModelMeter(
                cfg.stack.state / "pids", energy.watts_per_core, memory, cores=cores
            )
    raise ConfigError(f"energy.meters: there is no {kind!r}: {', '.join(ORDER)}")


def metrics_url(cfg: Config) -> str:
    """Where Triton tells its metrics. ConfigError where it chooses the port itself."""
    if cfg.energy.triton_metrics_url:
        return cfg.energy.triton_metrics_url
    if cfg.triton.metrics_port == 0:
        raise ConfigError("triton.metrics_port is 0, any free one: set energy.triton_metrics_url")
    return f"http://{connectable(cfg.triton.host)}:{cfg.triton.metrics_port}/metrics"
