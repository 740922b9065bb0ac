# SPDX-License-Identifier: Apache-2.0
"""What operators may call, over real gRPC: success, refusal, what a restart keeps."""

import json
import math
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from control_plane import WAIT_S, code_of, configure, first, running, stub_of
from google.protobuf.duration_pb2 import Duration

from sprout import cli
from sprout.config import CarbonConfig, ControlConfig
from sprout.control import history
from sprout.control.pin import Pin, Window
from sprout.control.rows import Feedback
from sprout.control.store import Store
from sprout.control.wishes import Wishes
from sprout.errors import ControlError
from sprout.policy_version import dotted, version
from sprout.v1 import control_pb2 as pb
from sprout.v1 import control_pb2_grpc

Stub = control_pb2_grpc.ControlStub


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One control plane for the tests that leave no trace on it."""
    with running(configure(tmp_path_factory.mktemp("state"))) as address:
        yield address


@pytest.fixture(scope="module")
def stub(shared: str) -> Iterator[Stub]:
    with stub_of(shared) as stub:
        first(stub)
        yield stub


def status(stub: Stub) -> pb.Status:
    return stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S)


def objective(**fields: Any) -> pb.SetObjectiveRequest:
    return pb.SetObjectiveRequest(objective=pb.Objective(**fields))


def pin(*, reason: str = "drill", ttl: Duration | None = None, **shares: float) -> pb.PinRequest:
    made = [pb.LevelShare(level=level, share=share) for level, share in shares.items()]
    return pb.PinRequest(shares=made, reason=reason, ttl=ttl)


def mix(policy: pb.Policy) -> list[float]:
    return [share.share for share in policy.shares]


def refused(call: Any, request: Any, message: str, code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.RpcError, match=message) as error:
        call(request, timeout=WAIT_S)
    assert code_of(error) is code


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


# --- the record ----------------------------------------------------------------------------------


def test_decisions_come_newest_first_in_pages_and_solve_again(tmp_path: Path) -> None:
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        first(stub)
        for xi in (0.02, 0.04, 0.06, 0.08):
            stub.SetObjective(objective(xi=xi), timeout=WAIT_S)
        stub.SetObjective(objective(max_shares={"L2": 0.1}, max_increase=0.3), timeout=WAIT_S)
        stub.Pin(pin(L2=1.0), timeout=WAIT_S)
        seen: list[pb.Decision] = []
        before = 0
        while True:
            request = pb.ListDecisionsRequest(page_size=2, before_version=before)
            page = stub.ListDecisions(request, timeout=WAIT_S)
            assert len(page.decisions) <= 2
            seen += page.decisions
            before = page.next_before_version
            if not before:
                break
        versions = [version(decision.policy) for decision in seen]
        assert all(a > b for a, b in pairwise(versions))
        assert [d.policy.explanation.xi for d in seen] == [0.08, 0.08, 0.08, 0.06, 0.04, 0.02, 0.1]
        for decision in seen:
            plan, same = history.solve_again(decision)
            assert same
            assert plan.floor == decision.policy.explanation.floor
        one = stub.ListDecisions(pb.ListDecisionsRequest(version=versions[3]), timeout=WAIT_S)
        assert list(one.decisions) == [seen[3]]
        none = stub.ListDecisions(pb.ListDecisionsRequest(version=1), timeout=WAIT_S)
        assert not none.decisions


def test_a_decision_with_other_inputs_is_not_the_same(stub: Stub) -> None:
    decision = stub.ListDecisions(pb.ListDecisionsRequest(), timeout=WAIT_S).decisions[0]
    inputs = json.loads(decision.inputs_json)
    inputs["xi"] = 0.9
    decision.inputs_json = json.dumps(inputs)
    _, same = history.solve_again(decision)
    assert not same


def test_overlong_pages_are_refused(stub: Stub) -> None:
    code = grpc.StatusCode.INVALID_ARGUMENT
    refused(stub.ListDecisions, pb.ListDecisionsRequest(page_size=201), "at most 200", code)
    refused(stub.ListAudit, pb.ListAuditRequest(page_size=501), "at most 500", code)


def test_the_end_of_a_policy_s_keeping_is_that_of_its_inputs(tmp_path: Path) -> None:
    store = Store(tmp_path / "c.sqlite")
    for number, issued_at in ((5, 100.0), (6, 200.0)):
        store.add_policy(1, number, 7, issued_at, b"policy", inputs='{"xi": 1}')
    store.prune(150.0, 1000)
    assert store.decisions(10) == [(6, b"policy", '{"xi": 1}')]
    store.close()


# --- watching the status -------------------------------------------------------------------------


def test_a_watch_of_the_status_joins_changes(tmp_path: Path) -> None:
    """Thirty changes in a row are few statuses, at most one a second, and the last is true."""
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        first(stub)
        start = time.monotonic()
        watch = stub.WatchStatus(pb.WatchStatusRequest(), timeout=6 * WAIT_S)
        assert not next(watch).policy.paused
        for i in range(30):
            stub.Pause(pb.PauseRequest(reason=f"change {i}"), timeout=WAIT_S)
        heard = 1
        for seen in watch:
            heard += 1
            if seen.policy.explanation.pause_reason == "change 29":
                break
        watch.cancel()
        assert heard <= time.monotonic() - start + 2
        assert heard < 30


def test_the_status_is_quiet_while_nothing_changes(tmp_path: Path) -> None:
    """Renewals and the time that a policy has left are no change: the next status is the pause."""
    with running(configure(tmp_path, ttl_s=0.9)) as address, stub_of(address) as stub:
        policies = stub.WatchPolicy(pb.WatchPolicyRequest(), timeout=6 * WAIT_S)
        next(policies)
        watch = stub.WatchStatus(pb.WatchStatusRequest(), timeout=6 * WAIT_S)
        next(watch)
        for _ in range(8):  # renewals, over two seconds
            next(policies)
        policies.cancel()
        stub.Pause(pb.PauseRequest(), timeout=WAIT_S)
        assert next(watch).policy.paused
        watch.cancel()


def test_more_watches_than_there_is_room_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sprout.control.operators.MAX_STATUS_WATCHERS", 1)
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        one = stub.WatchStatus(pb.WatchStatusRequest(), timeout=WAIT_S)
        next(one)
        with pytest.raises(grpc.RpcError, match="1 watch the status already") as error:
            next(stub.WatchStatus(pb.WatchStatusRequest(), timeout=WAIT_S))
        assert code_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED
        one.cancel()
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:  # the server hears of the cancel a moment later
            try:
                next(again := stub.WatchStatus(pb.WatchStatusRequest(), timeout=WAIT_S))
            except grpc.RpcError:
                continue
            again.cancel()
            return
        raise AssertionError("the place of a watch that ended stays taken")


# --- feedback ------------------------------------------------------------------------------------


def feedback(**fields: Any) -> pb.Feedback:
    return pb.Feedback(**{"kind": pb.FEEDBACK_KIND_RETRY, "level": 1, "count": 2, **fields})


def test_feedback_is_stored(tmp_path: Path) -> None:
    import sqlite3

    big = 2**63 + 9
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        first(stub)
        request = pb.ReportFeedbackRequest(
            feedback=[
                feedback(policy_version=big),
                feedback(kind=pb.FEEDBACK_KIND_THUMBS_DOWN, level=0, arm="control", count=1),
            ]
        )
        assert stub.ReportFeedback(request, timeout=WAIT_S).stored == 2
    with sqlite3.connect(tmp_path / "control.sqlite") as db:
        columns = "kind, level, policy_version, arm, count"
        rows = db.execute(f"SELECT {columns} FROM feedback ORDER BY id").fetchall()
    db.close()
    assert rows == [("retry", 1, big - 2**64, "L1", 2), ("thumbs_down", 0, 0, "control", 1)]


def test_a_report_that_is_sent_again_counts_once(tmp_path: Path) -> None:
    """A client that timed out can't know whether it was stored."""
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        first(stub)
        request = pb.ReportFeedbackRequest(feedback=[feedback()], report_id="3f1c")
        assert stub.ReportFeedback(request, timeout=WAIT_S) == pb.ReportFeedbackResponse(stored=1)
        again = stub.ReportFeedback(request, timeout=WAIT_S)
        assert again == pb.ReportFeedbackResponse(duplicate=True)
        other = pb.ReportFeedbackRequest(feedback=[feedback(count=5)], report_id="3f1d")
        assert stub.ReportFeedback(other, timeout=WAIT_S).stored == 1
        nameless = pb.ReportFeedbackRequest(feedback=[feedback(count=7)])
        for _ in range(2):
            assert stub.ReportFeedback(nameless, timeout=WAIT_S).stored == 1
    store = Store(tmp_path / "control.sqlite")  # a restart does not forget
    assert not store.add_feedback([], report_id="3f1c", now=time.time())
    assert store.feedback_counts(0, 99) == [(0, "L1", 1, "retry", 2 + 5 + 7 + 7)]
    store.close()


