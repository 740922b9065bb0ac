# SPDX-License-Identifier: Apache-2.0
"""What agents send, checked and turned into rows. A batch is taken whole or refused whole."""

import math
from typing import Any

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
    "off": 2,
    "pinned": 1,
    "fallback": 8,
    "paused": 32,
    "control": 4,
    "held_back": 16,
}
# Arms whose level was not the policy's doing, or that is not known: see profile.py.
NOT_ELIGIBLE = {"probe", "off", "pinned", "fallback"}

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


def check_batch(request: pb.ReportOutcomesRequest) -> None:
    """ValueError says what is wrong with which outcome."""
    _check_name("node", request.node)
    if len(request.outcomes) > MAX_OUTCOMES:
        raise ValueError(f"{len(request.outcomes)} outcomes, at most {MAX_OUTCOMES} a batch")
    for i, outcome in enumerate(request.outcomes):
        try:
            _check_outcome(outcome)
        except ValueError as error:
            raise ValueError(f"outcomes[{i}]: {error}") from None
    if request.HasField("node_status"):
        _check_status(request.node, request.node_status)


def arm(outcome: pb.Outcome) -> str:
    """What the outcome counts as: a flag's name, else its level."""
    for name in FLAGS:
        if getattr(outcome, name):
            return name
    return f"L{outcome.level}"


def row(node: str, outcome: pb.Outcome) -> dict[str, Any]:
    """The row of a checked outcome, less what the store adds."""
    own = arm(outcome)
    delivered = outcome.ending == pb.ENDING_DELIVERED
    return {
        "segment_uid": outcome.segment_uid,
        "ticket": outcome.ticket,
        "node": node,
        "arm": own,
        "eligible": delivered and own not in NOT_ELIGIBLE,
        "level": outcome.level,
        "level_name": outcome.level_name,
        "policy_version": outcome.policy_version,
        "policy_seed": outcome.policy_seed,
        "node_id": outcome.node_id,
        "stub_index": outcome.stub_index,
        "sequence": outcome.sequence,
        "task": outcome.task,
        "flags": sum(bit for name, bit in FLAGS.items() if getattr(outcome, name)),
        "ending": outcome.ending,
        "input_tokens": outcome.input_tokens,
        "output_tokens": outcome.output_tokens,
        "max_tokens": outcome.max_tokens,
        "opened_at": outcome.opened_at.seconds + outcome.opened_at.nanos / 1e9,
        "energy_estimated": outcome.energy_estimated,
        **{name: getattr(outcome, name) for name in AMOUNTS},
        **{name: _optional(outcome, name) for name in OPTIONAL},
    }


def _optional(outcome: pb.Outcome, name: str) -> float | None:
    return float(getattr(outcome, name)) if outcome.HasField(name) else None


def _check_outcome(outcome: pb.Outcome) -> None:
    if not outcome.segment_uid or not outcome.ticket:
        raise ValueError("segment_uid and ticket must not be 0")
    if outcome.level >= MAX_LEVELS:
        raise ValueError(f"level {outcome.level}, at most {MAX_LEVELS - 1}")
    if outcome.ending == pb.ENDING_UNSPECIFIED or outcome.ending not in pb.Ending.values():
        raise ValueError(f"ending {outcome.ending} is none")
    for name in AMOUNTS:
        _check_amount(name, getattr(outcome, name))
    for name in OPTIONAL:
        _check_amount(name, _optional(outcome, name) or 0.0)
    if len(outcome.task.encode()) > MAX_TASK_BYTES:
        raise ValueError(f"task is longer than {MAX_TASK_BYTES} bytes")
    if len(outcome.level_name) > MAX_NAME:
        raise ValueError(f"level_name is longer than {MAX_NAME}")


def _check_status(node: str, status: pb.NodeStatus) -> None:
    if status.node and status.node != node:
        raise ValueError(f"node_status of {status.node!r} in a report of {node!r}")
    for name in ("metered_joules", "settled_joules", "idle_joules"):
        _check_amount(f"node_status.{name}", getattr(status, name))
    if len(status.counters) > MAX_COUNTERS:
        raise ValueError(f"node_status.counters has over {MAX_COUNTERS} entries")
    if any(len(name) > MAX_COUNTER_NAME for name in status.counters):
        raise ValueError(f"node_status.counters has a name over {MAX_COUNTER_NAME} characters")
    if len(status.meter) > MAX_NAME or len(status.policy_error) > MAX_TEXT:
        raise ValueError("node_status has an overlong text")


def _check_name(key: str, name: str) -> None:
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(f"{key} must be 1 to {MAX_NAME} printable characters")


def _check_amount(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and not negative: {value}")
