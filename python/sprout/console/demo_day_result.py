# SPDX-License-Identifier: Apache-2.0
"""What the demo's day saw, on two clocks: the wall's and the trace's."""

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sprout import policy_version
from sprout.carbon.intensity import Intensity
from sprout.console.demo_day_grid import Grid
from sprout.serve.client import Answer
from sprout.v1 import control_pb2 as pb

HOURS = 24
RESAMPLES = 2000


@dataclass
class Served:
    """One request of the day and what became of it."""

    sent_s: float  # wall clock, since 1970
    held_out: bool  # sent with Sprout switched off: the comparison
    kind: str
    prompt: str
    level: int = -1  # index into the pack; -1: no receipt
    answer: Answer = field(default_factory=Answer)
    error: str = ""

    @property
    def joules(self) -> float:
        return self.answer.receipt.energy_joules if self.answer.receipt else math.nan

    @property
    def carbon_g(self) -> float:
        return self.answer.receipt.carbon_g if self.answer.receipt else math.nan

    @property
    def g_per_kwh(self) -> float:
        return self.answer.receipt.intensity_g_per_kwh if self.answer.receipt else math.nan


@dataclass(frozen=True)
class Step:
    """A policy in force, on the trace's clock."""

    begin: datetime
    end: datetime
    g_per_kwh: float
    shares: tuple[float, ...]  # (levels,)

    @property
    def hours(self) -> float:
        return (self.end - self.begin).total_seconds() / 3600


@dataclass
class Day:
    """Everything that was seen; `--json` prints it."""

    grid: Grid
    trace: list[Intensity]  # all of it
    levels: tuple[str, ...]
    xi: float
    trace_start: datetime
    speed: float
    # By version, as they came; they come in another thread, so readers take a copy.
    policies: dict[int, pb.Policy] = field(default_factory=dict)
    begin: datetime | None = None  # of the 24 hours, on the trace's clock
    rate_per_s: float = 0.0  # requests offered
    max_tokens: int = 0  # of each answer
    warm_up: int = 0  # requests before the day
    served: list[Served] = field(default_factory=list)
    status: pb.Status | None = None
    estimated: bool = True  # energy: from a declared model, not from a meter
    seconds_to_ready: float = 0.0
    left_behind: list[str] = field(default_factory=list)
    exit_status: int | None = None

    # --- two clocks -----------------------------------------------------------------------------

    def origin_s(self) -> float:
        """The wall's time of `trace_start`. A policy is issued no earlier than its intensity's
        hour begins, and those that follow a new hour at once tell the origin best."""
        ahead = (
            policy.issued_at.ToNanoseconds() / 1e9 - self._since_start_s(policy) / self.speed
            for policy in list(self.policies.values())
            if policy.HasField("intensity")
        )
        return min(ahead, default=math.nan)

    def _since_start_s(self, policy: pb.Policy) -> float:
        return policy.intensity.time.ToNanoseconds() / 1e9 - self.trace_start.timestamp()

    def moment(self, wall_s: float) -> datetime:
        """On the trace's clock."""
        return self.trace_start + timedelta(seconds=(wall_s - self.origin_s()) * self.speed)

    def wall_s(self, moment: datetime) -> float:
        return self.origin_s() + (moment - self.trace_start).total_seconds() / self.speed

    @property
    def end(self) -> datetime:
        return self.first_hour + timedelta(hours=HOURS)

    @property
    def first_hour(self) -> datetime:
        return self.begin or self.grid.day

    # --- what happened --------------------------------------------------------------------------

    def steps(self) -> list[Step]:
        """The policies in force within the 24 hours, in order."""
        issued = sorted(
            (self.moment(p.issued_at.ToNanoseconds() / 1e9), policy_version.version(p), p)
            for p in list(self.policies.values())
            if p.HasField("intensity")
        )
        ends = [begin for begin, _, _ in issued[1:]] + [self.end]
        found = []
        for (since, _, policy), until in zip(issued, ends, strict=True):
            begin, end = max(since, self.first_hour), min(until, self.end)
            if begin < end:
                share = {s.level: s.share for s in policy.shares}
                shares = tuple(share.get(level, 0.0) for level in self.levels)
                found.append(Step(begin, end, policy.intensity.g_per_kwh, shares))
        return found

    def grid_values(self) -> list[tuple[datetime, float]]:
        """(time, g/kWh) of the trace within the 24 hours; the first holds at their beginning."""
        before = [v for v in self.trace if v.time <= self.first_hour][-1:]
        within = [v for v in self.trace if self.first_hour < v.time < self.end]
        return [(max(v.time, self.first_hour), v.g_per_kwh) for v in [*before, *within]]

    def under_policy(self) -> list[Served]:
        return [s for s in self.served if not s.held_out and s.answer.receipt is not None]

    def held_out(self) -> list[Served]:
        return [s for s in self.served if s.held_out and s.answer.receipt is not None]