def test_a_report_that_fails_can_be_sent_again(tmp_path: Path) -> None:
    """The id is stored with its entries, or neither is."""
    store = Store(tmp_path / "c.sqlite")
    row = Feedback(5.0, "retry", 1, 0, "L1", 2)
    with pytest.raises(ControlError):
        store.add_feedback([row._replace(kind=None)], report_id="a", now=5.0)  # type: ignore[arg-type]
    assert store.add_feedback([row], report_id="a", now=5.0)
    assert not store.add_feedback([row], report_id="a", now=6.0)
    assert store.last_ids()[1] == 1
    store.close()


def test_ids_of_reports_are_bounded_and_forgotten_with_their_feedback(tmp_path: Path) -> None:
    store = Store(tmp_path / "c.sqlite")
    for i in range(20):
        store.add_feedback([], report_id=str(i), now=float(i))
    store.prune(older_than=5.0, newest_outcomes=10)
    kept = [not store.add_feedback([], report_id=str(i), now=30.0) for i in range(20)]
    assert kept == [False] * 10 + [True] * 10
    store.close()


def test_the_id_of_a_report_is_bounded(stub: Stub) -> None:
    request = pb.ReportFeedbackRequest(feedback=[feedback()], report_id="x" * 129)
    code = grpc.StatusCode.INVALID_ARGUMENT
    refused(stub.ReportFeedback, request, "report_id is longer than 128 characters", code)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (feedback(kind=pb.FEEDBACK_KIND_UNSPECIFIED), "kind 0 is none"),
        (feedback(kind=99), "kind 99 is none"),
        (feedback(level=8), "level 8, at most 7"),
        (feedback(arm="L2"), "arm must be L1 or one of"),
        (feedback(arm="x" * 10_000), "arm must be"),
        (feedback(count=0), "count must be in 1 to 1000000: 0"),
        (feedback(count=1_000_001), "count must be"),
    ],
)
def test_bad_feedback_refuses_its_report(stub: Stub, entry: pb.Feedback, message: str) -> None:
    request = pb.ReportFeedbackRequest(feedback=[feedback(), entry])
    code = grpc.StatusCode.INVALID_ARGUMENT
    refused(stub.ReportFeedback, request, r"feedback\[1\]: " + message, code)


