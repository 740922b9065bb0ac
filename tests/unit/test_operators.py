# SPDX-License-Identifier: Apache-2.0
"""What operators may set, over real gRPC: success, refusal, and what outlives a restart."""

import math
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from control_plane import WAIT_S, configure, first, running, stub_of
from google.protobuf.duration_pb2 import Duration
from operator_calls import Stub, mix, objective, pin, refused, status

from sprout.config import CarbonConfig, ControlConfig
from sprout.control.pin import Pin, Window
from sprout.control.store import Store
from sprout.control.wishes import Wishes
from sprout.v1 import control_pb2 as pb

# --- objective -----------------------------------------------------------------------------------


def test_an_objective_takes_effect_at_once_and_outlives_a_restart(tmp_path: Path) -> None:
    config = configure(tmp_path, xi=0.1)
    with running(config) as address, stub_of(address) as stub:
        assert first(stub).explanation.xi == 0.1
        answer = stub.SetObjective(objective(xi=0.0, control_share=0.25), timeout=WAIT_S)
        assert answer.objective.xi == 0
        assert answer.objective.canary_share == 1.0  # unset, so as it was
        assert answer.policy.explanation.trigger == "objective"
        assert answer.policy.explanation.floor == 1
        assert mix(answer.policy) == [1, 0, 0]
        assert answer.policy.control_share == 0.25
        # A second one adds to the first.
        again = stub.SetObjective(objective(canary_share=0.5), timeout=WAIT_S)
        assert (again.policy.control_share, again.policy.canary_share) == (0.25, 0.5)
    with running(config) as address, stub_of(address) as stub:
        policy = first(stub)
        assert (policy.explanation.xi, policy.canary_share) == (0, 0.5)
        now = status(stub)
        assert list(now.objective_set) == ["canary_share", "control_share", "xi"]
        assert now.objective.mode == "paper"
        back = stub.SetObjective(pb.SetObjectiveRequest(reset=True), timeout=WAIT_S)
        assert back.policy.explanation.xi == 0.1
        assert not status(stub).objective_set


def test_a_cap_bounds_its_level(tmp_path: Path) -> None:
    with running(configure(tmp_path, xi=1.0)) as address, stub_of(address) as stub:
        assert mix(first(stub))[2] > 0.5  # the cheapest level, for a floor that hardly binds
        capped = stub.SetObjective(objective(max_shares={"L2": 0.25}), timeout=WAIT_S).policy
        assert mix(capped)[2] == pytest.approx(0.25)
        assert sum(mix(capped)) == pytest.approx(1)


def test_a_step_is_counted_from_the_policy_in_force_and_from_l0_at_first(tmp_path: Path) -> None:
    config = configure(tmp_path, xi=1.0)
    with running(config) as address, stub_of(address) as stub:
        first(stub)
        stub.Pause(pb.PauseRequest(), timeout=WAIT_S)
        stub.SetObjective(objective(max_increase=0.2), timeout=WAIT_S)
        assert mix(stub.Resume(pb.ResumeRequest(), timeout=WAIT_S))[0] == pytest.approx(0.8)
        again = stub.SetObjective(objective(control_share=0.1), timeout=WAIT_S).policy
        assert mix(again)[0] == pytest.approx(0.6)
    with running(config) as address, stub_of(address) as stub:
        assert mix(first(stub))[0] == pytest.approx(0.4)  # a restart is no way around it


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (objective(xi=math.nan), "xi must be in 0 to 1"),
        (objective(xi=1.01), "xi must be in 0 to 1"),
        (objective(control_share=-0.1), "control_share must be in 0 to 1"),
        (objective(canary_share=math.inf), "canary_share must be"),
        (objective(max_increase=2), "max_increase must be"),
        (objective(mode="magic"), "mode must be one of paper, bank"),
        (objective(max_shares={"L9": 0.5}), "no level 'L9' in the pack: it has L0, L1, L2"),
        (objective(max_shares={"L0": 0.5}), "L0 can't be capped"),
        (objective(max_shares={"L1": -1}), r"max_shares\[L1\] must be in 0 to 1"),
        (pb.SetObjectiveRequest(), "nothing to set"),
        (pb.SetObjectiveRequest(reset=True, reason="x" * 501), "reason is longer than 500"),
        (pb.SetObjectiveRequest(reset=True, actor="x" * 129), "actor is longer than 128"),
    ],
)
def test_impossible_objectives_are_refused(
    stub: Stub, request_: pb.SetObjectiveRequest, message: str
) -> None:
    refused(stub.SetObjective, request_, message, grpc.StatusCode.INVALID_ARGUMENT)
    assert not status(stub).objective_set


