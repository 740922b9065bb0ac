# SPDX-License-Identifier: Apache-2.0
"""The demo's day: which day is chosen, two clocks, the estimate, and checks that can fail."""

import itertools
import json
import math
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from sprout.carbon.intensity import Intensity
from sprout.console import demo_day_checks, demo_day_grid, demo_day_view
from sprout.console.demo_day_grid import Grid, find
from sprout.console.demo_day_result import Day, Served, Step, quarters, saving, weighted_mix
from sprout.errors import ConfigError
from sprout.serve.client import Answer, Receipt
from sprout.v1 import control_pb2 as pb

T0 = datetime(2024, 5, 8, tzinfo=UTC)
LEVELS = ("L0", "L1", "L2")
SPEED = 720.0
ORIGIN_S = 1_700_000_000.0  # wall clock, when the trace began


def grams(hour: int) -> float:
    return 100.0 if 8 <= hour % 24 < 16 else 400.0


def policy(number: int, hour: int, late_s: float) -> pb.Policy:
    """Made for an hour, `late_s` after it began."""
    shares = (1.0, 0.0, 0.0) if grams(hour) < 200 else (0.0, 0.5, 0.5)
    made = pb.Policy(epoch=1, counter=number)
    made.issued_at.FromNanoseconds(int((ORIGIN_S + hour * 3600 / SPEED + late_s) * 1e9))
    made.intensity.time.FromDatetime(T0 + timedelta(hours=hour))
    made.intensity.g_per_kwh = grams(hour)
    for level, share in zip(LEVELS, shares, strict=True):
        made.shares.add(level=level, share=share)
    return made


def request(hour: float, level: int, held_out: bool = False) -> Served:
    joules, g = (20.0, 10.0, 5.0)[level], grams(int(hour))
    number = int(hour) + 1
    receipt = Receipt(level, (1 << 32) | number, joules, joules * g / 3.6e6, g)
    answer = Answer(text="It is.", output_tokens=10, receipt=receipt)
    return Served(ORIGIN_S + hour * 3600 / SPEED, held_out, "fact", "?", level, answer)


@pytest.fixture
def day() -> Day:
    trace = [
        Intensity(grams(h), "EXAMPLE", "trace:x", "direct", "average", T0 + timedelta(hours=h))
        for h in range(30)
    ]
    grid = Grid("EXAMPLE", Path("x.csv"), "direct", T0, "synthetic", "invented")
    made = Day(grid, trace, LEVELS, 0.2, T0, SPEED, begin=T0 + timedelta(hours=1))
    for hour in range(26):
        found = policy(hour + 1, hour, 0.0 if hour == 3 else 0.1)
        made.policies[(1 << 32) | (hour + 1)] = found
    for hour in range(1, 25):
        own = 0 if grams(hour) < 200 else 1 + hour % 2
        made.served += [request(hour + 0.4, own), request(hour + 0.6, 0, held_out=True)]
    made.exit_status = 0
    made.status = pb.Status(arms=[pb.ArmTotals(arm="L0", outcomes=len(made.served))])
    made.status.nodes.add(metered_joules=10, settled_joules=9, idle_joules=1)
    return made


def failed(day: Day) -> list[str]:
    return [check.what for check in demo_day_checks.examine(day) if not check.ok]


def test_the_wall_and_the_trace_agree(day: Day) -> None:
    """The promptest policy tells when the trace began."""
    assert day.origin_s() == pytest.approx(ORIGIN_S, abs=1e-3)
    moment = day.moment(ORIGIN_S + 10)
    assert abs(moment - (T0 + timedelta(hours=2))) < timedelta(seconds=2)
    assert day.wall_s(moment) == pytest.approx(ORIGIN_S + 10)


def test_steps_cover_the_day(day: Day) -> None:
    steps = day.steps()
    assert steps[0].begin == day.first_hour
    assert steps[-1].end == day.end
    assert all(a.end == b.begin for a, b in itertools.pairwise(steps))
    assert sum(step.hours for step in steps) == pytest.approx(24)


def test_a_mean_mix_is_weighted_by_time() -> None:
    hours = [T0 + timedelta(hours=h) for h in range(4)]
    steps = [Step(hours[0], hours[1], 1, (1.0, 0.0)), Step(hours[1], hours[3], 1, (0.0, 1.0))]
    assert weighted_mix(steps, hours[0], hours[3]) == pytest.approx((1 / 3, 2 / 3))
    assert weighted_mix(steps, hours[3], hours[3] + timedelta(hours=1)) == ()


def test_the_saving_is_against_the_requests_held_out(day: Day) -> None:
    found = saving(day)
    own = day.under_policy()
    assert found.carbon_g == pytest.approx(sum(s.carbon_g for s in own))
    assert found.at_l0_g == pytest.approx(sum(20 * s.g_per_kwh / 3.6e6 for s in own))
    assert found.low == found.high == pytest.approx(found.fraction)  # all held out cost the same
    mean = sum(s.joules for s in own) / len(own)
    assert found.same_mix_g == pytest.approx(sum(mean * s.g_per_kwh / 3.6e6 for s in own))
    assert found.same_mix_g > found.carbon_g  # the short answers fell into the dirty hours
    assert sum(part["requests"] for part in quarters(day)) == len(own) == 24