def test_too_much_feedback_is_refused(stub: Stub) -> None:
    request = pb.ReportFeedbackRequest(feedback=[feedback()] * 1001)
    code = grpc.StatusCode.INVALID_ARGUMENT
    refused(stub.ReportFeedback, request, "1001 entries, at most 1000", code)


# --- the command line ----------------------------------------------------------------------------


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        solved = version(first(stub))
        ours = [f"control.port={address.rpartition(':')[2]}", f"stack.state_dir={tmp_path}"]
        options = [part for setting in ours for part in ("--set", setting)]

        def say(*arguments: str, code: int = 0) -> str:
            assert cli.run([*options, *arguments]) == code
            return capsys.readouterr().out

        document = json.loads(say("objective", "--xi", "0.05", "--cap", "L2=0.5", "--json"))
        assert document["objective"]["max_shares"] == {"L2": 0.5}
        assert document["set_by_operators"] == ["max_shares", "xi"]
        assert "0.05" in say("objective").splitlines()[0]
        assert say("pin", "L2", "--for", "10m", "--reason", "drill") == (
            "pinned: L0 0 %, L1 0 %, L2 100 %\n"
        )
        line = say("watch", "--count", "1")
        assert "pinned by uid" in line
        assert "below the floor" in line
        assert json.loads(say("watch", "--count", "1", "--json"))["pin"]["reason"] == "drill"
        assert "pin" not in json.loads(say("unpin", "--json"))["explanation"]
        say("schedule", "sat,sun@22:00-06:00=L0")
        assert say("schedule") == "sat,sun@22:00-06:00=L0\n"
        assert say("schedule", "--clear") == "no schedule\n"
        rows = json.loads(say("history", "--limit", "3", "--json"))
        triggers = [row["policy"]["explanation"]["trigger"] for row in rows]
        assert triggers == ["schedule", "schedule", "unpin"]
        assert rows[0]["inputs"]["xi"] == 0.05
        assert dotted(solved) in say("history", "--limit", "50")
        again = json.loads(say("plan", "--decision", dotted(solved), "--json"))
        assert again["same_as_published"] is True
        assert again["xi"] == 0.1
        assert "the mix that was published" in say("plan", "--decision", str(solved))
        stub.Pause(pb.PauseRequest(), timeout=WAIT_S)
        now = json.loads(say("plan", "--json"))  # as if nobody had paused; under the cap
        assert now["basis"] == "the control plane's inputs"
        assert now["xi"] == 0.05
        assert now["active_constraint"] == "quality"
        given = ("--intensity", "400", "--low", "100", "--high", "400", "--json")
        assert json.loads(say("plan", *given))["floor"] == pytest.approx(0.95)
        entries = json.loads(say("audit", "--json"))
        actions = [entry["action"] for entry in entries]
        assert actions == ["pause", "schedule", "schedule", "unpin", "pin", "objective"]
        assert entries[-1]["before"]["xi"] == 0.1
        assert entries[-1]["after"]["xi"] == 0.05
        assert "objective" in say("audit", "--limit", "2", "--before", "3")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["pin", "L1"], 2, "--reason"),
        (["pin", "L1", "--reason", "r", "--for", "soon"], 2, "'soon' is no duration"),
        (["pin", "L0=1", "L0=0", "--reason", "r"], 2, "LEVEL=SHARE for each once"),
        (["pin", "L9", "--reason", "r"], 1, "no level 'L9' in the pack: it has L0, L1, L2"),
        (["objective", "--xi", "2"], 2, "--xi"),
        (["objective", "--cap", "L1"], 2, "LEVEL=SHARE"),
        (["objective", "--mode", "magic"], 1, "mode must be one of paper, bank"),
        (["schedule", "tonight"], 2, "'tonight' is no window"),
        (["history", "--before", "x.y"], 2, "is no version of a policy"),
        (["plan", "--decision", "1.1"], 1, "no policy 1.1 in the store"),
        (["plan", "--decision", "1.1", "--low", "3"], 2, "has its own inputs"),
    ],
)
def test_commands_that_go_wrong(
    shared: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    ours = [f"control.port={shared.rpartition(':')[2]}", f"stack.state_dir={tmp_path}"]
    options = [part for setting in ours for part in ("--set", setting)]
    assert cli.run([*options, *arguments]) == code
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


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
