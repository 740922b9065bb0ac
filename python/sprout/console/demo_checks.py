# SPDX-License-Identifier: Apache-2.0
"""Whether what the demo shows really happened: its exit code is 0 only if all of it did."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sprout import policy_version
from sprout.console.demo_result import Result
from sprout.serve.background import BackgroundStack
from sprout.serve.process import start_time
from sprout.serve.state import StackPaths
from sprout.v1 import control_pb2 as pb


@dataclass(frozen=True)
class Check:
    what: str
    ok: bool
    detail: str = ""


def examine(result: Result) -> list[Check]:
    """Every check."""
    rest = [
        *books(result.status, len(result.shots)),
        *end(result.exit_status, result.left_behind),
    ]
    return [*_answers(result), *_policies(result), *rest]


def _answers(result: Result) -> Iterator[Check]:
    shots = result.shots
    empty = [s.prompt for s in shots if not s.answer.text.strip()]
    yield Check("every answer has text", bool(shots) and not empty, ", ".join(empty))
    bare = [
        s.prompt
        for s in shots
        if s.answer.receipt is None
        or not s.answer.receipt.energy_joules > 0
        or not s.answer.receipt.carbon_g > 0
        or s.answer.output_tokens <= 0
    ]
    yield Check("every answer has a receipt of joules, grams and tokens", not bare, ", ".join(bare))
    wrong = [f"{s.asked} got {s.level}" for s in result.of("pinned") if s.asked != s.level]
    yield Check("pinned levels are as pinned", not wrong, ", ".join(wrong))
    not_l0 = [s.level for s in result.of("off") if s.level != "L0"]
    yield Check("without Sprout every answer is L0", not not_l0, ", ".join(not_l0))


def _policies(result: Result) -> Iterator[Check]:
    for arm, policy in result.policies.items():
        version, seen = policy_version.version(policy), result.on_board.get(arm, 0)
        yield Check(
            f"policy for {arm} intensity reached the board", version == seen, f"{version}, {seen}"
        )
        share = {s.level: s.share for s in policy.shares}
        receipts = [(s.level, s.answer.receipt) for s in result.of(arm) if s.answer.receipt]
        under = all(r.policy_version == version for _, r in receipts)
        at = policy.intensity.g_per_kwh
        priced = all(math.isclose(r.intensity_g_per_kwh, at, rel_tol=1e-3) for _, r in receipts)
        drawn = all(share.get(level, 0) > 0 for level, _ in receipts)
        complete = bool(receipts) and under and priced and drawn
        yield Check(f"receipts at {arm} intensity name that policy and its numbers", complete)


def books(status: pb.Status | None, requests: int) -> Iterator[Check]:
    """Outcomes and joules are all there, once `requests` were sent."""
    count = stored(status) if status is not None else 0
    yield Check(
        "outcomes stored are the requests sent",
        count == requests,
        f"{count} of {requests}",
    )
    for node in status.nodes if status is not None else ():
        parts = node.settled_joules + node.idle_joules + node.unattributed_joules
        balanced = math.isclose(parts, node.metered_joules, rel_tol=0.01, abs_tol=0.1)
        yield Check(
            "joules settled, idle and nobody's are the joules metered",
            balanced and node.settled_joules > 0,
            f"{node.settled_joules:.1f} + {node.idle_joules:.1f} + "
            f"{node.unattributed_joules:.1f} = {node.metered_joules:.1f} J",
        )
    reasons = list(status.reasons) if status is not None else ["no status"]
    yield Check("the control plane is not degraded", not reasons, "; ".join(reasons))


def end(exit_status: int | None, left: list[str]) -> Iterator[Check]:
    """The stack is gone, all of it."""
    yield Check("the stack ended cleanly", exit_status == 0, f"exit {exit_status}")
    yield Check("no process and no shared memory is left", not left, ", ".join(left))


def stored(status: pb.Status) -> int:
    """Outcomes that the control plane has of clients' requests; Sprout's own apart."""
    return sum(arm.outcomes for arm in status.arms if arm.arm not in ("probe", "evaluation"))


def processes(stack: BackgroundStack) -> list[int]:
    """Pids of a stack that is up, Triton's stubs included."""
    found = [stack.pid]
    for process in stack.state()["processes"].values():
        found += [pid for pid in (process["pid"], *process["stubs"]) if pid]
    return found


def left_behind(paths: StackPaths, pids: list[int]) -> list[str]:
    """What should be gone after the stack is down."""
    alive = [f"process {pid}" for pid in pids if start_time(pid) is not None]
    regions = Path("/dev/shm").glob(f"{paths.region_prefix}*")  # noqa: S108
    folder = [str(paths.shm)] if paths.shm.exists() else []
    return [*alive, *map(str, regions), *folder]
