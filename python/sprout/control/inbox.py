# SPDX-License-Identifier: Apache-2.0
"""What agents send, checked and turned into rows. A batch is taken whole or refused whole."""

import math
from functools import cache
from operator import attrgetter
from typing import NamedTuple

from sprout.control.tables import UNMETERED, signed
from sprout.v1 import control_pb2 as pb

MAX_OUTCOMES = 10_000  # the most that `agent.batch` allows
MAX_NAME = 253  # a DNS name
MAX_TASK_BYTES = 64
MAX_LEVELS = 8  # of a policy board
MAX_COUNTERS = 128
MAX_COUNTER_NAME = 64
MAX_TEXT = 1024

# As in the flight ledger; the order is that of precedence in `arm`.
FLAGS = {
    "probe": 64,
    "evaluation": 128,
    "off": 2,
    "pinned": 1,
    "fallback": 8,
    "paused": 32,
    "control": 4,
    "held_back": 16,
    "prompt": 256,
    "unscored": 1024,
}
PROMPT = "prompt"  # under the policy, at a level that its own text chose
UNSCORED = "unscored"  # under the policy, drawn from its mix for want of weights to choose by
# Sprout's own requests, which no client waits for.
OURS = ("probe", "evaluation")
# Arms whose level was not the policy's doing, or that is not known: see profile.py. Where a prompt
# chose its level, what the level uses is what such prompts use; where it was to and could not, it
# stands for nobody: those that are always drawn do.
NOT_ELIGIBLE = {*OURS, "off", "pinned", "fallback", PROMPT, UNSCORED}

# Finite and not negative.
AMOUNTS = (
    "queue_seconds",
    "device_seconds",
    "first_token_seconds",
    "energy_joules",
    "receipt_joules",
)
# The same where they are set: unset where the intensity was not known.
OPTIONAL = ("carbon_g", "intensity_g_per_kwh")
ENDINGS = frozenset(pb.Ending.values()) - {pb.ENDING_UNSPECIFIED}

_AMOUNTS, _FLAGS = attrgetter(*AMOUNTS), attrgetter(*FLAGS)


class Row(NamedTuple):
    """An outcome as the store keeps it, less what the store adds; fields are columns of `outcomes`.

    64-bit identifiers are signed here (two's complement).
    """

    segment_uid: int
    ticket: int
    node: str
    arm: str  # what it counts as: a flag's name, else its level
    eligible: bool  # counts for the profile, its joules too
    level: int
    level_name: str
    policy_version: int
    policy_seed: int
    node_id: int
    stub_index: int
    sequence: int
    task: str
    flags: int
    ending: int
    input_tokens: int
    output_tokens: int
    max_tokens: int
    opened_at: float  # seconds since 1970
    energy_estimated: bool
    queue_seconds: float
    device_seconds: float
    first_token_seconds: float
    energy_joules: float
    receipt_joules: float
    carbon_g: float | None
    intensity_g_per_kwh: float | None
    tenant: str


def rows(request: pb.ReportOutcomesRequest) -> list[Row]:
    """The outcomes of a report, all of it checked; ValueError says what is wrong with which."""
    _check_name("node", request.node)
    if len(request.outcomes) > MAX_OUTCOMES:
        raise ValueError(f"{len(request.outcomes)} outcomes, at most {MAX_OUTCOMES} a batch")
    made: list[Row] = []
    try:
        for outcome in request.outcomes:
            made.append(row(request.node, outcome))
    except ValueError as error:
        raise ValueError(f"outcomes[{len(made)}]: {error}") from None
    if request.HasField("node_status"):
        _check_status(request.node, request.node_status)
    return made


def row(node: str, outcome: pb.Outcome) -> Row:
    """One outcome, checked. ValueError says what is wrong with it."""
    segment_uid, ticket = outcome.segment_uid, outcome.ticket
    level, ending = outcome.level, outcome.ending
    level_name, task, tenant = outcome.level_name, outcome.task, outcome.tenant
    if not segment_uid or not ticket:
        raise ValueError("segment_uid and ticket must not be 0")
    if level >= MAX_LEVELS:
        raise ValueError(f"level {level}, at most {MAX_LEVELS - 1}")
    if ending not in ENDINGS:
        raise ValueError(f"ending {ending} is none")
    amounts = _AMOUNTS(outcome)
    for value in amounts:
        if not 0 <= value < math.inf:  # nor is NaN
            for name in AMOUNTS:
                _check_amount(name, getattr(outcome, name))
    carbon_g, intensity = (_optional(outcome, name) for name in OPTIONAL)
    if len(task.encode()) > MAX_TASK_BYTES:
        raise ValueError(f"task is longer than {MAX_TASK_BYTES} bytes")
    if len(tenant.encode()) > MAX_TASK_BYTES:
        raise ValueError(f"tenant is longer than {MAX_TASK_BYTES} bytes")
    if len(level_name) > MAX_NAME:
        raise ValueError(f"level_name is longer than {MAX_NAME}")
    queue_s, device_s, first_token_s, joules, receipt_joules = amounts
    flag, flags = _flags(_FLAGS(outcome))
    opened_at = outcome.opened_at
    return Row(
        signed(segment_uid),
        signed(ticket),
        node,
        flag or f"L{level}",
        ending == pb.ENDING_DELIVERED and flag not in NOT_ELIGIBLE and not outcome.unmetered,
        level,
        level_name,
        signed(outcome.policy_version),
        signed(outcome.policy_seed),
        signed(outcome.node_id),
        outcome.stub_index,
        signed(outcome.sequence),
        task,
        flags | UNMETERED * outcome.unmetered,
        ending,
        outcome.input_tokens,
        outcome.output_tokens,
        outcome.max_tokens,
        opened_at.seconds + opened_at.nanos / 1e9,
        outcome.energy_estimated,
        queue_s,
        device_s,
        first_token_s,
        joules,
        receipt_joules,
        carbon_g,
        intensity,
        tenant,
    )


@cache
def _flags(values: tuple[bool, ...]) -> tuple[str, int]:
    """The flag that the outcome counts as ("" = none), and the bits of all; `values` as FLAGS."""
    names = [name for name, value in zip(FLAGS, values, strict=True) if value]
    return (names[0] if names else ""), sum(FLAGS[name] for name in names)


def _optional(outcome: pb.Outcome, name: str) -> float | None:
    if not outcome.HasField(name):
        return None
    value = float(getattr(outcome, name))
    _check_amount(name, value)
    return value


def _check_status(node: str, status: pb.NodeStatus) -> None:
    if status.node and status.node != node:
        raise ValueError(f"node_status of {status.node!r} in a report of {node!r}")
    for name in ("metered_joules", "settled_joules", "idle_joules", "unattributed_joules"):
        _check_amount(f"node_status.{name}", getattr(status, name))
    if len(status.counters) > MAX_COUNTERS:
        raise ValueError(f"node_status.counters has over {MAX_COUNTERS} entries")
    if any(len(name) > MAX_COUNTER_NAME for name in status.counters):
        raise ValueError(f"node_status.counters has a name over {MAX_COUNTER_NAME} characters")
    long = max(len(status.meter), len(status.meter_problem)) > MAX_NAME
    if long or len(status.policy_error) > MAX_TEXT:
        raise ValueError("node_status has an overlong text")


def _check_name(key: str, name: str) -> None:
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(f"{key} must be 1 to {MAX_NAME} printable characters")


def _check_amount(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and not negative: {value}")
