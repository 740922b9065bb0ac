# SPDX-License-Identifier: Apache-2.0
"""`sprout ask`: one prompt, streamed, and its receipt."""

import math
import sys
from dataclasses import asdict
from typing import Any

from sprout.channel import connectable
from sprout.config import Config
from sprout.console.output import emit_json, err, grams, joules
from sprout.directives import pack
from sprout.errors import StackError
from sprout.policy_version import dotted
from sprout.serve.client import Answer, Client
from sprout.serve.state import StackPaths, read_stack


def grpc_address(cfg: Config) -> str:
    """Of this stack's Triton. Raises StackError where no stack is up and no port is configured."""
    stack = read_stack(StackPaths.of(cfg))
    if stack is not None:
        return str(stack["endpoints"]["grpc"])
    if cfg.triton.grpc_port == 0:
        raise StackError(f"stack {cfg.stack.name!r} is not up: `sprout up` first")
    return f"{connectable(cfg.triton.host)}:{cfg.triton.grpc_port}"


def energy_estimated(cfg: Config) -> bool | None:
    """Whether this node's joules come from a model; None where its energy clock is not here."""
    from sprout_ext.clock import ClockReader

    state = ClockReader(cfg.stack.shm / "energy.clock").state()
    return None if state is None else state.estimated


def run(cfg: Config, text: str, *, json: bool, **hints: Any) -> None:
    """Answer on stdout, receipt on stderr; with `json` one document on stdout."""

    def show(part: str) -> None:
        sys.stdout.write(part)
        sys.stdout.flush()

    with Client(grpc_address(cfg)) as client:
        answer = client.ask(text, on_text=(lambda _: None) if json else show, **hints)
    estimated = energy_estimated(cfg)
    if json:
        emit_json(
            asdict(answer) | {"energy_estimated": estimated, "level": level_name(cfg, answer)}
        )
    else:
        sys.stdout.write("\n")
        sys.stdout.flush()
        err.print(f"[dim]{receipt_line(cfg, answer, estimated)}[/]")


def level_name(cfg: Config, answer: Answer) -> str | None:
    if answer.receipt is None:
        return None
    levels, level = pack(cfg.request.pack).levels, answer.receipt.level
    return levels[level] if level < len(levels) else f"level {level}"


def receipt_line(cfg: Config, answer: Answer, estimated: bool | None) -> str:
    """L1 · 26 tokens · 3.4 J (estimated) · 0.28 mg CO2e at 300 g/kWh · 0.4 s · policy 1.2"""
    receipt = answer.receipt
    if receipt is None:
        return "no receipt came"
    version = receipt.policy_version
    policy = f"policy {dotted(version)}" if version else "no policy"
    at = receipt.intensity_g_per_kwh
    carbon = f"{grams(receipt.carbon_g)} CO2e" + ("" if math.isnan(at) else f" at {at:.0f} g/kWh")
    return " · ".join(
        (
            str(level_name(cfg, answer)),
            f"{answer.output_tokens} tokens",
            joules(receipt.energy_joules, estimated),
            carbon,
            f"{answer.seconds:.1f} s",
            policy,
        )
    )