def test_a_day_without_requests_has_no_saving(day: Day) -> None:
    day.served = []
    assert math.isnan(saving(day).fraction)
    assert "no request failed" in failed(day)


def test_a_good_day_passes(day: Day) -> None:
    assert failed(day) == []


def test_each_check_can_fail(day: Day) -> None:
    day.served[0].error = "refused"
    assert "no request failed" in failed(day)
    day.served[0].error = ""
    day.exit_status = 1
    assert failed(day) == ["the stack ended cleanly"]
    day.exit_status = 0
    assert day.status is not None
    day.status.arms[0].outcomes -= 1
    assert failed(day) == ["outcomes stored are the requests sent"]


def test_a_mix_that_runs_against_the_grid_is_found_out(day: Day) -> None:
    for made in day.policies.values():
        shares = [s.share for s in made.shares]
        for share, other in zip(made.shares, reversed(shares), strict=True):
            share.share = other
    for s in day.under_policy():
        s.level = 2 - s.level
    wrong = " ".join(failed(day))
    assert "shorter answers in the dirtiest third" in wrong
    assert "mean level served" in wrong


def test_a_policy_that_stands_still_is_found_out(day: Day) -> None:
    day.policies = {k: v for k, v in day.policies.items() if v.counter <= 2}
    assert "the policy followed the grid hour by hour" in failed(day)


@pytest.mark.parametrize("good", [True, False])
def test_the_picture_is_drawn(day: Day, tmp_path: Path, good: bool) -> None:
    demo_day_view.draw(day, tmp_path / "day.png", good=good)
    assert (tmp_path / "day.png").read_bytes().startswith(b"\x89PNG")


class GreatBritain(BaseHTTPRequestHandler):
    """Answers as the system operator's API does: half-hours from ... to, `actual` null at last."""

    def do_GET(self) -> None:
        _, start, end = self.path.rsplit("/", 2)
        time, until = (datetime.strptime(t, "%Y-%m-%dT%H:%MZ") for t in (start, end))
        slots = []
        while time < until:
            swing = 100 if (until - time) // timedelta(days=1) == 3 else 30
            value = round(150 + swing * math.sin(2 * math.pi * time.hour / 24))
            slots.append(
                {
                    "from": f"{time:%Y-%m-%dT%H:%MZ}",
                    "to": "",
                    "intensity": {"forecast": value, "actual": value, "index": "low"},
                }
            )
            time += timedelta(minutes=30)
        body = json.dumps({"data": slots}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), GreatBritain) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(demo_day_grid, "LIVE_URL", url)
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("zone", [None, "GB"])
def test_without_data_it_is_live_great_britain(
    live: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str | None
) -> None:
    monkeypatch.setenv("SPROUT_DATA", str(tmp_path))
    grid = find(zone, tmp_path, tmp_path / "none.csv")
    assert (grid.zone, grid.kind, grid.factor_type) == ("GB", "live", "direct")
    values = demo_day_grid.rows(grid.trace, "GB", "direct")
    assert values[0].time <= grid.day - demo_day_grid.BEFORE
    assert values[-1].time >= grid.day + timedelta(hours=24) + demo_day_grid.SPARE


def test_an_invented_day_is_the_last_resort_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPROUT_DATA", str(tmp_path))
    monkeypatch.setattr(demo_day_grid, "LIVE_URL", "http://127.0.0.1:9")  # nobody listens
    invented = Path(__file__).parents[2] / "examples" / "synthetic-day.csv"
    grid = find(None, tmp_path, invented)
    assert grid.kind == "synthetic"
    assert len(demo_day_grid.rows(grid.trace, grid.zone, grid.factor_type)) == 12 * 48
    with pytest.raises(ConfigError, match="no day of GB"):
        find("GB", tmp_path, invented)
    with pytest.raises(ConfigError, match="no trace of ZZ"):
        find("ZZ", tmp_path, invented)


def test_the_day_that_moves_most_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "sprout2023" / "carbon"
    folder.mkdir(parents=True)
    lines = ["datetime_utc,gco2_per_kwh_lifecycle"]
    for hour in range(14 * 24):
        swing = 200 if hour // 24 in (3, 10) else 50
        value = 300 + swing * math.sin(2 * math.pi * hour / 24)
        lines.append(f"{(T0 + timedelta(hours=hour)).isoformat()},{value:.2f}")
    (folder / "XX.csv").write_text("\n".join(lines))
    monkeypatch.setenv("SPROUT_DATA", str(tmp_path))
    grid = find("XX", tmp_path, tmp_path / "none.csv")
    assert grid.day == T0 + timedelta(days=10)  # day 3 has no week before it
    (folder / "XX.csv").write_text("\n".join(lines[:24]))
    with pytest.raises(ConfigError, match="no day with a week before it"):
        find("XX", tmp_path, tmp_path / "none.csv")
