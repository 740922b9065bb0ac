# SPDX-License-Identifier: Apache-2.0
"""A store as a run would have left it, made through the store's own methods."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sprout.control import inbox
from sprout.control.rows import BlockRow, Feedback, Reading
from sprout.control.store import Store
from sprout.proof.switchback import L0, Schedule
from sprout.v1 import control_pb2 as pb

START = 1_700_000_000.0  # in the past: an outcome is stored after it was opened
EPOCH = 1_699_000_000
LEVELS = ("L0", "L1", "L2")
JOULES = (60.0, 20.0, 12.0)
PACK = 77


class Made:
    """Policies, outcomes, readings; times are seconds from START."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self.path = folder / "control.sqlite"
        self.store = Store(self.path)
        self.rng = np.random.default_rng(seed)
        self._policies = self._tickets = 0

    def close(self) -> None:
        self.store.close()

    def policy(self, at: float = 0.0, **fields: Any) -> int:
        """Its version. fields: of pb.Policy; `explanation` and `intensity` as messages."""
        self._policies += 1
        values: dict[str, Any] = {
            "control_share": 0.1,
            "canary_share": 1.0,
            "shares": [
                pb.LevelShare(level=n, share=s) for n, s in zip(LEVELS, (0.4, 0.6, 0), strict=True)
            ],
            "intensity": pb.Intensity(
                g_per_kwh=300,
                zone="NL",
                source="test",
                factor_type=pb.FACTOR_TYPE_LIFECYCLE,
                signal=pb.SIGNAL_AVERAGE,
            ),
            "pue": 1.2,
            "embodied_g_per_s": 0.001,
        }
        policy = pb.Policy(
            epoch=EPOCH, counter=self._policies, pack_hash=PACK, **{**values, **fields}
        )
        policy.issued_at.FromNanoseconds(int((START + at) * 1e9))
        version = EPOCH << 32 | self._policies
        self.store.add_policy(EPOCH, version, PACK, START + at, policy.SerializeToString())
        return version

    def outcomes(
        self, version: int, n: int, *, level: int, since: float, until: float, **fields: Any
    ) -> None:
        """n of them, opened at even distances; joules with a tail, 300 g/kWh, mean as JOULES."""
        size = self.rng.lognormal(-0.125, 0.5, n)
        rows: list[inbox.Row] = []
        for i in range(n):
            self._tickets += 1
            values: dict[str, Any] = {
                "segment_uid": 5,
                "ticket": self._tickets,
                "level": level,
                "policy_version": version,
                "ending": pb.ENDING_DELIVERED,
                "energy_joules": JOULES[level] * size[i],
                "device_seconds": JOULES[level] * size[i] / 20,
                "output_tokens": int(JOULES[level] * size[i] * 2),
                "max_tokens": 1000,
                "carbon_g": JOULES[level] * size[i] / 3.6e6 * 300 * 1.2,
                "intensity_g_per_kwh": 300.0,
                "task": "chat",
            }
            node = str(fields.get("node", "node-a"))
            own = {k: v for k, v in fields.items() if k != "node"}
            outcome = pb.Outcome(**{**values, **own})
            at = START + since + (until - since) * (i + 0.5) / n
            outcome.opened_at.FromNanoseconds(int(at * 1e9))
            rows.append(inbox.row(node, outcome))
        # Stored when the outcome ended, as far as a report can tell.
        self.store.add_outcomes(rows)

    def mixed(self, version: int, n: int, since: float, until: float, **fields: Any) -> None:
        """A tenth in the control group, the rest under the policy: 40 % L0, 60 % L1."""
        span = {"since": since, "until": until, **fields}
        self.outcomes(version, n // 10, level=0, control=True, **span)
        self.outcomes(version, round(n * 0.36), level=0, **span)
        self.outcomes(version, round(n * 0.54), level=1, **span)

    def readings(self, times: Sequence[float], joules: Sequence[float], **fields: Any) -> None:
        values: dict[str, Any] = {
            "node": "node-a",
            "settled_joules": 0.0,
            "energy_estimated": False,
            "active": 1,
            "policy_version": 0,
        }
        self.store.add_readings(
            [
                Reading(
                    **{
                        **values,
                        "time": START + at,
                        "metered_joules": used,
                        "idle_joules": used / 4,
                        **fields,
                    }
                )
                for at, used in zip(times, joules, strict=True)
            ]
        )

    def feedback(self, version: int, kind: str, level: int, count: int, at: float = 1.0) -> None:
        self.store.add_feedback([Feedback(START + at, kind, level, version, f"L{level}", count)])

    def switchback(self, pairs: int, *, saved: float = 0.3, idle_w: float = 20.0) -> Schedule:
        """A node that used idle_w and 50 J per request at L0, `saved` of those less under the
        policy; 200 requests a block of 600 s."""
        schedule = Schedule(9, START, 600.0, 60.0)
        joules = 0.0
        self.readings([-10.0], [0.0])
        for number in range(2 * pairs):
            block = schedule.block(number)
            begin = block.start_s - START
            why = pb.Explanation(block=block.name)
            held = block.arm == L0
            if held:
                why.active_constraint = "block"
            version = self.policy(begin, explanation=why, control_share=0.0)
            self.outcomes(version, 200, level=0 if held else 1, since=begin, until=begin + 600)
            each = 50.0 * (1.0 if held else 1 - saved) * float(self.rng.uniform(0.97, 1.03))
            watts = idle_w + each * 200 / 600
            times = [begin + 10 * i for i in range(1, 60)]
            self.readings(
                times, [joules + watts * (t - begin) for t in times], policy_version=version
            )
            joules += 600 * watts
            self.store.add_blocks(
                [BlockRow(9, number, block.arm, block.measured_from_s, block.end_s, "")]
            )
        self.readings([2 * pairs * 600 + 5.0], [joules + 5 * idle_w])
        return schedule
