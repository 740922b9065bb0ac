# SPDX-License-Identifier: Apache-2.0
"""What the demo saw."""

from dataclasses import dataclass, field

from sprout.serve.client import Answer
from sprout.v1 import control_pb2 as pb

# In the order that they are sent in, and what they are called where people read.
ARMS = {
    "pinned": "each level, pinned",
    "low": "policy, low intensity",
    "high": "policy, high intensity",
    "off": "without Sprout (L0)",
}


@dataclass
class Shot:
    """One request and what became of it."""

    arm: str
    kind: str
    prompt: str
    asked: str | None  # the level that was pinned
    level: str
    answer: Answer


@dataclass
class Result:
    """Everything that the demo saw; `--json` prints it."""

    shots: list[Shot] = field(default_factory=list)
    policies: dict[str, pb.Policy] = field(default_factory=dict)  # by arm
    on_board: dict[str, int] = field(default_factory=dict)  # version seen on the board, by arm
    status: pb.Status | None = None
    estimated: bool = True  # energy: from a declared model, not from a meter
    seconds_to_ready: float = 0.0
    left_behind: list[str] = field(default_factory=list)  # processes and shared memory
    exit_status: int | None = None  # of the supervisor

    def of(self, arm: str) -> list[Shot]:
        return [shot for shot in self.shots if shot.arm == arm]