def weighted_mix(steps: Sequence[Step], begin: datetime, end: datetime) -> tuple[float, ...]:
    """Mean shares between two moments; () where no policy was in force."""
    total, hours = [0.0] * len(steps[0].shares) if steps else [], 0.0
    for step in steps:
        part = min(step.end, end) - max(step.begin, begin)
        length = max(0.0, part.total_seconds() / 3600)
        hours += length
        total = [t + length * share for t, share in zip(total, step.shares, strict=True)]
    return tuple(t / hours for t in total) if hours > 0 else ()


def at_l0_g(requests: Iterable[Served], joules_at_l0: float) -> float:
    """Estimated grams of the same requests at L0, each at the intensity it was served at.

    Grams per joule are the receipt's own, so that PUE and embodied carbon stay in.
    """
    return joules_at_l0 * sum(s.carbon_g / s.joules for s in requests if s.joules > 0)


def mean_joules(requests: Sequence[Served]) -> float:
    return sum(s.joules for s in requests) / len(requests) if requests else math.nan


@dataclass(frozen=True)
class Saving:
    """Against L0, from the requests that were held out. Estimated."""

    carbon_g: float  # emitted by the requests under the policy
    at_l0_g: float  # the same requests at L0
    low: float  # 95 % interval of `fraction`
    high: float
    same_mix_g: float  # the same requests, all day at the day's mean mix

    @property
    def fraction(self) -> float:
        return 1 - self.carbon_g / self.at_l0_g if self.at_l0_g > 0 else math.nan


def saving(day: Day) -> Saving:
    """The interval is the bootstrap's over held-out requests: theirs is the part that is guessed.
    It knows nothing of how far load differs between levels."""
    own, held = day.under_policy(), day.held_out()
    emitted = sum(s.carbon_g for s in own)
    at_l0 = at_l0_g(own, mean_joules(held))
    draw = random.Random(0)  # noqa: S311 - a bootstrap, no secret
    fractions = sorted(
        1 - emitted / at_l0_g(own, mean_joules(draw.choices(held, k=len(held))))
        for _ in range(RESAMPLES if own and held else 0)
    )
    low, high = (
        (fractions[int(0.025 * RESAMPLES)], fractions[int(0.975 * RESAMPLES)])
        if fractions
        else (math.nan, math.nan)
    )
    return Saving(emitted, at_l0, low, high, at_l0_g(own, mean_joules(own)))


def quarters(day: Day) -> list[dict[str, Any]]:
    """Four times six hours: intensity, mix wanted and served, tokens, joules, grams."""
    held_joules, steps, found = mean_joules(day.held_out()), day.steps(), []
    for number in range(4):
        begin = day.first_hour + timedelta(hours=6 * number)
        end = begin + timedelta(hours=6)
        own = [s for s in day.under_policy() if begin <= day.moment(s.sent_s) < end]
        grid = [g for time, g in day.grid_values() if begin <= time < end]
        found.append(
            {
                "begin": begin.isoformat(),
                "end": end.isoformat(),
                "g_per_kwh": sum(grid) / len(grid) if grid else math.nan,
                "policy_mix": weighted_mix(steps, begin, end),
                "served": [sum(s.level == i for s in own) for i in range(len(day.levels))],
                "requests": len(own),
                "output_tokens": sum(s.answer.output_tokens for s in own),
                "joules": sum(s.joules for s in own),
                "carbon_g": sum(s.carbon_g for s in own),
                "at_l0_g": at_l0_g(own, held_joules),
            }
        )
    return found