# --- pins and schedules --------------------------------------------------------------------------


def test_a_pin_holds_below_the_floor_and_says_so(tmp_path: Path) -> None:
    config = configure(tmp_path)
    with running(config) as address, stub_of(address) as stub:
        before = first(stub)
        pinned = stub.Pin(pin(L2=1.0, reason="load test"), timeout=WAIT_S)
        why = pinned.explanation
        assert mix(pinned) == [0, 0, 1]
        assert (why.active_constraint, why.trigger) == ("pinned", "pin")
        assert why.floor == before.explanation.floor
        assert why.expected_preference < why.floor
        assert why.expected_g_per_request < why.expected_l0_g_per_request
        assert why.pin.reason == "load test"
        assert not why.HasField("quality_price_g_per_point")
    with running(config) as address, stub_of(address) as stub:  # it outlives a restart
        assert mix(first(stub)) == [0, 0, 1]
        now = status(stub)
        assert now.pin.reason == "load test"
        assert now.pin.until.seconds > time.time()
        paused = stub.Pause(pb.PauseRequest(), timeout=WAIT_S)  # which stands above it
        assert mix(paused) == [1, 0, 0]
        assert mix(stub.Resume(pb.ResumeRequest(), timeout=WAIT_S)) == [0, 0, 1]
        after = stub.Unpin(pb.UnpinRequest(), timeout=WAIT_S)
        assert mix(after) == mix(before)
        assert not status(stub).HasField("pin")


def test_a_pin_needs_no_intensity(tmp_path: Path) -> None:
    with running(configure(tmp_path, CarbonConfig())) as address, stub_of(address) as stub:
        assert first(stub).explanation.active_constraint == "no intensity"
        pinned = stub.Pin(pin(L0=0.5, L1=0.5), timeout=WAIT_S)
        assert mix(pinned) == [0.5, 0.5, 0]
        assert pinned.explanation.expected_g_per_request == 0  # not known


def test_a_pin_ends_by_itself(tmp_path: Path) -> None:
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        watch = stub.WatchPolicy(pb.WatchPolicyRequest(), timeout=WAIT_S)
        before = next(watch)
        stub.Pin(pin(L1=1.0, ttl=Duration(nanos=300_000_000)), timeout=WAIT_S)
        during, after = next(watch), next(watch)
        watch.cancel()
        assert mix(during) == [0, 1, 0]
        assert mix(after) == mix(before)
        assert after.explanation.trigger == "unpin"
        entries = stub.ListAudit(pb.ListAuditRequest(), timeout=WAIT_S).entries
        assert [(e.action, e.who) for e in entries][:1] == [("unpin", "control plane")]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (pin(L1=0.5), "shares must sum to 1: 0.5"),
        (pin(L1=math.nan), "the share of L1 must be in 0 to 1"),
        (pin(L0=2.0, L1=-1.0), "must be in 0 to 1"),
        (pin(L7=1.0), "no level 'L7'"),
        (pin(reason=" ", L1=1.0), "a pin needs a reason"),
        (pin(reason="x" * 501, L1=1.0), "reason is longer"),
        (pin(L1=1.0, ttl=Duration()), "ttl must be in 0 to 604800 s"),
        (pin(L1=1.0, ttl=Duration(seconds=604_801)), "ttl must be"),
        (pb.PinRequest(reason="r"), "shares must sum to 1: 0"),
        (pb.PinRequest(reason="r", shares=[pb.LevelShare(level="L1")] * 9), "9 shares, at most 8"),
        (pb.PinRequest(reason="r", shares=[pb.LevelShare(level="L1")] * 2), "named twice"),
    ],
)
def test_impossible_pins_are_refused(stub: Stub, request_: pb.PinRequest, message: str) -> None:
    refused(stub.Pin, request_, message, grpc.StatusCode.INVALID_ARGUMENT)
    assert not status(stub).HasField("pin")


