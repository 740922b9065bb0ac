# SPDX-License-Identifier: Apache-2.0
"""`sprout status`: what runs, which policy is in force and why, what is wrong, what it came to."""

import time
from dataclasses import asdict
from typing import Any

from rich.table import Table

from sprout.channel import as_dict
from sprout.config import Config
from sprout.console import operator
from sprout.console.output import grams, joules, out
from sprout.directives import pack
from sprout.errors import ControlError
from sprout.policy_version import dotted, version
from sprout.serve.state import StackPaths, read_stack
from sprout.v1 import control_pb2 as pb


def gather(cfg: Config) -> tuple[dict[str, Any], pb.Status | None]:
    """(everything as a JSON document, the control plane's own message if it answered)"""
    message: pb.Status | None = None
    problem = ""
    try:
        message = operator.status(cfg)
    except ControlError as error:
        problem = str(error)
    return {
        "stack": read_stack(StackPaths.of(cfg)),
        "control": None if message is None else as_dict(message),
        "control_error": problem,
        "accounting": {
            "pue": cfg.energy.pue,
            "pue_said": cfg.energy.pue_said,
            "embodied_g_per_s": cfg.energy.embodied_g_per_s,
            "embodied_said": cfg.energy.embodied_said,
        },
        **local(cfg),
    }, message


def local(cfg: Config) -> dict[str, Any]:
    """Board, ledger and energy clock, straight from shared memory: no process is asked."""
    from sprout_ext.board import BoardReader
    from sprout_ext.clock import ClockReader
    from sprout_ext.ledger import COUNTERS, Role, segments

    shm = cfg.stack.shm
    reader = BoardReader(shm / "policy.board", pack(cfg.request.pack).hash, 0, 0, 0)
    policy, clock = reader.policy(), ClockReader(shm / "energy.clock").state()
    found = segments(shm) if shm.is_dir() else []
    totals = {
        name: sum(int(segment.counters()[i]) for segment in found)
        for i, name in enumerate(COUNTERS)
    }
    board: dict[str, Any] = {"state": reader.state()}
    if policy is not None:
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        board |= asdict(policy) | {"expires_in_s": (policy.deadline_boottime_ns - now) / 1e9}
    return {
        "board": board,
        "segments": [
            {
                "file": s.path.name,
                "role": Role(s.role).name.lower(),
                "pid": s.pid,
                "alive": s.alive,
                "stub_index": s.stub_index,
            }
            for s in found
        ],
        "counters": totals,
        "energy": None if clock is None else clock._asdict(),
    }


def show(document: dict[str, Any], message: pb.Status | None, levels: tuple[str, ...]) -> None:
    """For people."""
    _processes(document["stack"])
    if message is None:
        out.print(f"[yellow]control plane away[/]  {document['control_error']}")
    else:
        _policy(message)
        _accounting(document["accounting"], message.policy)
    _board(document["board"], levels)
    _counters(document)
    if message is not None:
        _nodes(message)
        _arms(message)


def _processes(stack: dict[str, Any] | None) -> None:
    if stack is None:
        out.print("no stack of this name is up on this machine")
        return
    state = "[green]ready[/]" if stack["ready"] else "[yellow]not ready[/]"
    out.print(f"stack [bold]{stack['name']}[/]  {state}, process {stack['pid']}")
    table = Table(box=None, pad_edge=False)
    for column in ("process", "phase", "pid", "since", "restarts", "last problem"):
        table.add_column(column)
    for name, p in stack["processes"].items():
        since = time.strftime("%H:%M:%S", time.localtime(p["since"]))
        stubs = f" + {len(p['stubs'])} stubs" if p["stubs"] else ""
        pid = f"{p['pid'] or '-'}{stubs}"
        table.add_row(name, p["phase"], pid, since, str(p["restarts"]), p["problem"])
    out.print(table)
    ends = "  ".join(f"{name} {where}" for name, where in stack["endpoints"].items())
    out.print(f"[dim]{ends}[/]")


def _policy(message: pb.Status) -> None:
    degraded = "[yellow]degraded[/]" if message.degraded else "[green]as it should be[/]"
    out.print(f"\ncontrol plane of zone [bold]{message.zone}[/]: {degraded}")
    for reason in message.reasons:
        out.print(f"  [yellow]·[/] {reason}")
    if message.HasField("policy"):
        policy = message.policy
        out.print(f"policy {dotted(version(policy))}  [bold]{operator.mix(policy)}[/]")
        for sentence in operator.why(policy):
            out.print(f"  · {sentence}")
    else:
        out.print("no policy yet: every request gets L0")
    if message.evaluation.HasField("latest"):
        out.print(f"  · {evaluation(message.evaluation)}", markup=False)
    for line in wishes(message):
        out.print(f"  · {line}", markup=False)
    if message.metrics_address:
        out.print(f"[dim]metrics {message.metrics_address}[/]")


def evaluation(status: pb.EvaluationStatus) -> str:
    """What q rests on, in a sentence."""
    latest = status.latest
    of_all = next(c for c in latest.classes if not c.task)
    age_h = (time.time() - latest.finished_at.ToNanoseconds() / 1e9) / 3600
    q = "  ".join(
        f"{level} {value / of_all.preference[0]:.3f}"
        for level, value in zip(latest.levels, of_all.preference, strict=True)
    )
    drift = f"; {status.drift}" if status.drift else ""
    return (
        f"q evaluated {age_h:.1f} h ago by {latest.judge} on {of_all.judged} prompts, "
        f"relative to L0: {q}{drift}"
    )


