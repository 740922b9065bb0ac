# SPDX-License-Identifier: Apache-2.0
"""A control loop on a grid and clocks of its own, for tests."""

from datetime import UTC, datetime, timedelta
from typing import Any

from round_priors import ROUND_PRIORS

from sprout.carbon import Chain, Feed, Intensity
from sprout.carbon.intensity import Series
from sprout.config import Config, ControlConfig
from sprout.control import inbox
from sprout.control.loop import Loop
from sprout.control.store import Store
from sprout.errors import FeedError
from sprout.policy_version import version
from sprout.v1 import control_pb2 as pb

SERIES: Series = ("NL", "test", "direct", "average")

TTL_S = 90.0


class Grid:
    """A source and both clocks."""

    name = "grid"
    remote = True
    live = True
    step_s = 0.0
    forecast_basis = ""
    series: Series = SERIES

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0
        self.g: float | None = 200.0

    def wall(self) -> float:
        return self.now_s

    def clock(self) -> datetime:
        return datetime.fromtimestamp(self.now_s, UTC)

    async def now(self) -> Intensity:
        if self.g is None:
            raise FeedError("down")
        hour = self.clock().replace(minute=0, second=0, microsecond=0)
        return Intensity(self.g, *SERIES, hour)

    async def history(self, hours: float) -> list[Intensity]:
        top = self.clock().replace(minute=0, second=0, microsecond=0)
        values = [100.0 + (h % 21) * 10 for h in range(int(hours), 0, -1)]  # 100 ... 300
        return [
            Intensity(g, *SERIES, top - timedelta(hours=h))
            for h, g in zip(range(int(hours), 0, -1), values, strict=True)
        ]

    async def forecast(self, hours: float) -> list[Intensity]:
        return []


def make(grid: Grid, store: Store, **control: Any) -> tuple[Loop, Feed]:
    config = Config(
        control=ControlConfig(**{"ttl_s": TTL_S, "min_outcomes": 3, **ROUND_PRIORS, **control})
    )
    feed = Feed(
        Chain([grid], poll_s=0, max_age_s=7200, monotonic=grid.wall),
        store,
        range_mode="trailing",
        range_hours=168,
        range_min_hours=24,
    )
    return Loop(config, store, feed, wall=grid.wall, uptime=grid.wall), feed


def current(loop: Loop) -> pb.Policy:
    policy = loop.publisher.policy()
    assert policy is not None
    return policy


def shares(policy: pb.Policy) -> list[float]:
    return [s.share for s in policy.shares]


def outcomes(loop: Loop, level: int, joules: float, first: int, count: int) -> list[Any]:
    held = version(current(loop))
    return [
        inbox.row(
            "n",
            pb.Outcome(
                segment_uid=5,
                ticket=first + i,
                level=level,
                policy_version=held,
                ending=pb.ENDING_DELIVERED,
                energy_joules=joules,
                device_seconds=1.0,
            ),
        )
        for i in range(count)
    ]


async def started(grid: Grid, store: Store, **control: Any) -> tuple[Loop, Feed]:
    loop, feed = make(grid, store, **control)
    await feed.poll()
    await loop.step()
    return loop, feed