def test_a_schedule_holds_for_its_hours_and_stays(tmp_path: Path) -> None:
    """Two windows that cover the whole day, so that the hour of the test does not matter."""
    halves = [("00:00", "12:00"), ("12:00", "00:00")]
    windows = [pb.Window(start=a, end=b, level="L1") for a, b in halves]
    config = configure(tmp_path)
    with running(config) as address, stub_of(address) as stub:
        before = first(stub)
        request = pb.SetScheduleRequest(windows=windows)
        set_ = stub.SetSchedule(request, timeout=WAIT_S)
        assert mix(set_) == [0, 1, 0]
        assert set_.explanation.pin.by == "schedule"
        assert not set_.explanation.pin.HasField("until")
        by_hand = stub.Pin(pin(L2=1.0), timeout=WAIT_S)
        assert mix(by_hand) == [0, 0, 1]  # a pin stands above the schedule
        assert mix(stub.Unpin(pb.UnpinRequest(), timeout=WAIT_S)) == [0, 1, 0]
    with running(config) as address, stub_of(address) as stub:
        assert mix(first(stub)) == [0, 1, 0]
        assert list(status(stub).schedule) == windows
        cleared = stub.SetSchedule(pb.SetScheduleRequest(), timeout=WAIT_S)
        assert mix(cleared) == mix(before)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (pb.Window(start="24:00", end="06:00", level="L0"), "start must be HH:MM: '24:00'"),
        (pb.Window(start="22:00", end="6:00", level="L0"), "end must be HH:MM"),
        (pb.Window(start="06:00", end="06:00", level="L0"), "holds nothing"),
        (pb.Window(start="22:00", end="06:00", level="L5"), "no level 'L5'"),
        (pb.Window(start="22:00", end="06:00", level="L0", weekdays=["monday"]), "'monday'"),
    ],
)
def test_impossible_schedules_are_refused(stub: Stub, window: pb.Window, message: str) -> None:
    request = pb.SetScheduleRequest(windows=[window])
    refused(stub.SetSchedule, request, message, grpc.StatusCode.INVALID_ARGUMENT)
    assert not status(stub).schedule


def test_an_overlong_schedule_is_refused(stub: Stub) -> None:
    window = pb.Window(start="22:00", end="06:00", level="L0")
    request = pb.SetScheduleRequest(windows=[window] * 51)
    refused(stub.SetSchedule, request, "at most 50", grpc.StatusCode.INVALID_ARGUMENT)


def test_wishes_of_another_pack_rest_and_say_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "c.sqlite")
    window = {"start": "00:00", "end": "23:59", "weekdays": [], "level": "L7"}
    store.set_setting("objective", {"xi": 0.3, "max_shares": {"L7": 0.5, "L1": 0.2}})
    pinned = {"shares": {"L7": 1.0}, "until": 2e9, "reason": "r", "by": "b"}
    store.set_setting("pin", pinned)
    store.set_setting("schedule", [window])
    wishes = Wishes(ControlConfig(), ("L0", "L1", "L2"), store)
    assert (wishes.objective.xi, wishes.objective.max_shares) == (0.3, {"L1": 0.2})
    assert wishes.pin_at(1.9e9) is None
    assert sorted(wishes.problems) == ["objective", "pin", "schedule"]
    wishes.set_objective({"xi": 0.2}, reset=False)
    wishes.set_pin(None)
    wishes.set_schedule([])
    assert wishes.problems == {}
    assert wishes.objective_set == {"xi": 0.2, "max_shares": {"L1": 0.2}}
    store.close()


def test_a_stored_objective_that_is_none_is_not_followed(tmp_path: Path) -> None:
    store = Store(tmp_path / "c.sqlite")
    store.set_setting("objective", {"xi": 0.3, "mode": "retired"})
    wishes = Wishes(ControlConfig(), ("L0", "L1", "L2"), store)
    assert wishes.objective_set == {}
    assert "'retired'" in wishes.problems["objective"]
    store.close()


# --- who writes last -----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["pin", "schedule", "objective"])
def test_a_slow_writer_does_not_undo_a_newer_wish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """One that was held up on its way to the store writes after a newer one has."""
    store = Store(tmp_path / "c.sqlite")
    wishes = Wishes(ControlConfig(), ("L0", "L1"), store)
    until = time.time() + 3600

    def wish(share: float) -> None:
        if what == "pin":
            wishes.set_pin(Pin((1 - share, share), until, "drill", "me"))
        elif what == "schedule":
            wishes.set_schedule([Window("00:00", "01:00", (), "L1")] if share > 0.5 else [])
        else:
            wishes.set_objective({"xi": share}, reset=False)

    at_the_door, go = threading.Event(), threading.Event()
    writing = store._writing

    def held(*_: Any) -> Any:
        if threading.current_thread() is slow:
            at_the_door.set()
            assert go.wait(WAIT_S)
        return writing()

    write = getattr(wishes, f"store_{what}")
    slow = threading.Thread(target=write)
    monkeypatch.setattr(store, "_writing", held)
    wish(0.0 if what == "schedule" else 0.1)
    slow.start()
    assert at_the_door.wait(WAIT_S)
    wish(0.9)
    write()
    newer = store.setting(what)
    go.set()
    slow.join(WAIT_S)
    assert not slow.is_alive()
    assert newer is not None
    assert store.setting(what) == newer
    store.close()
