# SPDX-License-Identifier: Apache-2.0
"""What operators and the control plane did: `sprout history`, `audit`, `watch`, `objective`."""

import json as json_
from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.table import Table

from sprout.channel import as_dict
from sprout.config import Config
from sprout.console import operator, status
from sprout.console.output import emit_json, finite, out
from sprout.errors import ConfigError, ControlError
from sprout.policy_version import dotted, version
from sprout.v1 import control_pb2 as pb

PAGE = 200


def number(text: str) -> int:
    """A policy's version, written as 1800000000.3 or as one number. ConfigError otherwise."""
    epoch, dot, counter = text.partition(".")
    parts = (epoch, counter) if dot else (epoch,)
    if not all(part.isdecimal() and len(part) <= 20 for part in parts):
        raise ConfigError(f"{text!r} is no version of a policy: write it as 1800000000.3")
    made = int(epoch) << 32 | int(counter) if dot else int(epoch)
    if not 0 < made < 1 << 64 or (dot and int(counter) >= 1 << 32):
        raise ConfigError(f"{text!r} is no version of a policy")
    return made


def decisions(cfg: Config, limit: int, before: int = 0) -> Iterator[pb.Decision]:
    """Newest first, page by page."""
    with operator.control(cfg) as stub:
        while limit > 0:
            request = pb.ListDecisionsRequest(page_size=min(limit, PAGE), before_version=before)
            page = stub.ListDecisions(request, timeout=operator.TIMEOUT_S)
            yield from page.decisions
            limit -= len(page.decisions)
            before = page.next_before_version
            if not before:
                return


def decision(cfg: Config, wanted: int) -> pb.Decision:
    """One. ControlError where it is not (or no longer) known."""
    with operator.control(cfg) as stub:
        request = pb.ListDecisionsRequest(version=wanted)
        found = stub.ListDecisions(request, timeout=operator.TIMEOUT_S).decisions
    if not found:
        raise ControlError(f"no policy {dotted(wanted)} in the store; see `sprout history`")
    return found[0]


def history(cfg: Config, limit: int, before: str | None, *, json: bool) -> None:
    found = list(decisions(cfg, limit, 0 if before is None else number(before)))
    if json:
        emit_json([_decision(d) for d in found])
        return
    table = Table(box=None, pad_edge=False)
    for column in ("issued (UTC)", "version", "because", "g/kWh", "mix", "limited by"):
        table.add_column(column)
    for each in found:
        policy = each.policy
        lit = policy.HasField("intensity")
        table.add_row(
            f"{policy.issued_at.ToDatetime():%Y-%m-%d %H:%M:%S}",
            dotted(version(policy)),
            policy.explanation.trigger,
            f"{policy.intensity.g_per_kwh:.0f}" if lit else "unknown",
            escape(operator.mix(policy)),
            policy.explanation.active_constraint,
        )
    out.print(table)


def _decision(each: pb.Decision) -> dict[str, Any]:
    inputs = json_.loads(each.inputs_json) if each.inputs_json else None
    return {"policy": as_dict(each.policy), "inputs": inputs}


def audit(cfg: Config, limit: int, before: int, *, json: bool) -> None:
    found: list[pb.AuditEntry] = []
    with operator.control(cfg) as stub:
        while len(found) < limit:
            size = min(limit - len(found), PAGE)
            request = pb.ListAuditRequest(page_size=size, before_id=before)
            page = stub.ListAudit(request, timeout=operator.TIMEOUT_S)
            found += page.entries
            before = page.next_before_id
            if not before:
                break
    if json:
        emit_json([_entry(entry) for entry in found])
        return
    for e in found:
        claimed = f', says "{e.claimed}"' if e.claimed else ""
        out.print(
            f"{e.id:>5}  {e.time.ToDatetime():%Y-%m-%d %H:%M:%S}  {e.action:<9}  "
            f"{e.who} (by {e.who_basis}{claimed})  {e.before_json} -> {e.after_json}",
            markup=False,
        )


def _entry(e: pb.AuditEntry) -> dict[str, Any]:
    made = as_dict(e)
    for name in ("before", "after"):
        made[name] = json_.loads(made.pop(f"{name}_json"))
    return made


def watch(cfg: Config, count: int | None, *, json: bool) -> None:
    """A line for each change of the status, until Ctrl-C or so many; JSON: one document a line."""
    seen = 0
    try:
        for message in operator.watch(cfg):
            if json:
                print(json_.dumps(finite(as_dict(message))), flush=True)
            else:
                for line in _lines(message):
                    out.print(line, markup=False)
            seen += 1
            if count is not None and seen >= count:
                return
    except KeyboardInterrupt:
        return


def _lines(message: pb.Status) -> Iterator[str]:
    mix = "no policy yet, L0"
    if message.HasField("policy"):
        policy = message.policy
        mix = f"policy {dotted(version(policy))}  {operator.mix(policy)}"
        if policy.HasField("intensity"):
            mix += f"  at {policy.intensity.g_per_kwh:.0f} g/kWh"
    state = "degraded" if message.degraded else "as it should be"
    active = sum(node.active for node in message.nodes)
    nodes = f"{len(message.nodes)} nodes, {active} active, {message.outcomes} outcomes"
    yield f"{mix}  |  {state}, {nodes}"
    yield from (f"  · {reason}" for reason in message.reasons)
    yield from (f"  · {wish}" for wish in status.wishes(message))


def objective(cfg: Config, wanted: dict[str, Any], *, reset: bool, reason: str, json: bool) -> None:
    """Set what is wanted, then show what is in force."""
    if wanted or reset:
        operator.set_objective(cfg, wanted, reset=reset, reason=reason)
    message = operator.status(cfg)
    now, set_ = message.objective, set(message.objective_set)
    if json:
        emit_json({"objective": as_dict(now), "set_by_operators": sorted(set_)})
        return
    caps = ", ".join(f"{level} at most {share:g}" for level, share in now.max_shares.items())
    values = {
        "xi": f"{now.xi:g}",
        "mode": now.mode,
        "control_share": f"{now.control_share:g}",
        "canary_share": f"{now.canary_share:g}",
        "max_shares": caps or "none",
        "max_increase": f"{now.max_increase:g} a policy" if now.max_increase < 1 else "none",
    }
    for name, value in values.items():
        origin = "operators" if name in set_ else "configuration"
        out.print(f"{name:<14} {value:<24} {origin}", markup=False)