def wishes(message: pb.Status) -> list[str]:
    """What operators want beside the configuration, in sentences."""
    lines = []
    if message.HasField("pin"):
        pin, e = message.pin, message.policy.explanation
        until = f" until {pin.until.ToDatetime():%Y-%m-%d %H:%M} UTC" if pin.until.seconds else ""
        below = (
            f"; expected {100 * e.expected_preference:.1f} % is below the floor of "
            f"{100 * e.floor:.1f} %, which is not enforced"
            if e.active_constraint == "pinned" and e.expected_preference < e.floor
            else "; the floor is not enforced"
        )
        paused = " (the kill switch stands above it)" if message.policy.paused else ""
        lines.append(f"pinned by {pin.by}{until}: {pin.reason}{paused}{below}")
    if message.objective_set:
        set_ = ", ".join(message.objective_set)
        lines.append(f"set by operators, not by the configuration: {set_}")
    for window in message.schedule:
        days = f"{','.join(window.weekdays)}@" if window.weekdays else ""
        lines.append(f"schedule: {days}{window.start}-{window.end}={window.level} (UTC)")
    return lines


def _accounting(here: dict[str, Any], policy: pb.Policy) -> None:
    """What grams rest on; the policy's figures are those that receipts use."""
    if policy.pue and (policy.pue, policy.embodied_g_per_s) != (
        here["pue"],
        here["embodied_g_per_s"],
    ):
        rate = f"embodied {3600 * policy.embodied_g_per_s:.3g} g per device-hour"
        out.print(f"grams     PUE {policy.pue:g}; {rate} (the control plane's, not this file's)")
    else:
        out.print(f"grams     {here['pue_said']}; {here['embodied_said']}")


def _board(board: dict[str, Any], levels: tuple[str, ...]) -> None:
    if "version" not in board:
        out.print(f"\nboard: {board['state']} (requests get L0)")
        return
    shares = ", ".join(
        f"{name} {100 * x:.0f} %" for name, x in zip(levels, board["shares"], strict=False)
    )
    left = board["expires_in_s"]
    until = f"expires in {left:.0f} s" if left > 0 else f"expired {-left:.0f} s ago"
    out.print(f"\nboard: {board['state']}, policy {dotted(board['version'])}, {shares}, {until}")


def _counters(document: dict[str, Any]) -> None:
    shown = {name: n for name, n in document["counters"].items() if n}
    if shown:
        out.print("counters  " + "  ".join(f"{name} {n}" for name, n in shown.items()))
    energy = document["energy"]
    if energy:
        estimated = bool(energy["estimated"])
        lost = energy["unattributed"]
        nobodys = f", {lost:.3g} J of times without a whole meter: nobody's" if lost else ""
        out.print(
            f"energy    {joules(energy['metered'], estimated)}: {energy['settled']:.3g} J by "
            f"requests, {energy['idle']:.3g} J idle{nobodys}"
        )


def _nodes(message: pb.Status) -> None:
    for node in message.nodes:
        expired = ", its policy has expired" if node.policy_expired else ""
        dropped = f", {node.dropped} dropped" if node.dropped else ""
        error = f", [yellow]{node.policy_error}[/]" if node.policy_error else ""
        out.print(
            f"node {node.node}: {node.active} active, meter {node.meter}, "
            f"{node.spooled} outcomes waiting{dropped}{expired}{error}"
        )
        for sentence in remarks(node):
            out.print(f"  [yellow]·[/] {sentence}")


def remarks(node: pb.NodeStatus) -> list[str]:
    """What a reader of the status might take for something else."""
    said = []
    if node.meter_problem:
        said.append(
            "a meter stands still: answers carry no joules and no grams until it is back; of what "
            "requests use, only how long they take is learnt from them"
        )
    without, delivered = node.counters["unattributed"], node.counters["delivered"]
    if without > delivered:
        said.append(
            f"{without} answers without a receipt: the engine does not hand the flight's ticket "
            "back (TensorRT-LLM's C++ backend can't); their flights end as lost, which is no "
            "fault, and nothing is learnt of levels"
        )
    return said


def _carbon(arm: pb.ArmTotals) -> str:
    """Grams of several series stand beside each other, never added."""
    apart = arm.carbon_g_by_series
    if len(apart) < 2:
        return grams(arm.carbon_g)
    return "\n".join(f"{grams(apart[series])} ({series})" for series in sorted(apart))


def _arms(message: pb.Status) -> None:
    if not message.arms:
        return
    table = Table(box=None, pad_edge=False, title=f"{message.outcomes} outcomes by arm")
    table.add_column("arm")
    for column in ("outcomes", "tokens/answer", "energy", "J/answer", "carbon"):
        table.add_column(column, justify="right")
    for arm in message.arms:
        n, metered = max(arm.outcomes, 1), arm.outcomes - arm.unmetered
        table.add_row(
            arm.arm,
            f"{arm.outcomes} ({arm.unmetered} not metered)" if arm.unmetered else f"{arm.outcomes}",
            f"{arm.output_tokens / n:.1f}",
            joules(arm.energy_joules, arm.energy_estimated),
            f"{arm.energy_joules / metered:.3g}" if metered else "not known",
            _carbon(arm),
        )
    out.print(table)
